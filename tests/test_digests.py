"""Each record's digest moves when its value can, and only then: for every key of a study and every
file that it touches. `tests/digests.py` has the table, and prints it."""

from collections.abc import Iterator
from pathlib import Path

import digests
import pytest
from digest_world import world

from lib import open_sets
from lib import study as studies
from lib.experiments import probes
from lib.experiments.conditions import unpruned
from lib.experiments.opened import OpenStudy
from lib.open_sets import known
from lib.pruning import strategy


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    with world() as found:
        yield found


def test_every_key_of_the_schema_is_in_the_table() -> None:
    assert set(digests.KEYS) == set(digests.keys())


def test_settings_of_strategies_move_their_scores_where_they_decide_them() -> None:
    shipped = {name: open_sets.module("strategy", name).Strategy for name in known("strategy")}
    fields = {(name, key) for name, one in shipped.items() for key in one.Settings.model_fields}
    assert set(digests.SETTINGS) == fields
    for (name, key), (value, decides) in digests.SETTINGS.items():
        before, after = strategy.shipped(name), strategy.shipped(name, **{key: value})
        assert (before.inputs() != after.inputs()) == decides, (name, key)


def test_keys_move_what_they_decide(path: Path) -> None:
    expected = {key: on for key, (value, on) in digests.KEYS.items() if value is not None}
    assert digests.by_key(path) == expected


def test_every_file_is_in_the_table(path: Path) -> None:
    there = {str(one.relative_to(path.parent)) for one in path.parent.rglob("*") if one.is_file()}
    made = {one for one in there if one.startswith(("moved", "results", "_build", "like"))}
    assert there - made == set(digests.FILES)


def test_files_move_what_they_decide(path: Path) -> None:
    assert digests.by_file(path) == {name: on for name, (_, on) in digests.FILES.items()}


def test_times_of_files_move_nothing(path: Path) -> None:
    before = digests.of(studies.load(str(path)))
    for one in path.parent.rglob("*"):
        one.touch()
    assert digests.of(studies.load(str(path))) == before


@pytest.mark.parametrize("shots", [0, 1])
def test_fewer_than_two_examples_have_no_order(shots: int, path: Path) -> None:
    study = studies.load(str(path))
    task = study.tasks[0].model_copy(update={"shots": shots})
    opened = OpenStudy(study)
    one, other = (
        probes.probe_inputs(opened, unpruned(opened), task.model_copy(update={"order": order}))
        for order in (0, 3)
    )
    assert one == other
