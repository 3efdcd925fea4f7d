"""Pruning in steps against all at once: which models are compared, and what tables say of them."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Studies

from lib import study
from lib.book.check import check
from lib.book.jobs import listed
from lib.book.plan import Planned, Speed, extras, parts
from lib.claims.rules.lu_schedules import LONGER, ONCE, STEPS, TWO_SEEDS, TWO_WAYS
from lib.errors import UserError
from lib.experiments.conditions import Condition
from lib.experiments.measure import measure
from lib.experiments.opened import OpenStudy
from lib.experiments.schedules import at_once, outcomes, schedules
from lib.healing.reading import read
from lib.pruning.dropped import Dropped
from lib.schema import Task
from lib.sections import macro, step_by_step, step_figures

RECIPES = [{"recipe": "partial", "layers": 1}, {"recipe": "lora", "alpha": 8}]
ASKED = {
    "what_to_train": {"recipes": RECIPES},
    "step_by_step": {
        "strategies": ["reverse-order"],
        "layers_at_a_time": [1],
        "fractions": [0.4],
        "seeds": [0, 1],
    },
}


def can_do(opened: OpenStudy) -> dict[Task, float]:
    """Its tasks, with a chance that no model is as low as."""
    return dict.fromkeys(opened.study.tasks, -1.0)


@pytest.fixture
def opened(
    tmp_path: Path, write_study: Studies, results_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> OpenStudy:
    """Its model, which can do nothing, is taken to be able to do its task."""
    monkeypatch.setattr(macro.Answers, "chance", property(lambda self: can_do(self.opened)))
    return OpenStudy(study.load(str(write_study(tmp_path, **ASKED))))


def test_a_schedule_is_as_many_whole_steps_as_there_are_layers(opened: OpenStudy) -> None:
    first, second = schedules(opened)
    assert first.ns == (2,) and [first.recipe.seed, second.recipe.seed] == [0, 1]
    assert first.recipe.name == "partial-head-norm-last1"  # the first recipe alone
    steps = first.steps(2)
    assert len(steps) == 2 and {step.n for step in steps} == {1}
    longer = first.longer(2)
    assert (longer.steps, longer.epochs) == (2 * first.recipe.steps, 2)
    (once,), (long,) = at_once(opened, first), at_once(opened, first, longer=True)
    assert once.dropped == long.dropped == Dropped([4, 5]) and not once.before
    assert long.healing == longer


def test_longer_training_reads_the_same_rows_again(opened: OpenStudy) -> None:
    one = schedules(opened)[0]
    count = one.recipe.steps * one.recipe.batch

    def rows(recipe: object, count: int) -> list[tuple[int, ...]]:
        found = read(opened.study, recipe, opened.tokenizer, count, seed=0).texts
        return [tuple(row.tolist()) for row in found]

    once, twice = rows(one.recipe, count), rows(one.longer(2), 2 * count)
    assert twice[:count] == once and twice[count:] != once
    assert sorted(twice[count:]) == sorted(once)


def test_of_an_odd_number_of_rows_each_is_read_as_often_as_can_be(opened: OpenStudy) -> None:
    recipe = schedules(opened)[0].recipe.model_copy(update={"epochs": 3})
    found = read(opened.study, recipe, opened.tokenizer, 8, seed=0).texts
    times = np.unique([str(row.tolist()) for row in found], return_counts=True)[1]
    assert len(found) == 8 and len(times) == 3 and times.min() >= 2


def test_what_is_known_beforehand(opened: OpenStudy) -> None:
    planned = Planned(opened.study, opened.config)
    found = extras(planned)
    chains = [extra for name, (extra, _) in found.items() if name.startswith("schedule-")]
    assert [[one.dropped.n for one in extra.trains] for extra in chains] == [[1, 2]] * 2
    assert [[one.dropped.n for one in extra.asks] for extra in chains] == [[2]] * 2
    alignment, owner = found["alignment"]
    assert owner == "step_by_step" and {*alignment.needs} == {one.name for one in chains}
    jobs = {job.name: job for job in listed(planned, Speed(1e-6, 3e-6), "models", 2)}
    models = {name for name, one in parts(planned).items() if owner in one.sections and one.healed}
    assert models and models <= {*jobs["alignment"].needs}
    names = [name for name in parts(planned) if "times-2" in name]
    assert len(names) == 2 and all(" " not in name for name in (*names, *found))
    # Nothing is carried out to say so.
    assert not (opened.store.folder).exists()


def test_tables_of_models_in_steps_and_at_once(opened: OpenStudy) -> None:
    for group in step_by_step.conditions(opened).values():
        measure(opened, group)
    made = {table.name: table.make(opened) for table in step_by_step.SECTION.tables}
    for table in step_by_step.SECTION.tables:
        assert [*made[table.name]] == [*table.columns], table.name
    models = made["step_by_step"]
    assert models["way"].fillna("").tolist() == [STEPS, ONCE, LONGER] * 2 + [""]
    steps = opened.study.healing.steps
    assert models["trained"].dropna().tolist() == [2 * steps, steps, 2 * steps] * 2
    # The deepest layer that stays is trained, and is the next to go.
    assert models["just_trained"].dropna().tolist() == [1.0, 1.0]
    compared = made["steps_compared"]
    assert compared["base"].tolist() == [ONCE] * 2 + [LONGER] * 2  # all tasks, and knowledge
    assert (compared["seeds"] == 2).all() and (compared["n_questions"] > 0).all()
    mean = models.groupby("way")["accuracy"].mean()
    loss = models.groupby("way")["normalized_loss"].mean()
    for found in compared.to_dict("records"):
        assert found["compared"] == STEPS and found["just_trained"] == 1.0
        assert found["difference"] == pytest.approx(mean[STEPS] - mean[found["base"]])
        assert found["loss_difference"] == pytest.approx(loss[STEPS] - loss[found["base"]])
    aligned = made["steps_aligned"]
    assert aligned.groupby("pair").size().to_dict() == {TWO_WAYS: 2 * 5, TWO_SEEDS: 5}
    assert (aligned["cka"] <= 1 + 1e-9).all() and (aligned["stderr"] >= 0).all()
    entering = aligned[aligned["layer"] == 0]  # the embeddings are nobody's to train
    assert entering["cka"].to_numpy() == pytest.approx(1)
    assert step_figures.alignment_panels(aligned).axes[0].has_data()
    figure = step_figures.panels(compared)
    assert len(figure.axes) == 4 and all(axes.has_data() for axes in figure.axes)
    assert step_by_step.leads(compared)["less"].tolist() == [ONCE, LONGER]


def test_layers_that_were_not_trained_may_go(opened: OpenStudy) -> None:
    """The first layers go, and the last one is trained."""
    asked = opened.study.step_by_step.model_copy(update={"strategies": ["first"], "seeds": [0]})
    other = OpenStudy(opened.study.model_copy(update={"step_by_step": asked}))
    (model,) = outcomes(other, schedules(other)[0])
    assert [step.dropped for step in model.before] == [Dropped([0])] and model.last == Dropped([1])
    assert step_by_step._just_trained(other, model) == 0.0


def test_nothing_is_compared_with_steps_that_broke_down(opened: OpenStudy) -> None:
    one = opened.study
    recipe = one.what_to_train.recipes[0].model_copy(update={"learning_rate": 1e30, "steps": 6})
    changed = one.what_to_train.model_copy(update={"recipes": [recipe]})
    broken = OpenStudy(one.model_copy(update={"what_to_train": changed}))
    for group in step_by_step.conditions(broken).values():
        measure(broken, group)
    assert step_by_step.compared(broken).empty
    assert step_by_step.aligned(broken).empty


def test_nothing_in_steps_where_nothing_is_listed(
    tmp_path: Path, write_study: Studies, results_dir: Path
) -> None:
    opened = OpenStudy(study.load(str(write_study(tmp_path))))
    for table in step_by_step.SECTION.tables:
        made = table.make(opened)
        assert made.empty and [*made] == [*table.columns], table.name
    assert step_by_step.conditions(opened).keys() == {""}
    for figure in (
        step_figures.panels(step_by_step.compared(opened)),
        step_figures.alignment_panels(step_by_step.aligned(opened)),
    ):
        assert "This study" in figure.axes[0].texts[0].get_text()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layers_at_a_time": [4]}, "layers_at_a_time 4: no steps of so many sum to 2 layers"),
        ({"strategies": ["mine"]}, "step_by_step.strategies: 'mine' is none of the study's"),
        ({"recipes": ["lora-r8"]}, "step_by_step.recipes: 'lora-r8' is none of what_to_train"),
        ({"seeds": [1, 1]}, "step_by_step.seeds lists the same value twice"),
        ({"fractions": [0.0]}, "step_by_step.fractions [0.0] stand for no layer"),
    ],
)
def test_what_cannot_be_done_in_steps_is_refused(
    changes: dict, says: str, tmp_path: Path, write_study: Studies, results_dir: Path
) -> None:
    asked = ASKED | {"step_by_step": ASKED["step_by_step"] | changes}
    with pytest.raises(UserError) as error:
        check(study.load(str(write_study(tmp_path, **asked))))
    assert says in str(error.value)


def test_too_few_windows_to_compare_layers_on_are_refused(
    tmp_path: Path, write_study: Studies, results_dir: Path
) -> None:
    few = ASKED | {"distances": {"n_sequences": 4}}
    with pytest.raises(UserError, match=r"distances.n_sequences 4: with step_by_step at least 8"):
        check(study.load(str(write_study(tmp_path, **few))))


def test_a_schedule_has_a_name_of_its_own(opened: OpenStudy) -> None:
    names = [one.name for one in schedules(opened)]
    assert len({*names}) == len(names) == 2
    assert isinstance(next(outcomes(opened, schedules(opened)[0])), Condition)
