"""Sections name no strategy and no recipe: with others, tables and figures still come."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Studies
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from lib import study
from lib.experiments.conditions import Condition
from lib.experiments.opened import OpenStudy
from lib.healing import recipe
from lib.pruning.dropped import Dropped
from lib.schema import Task
from lib.sections import (
    at_a_glance,
    comparisons,
    controls,
    families,
    looks,
    lora_rank,
    loss,
    qa_transitions,
    strategies,
    tables,
)
from lib.sections.other_runs import Run

STRATEGIES = ["mine", "random", "deepest"]


def models(states: tuple[str, ...]) -> pd.DataFrame:
    """Scattered layers of a model of eight, chosen in three ways."""
    rows = []
    for state in states:
        of = {"state": state, "seed": 0 if state == "healed" else None}
        of |= {"healing": "own-r4" if state == "healed" else "none"}
        of |= {"weights": "int8" if state == "control" else "float32"}
        rows.append({"strategy": "none", "n": 0, "dropped": "", **of})
        rows += [
            {"strategy": name, "n": n, "dropped": " ".join(map(str, range(0, 2 * n, 2))), **of}
            for name in STRATEGIES
            for n in (1, 2, 4)
        ]
    table = pd.DataFrame(rows).assign(start=None, stop=None)
    return table.assign(fraction=table["n"] / 8, accuracy=0.9 - table["n"] / 10, stderr=0.02)


def world(states: tuple[str, ...]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    levels = {"guess": 0.25, "constant": 0.3, "chance": 0.3}
    one = models(states)
    qa = pd.concat([one.assign(task=name, shots=0, **levels) for name in ("know", "read")])
    qa = qa.assign(role=qa["task"].map({"know": "knowledge", "read": "reading"}), n_questions=100)
    losses = one.assign(corpus="text", loss=3.0, normalized_loss=0.5)
    pruned = qa[qa["strategy"] != "none"].drop_duplicates(["task", "strategy", "state"])
    fitted = {"fraction": 0.4, "low": 0.3, "high": 0.5, "width": 0.3}
    transitions = pruned.assign(**fitted)
    return qa, losses, transitions


def drawn(figure: Figure) -> set[str]:
    """The labels of everything in a figure."""
    figure.canvas.draw()
    found = {label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]}
    plt.close(figure)
    return found


@pytest.mark.parametrize(
    "states", [("unhealed", "control", "healed"), ("unhealed", "healed"), ("unhealed",)]
)
def test_figures_know_strategies_and_states_from_their_tables(states: tuple[str, ...]) -> None:
    qa, losses, transitions = world(states)
    words = {"unhealed, int8" if state == "control" else state for state in states}
    assert words <= drawn(qa_transitions.accuracy_panels(qa, transitions))
    assert words <= drawn(loss.loss_panel(losses, transitions))
    assert set(states) - {"control"} == drawn(at_a_glance.picture(qa, losses, 8))
    assert set(STRATEGIES) <= drawn(strategies.strategy_panels(qa, losses))
    references = [table.assign(run="Other") for table in (qa, losses)]
    for state in states[-1:]:
        found = drawn(controls.pruning_panels(qa, losses, *references, state))
        assert {state, "reference: Other"} <= found


def test_strategies_look_different_and_the_first_is_the_main_one() -> None:
    qa, losses, _ = world(("unhealed", "healed"))
    found = list(looks.by_strategy(tables.strategies(qa)).values())
    assert len({one["color"] for one in found}) == len({one["marker"] for one in found}) == 3
    assert tables.strategies(qa) == STRATEGIES
    assert set(loss.for_page(losses)["strategy"]) == {"none", "mine"}


def test_scattered_layers_are_shown_in_words() -> None:
    table = pd.DataFrame({"dropped": ["", "3", "0 2 3 4", "1 2"], "start": 0, "stop": 0})
    shown = tables.for_reading(table)
    assert list(shown) == ["dropped"]
    assert shown["dropped"].tolist() == ["", "3", "0, 2–4", "1–2"]


def test_ranks_have_a_column_of_panels_per_strategy() -> None:
    table = models(("healed",)).query("n > 0").rename(columns={"accuracy": "value"})
    table = table.assign(metric="accuracy", task="know", shots=0, rank=4)
    figure = lora_rank.rank_panels(table, {("accuracy", "know", 0): (0.9, 0.25)})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"Know, {name}" for name in STRATEGIES]
    assert "rank 4" in drawn(figure)


def test_runs_side_by_side_show_the_main_strategy_of_the_pages_study() -> None:
    made = dict(zip(("qa", "loss", "transitions"), world(("unhealed", "healed")), strict=True))
    runs = [Run(name, name, "a model", 8, None, Path(), made) for name in ("own", "other")]
    critical = families.critical_fractions(runs)
    assert len(critical) == 2 * 2 * 2  # runs, tasks, states
    assert {"own", "other"} <= drawn(families.accuracy_by_run(families.table(runs, "qa"), "healed"))
    assert {"own", "other"} <= drawn(families.loss_by_run(families.table(runs, "loss")))


class Chosen(OpenStudy):
    """Three strategies, each with layers of its own, and nothing measured."""

    n_layers = 8

    @property
    def strategies(self) -> list[str]:
        return STRATEGIES

    def sizes(self, strategy: str) -> list[int]:
        return [1, 2]

    def chosen(self, strategy: str, n: int, draw: int = 0) -> Dropped:
        first = STRATEGIES.index(strategy)
        return Dropped((first + 2 * i) % 8 for i in range(n))


@pytest.fixture
def opened(write_study: Studies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenStudy:
    path = write_study(tmp_path, pruned_layers=[1, 2])
    found = Chosen(study.load(str(path)))
    healing = found.study.healing
    conditions = [
        Condition(name, found.chosen(name, n), found.weights, recipe)
        for recipe in (None, healing)
        for name in STRATEGIES
        for n in (1, 2)
    ]
    monkeypatch.setattr(strategies, "main_conditions", lambda opened: conditions)
    monkeypatch.setattr(strategies, "sound", lambda opened, conditions: conditions)

    def answers(opened: OpenStudy, condition: Condition, task: Task) -> np.ndarray:
        return np.arange(10) % (2 + STRATEGIES.index(condition.strategy)) == 0

    monkeypatch.setattr(comparisons, "answers", lambda *given: answers(*given).astype(int))
    return found


def test_every_strategy_is_compared_with_the_last(opened: OpenStudy) -> None:
    found = strategies.strategies_compared(opened)
    tasks = [task.name for task in opened.study.tasks]
    pairs = list(found[["models", "task", "compared", "base"]].itertuples(index=False, name=None))
    assert sorted(pairs) == sorted(
        (state, task, name, "deepest")
        for state in ("unhealed", "healed")
        for task in tasks
        for name in STRATEGIES[:-1]
    )
    assert found.query("compared == 'mine'")["difference"].tolist() == pytest.approx(
        [0.5 - 0.3] * 2 * len(tasks)
    )
    assert set(found["prunings"]) == {2}
    words = strategies.chosen(opened).set_index("n")
    assert list(words) == [*STRATEGIES, "same"]
    assert words.loc[2, "mine"] == "drop layers 0 and 2, keep 1 and 3–7"


def test_a_recipe_that_lacks_a_part_cannot_be_made() -> None:
    class Half(recipe.Recipe):
        def base(self, study):
            return None

    with pytest.raises(TypeError, match=r"abstract.*prepare"):
        Half("half")
