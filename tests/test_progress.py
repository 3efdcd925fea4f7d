"""What people see of a run: states that jobs leave, whatever the clocks of their machines say."""

import io
import json
import signal
import sys
from pathlib import Path

import pytest

from lib.book import graph, progress
from lib.errors import UserError


def job(folder: Path, name: str, seconds: float = 10, needs: tuple[str, ...] = ()) -> graph.Job:
    note = str(folder / f"{name}.json")
    return graph.Job(name, f"job {name}", note, needs=needs, seconds=seconds, made_from="x")


def tell(name: str, state: str, began: str = "00:00:00", ended: str | None = None) -> None:
    file = graph.state_file("mine", name)
    file.parent.mkdir(parents=True, exist_ok=True)
    moment = "2001-01-01T{}+00:00"
    about = {"what": name, "began": moment.format(began), "state": state, "problem": None}
    file.write_text(json.dumps(about | {"ended": ended and moment.format(ended)}))


@pytest.fixture
def watch(tmp_path: Path, build_dir: Path) -> progress.Watch:
    jobs = {name: job(tmp_path, name) for name in "abcd"}
    found = graph.Graph("mine", "mine.yaml", "c", jobs)
    return progress.Watch(found, found.pending)


def test_what_ended_is_told_once(watch: progress.Watch) -> None:
    assert watch.look() == []
    tell("a", "running")
    tell("b", "running")
    assert watch.look() == [] and [one.name for one in watch.running()] == ["a", "b"]
    tell("a", "done", ended="00:00:30")
    tell("b", "failed", ended="00:00:05")
    assert [(one.name, state["state"]) for one, state in watch.look()] == [
        ("a", "done"), ("b", "failed"),
    ]  # fmt: skip
    assert watch.look() == [] and watch.taken == {"a": 30}
    assert "1 of 4 jobs, 25%" in watch.summary()


def test_time_left_follows_what_was_seen(
    watch: progress.Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watch.left() == pytest.approx(40)
    tell("a", "running")
    watch.look()
    tell("a", "done", ended="00:00:20")  # twice as long as estimated
    watch.look()
    assert watch.left() == pytest.approx(60)
    for name in "bcd":
        tell(name, "running")
    watch.look()
    assert watch.left() == pytest.approx(20, abs=2)  # three at once
    monkeypatch.setattr(watch, "spent", lambda job: 10.0)
    assert watch.left() == 10 and "1 of 4 jobs, 62%" in watch.summary()  # 20 + 3 · 10 of 80


def test_a_clock_of_another_machine_does_not_matter(watch: progress.Watch) -> None:
    tell("a", "running", began="23:00:00")  # years ago, by the job's clock
    watch.look()
    assert watch.spent(watch.todo[0]) < 5


def test_a_state_that_is_half_written_counts_as_none(watch: progress.Watch) -> None:
    graph.state_file("mine", "a").parent.mkdir(parents=True)
    graph.state_file("mine", "a").write_text('{"state": "runn')
    assert watch.look() == [] and watch.running() == []


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("one\ntwo\n", "two"),
        ("models:  10%|█  \rmodels:  20%|██ ", "models:  20%|██"),
        ("a\n\n  \n", "a"),
        ("", ""),
    ],
)
def test_a_job_shows_what_it_drew_last(printed: str, shown: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(printed)
    assert progress.last_line(tmp_path / "log") == shown


def test_a_log_that_is_not_there_shows_nothing(tmp_path: Path) -> None:
    assert progress.last_line(tmp_path / "none") == ""


def test_the_clone_is_held_until_the_file_is_closed(build_dir: Path) -> None:
    held = progress.only_run()
    with pytest.raises(UserError, match="another run is going on in this clone"):
        progress.only_run()
    held.close()
    progress.only_run().close()


def test_jobs_are_listed_with_what_they_take(tmp_path: Path, build_dir: Path) -> None:
    jobs = {"a": job(tmp_path, "a", 30), "b": job(tmp_path, "b", 600, ("a",))}
    text = progress.described(graph.Graph("mine", "mine.yaml", "c", jobs))
    assert "job a" in text and "30 s" in text and "10.0 min" in text
    assert "2 jobs; estimated 10.5 min one after another, 10.5 min at best" in text
    assert "up to date" in progress.described(graph.Graph("mine", "mine.yaml", "c", {}))


RUN = """
import json, sys, time
from pathlib import Path
from lib import graph, paths
paths.BUILD = Path(sys.argv[1])
note = Path(sys.argv[2])
job = graph.Job("a", "job a", str(note), seconds=5, made_from="x")
graph.save(graph.Graph("mine", "mine.yaml", "c", {"a": job}))
state = {"what": "job a", "began": "2001-01-01T00:00:00+00:00", "state": "running"}
file = graph.state_file("mine", "a")
file.parent.mkdir(parents=True, exist_ok=True)
file.write_text(json.dumps(state))
time.sleep(3)
if sys.argv[3] == "well":
    note.write_text(json.dumps({"made_from": "x"}))
    state |= {"state": "done", "ended": "2001-01-01T00:00:03+00:00", "problem": None}
    file.write_text(json.dumps(state))
print("error: a mistake" if sys.argv[3] == "early" else "fine", file=sys.stderr)
sys.exit(sys.argv[3] != "well")
"""


@pytest.mark.parametrize(
    ("how", "says"),
    [("well", "job a: 3 s (1 of 1 jobs, 100%"), ("killed", "error: job a was killed (by a signal")],
)
def test_a_run_is_watched_to_its_end(
    how: str, says: str, tmp_path: Path, build_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    command = [sys.executable, "-c", RUN, str(build_dir), str(tmp_path / "a.json"), how]
    code = progress.watch("mine", command, tmp_path / "snakemake.log")
    signal.signal(signal.SIGTERM, before)
    assert code == (how != "well")
    assert says in capfd.readouterr().err


def test_what_goes_wrong_before_any_job_is_one_line(tmp_path: Path, build_dir: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    command = [sys.executable, "-c", "import sys; sys.exit('some words\\nerror: a mistake')"]
    with pytest.raises(UserError, match=r"^a mistake$"):
        progress.watch("mine", command, tmp_path / "snakemake.log")
    signal.signal(signal.SIGTERM, before)


def test_on_a_terminal_lines_are_drawn_anew() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = progress._Screen(Terminal())
    screen.draw(["one", "two"])
    screen.line("stays")
    screen.draw(["three"])
    assert screen.stream.getvalue() == "one\ntwo\n\x1b[2A\x1b[Jstays\nthree\n"
