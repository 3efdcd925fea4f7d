"""Pruning in steps: drop, heal, choose again on the healed model, drop, heal."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import Studies

from lib import paths, study
from lib.book.plan import Planned, part_name
from lib.errors import UserError
from lib.evidence.records import records
from lib.experiments.choosing import Asked
from lib.experiments.measure import measure
from lib.experiments.models import materialised
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import adapters, recorded
from lib.experiments.schedules import Step, resolve
from lib.healing import heal
from lib.models.checkpoints import load_model
from lib.pruning.dropped import Dropped
from lib.pruning.surgery import drop, save_pruned

STUDY = {"healing": {"steps": 6, "learning_rate": 0.01}, "writing": {"n_prompts": 0}}
RUN = """
import sys
from lib import study
from lib.experiments.measure import measure
from lib.experiments.opened import OpenStudy
from lib.experiments.schedules import Step, resolve

opened = OpenStudy(study.load(sys.argv[1]))
steps = [Step("similarity", 2, opened.study.healing)] * 2
measure(opened, [resolve(opened, steps)])
"""


def two_steps(opened: OpenStudy) -> list[Step]:
    return [Step("similarity", 2, opened.study.healing)] * 2


def weights(opened: OpenStudy) -> dict[str, torch.Tensor]:
    with materialised(opened, resolve(opened, two_steps(opened))) as model:
        return {name: value.clone() for name, value in model.state_dict().items()}


def by_hand(opened: OpenStudy, folder: Path) -> dict[str, torch.Tensor]:
    """The same with what the parts of the house offer, and no schedule."""
    recipe, tokenizer = opened.study.healing, opened.tokenizer
    first = opened.chosen("similarity", 2)
    healed = heal.heal(opened.study, recipe, first, tokenizer).model
    save_pruned(healed, (), tokenizer, folder)
    after = opened.study.model_copy(update={"model": str(folder)})
    again = OpenStudy(after)
    again.store.folder = folder / "evidence"
    second = again.strategy("similarity").chosen(Asked(again), 2, 4)
    found = heal.heal(after, recipe, second, tokenizer).model.state_dict()
    return {name: value.clone() for name, value in found.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def file(tmp_path: Path, write_study: Studies) -> Path:
    return write_study(tmp_path, **STUDY)


def test_two_steps_are_those_carried_out_by_hand(
    file: Path, tmp_path: Path, results_dir: Path
) -> None:
    opened = OpenStudy(study.load(str(file)))
    found = weights(opened)
    assert same(found, by_hand(opened, tmp_path / "hand"))
    condition = resolve(opened, two_steps(opened))
    assert condition.dropped.n == 4 and condition.last.n == 2 and len(condition.before) == 1
    # It is measured as any model is, and its sets are recorded.
    measure(opened, [condition])
    assert recorded(opened, condition, opened.study.loss)["loss"] > 0
    kinds = [record["kind"] for _, record, _ in records("mine")]
    assert kinds.count("choice") == 1 and kinds.count("healing") == 2
    # Nothing is left on the way, and nothing is trained again.
    assert not list((results_dir / "mine").glob("unfinished/*"))
    assert adapters(opened, condition).is_dir()
    again = OpenStudy(study.load(str(file)))
    assert same(weights(again), found)


def test_killed_between_and_within_its_steps_it_ends_the_same(
    file: Path, tmp_path: Path, results_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = by_hand(OpenStudy(study.load(str(file))), tmp_path / "hand")
    kills = 0
    for wanted in ("healing", "choice"):  # between the steps, and in the second
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(file)], cwd=paths.ROOT, stderr=subprocess.DEVNULL
        )
        folder = results_dir / "mine" / "evidence" / wanted
        while process.poll() is None and not list(folder.glob("*.json")):
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 2
    opened = OpenStudy(study.load(str(file)))
    assert same(weights(opened), expected)


def test_a_plan_of_steps_heals_nothing(file: Path, results_dir: Path) -> None:
    opened = OpenStudy(study.load(str(file)))
    planned = Planned(opened.study, opened.config)
    condition = resolve(planned, two_steps(opened))
    assert condition.dropped.n == 4 and not (results_dir / "mine").exists()
    name = part_name(planned, condition, "")
    assert re.fullmatch(r"[a-z0-9-]+", name)
    plain = resolve(planned, [Step("similarity", 2, None), two_steps(opened)[1]])
    assert part_name(planned, plain, "") != name


def test_nothing_goes_on_from_a_healing_that_broke_down(file: Path, results_dir: Path) -> None:
    opened = OpenStudy(study.load(str(file)))
    endless = opened.study.healing.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(UserError, match="broke down; nothing goes on"):
        resolve(opened, [Step("similarity", 2, endless), *two_steps(opened)[:1]])
    assert not list((results_dir / "mine").glob("unfinished/*.model"))
    condition = resolve(opened, [Step("simple", 2, endless), Step("simple", 1, None)])
    measure(opened, [condition])  # left out
    assert recorded(opened, condition, opened.study.loss) is None


def test_scattered_sets_and_steps_without_healing(file: Path, results_dir: Path) -> None:
    opened = OpenStudy(study.load(str(file)))
    steps = [Step("simple", 1, None), Step("similarity", 2, None)]
    condition = resolve(opened, steps)
    assert condition.dropped.n == 3 and 4 in condition.dropped
    plain = load_model(opened.study)
    drop(plain, condition.dropped)
    with materialised(opened, condition) as model:
        assert same(model.state_dict(), plain.state_dict())


def test_without_scoring_anew_the_next_layers_of_one_choice_go(
    file: Path, results_dir: Path
) -> None:
    opened = OpenStudy(study.load(str(file)))
    condition = resolve(opened, [Step("simple", 1, None), Step("simple", 2, None, anew=False)])
    assert condition.dropped == opened.chosen("simple", 3)
    assert condition.last == Dropped([2, 3])
    opened._chosen |= {("odd", 1, 0, None): Dropped([0]), ("odd", 2, 0, None): Dropped([3, 4])}
    with pytest.raises(UserError, match="do not contain"):
        resolve(opened, [Step("odd", 1, None), Step("odd", 1, None, anew=False)])
