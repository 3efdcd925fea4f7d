"""One job in a process of its own: what it leaves when it ends well, badly or at once."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import command, environment
from conftest import Studies

from lib import paths
from lib import study as studies
from lib.book import graph, jobs, machine, worker
from lib.errors import UserError


@pytest.fixture
def planned(tmp_path: Path, build_dir: Path, results_dir: Path, write_study: Studies):
    """`planned(name, **about)`: a graph with this one job, saved for it to read."""

    def make(name: str = jobs.CHOICES, **about) -> graph.Job:
        study = studies.load(str(write_study(tmp_path)))
        job = graph.Job("mine", name, f"the job {name}", made_from="x", **about)
        graph.save(graph.Graph("mine", study.file, "c", {name: job}, (name,)))
        return job

    return make


def run(build: Path, name: str = jobs.CHOICES) -> subprocess.Popen:
    return subprocess.Popen(
        command("job_elsewhere", build, name, "--study", "mine"), env=environment(),
        cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def state(job: graph.Job) -> dict:
    return json.loads(job.status.read_text())


def noted(job: graph.Job) -> dict | None:
    return json.loads(job.note.read_text()) if job.note.exists() else None


def runs(results: Path) -> list[dict]:
    return [
        json.loads(line) for line in (results / "mine/jobs/runs.jsonl").read_text().splitlines()
    ]


def test_a_job_ends_well_and_a_second_start_of_it_waits(
    planned, build_dir: Path, results_dir: Path
) -> None:
    job = planned()
    both = [run(build_dir) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=200) == ("", "") and process.returncode == 0
    assert "an earlier start of it is still running" in job.log.read_text()
    (record,) = (results_dir / "mine/evidence/distances").glob("*.json")
    assert json.loads(record.read_text())["provenance"]["threads"] == 1
    assert len(noted(job)["made_from"]) == 16  # the digest of all that, as it is now
    assert state(job)["state"] == "same" and job.ended.exists()
    (line,) = runs(results_dir)  # the second has nothing to do
    assert line["ended"] == "well" and line["threads"] == 1 and line["seconds"] > 0
    assert not set(line) & {"host", "hostname", "node", "file"}


def test_a_job_made_from_the_same_has_nothing_to_do(
    planned, build_dir: Path, results_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It imports no torch, leaves its note as it is, and says that it has ended well."""
    job = planned("section-loss", notebook="03_loss.ipynb", tables=("loss", "none"), reads=("qa",))
    saved = graph.load("mine")
    made = []

    def write(chosen: studies.Study, job: graph.Job) -> None:
        made.append(job.table("loss").exists())
        for path in (*job.pages, job.table("loss")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("made")

    monkeypatch.setattr(worker, "_run", write)
    job.table("qa").parent.mkdir(parents=True)
    job.table("qa").write_text("one")
    assert worker.work(saved, job) == 0 and made == [False]
    note, _ = noted(job), job.ended.unlink()
    assert note["tables"] == ["loss"]
    assert worker.work(saved, job) == 0 and len(made) == 1
    assert noted(job) == note and state(job)["state"] == "same" and job.ended.exists()
    assert len(runs(results_dir)) == 1
    # What it reads came out otherwise; or what it wrote is gone: it is written anew.
    job.table("qa").write_text("two")
    assert worker.work(saved, job) == 0 and made == [False, True]  # it stands until then
    job.table("loss").unlink()
    assert worker.work(saved, job) == 0 and len(made) == 3
    assert noted(job)["made_from"] != note["made_from"]


def test_what_failed_is_not_taken_for_what_was_there_before(
    planned, build_dir: Path, results_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = planned("section-loss", notebook="03_loss.ipynb", tables=("loss",))
    made_from = graph.made_from(studies.load(graph.load("mine").file), job)
    for path in (job.note, *job.pages, job.table("loss")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    job.note.write_text(json.dumps({"made_from": "of something else"}))

    def fail(chosen: studies.Study, job: graph.Job) -> None:
        job.table("loss").write_text("half")
        raise UserError("no ink")

    monkeypatch.setattr(worker, "_run", fail)
    assert worker.work(graph.load("mine"), job) == 1
    assert noted(job) is None and not job.ended.exists() and not job.done(made_from)


def test_a_mistake_is_one_line_and_nothing_is_noted(
    planned, build_dir: Path, results_dir: Path, tmp_path: Path
) -> None:
    job = planned()
    (tmp_path / "validation.jsonl").write_text("{}")
    process = run(build_dir)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and noted(job) is None and not job.ended.exists()
    assert err.startswith("error: text ") and err.count("\n") == 1
    assert state(job)["state"] == "failed"
    assert state(job)["problem"] == runs(results_dir)[0]["ended"]
    assert err in job.log.read_text()


def test_a_fault_leaves_its_traceback_in_the_log(planned, build_dir: Path) -> None:
    job = planned("models-none", measures=("no such part",))
    process = run(build_dir, "models-none")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err == "error: the job models-none failed (KeyError: 'no such part')\n"
    assert "Traceback" in job.log.read_text()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_what_a_cluster_ends_says_that_it_was_stopped(planned, build_dir: Path, how: int) -> None:
    job = planned()
    process = run(build_dir)
    while not job.status.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    assert process.returncode == worker.STOPPED and err == "error: stopped\n"
    assert state(job)["state"] == "stopped" and noted(job) is None and not job.ended.exists()


def test_without_a_graph_it_says_so(build_dir: Path) -> None:
    process = run(build_dir)
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
