"""One job in a process of its own: what it leaves when it ends well, badly or at once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Studies

from lib import paths
from lib import study as studies
from lib.book import graph, machine, worker

START = """
import signal, sys
from pathlib import Path
from lib import paths
paths.BUILD = Path(sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)
from lib import worker
sys.exit(worker.main(sys.argv[2:]))
"""


@pytest.fixture
def planned(tmp_path: Path, build_dir: Path, results_dir: Path, write_study: Studies):
    """`planned(name, **keys)`: a graph with this one job, saved for it to read."""

    def make(name: str, measures: dict | None = None, **keys) -> graph.Job:
        study = studies.load(str(write_study(tmp_path, **keys)))
        note = graph.folder(study) / f"{name}.json"
        job = graph.Job(name, f"the job {name}", str(note), measures=measures, made_from="x")
        graph.save(graph.Graph(study.name, study.file, "c", {name: job}))
        return job

    return make


def measuring(name: str, *parts: str) -> dict:
    return {"name": name, "what": name, "parts": [*parts], "probe": None, "needs": [], "seconds": 1}


def run(build: Path, job: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", START, str(build), job, "--study", "mine"],
        cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def state(job: str) -> dict:
    return json.loads(graph.state_file("mine", job).read_text())


def runs(results: Path) -> list[dict]:
    return [
        json.loads(line) for line in (results / "mine/jobs/runs.jsonl").read_text().splitlines()
    ]


def test_a_job_that_ends_well(planned, build_dir: Path, results_dir: Path) -> None:
    job = planned("distances", measuring("distances"))
    process = run(build_dir, "distances")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, "", "")
    (record,) = (results_dir / "mine/evidence/distances").glob("*.json")
    assert json.loads(record.read_text())["provenance"]["threads"] == 1
    assert job.noted() not in (None, "x")  # the digest of what it was made from, as it is now
    assert state("distances")["state"] == "done"
    (line,) = runs(results_dir)
    assert line["ended"] == "well" and line["threads"] == 1 and line["seconds"] > 0
    assert not set(line) & {"host", "hostname", "node", "file"}


def test_a_mistake_is_one_line_and_nothing_is_noted(
    planned, build_dir: Path, results_dir: Path, tmp_path: Path
) -> None:
    job = planned("distances", measuring("distances"))
    (tmp_path / "validation.jsonl").write_text("{}")
    process = run(build_dir, "distances")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and job.noted() is None
    assert err.startswith("error: text ") and err.count("\n") == 1
    assert state("distances")["state"] == "failed"
    assert state("distances")["problem"] == runs(results_dir)[0]["ended"]
    assert err in graph.log_file("mine", "distances").read_text()


def test_a_fault_leaves_its_traceback_in_the_log(planned, build_dir: Path) -> None:
    planned("models-02", measuring("models-02", "no such part"))
    process = run(build_dir, "models-02")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err == "error: the job models-02 failed (KeyError: 'no such part')\n"
    assert "Traceback" in graph.log_file("mine", "models-02").read_text()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_what_a_cluster_ends_says_that_it_was_stopped(planned, build_dir: Path, how: int) -> None:
    job = planned("distances", measuring("distances"))
    process = run(build_dir, "distances")
    while not graph.state_file("mine", "distances").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    assert process.returncode == worker.STOPPED and err == "error: stopped\n"
    assert state("distances")["state"] == "stopped" and job.noted() is None


def test_a_second_start_of_a_job_waits_for_the_first(
    planned, build_dir: Path, results_dir: Path
) -> None:
    planned("distances", measuring("distances"))
    both = [run(build_dir, "distances") for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=200) == ("", "") and process.returncode == 0
    assert len(runs(results_dir)) == 2
    assert len(list((results_dir / "mine/evidence/distances").glob("*"))) == 1
    assert (
        "an earlier start of it is still running" in graph.log_file("mine", "distances").read_text()
    )


def test_without_a_graph_it_says_so(build_dir: Path) -> None:
    process = run(build_dir, "distances")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err.startswith("error: study mine: no graph")


def test_each_job_has_a_gpu_of_its_own(build_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(machine.VISIBLE, raising=False)
    seen = []
    with machine.one_each(["0", "1"], 1):
        seen.append(os.environ[machine.VISIBLE])
        monkeypatch.delenv(machine.VISIBLE)  # as another process would have it
        with machine.one_each(["0", "1"], 1):
            seen.append(os.environ[machine.VISIBLE])
    assert sorted(seen) == ["0", "1"] and machine.VISIBLE not in os.environ
    with machine.one_each(["0", "1"], 1):  # both are free again
        pass


@pytest.mark.parametrize(("gpus", "count"), [([], 1), (["0"], 1), (["0", "1"], 0)])
def test_where_there_is_nothing_to_choose_nothing_is_set(
    gpus: list[str], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(machine.VISIBLE, raising=False)
    with machine.one_each(gpus, count):
        assert machine.VISIBLE not in os.environ


@pytest.mark.parametrize(
    ("given", "expected"), [("0,1", ["0", "1"]), ("3", ["3"]), ("", []), ("-1", [])]
)
def test_gpus_that_a_cluster_gave(
    given: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(machine.VISIBLE, given)
    assert machine.gpus() == expected
