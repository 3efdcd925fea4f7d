"""Strategies: shipped ones by name, a user's own by file, and what is wrong with one."""

from pathlib import Path

import pytest
from conftest import Studies

from lib import open_sets, study
from lib.book.check import check
from lib.errors import UserError
from lib.evidence.records import records
from lib.experiments.choosing import Asked
from lib.experiments.conditions import main_conditions
from lib.experiments.opened import OpenStudy
from lib.healing import heal
from lib.pruning.dropped import Dropped, simple

NORM = """
def scores(model, windows):
    assert windows.shape == (8, 16)
    layers = model.model.layers
    return [sum(float(p.norm()) for p in layer.parameters()) for layer in layers]
"""
EVERY_SECOND = """
def choose(n, n_layers):
    return [*range(1, n_layers, 2), *range(0, n_layers, 2)][:n]
"""


def own(folder: Path, write_study: Studies, code: str, **keys: object) -> OpenStudy:
    """A study of six layers that compares a strategy of its own with a shipped one."""
    (folder / "mine.py").write_text(code)
    chosen = [{"name": "mine", "file": "mine.py"}, "simple"]
    path = write_study(folder, strategies=chosen, pruned_layers=[1, 2], **keys)
    return OpenStudy(study.load(str(path)))


def test_the_lowest_scores_go_wherever_they_stand(
    tmp_path: Path, results_dir: Path, write_study: Studies
) -> None:
    opened = own(tmp_path, write_study, NORM)
    norms = [
        sum(float(p.norm()) for p in layer.parameters()) for layer in opened.model.model.layers
    ]
    for n in (1, 2, 5):
        assert sorted(norms)[:n] == sorted(norms[layer] for layer in opened.chosen("mine", n))


def test_scores_are_measured_once_and_again_when_the_file_changes(
    tmp_path: Path, results_dir: Path, write_study: Studies
) -> None:
    own(tmp_path, write_study, NORM).chosen("mine", 2)
    found = [record for _, record, _ in records("mine") if record["kind"] == "scores"]
    assert len(found) == 1 and found[0]["inputs"]["strategy"] == "mine"
    again = own(tmp_path, write_study, NORM)
    again.model = None  # is not looked at
    again.chosen("mine", 2)
    own(tmp_path, write_study, NORM + "\n# another\n").chosen("mine", 2)
    kinds = [record["kind"] for _, record, _ in records("mine")]
    assert kinds.count("scores") == 2


def test_scores_may_be_tensors_and_leave_nothing_on_the_model(
    tmp_path: Path, results_dir: Path, write_study: Studies
) -> None:
    code = """
import torch

def scores(model, windows):
    model.train()
    found = [p.to(torch.bfloat16).norm() for p in model.model.layers[0].parameters()]
    assert found[0].requires_grad
    return torch.stack(found[:6])
"""
    opened = own(tmp_path, write_study, code)
    assert opened.chosen("mine", 2).n == 2
    assert not opened.model.training


