"""The cluster that other tests run on: it starts, places, kills, comes back and leaves nothing."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from slurm_cluster import NODES, SERVICES, Cluster, missing, two_nodes

HUNGRY = "import time; kept = b'x' * 300_000_000; time.sleep(20)"


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := missing():
        pytest.skip(reason)
    return tmp_path_factory.mktemp("c") / "c"  # short: sockets lie in it


def submit(cluster: Cluster, command: str, *options: str) -> int:
    out = f"--output={cluster.folder}/%j.out"
    words = ["sbatch", "--parsable", "--mem=100", out, *options, f"--wrap=srun -n1 {command}"]
    return int(cluster.slurm(*words))


def written(cluster: Cluster, job: int) -> str:
    out = cluster.folder / f"{job}.out"
    return out.read_text() if out.exists() else ""


def left(cluster: Cluster) -> list[int]:
    return [process for place in ("slurm", *SERVICES) for process in cluster.processes(place)]


def test_jobs_run_on_both_nodes_and_every_end_is_accounted_for(place):
    with two_nodes(place) as cluster:
        good = [submit(cluster, "sh -c 'echo at $SLURMD_NODENAME; sleep 1'") for _ in range(2)]
        bad = submit(cluster, "sh -c 'exit 3'", "--comment=rule_bad", "--job-name=bad")
        gpu = submit(cluster, "sh -c 'echo gpu $CUDA_VISIBLE_DEVICES'", "--gpus=1")
        hungry = submit(cluster, f'{sys.executable} -c "{HUNGRY}"')
        killed = submit(cluster, "sh -c 'echo begun; sleep 60'")
        cluster.wait_until(lambda: written(cluster, killed) == "begun\n", "the job to begin")
        assert cluster.running()[killed] in NODES
        cluster.kill_job(killed)
        cluster.wait_until(lambda: not cluster.queued(), "all jobs to end")
        ended = {end.job: end for end in cluster.accounted()}
        assert set(ended) == {*good, bad, gpu, hungry, killed}
        assert {written(cluster, job).strip() for job in good} == {"at n0", "at n1"}
        assert {(ended[job].node, ended[job].state) for job in good} == {
            (node, "COMPLETED") for node in NODES
        }
        assert all((ended[job].end - ended[job].start).total_seconds() >= 1 for job in good)
        failed = ended[bad]
        assert (failed.name, failed.comment) == ("bad", "rule_bad")
        assert (failed.state, failed.exit_code) == ("FAILED", 3)
        assert written(cluster, gpu) == "gpu 0\n"
        assert "exceeded memory limit" in written(cluster, hungry)
        assert ended[killed].state == "FAILED"
        cluster.kill_controller()
        assert not cluster.processes("controller")
        cluster.start_controller()
        assert set(cluster.nodes()) == set(NODES)
    assert not left(cluster)


def test_what_a_lost_node_ran_runs_again_when_it_is_back(place):
    with two_nodes(place) as cluster:
        lost = submit(cluster, "sh -c 'echo begun; sleep 2; echo done'", "--nodelist=n1")
        other = submit(cluster, "sh -c 'echo begun; sleep 3; echo done'", "--nodelist=n0")
        cluster.wait_until(
            lambda: [written(cluster, job) for job in (lost, other)] == ["begun\n"] * 2, "both jobs"
        )
        cluster.kill_node("n1")
        assert not cluster.processes("n1")
        # The other node's daemon is away for a moment; its job does not notice.
        cluster.kill_daemon("n0")
        assert cluster.processes("n0")
        cluster.start_node("n0")
        cluster.wait_until(lambda: "down" in cluster.nodes()["n1"], "n1 to be given up", 40)
        cluster.start_node("n1")
        cluster.wait_until(lambda: not cluster.queued(), "both jobs to end", 40)
        ends = [(end.job, end.node, end.state) for end in cluster.accounted()]
        assert sorted(ends) == sorted(
            [(lost, "n1", "NODE_FAIL"), (lost, "n1", "COMPLETED"), (other, "n0", "COMPLETED")]
        )
        assert [written(cluster, job) for job in (lost, other)] == ["begun\ndone\n"] * 2
    assert not left(cluster)


def test_nothing_is_left_after_an_error_and_nothing_outside_is_touched(place):
    before = dict(os.environ)
    with pytest.raises(ZeroDivisionError), two_nodes(place) as cluster:
        submit(cluster, "sleep 60")
        cluster.wait_until(lambda: len(left(cluster)) > 8, "the job to run")
        assert os.environ == before
        raise ZeroDivisionError
    assert not left(cluster)


def test_nodes_that_do_not_come_are_said_with_what_the_logs_say(place, monkeypatch):
    monkeypatch.setitem(SERVICES, "n1", "slurmd -D -N n7")
    monkeypatch.setattr(Cluster.wait_until, "__defaults__", (2,))
    with (
        pytest.raises(RuntimeError, match="waited 2 s for two idle nodes") as said,
        two_nodes(place),
    ):
        pass
    assert "n1: " in str(said.value) and "n7" in str(said.value)


def test_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, path: None if name == "slurmd" else name)
    assert missing() == "no slurmd here: apt-get install slurm-wlm munge"
    monkeypatch.setattr(shutil, "which", lambda name, path: name)
    assert missing() is None
