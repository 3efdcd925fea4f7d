"""Repaired models among those of a study: which there are, what they are asked, its record."""

from pathlib import Path

import pytest
import torch
from conftest import Studies
from test_selection import calibration_text
from transformers import AutoModelForCausalLM

from lib import export, study
from lib.book.plan import Planned, parts
from lib.errors import UserError
from lib.experiments.conditions import Condition, unpruned
from lib.experiments.further_conditions import repair_conditions
from lib.experiments.measure import measure
from lib.experiments.models import materialised
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import condition_inputs, probes, recorded, repair_record
from lib.pruning.dropped import span
from lib.pruning.repair import load, repair
from lib.sections import repair as section


@pytest.fixture
def opened(tmp_path: Path, results_dir: Path, write_study: Studies) -> OpenStudy:
    settings = {"repairs": ["linear-map", "rescale"], "fractions": [0.34, 0.5]}
    calibration = {"path": str(calibration_text(tmp_path)), "n_sequences": 6, "length": 16}
    changes = {"strategies": ["simple"], "repair": settings, "calibration": calibration}
    return OpenStudy(study.load(str(write_study(tmp_path, **changes))))


def test_which_models_there_are(opened: OpenStudy) -> None:
    found = [(one.dropped, one.repair, one.recipe) for one in repair_conditions(opened)[1:]]
    ways = [(None, "none"), ("linear-map", "none"), ("rescale", "none")]
    assert found == [
        *((span(3, 5), *way) for way in ways),
        *((span(2, 5), *way) for way in [*ways, (None, opened.study.healing.name)]),
    ]
    planned = parts(Planned(opened.study, opened.config))
    own = {name: one for name, one in planned.items() if one.conditions[0].repair}
    assert [*own] == [f"simple-{n}-none-repaired-{way}" for n in (2, 3) for way, _ in ways[1:]]
    assert (
        own["simple-2-none-repaired-linear-map"].what
        == "simple, 2 layers dropped, repaired: linear-map"
    )


def test_blocks_that_nothing_stands_before_are_left_out(opened: OpenStudy) -> None:
    settings = opened.study.repair.model_copy(update={"strategies": ["first"]})
    one = OpenStudy(opened.study.model_copy(update={"repair": settings}))
    assert repair_conditions(one) == [unpruned(one)]


def test_what_is_measured_is_that_of_the_repaired_model(opened: OpenStudy) -> None:
    conditions = [one for one in repair_conditions(opened) if one.healing is None]
    measure(opened, conditions)
    windows = opened.windows(opened.study.calibration, opened.study.calibration)
    losses = {}
    for one in conditions[1:]:
        model = OpenStudy(opened.study).model
        losses[one] = recorded(opened, one, opened.study.loss)["loss"]
        if one.repair:
            report = repair(model, one.dropped, windows, opened.study.batch, load(one.repair))
            assert repair_record(opened, one) == pytest.approx(report)
            assert probes(opened, one) == [*opened.study.tasks, opened.study.loss]
            with materialised(opened, one) as made, torch.inference_mode():
                ids = windows[:2]
                assert torch.equal(made(ids).logits, model(ids).logits)
    assert len(set(losses.values())) == len(losses)
    unhealed = OpenStudy(opened.study.model_copy(update={"healing": None}))
    table = section.models(unhealed)
    assert list(table["way"]) == ["", *2 * ["as it is", "linear-map", "rescale"]]
    assert (table["left"].dropna() < table["gap"].dropna()).all()
    assert table["factor"].notna().sum() == 2
    assert len(section.fits(table)) == 4 and section.panels(table).axes
    assert [*section.compared(unhealed)] == [*section.COMPARED]