def test_a_choice_of_ones_own_is_taken_as_it_is(
    tmp_path: Path, results_dir: Path, write_study: Studies
) -> None:
    opened = own(tmp_path, write_study, EVERY_SECOND)
    assert opened.chosen("mine", 2) == Dropped([1, 3])
    assert opened.strategies == ["mine", "simple"]
    found = {(one.strategy, one.dropped) for one in main_conditions(opened) if not one.healing}
    assert ("mine", Dropped([1, 3])) in found and ("simple", simple(2, 6)) in found


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import nowhere\n", ["cannot be imported", "nowhere"]),
        ("x = (\n", ["cannot be imported", "SyntaxError"]),
        ("x = 1\n", ["neither", "scores(model, windows)", "choose(n, n_layers)"]),
        (NORM + EVERY_SECOND, ["scores and choose", "either"]),
        ("def scores(model, windows):\n    return [1.0] * 5\n", ["[5]", "6 layers"]),
        ("def scores(model, windows):\n    return 3\n", ["one for each of the 6 layers"]),
        ("def scores(model, windows):\n    return 'high'\n", ["gave no numbers"]),
        ("def scores(m, w):\n    return [0, 1, float('nan'), 3, 4, 5]\n", ["layer 2", "nan"]),
        ("def scores(m, w):\n    return 1 / 0\n", ["scores failed", "ZeroDivisionError"]),
        ("def choose(n, n_layers):\n    return [n_layers]\n", ["layer 6", "0 to 5"]),
        ("def choose(n, n_layers):\n    return [-1]\n", ["layer -1", "0 to 5"]),
        ("def choose(n, n_layers):\n    return [0, 1]\n", ["2 layers", "n = 1"]),
        ("def choose(n, n_layers):\n    return []\n", ["0 layers", "n = 1"]),
        ("def choose(n, n_layers):\n    return ['a']\n", ["expected layer numbers"]),
        ("def choose(n):\n    return [n]\n", ["choose failed", "TypeError"]),
        ("def choose(n, n_layers):\n    yield 1 / 0\n", ["choose failed", "ZeroDivision"]),
        ("def choose(n, n_layers):\n    return [0.9]\n", ["expected layer numbers"]),
        ("raise SystemExit(3)\n", ["cannot be imported", "SystemExit"]),
    ],
)
def test_what_is_wrong_with_a_strategy_is_one_line(
    tmp_path: Path, results_dir: Path, write_study: Studies, code: str, says: list[str]
) -> None:
    with pytest.raises(UserError) as found:
        own(tmp_path, write_study, code).chosen("mine", 1)
    line = str(found.value)
    assert "strategy mine" in line and "\n" not in line
    assert all(part in line for part in says), line


@pytest.mark.parametrize(
    ("strategies", "says"),
    [
        (["similarity", "foo"], ["strategies.1", "unknown strategy 'foo'", "similarity, simple"]),
        ([{"name": "simple", "file": "a.py"}], ["'simple' is that of a shipped strategy"]),
        ([{"name": "none", "file": "a.py"}], ["'none' is taken"]),
        (["simple", "simple"], ["twice"]),
        ([{"name": "simple", "k": 3}], ["unknown key 'strategies.0.k'"]),
        ([], ["at least 1"]),
    ],
)
def test_a_study_names_its_strategies_well(
    tmp_path: Path, write_study: Studies, strategies: list, says: list[str]
) -> None:
    with pytest.raises(UserError) as found:
        study.load(str(write_study(tmp_path, strategies=strategies)))
    assert all(part in str(found.value) for part in says), found.value


def test_a_teacher_wants_one_block(tmp_path: Path, results_dir: Path, write_study: Studies) -> None:
    opened = own(tmp_path, write_study, EVERY_SECOND, healing={"recipe": "lora", "teacher": 1.0})
    with pytest.raises(UserError, match="teacher goes with blocks of layers; strategy mine"):
        check(opened.study)
    with pytest.raises(UserError, match="goes with one block of layers, not with 1,3"):
        heal.heal(opened.study, opened.study.healing, [1, 3], opened.tokenizer)


def test_losses_are_those_of_models_that_are_really_pruned(
    tmp_path: Path, results_dir: Path, write_study: Studies
) -> None:
    from lib.evaluation.evaluate import next_token_loss
    from lib.pruning.surgery import pruned

    opened = OpenStudy(study.load(str(write_study(tmp_path))))
    asked = Asked(opened)
    sets = [(), (2,), (0, 4), (1, 2, 3)]
    found = asked.losses(sets)
    rows = asked.windows.tolist()
    for dropped, loss in zip(sets, found, strict=True):
        with pruned(opened.model, dropped):
            alone = next_token_loss(opened.model, rows, 8, opened.tokenizer.pad_token_id)
        assert loss == pytest.approx(alone["loss"], abs=1e-5)


def test_names_are_those_of_files() -> None:
    assert {"similarity", "simple"} <= set(open_sets.known("strategy"))
    assert {"qlora", "lora", "full"} <= set(open_sets.known("recipe"))
