"""What people see of a run: states that jobs leave, whatever the clocks of their machines say."""

import datetime
import io
import json
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from lib.book import graph, progress
from lib.errors import UserError


class Clock:
    """Seconds, which pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def job(name: str, seconds: float = 10, needs: tuple[str, ...] = ()) -> graph.Job:
    return graph.Job("mine", name, f"job {name}", needs=needs, seconds=seconds, made_from="x")


def of(*jobs: graph.Job) -> graph.Graph:
    named = {one.name: one for one in jobs}
    return graph.Graph("mine", "mine.yaml", "c", named, tuple(named))


def tell(job: graph.Job, state: str, took: float | None = None) -> None:
    """As a job does, by a clock of its own."""
    about = {"what": job.what, "began": moment(0), "state": state, "problem": None}
    if took is not None:
        about["ended"] = moment(took)
    job.status.parent.mkdir(parents=True, exist_ok=True)
    job.status.write_text(json.dumps(about))


def moment(seconds: float) -> str:
    began = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    return (began + datetime.timedelta(seconds=seconds)).isoformat()


@pytest.fixture(autouse=True)
def no_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is expected here can be worked out in the head."""
    monkeypatch.setattr(progress, "TRUST", 0.0)


@pytest.fixture
def watch(build_dir: Path, results_dir: Path) -> progress.Watch:
    return progress.Watch(of(*map(job, "abcd")), Clock())


def test_what_ended_is_told_once(watch: progress.Watch) -> None:
    a, b, *_ = watch.todo
    assert watch.look() == []
    tell(a, "running")
    tell(b, "running")
    assert watch.look() == [] and watch.running() == [a, b]
    tell(a, "done", 30)
    tell(b, "failed", 5)
    assert [(one, state["state"]) for one, state in watch.look()] == [(a, "done"), (b, "failed")]
    assert watch.look() == [] and watch.taken == {"a": 30}
    assert watch.summary().startswith("1 of 4 jobs, 25%, about ")


def test_work_that_was_found_done_says_nothing_of_the_rest(watch: progress.Watch) -> None:
    a, b, *_ = watch.todo
    tell(a, "done", 0.5)  # an earlier run had measured it
    watch.look()
    assert watch.left() == pytest.approx(30)
    tell(b, "done", 5)
    watch.look()
    assert watch.left() == pytest.approx(10)


def test_time_left_follows_what_was_seen(watch: progress.Watch) -> None:
    assert watch.left() == pytest.approx(40)
    tell(watch.todo[0], "running")
    watch.look()
    tell(watch.todo[0], "done", 20)  # twice as long as estimated
    watch.look()
    assert watch.left() == pytest.approx(60)
    assert watch.summary() == "1 of 4 jobs, 25%, about 60 s left, longer than estimated"
    for one in watch.todo[1:]:
        tell(one, "running")
    watch.look()
    assert watch.left() == pytest.approx(20)  # three at once
    watch.clock.now += 10
    watch.look()
    assert watch.left() == pytest.approx(10) and watch.share == pytest.approx(5 / 8)


def test_a_first_short_job_says_little_about_the_rest(
    watch: progress.Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "TRUST", 30.0)
    short, *others = (job("a", 1), job("b", 300), job("c", 300))
    seen = progress.Watch(of(short, *others), Clock())
    tell(short, "running")
    seen.look()
    tell(short, "done", 13)
    seen.look()
    assert seen.left() == pytest.approx(600 * 43 / 31)  # and not 13 times as long


def test_what_had_nothing_to_do_says_nothing_about_the_rest(watch: progress.Watch) -> None:
    tell(watch.todo[0], "same", 0.5)
    ended = watch.look()
    assert [state["state"] for _, state in ended] == ["same"]
    assert watch.left() == pytest.approx(30) and watch.share == 0.25


def test_what_waits_for_a_chain_of_jobs_waits_for_all_of_it(
    build_dir: Path, results_dir: Path
) -> None:
    found = progress.Watch(of(job("a"), job("b", needs=("a",)), job("c", 5)), Clock())
    for name in ("a", "c"):
        tell(found.graph.jobs[name], "running")
    found.look()
    assert found.widest == 2 and found.left() == 20  # a, then b; c beside them


def watched(factors: dict[str, float], at_once: int = 2) -> list[tuple[float, float, str]]:
    """A run of jobs that take so many times the 60 s that they are estimated to take, looked at
    every second: share, seconds left, and what is said, at each look."""
    clock = Clock()
    found = progress.Watch(of(*(job(name, 60) for name in factors)), clock)
    for one in found.todo:
        one.status.unlink(missing_ok=True)
    waiting, running, seen = list(found.todo), {}, []
    while waiting or running:
        while waiting and len(running) < at_once:
            running[waiting[0]] = clock.now
            tell(waiting.pop(0), "running")
        found.look()
        seen.append((found.share, found.left(), found.summary()))
        clock.now += 1
        for one, began in list(running.items()):
            if clock.now - began >= 60 * factors[one.name]:
                tell(one, "done", 60 * factors[one.name])
                del running[one]
    found.look()
    assert found.share == 1 and found.left() == 0
    return seen


