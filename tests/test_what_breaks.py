"""What is lost first: which models are asked what, shares kept, and what others make of texts."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Studies, write_task
from matplotlib import pyplot as plt

from lib import paths, study
from lib.book.plan import Planned, extras
from lib.errors import UserError
from lib.evaluation import written
from lib.experiments.conditions import Condition, asked, unpruned
from lib.experiments.further_conditions import breaking_conditions
from lib.experiments.measure import measure
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import probes, recorded
from lib.experiments.written import losses, writers
from lib.pruning.dropped import span
from lib.sections import ability_figures, what_breaks

SETTINGS = {
    "tasks": [{"name": "puzzle", "role": "reading", "limit": 8}],
    "fractions": [0.34, 0.5],
    "writing": {"n_prompts": 4, "prompt_tokens": 6, "tokens": 7},
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, write_study: Studies) -> Iterator[OpenStudy]:
    folder = tmp_path_factory.mktemp("breaks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULTS_DIR", str(folder / "results"))
        patch.setattr(paths, "BUILD", folder / "_build")
        write_task(folder / "tasks", "puzzle")
        changes = {"what_breaks": SETTINGS, "abilities": {"riddles": ["puzzle"]}}
        changes |= {"healing": {"recipe": "lora", "fractions": [0.5]}, "strategies": ["simple"]}
        one = OpenStudy(study.load(str(write_study(folder, **changes))))
        conditions = breaking_conditions(one)
        measure(one, conditions)
        yield one


def test_which_models_are_asked_more(opened: OpenStudy) -> None:
    puzzle, asked_to_write = opened.study.what_breaks.tasks[0], opened.study.what_breaks.writing
    more = [one for one in breaking_conditions(opened) if puzzle in asked(opened, one)]
    found = [(one.dropped.n, one.recipe) for one in more]
    assert found == [(0, "none"), (3, "none"), (3, "lora-r4"), (2, "none")]
    assert writers(opened) == more
    for one in breaking_conditions(opened):
        assert (asked_to_write in probes(opened, one)) == (one in more)
    # Nor a model that is of another strategy, or was repaired.
    other = Condition("similarity", span(2, 5), opened.weights)
    for one in (other, Condition("simple", span(2, 5), opened.weights, repair="rescale")):
        assert puzzle not in asked(opened, one)


def test_shares_are_counted_from_chance(opened: OpenStudy) -> None:
    table = what_breaks.abilities(opened)
    assert list(dict.fromkeys(table["ability"])) == ["riddles", "knowledge"]
    assert table.groupby(["ability", "models"])["n"].apply(list).to_dict() == {
        ("riddles", "unhealed"): [0, 2, 3],
        ("riddles", "healed"): [0, 3],
        ("knowledge", "unhealed"): [0, 1, 2, 3],
        ("knowledge", "healed"): [0, 3],
    }
    for (_, which), of in table.groupby(["ability", "models"]):
        (task,) = (t for t in opened.study.every_task if t.name == of["tasks"].iloc[0])
        models = {one.dropped.n: one for one in what_breaks.curve(opened, which, [task])}
        whole = recorded(opened, unpruned(opened), task)
        for row in of.itertuples():
            value = recorded(opened, models[row.n], task)
            assert row.accuracy == pytest.approx(value["accuracy"])
            assert row.stderr == pytest.approx(value["stderr"])
            height = whole["accuracy"] - row.chance
            assert (row.testable == "yes") == (height > 3 * whole["stderr"])
            if height > 0:
                assert row.kept == pytest.approx((value["accuracy"] - row.chance) / height)
            else:
                assert math.isnan(row.kept)
    assert [*what_breaks.halves(table)] == [*what_breaks.HALVES]


def test_what_is_written_is_read_by_the_unpruned_model(opened: OpenStudy) -> None:
    table = what_breaks.writing(opened).set_index(["models", "n"])
    assert [*table.index] == [("", 0), ("unhealed", 3), ("healed", 3), ("unhealed", 2)]
    one = next(one for one in writers(opened) if one.dropped == span(2, 5) and not one.healing)
    texts = recorded(opened, one, opened.study.what_breaks.writing)
    assert len(texts["texts"]) == 4
    expected = []
    for prompt, text in zip(texts["prompts"], texts["texts"], strict=True):
        ids = opened.tokenizer(prompt + text, return_tensors="pt").input_ids
        begun = len(opened.tokenizer(prompt).input_ids)
        with torch.inference_mode():
            likely = opened.model(ids).logits[0].double().log_softmax(-1)
        each = [-float(likely[i - 1, ids[0, i]]) for i in range(begun, ids.shape[1])]
        expected.append(np.mean(each))
    assert losses(opened, one)["losses"] == pytest.approx(expected, rel=1e-5)
    row = table.loc["unhealed", 3]
    assert row["loss"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert row["loss_stderr"] == pytest.approx(np.std(expected, ddof=1) / 2, rel=1e-5)
    assert row["texts"] == 4 and 0 <= row["repeated"] <= 1


def test_no_text_has_no_loss(opened: OpenStudy) -> None:
    found = written.losses(opened.model, opened.tokenizer, ["Ada said", "Ada"], ["", " said"])
    assert found[0] is None and found[1] > 0


def test_what_was_not_written_cannot_be_read(opened: OpenStudy) -> None:
    with pytest.raises(UserError, match=r"has not written; `make book`"):
        losses(opened, Condition("simple", span(4, 5), opened.weights))


def curve(ability: str, models: str, *values: float) -> list[dict]:
    return [
        {"ability": ability, "models": models, "fraction": i / 10, "accuracy": value}
        | {"stderr": 0.01, "chance": 0.25}
        for i, value in enumerate(values)
    ]


def test_halves_and_words_for_them() -> None:
    rows = curve("early", "unhealed", 0.85, 0.65, 0.45, 0.3)
    rows += curve("late", "unhealed", 0.85, 0.84, 0.83, 0.8)
    rows += curve("never", "unhealed", 0.25, 0.26, 0.25, 0.24)
    rows += curve("early", "healed", 0.85, 0.8, 0.55, 0.5)
    table = what_breaks.halves(pd.DataFrame(rows))
    assert [*table["outcome"]] == ["reached", "not reached", "not testable", "reached"]
    assert table["fraction"].iloc[0] == pytest.approx(0.15)  # halfway between .65 and .45
    assert table["fraction"].iloc[3] == pytest.approx(0.2)
    short = what_breaks.in_short(table).set_index("ability")
    assert short.loc["early", "half lost, unhealed"].startswith("15% [")
    assert short.loc["late", "half lost, unhealed"] == "not within 30%"
    assert "not clearly above chance" in short.loc["never", "half lost, unhealed"]
    assert short.loc["late", "half lost, healed"] == ""
    axes = ability_figures.forest(table).axes[0]
    assert [one.get_text() for one in axes.get_yticklabels()] == ["early", "late"]
    plt.close("all")


def test_without_fractions_nothing_more_is_asked(tmp_path: Path, write_study: Studies) -> None:
    write_task(tmp_path / "tasks", "puzzle")
    settings = SETTINGS | {"fractions": []}
    one = study.load(str(write_study(tmp_path, what_breaks=settings, strategies=["simple"])))
    planned = Planned(one, OpenStudy(one).config)
    assert writers(planned) == [] and "written" not in extras(planned)
    assert one.what_breaks.tasks[0] not in asked(planned, unpruned(planned))
    none = pd.DataFrame(columns=[*what_breaks.WRITING])
    assert "no writing" in ability_figures.fluency_panels(none).axes[0].texts[0].get_text()
    plt.close("all")


def test_a_task_is_asked_in_one_place(tmp_path: Path, write_study: Studies) -> None:
    twice = {"tasks": [{"name": "quiz", "role": "reading"}], "fractions": [0.5]}
    with pytest.raises(UserError, match=r"what_breaks\.tasks: 'quiz' stands twice"):
        study.load(str(write_study(tmp_path, what_breaks=twice)))
    without = {"tasks": [{"name": "puzzle"}], "fractions": [0.5]}
    with pytest.raises(UserError, match=r"key 'what_breaks\.tasks\.0\.role' is missing"):
        study.load(str(write_study(tmp_path, what_breaks=without)))
