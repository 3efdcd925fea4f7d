"""The simulated schedule, against small graphs worked out by hand and against what has to hold."""

import math
import random
from itertools import pairwise

import pytest

from lib.book.schedule import Job, longest_chain, simulate, until_end
from lib.errors import UserError


def graph(count: int, seed: int) -> list[Job]:
    """A random graph in which jobs need some of the ten before them."""
    draw = random.Random(seed)
    return [
        Job(
            str(i),
            draw.choice([0.0, 1.0, draw.uniform(0, 50)]),
            tuple(j for j in range(max(0, i - 10), i) if draw.random() < 0.15),
            start=draw.choice([0.0, 2.5]),
        )
        for i in range(count)
    ]


def chain_of(jobs: list[Job]) -> float:
    """The longest chain, by another way than the module's: from the front."""
    ends: list[float] = []
    for job in jobs:  # needs stand before
        ends.append(job.start + job.seconds + max((ends[i] for i in job.needs), default=0.0))
    return max(ends)


def test_nothing_takes_no_time():
    found = simulate([], 3)
    assert (found.makespan, found.tries, found.utilisation) == (0.0, [], 1.0)


def test_equal_independent_jobs_fill_the_gpus_evenly():
    jobs = [Job(str(i), 5.0) for i in range(12)]
    for gpus in (1, 2, 3, 4, 6, 12):
        found = simulate(jobs, gpus)
        assert found.makespan == 12 / gpus * 5.0
        assert found.utilisation == 1.0 and found.gpu_seconds == 60.0
    assert simulate(jobs, 5).makespan == 15.0  # three rounds
    assert simulate(jobs, 5).utilisation == pytest.approx(60 / 75)
    assert simulate(jobs, 100).makespan == 5.0


def test_a_chain_is_no_shorter_on_many_gpus():
    jobs = [Job("c", 4.0, (1,)), Job("b", 2.0, (2,), start=0.5), Job("a", 1.0)]
    assert [simulate(jobs, gpus).makespan for gpus in (1, 2, 9)] == [7.5, 7.5, 7.5]
    assert longest_chain(jobs) == [2, 1, 0]
    assert until_end(jobs) == [4.0, 6.5, 7.5]


def test_what_most_waits_for_comes_first():
    # In the order of the list: c and d until 3, a until 4, b until 9.
    jobs = [Job("c", 3.0), Job("d", 3.0), Job("a", 1.0), Job("b", 5.0, (2,))]
    found = simulate(jobs, 2)
    assert found.makespan == 6.0
    assert [(jobs[one.job].name, one.begin, one.end) for one in found.tries] == [
        ("a", 0.0, 1.0), ("c", 0.0, 3.0), ("b", 1.0, 6.0), ("d", 3.0, 6.0),
    ]  # fmt: skip


def test_a_join_waits_for_all_its_needs():
    jobs = [Job("a", 1.0), Job("b", 4.0), Job("c", 2.0), Job("end", 1.0, (0, 1, 2))]
    assert simulate(jobs, 3).makespan == 5.0
    assert simulate(jobs, 2).makespan == 5.0
    assert simulate(jobs, 1).makespan == 8.0


@pytest.mark.parametrize("seed", range(12))
def test_every_schedule_is_one(seed):
    jobs = graph(120, seed)
    work = sum(job.start + job.seconds for job in jobs)
    for gpus in (3, 8, 50):
        found = simulate(jobs, gpus)
        ends = {one.job: one.end for one in found.tries}
        assert len(found.tries) == len(ends) == len(jobs)
        for one in found.tries:
            job = jobs[one.job]
            assert one.end - one.begin == pytest.approx(job.start + job.seconds)
            assert all(ends[before] <= one.begin for before in job.needs)
            held = sum(other.begin <= one.begin < other.end for other in found.tries)
            assert held <= gpus
        chain = chain_of(jobs)
        assert found.makespan == max(ends.values())
        assert found.makespan >= max(chain, work / gpus) * (1 - 1e-12)
        assert found.gpu_seconds == pytest.approx(work)
        assert max(until_end(jobs)) == pytest.approx(chain)
        # The bound of every list schedule.
        assert found.makespan <= work / gpus + (1 - 1 / gpus) * chain + 1e-9


def test_the_longest_chain_is_a_chain():
    jobs = graph(200, 5)
    found = longest_chain(jobs)
    assert all(a in jobs[b].needs for a, b in pairwise(found))
    assert sum(jobs[i].start + jobs[i].seconds for i in found) == pytest.approx(chain_of(jobs))


def test_a_killed_job_goes_on_from_what_it_saved():
    job = Job("a", 100.0, start=3.0, saved=10.0)
    found = simulate([job], 1, killed_every=20.0, seed=3)
    assert found.kills > 3
    left = 100.0
    for one in found.tries:  # one after the other, each with what the one before has saved
        took = one.end - one.begin
        if one.killed:
            assert took < 3.0 + left
            left -= max(0.0, took - 3.0) // 10.0 * 10.0
        else:
            assert took == pytest.approx(3.0 + left)
    assert not found.tries[-1].killed
    assert all(a.end == b.begin for a, b in pairwise(found.tries))


def test_a_kill_loses_no_more_than_a_start_and_what_was_not_saved():
    jobs = [job._replace(saved=7.0) for job in graph(150, 8)]
    plain = simulate(jobs, 6)
    for seed in range(5):
        found = simulate(jobs, 6, killed_every=40.0, seed=seed)
        lost = found.gpu_seconds - plain.gpu_seconds
        assert found.kills > 20
        assert 0 < lost <= found.kills * (2.5 + 7.0)
        assert sum(not one.killed for one in found.tries) == len(jobs)


def test_without_saved_states_a_killed_job_begins_anew():
    found = simulate([Job("a", 30.0)], 1, killed_every=20.0, seed=1)
    assert found.kills and found.tries[-1].end - found.tries[-1].begin == pytest.approx(30.0)


def test_the_seed_decides_the_kills():
    jobs = graph(60, 2)
    first, again, other = (simulate(jobs, 4, 60.0, seed) for seed in (1, 1, 2))
    assert first == again and first.tries != other.tries


def test_many_jobs():
    jobs = [Job("j", 1.0, (i - 1000,) if i >= 1000 else ()) for i in range(50_000)]
    assert simulate(jobs, 1000).makespan == 50.0


@pytest.mark.parametrize(
    ("jobs", "gpus", "killed_every", "says"),
    [
        ([Job("a", 1.0)], 0, math.inf, "GPUs: at least 1, not 0"),
        ([Job("a", 2e7, saved=1.0)], 9, 1.0, "above 10,000,000 kills, too many to simulate"),
        ([Job("a", 500.0)], 1, 10.0, "job a: would be killed before it has saved anything"),
    ],
)
def test_what_cannot_run_is_one_line(jobs, gpus, killed_every, says):
    with pytest.raises(UserError) as error:
        simulate(jobs, gpus, killed_every)
    assert str(error.value) == says


@pytest.mark.parametrize(
    "jobs",
    [
        [Job("a", 1.0, (1,)), Job("b", 1.0, (0,))],
        [Job("a", math.nan)],
        [Job("a", -1.0)],
        [Job("a", 1.0, saved=0.0)],
    ],
)
def test_what_is_no_graph_is_refused(jobs):
    with pytest.raises(ValueError, match=r"jobs that wait|times are"):
        simulate(jobs, 1)