@pytest.mark.parametrize(
    "factors",
    [
        dict.fromkeys("abcdef", 5.0),
        dict.fromkeys("abcdef", 0.2),
        dict(zip("abcdef", (5, 0.2, 5, 0.2, 5, 0.2), strict=True)),
        dict(zip("abcdef", (0.2, 0.2, 0.2, 5, 5, 5), strict=True)),
        {"a": 20.0},
    ],
    ids=["longer", "shorter", "both", "longer in the end", "one that hangs"],
)
def test_a_share_never_falls_and_a_time_left_never_stands_still(
    factors: dict[str, float], build_dir: Path, results_dir: Path
) -> None:
    seen = watched(factors)
    shares, left, _ = zip(*seen, strict=True)
    assert all(before <= after for before, after in pairwise(shares)) and shares[0] == 0
    assert max(shares) < 1  # while anything runs
    minutes = [left[at : at + 60] for at in range(max(1, len(left) - 60))]
    assert all(max(minute) - min(minute) > 5 for minute in minutes)


def test_an_estimate_that_was_wrong_says_so_and_grows(build_dir: Path, results_dir: Path) -> None:
    seen = watched(dict.fromkeys("abcdef", 5.0))
    assert len(seen) == 900  # three times two jobs of 300 s
    left = [one for _, one, _ in seen]
    assert left[1] == pytest.approx(179, abs=2) and "longer" not in seen[1][2]
    assert all(before < after for before, after in pairwise(left[60:300]))
    assert "longer than estimated" in seen[120][2]
    assert left[310] == pytest.approx(590, abs=2)  # once two have ended, it is right
    quick = watched(dict.fromkeys("abcdef", 0.2))
    assert not any("longer" in said for *_, said in quick)


def test_a_clock_of_another_machine_does_not_matter(watch: progress.Watch) -> None:
    tell(watch.todo[0], "running")  # years ago, by the job's clock
    watch.look()
    assert watch.spent(watch.todo[0]) == 0


def test_a_state_that_is_half_written_counts_as_none(watch: progress.Watch) -> None:
    watch.todo[0].status.parent.mkdir(parents=True)
    watch.todo[0].status.write_text('{"state": "runn')
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


def test_the_clone_is_held_until_it_is_let_go(build_dir: Path) -> None:
    held = progress.only_run()
    with pytest.raises(UserError, match="another run is going on in this clone \\(process"):
        progress.only_run()
    held.release()
    progress.only_run().release()


def test_jobs_are_listed_with_what_they_take(build_dir: Path, results_dir: Path) -> None:
    jobs = {"a": job("a", 30), "b": job("b", 600, ("a",))}
    text = progress.described(graph.Graph("mine", "mine.yaml", "c", jobs, ("a",)))
    first, second = text.splitlines()[1:3]
    assert first.startswith("job a ") and "30 s" in first and "if what it needs" not in first
    assert second.startswith("job b ") and second.endswith("  if what it needs changes")
    assert "2 jobs; estimated 10.5 min one after another, 10.5 min at best" in text
    assert "up to date" in progress.described(graph.Graph("mine", "mine.yaml", "c", {}))


def test_on_a_terminal_lines_are_drawn_anew(watch: progress.Watch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    screen = progress.Screen(console)
    a, b, *_ = watch.todo
    for one in (a, b):
        tell(one, "running")
        one.log.write_text(f"models of {one.name} [10%]" + "." * 50)
    screen.show(watch)
    tell(a, "done", 20)
    screen.show(watch)
    screen.close()
    drawn = console.file.getvalue()
    assert "0 of 4 jobs, 0%, about" in drawn and "1 of 4 jobs, 25%, about" in drawn
    assert "  job b, 0 s: models of b [10%]" in drawn and "." * 40 not in drawn
    assert "job a: 20 s (1 of 4 jobs" in drawn
    assert drawn.count("\x1b[2K") >= 6  # what was drawn is wiped


def test_elsewhere_there_is_a_line_per_job_and_one_a_minute(
    watch: progress.Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO(), width=30)
    screen = progress.Screen(console)
    tell(watch.todo[0], "running")
    screen.show(watch)
    assert console.file.getvalue() == ""
    screen.last -= 60
    screen.show(watch)
    tell(watch.todo[0], "done", 20)
    tell(watch.todo[1], "stopped", 1)
    screen.show(watch)
    screen.close()
    assert console.file.getvalue() == (
        "0 of 4 jobs, 0%, about 40 s left\n"
        "job a: 20 s (1 of 4 jobs, 25%, about 60 s left, longer than estimated)\n"
        "error: job b was told to end (by a signal, or a time limit)\n"
    )