@pytest.mark.parametrize("recipe", ["lora", "qlora"])
def test_healing_starts_from_what_was_repaired(
    recipe: str, tmp_path: Path, results_dir: Path, write_study: Studies
) -> None:
    """With so small a learning rate nothing moves: what is healed is the repaired model, in the
    number format of the recipe."""
    settings = {"repairs": ["linear-map"], "fractions": [0.5], "healed": [0.5]}
    calibration = {"path": str(calibration_text(tmp_path)), "n_sequences": 20, "length": 32}
    healing = {"recipe": recipe, "learning_rate": 1e-30, "steps": 3}
    changes = {"strategies": ["simple"], "repair": settings, "calibration": calibration}
    opened = OpenStudy(study.load(str(write_study(tmp_path, healing=healing, **changes))))
    _, plain, repaired, *trained = repair_conditions(opened)
    assert [(one.repair, one.healing.steps) for one in trained] == [
        (None, 3),
        ("linear-map", 3),
        (None, 5),  # of 4 rows of 32 tokens, as many as 20 windows have
    ]
    measure(opened, [unpruned(opened), plain, repaired, *trained])
    losses = [recorded(opened, one, opened.study.loss)["loss"] for one in (repaired, *trained)]
    tolerance = 1e-6 if recipe == "lora" else 0.02
    assert losses[2] == pytest.approx(losses[0], rel=tolerance)
    assert abs(losses[1] / losses[0] - 1) > 0 and losses[1] == pytest.approx(losses[3], rel=1e-6)
    table = section.models(opened).set_index("way")
    assert [*table.index] == [
        *("", "as it is", "linear-map", "healed", "linear-map, then healed"),
        "healed on as many tokens",
    ]
    assert table["left"].notna().sum() == 1
    assert section.pairs(dict(zip(table.index[1:], [plain, repaired, *trained], strict=True))) == [
        *((way, "as it is") for way in table.index[2:]),
        ("linear-map", "healed on as many tokens"),
        ("linear-map, then healed", "healed"),
    ]
    planned = [one.what for one in parts(Planned(opened.study, opened.config)).values()]
    assert f"simple, 3 layers dropped, repaired: linear-map, {trained[0].recipe}, seed 0" in planned


def test_export_writes_the_model_that_was_evaluated(
    opened: OpenStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--study", str(opened.study.file), "--repair", "linear-map", "--simple", "2"]
    assert export.main([str(tmp_path / "out"), *options]) == 0
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    one = Condition("simple", span(3, 5), opened.weights, repair="linear-map")
    with materialised(opened, one) as model:
        assert all(map(torch.equal, plain.parameters(), model.parameters()))
    card = (tmp_path / "out/README.md").read_text()
    assert "| repaired | `linear-map`, without training, on 96 tokens |" in card
    assert "drop layers 3–4, keep 0–2 and 5" in card


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["--repair", "glue", "--simple", "2"],
            "unknown repair 'glue'; known are linear-map, rescale",
        ),
        (
            ["--repair", "linear-map", "--drop", "1,3"],
            "is of one block of layers, as 21:29, not of 1,3",
        ),
        (["--repair", "linear-map", "--drop", "0:2"], "there is none before layers 0:2"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    options: list[str],
    says: str,
    opened: OpenStudy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(tmp_path / "out"), "--study", str(opened.study.file), *options]
    assert export.main(given) == 1
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error")]
    assert says in line and not (tmp_path / "out").exists()


def test_without_calibration_text_nothing_is_exported(
    tmp_path: Path, results_dir: Path, write_study: Studies, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study(tmp_path)
    given = [str(tmp_path / "out"), "--study", str(path), "--repair", "linear-map", "--simple", "2"]
    assert export.main(given) == 1
    assert "--repair linear-map: study mine has no calibration, the text" in capsys.readouterr().err


def test_text_and_repair_decide_what_is_recorded(opened: OpenStudy) -> None:
    plain = Condition("simple", span(2, 4), opened.weights)
    both = [
        Condition("simple", span(2, 4), opened.weights, repair=one)
        for one in ("linear-map", "rescale")
    ]
    found = [condition_inputs(opened, one) for one in (plain, *both)]
    assert "repair" not in found[0] and found[1] != found[2]
    more = opened.study.calibration.model_copy(update={"n_sequences": 5})
    other = OpenStudy(opened.study.model_copy(update={"calibration": more}))
    assert condition_inputs(other, both[0]) != found[1]
    assert condition_inputs(other, plain) == found[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"repair": {"repairs": ["linear-map"]}}, "repair.repairs go with calibration"),
        ({"repair": {"repairs": ["glue"]}}, "'glue' is none of linear-map, rescale"),
        (
            {"repair": {"repairs": ["linear-map", "linear-map"]}},
            "repair.repairs lists the same value twice",
        ),
        ({"repair": {"strategies": ["taylor"]}}, "repair.strategies: 'taylor' is none of"),
    ],
)
def test_settings_that_do_not_go_together(
    changes: dict, says: str, tmp_path: Path, write_study: Studies
) -> None:
    with pytest.raises(UserError, match=says):
        study.load(str(write_study(tmp_path, **changes)))


def test_nothing_is_repaired_where_nothing_is_listed(tmp_path: Path, write_study: Studies) -> None:
    one = OpenStudy(study.load(str(write_study(tmp_path))))
    assert repair_conditions(one) == [unpruned(one)]
    for table in section.SECTION.tables:
        made = table.make(one)
        assert made.empty and [*made] == [*table.columns]
    assert "This study" in section.panels(section.models(one)).axes[0].texts[0].get_text()
