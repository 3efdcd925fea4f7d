"""The tables of the ablations, also where healing broke down."""

import math
import statistics

import pytest
from ablation_study import hits, similar
from test_comparisons import by_loop
from test_rules import paper_is_right

from lib import claims
from lib.experiments import conditions, probes
from lib.experiments.opened import OpenStudy
from lib.open_sets import healing
from lib.schema import Task
from lib.sections import healing_seeds, lora_rank, prompts, strategies, tables, teacher

# The tables.


def test_prompts_are_tabled_by_order_and_by_number(ablated):
    table = prompts.prompts_table(ablated)
    models_ = prompts.prompt_models(ablated)
    assert len(models_) == 5
    rows = table.groupby(["varied", "shots", "order"]).size().to_dict()
    keys = {("order", 5, order) for order in range(3)} | {("shots", 5, 0), ("shots", 0, 0)}
    assert rows == dict.fromkeys(keys, 5)
    for row in table.itertuples():
        (one,) = (
            one
            for one in models_
            if (one.strategy, one.dropped.n, one.recipe) == (row.strategy, row.n, row.healing)
        )
        task = Task(name="quiz", shots=row.shots, order=row.order, limit=20)
        assert row.accuracy == statistics.mean(hits(ablated, one, task)) and row.n_questions == 20


def test_other_orders_are_compared_with_the_harnesss_own(ablated):
    table = prompts.prompts_compared(ablated).query("varied == 'order'")
    found = set(table[["models", "order", "shots"]].itertuples(index=False, name=None))
    assert found == {(kind, order, 5) for kind in ("healed", "unhealed") for order in (1, 2)}
    for row in table.itertuples():
        (one,) = similar(ablated, row.models == "healed")
        task = Task(name="quiz", shots=5, limit=20)
        own = hits(ablated, one, task)
        other = hits(ablated, one, task.model_copy(update={"order": row.order}))
        assert (row.difference, row.stderr) == pytest.approx(by_loop([other], [own]))
        assert (row.base, row.prunings, row.n_questions) == ("order 0", 1, 20)
    assert table["stderr"].any()


def test_other_numbers_of_examples_are_compared_with_the_smallest(ablated):
    table = prompts.prompts_compared(ablated).query("varied == 'shots'")
    assert list(table["models"]) == ["unhealed", "healed"]
    for row in table.itertuples():
        (one,) = similar(ablated, row.models == "healed")
        more, none = (Task(name="quiz", shots=shots, limit=20) for shots in (5, 0))
        sides = [[hits(ablated, one, more)], [hits(ablated, one, none)]]
        assert (row.difference, row.stderr) == pytest.approx(by_loop(*sides))
        assert (row.compared, row.base, row.shots) == ("5 examples", "0 examples", 5)
    assert table["difference"].any()


def test_other_seeds_are_compared_with_the_studys_own(ablated):
    table = healing_seeds.seeds_compared(ablated)
    quiz = ablated.study.tasks[0]
    models_ = {one.healing.seed: one for one in conditions.seed_conditions(ablated) if one.healing}
    (row,) = table.itertuples()
    sides = [[hits(ablated, models_[seed], quiz)] for seed in (2, 5)]
    assert (row.difference, row.stderr) == pytest.approx(by_loop(*sides))
    assert (row.compared, row.base) == ("seed 2", "seed 5")
    assert (row.task, row.shots, row.n_questions) == ("quiz", 0, 24)
    seeds = healing_seeds.seeds_table(ablated)
    assert sorted(seeds["seed"]) == [2, 2, 5, 5]
    assert seeds[seeds["metric"] == "accuracy"]["value"].nunique() > 1


def test_strategies_are_compared_healed_and_not(ablated):
    table = strategies.strategies_compared(ablated)
    assert list(table["models"]) == ["unhealed", "healed"]
    quiz = ablated.study.tasks[0]
    for row in table.itertuples():
        sides = []
        for strategy in ("similarity", "simple"):
            (one,) = (
                one
                for one in conditions.main_conditions(ablated)
                if (one.strategy, one.dropped.n) == (strategy, 3)
                and bool(one.healing) == (row.models == "healed")
            )
            sides.append([hits(ablated, one, quiz)])
        assert (row.difference, row.stderr) == pytest.approx(by_loop(*sides))
        assert (row.compared, row.base, row.prunings) == ("similarity", "simple", 1)


def test_ranks_are_compared_with_the_lowest(ablated):
    (row,) = lora_rank.ranks_compared(ablated).itertuples()
    assert (row.compared, row.base, row.prunings) == ("rank 4", "rank 2", 2)
    quiz = ablated.study.tasks[0]
    sides = [
        [
            hits(ablated, one, quiz)
            for one in conditions.rank_conditions(ablated)
            if one.healing and one.healing.rank == rank
        ]
        for rank in (4, 2)
    ]
    assert (row.difference, row.stderr) == pytest.approx(by_loop(*sides))


def test_what_a_teacher_changes_is_tabled_by_seed_and_summed_up(ablated):
    table = teacher.teacher_table(ablated)
    assert len(table) == 3 * 2 * 2  # ways, seeds, metrics
    for way, group in conditions.teacher_conditions(ablated).items():
        for one in group:
            rows = table[(table["way"] == way) & (table["seed"] == one.healing.seed)]
            assert set(rows["steps"]) == {one.healing.steps}
            assert (rows["seconds"] > 0).all()
            values = rows.set_index("metric")["value"]
            share = statistics.mean(hits(ablated, one, ablated.study.tasks[0]))
            loss = probes.recorded(ablated, one, ablated.study.loss)["loss"]
            assert values["accuracy"] == share
            assert values["normalized_loss"] == pytest.approx(loss / math.log(ablated.vocab_size))
    summary = teacher.teacher_summary(table)
    assert len(summary) == 3 * 2
    for row in summary.itertuples():
        rows = table[(table["way"] == row.way) & (table["metric"] == row.metric)]
        first, second = rows["value"]
        assert row.value == pytest.approx((first + second) / 2)
        assert row.stderr == pytest.approx(abs(first - second) / 2)  # s / √2 of two
        assert row.seconds == pytest.approx(statistics.mean(rows["seconds"]))
        assert row.seeds == 2


def test_without_a_teacher_the_tables_are_empty(ablated):
    for update in (
        {"healing": healing(recipe="full")},
        {"teacher": ablated.study.teacher.model_copy(update={"seeds": []})},
    ):
        table = teacher.teacher_table(OpenStudy(ablated.study.model_copy(update=update)))
        assert list(table.columns) == list(teacher.teacher_table(ablated).columns)
        assert table.empty and teacher.teacher_summary(table).empty


# Where healing broke down, nothing was measured.


@pytest.fixture
def breaking(monkeypatch):
    def let(broken):
        monkeypatch.setattr(tables, "broken", lambda _, one: bool(one.healing) and broken(one))

    return let


def test_without_the_studys_own_seed_none_is_compared(ablated, breaking):
    breaking(lambda one: one.healing.seed == 5)
    assert healing_seeds.seeds_compared(ablated).empty
    assert set(healing_seeds.seeds_table(ablated)["seed"]) == {2}


def test_where_everything_broke_down_tables_are_empty(ablated, breaking):
    columns = list(healing_seeds.seeds_table(ablated).columns)
    breaking(lambda one: True)
    found = healing_seeds.seeds_table(ablated)
    assert found.empty and list(found.columns) == columns
    for compared in (
        healing_seeds.seeds_compared(ablated),
        lora_rank.ranks_compared(ablated),
        strategies.strategies_compared(ablated),
        prompts.prompts_compared(ablated),
    ):
        assert compared.empty and "difference" in compared
    assert set(prompts.prompts_table(ablated)["healing"]) == {"none"}
    assert lora_rank.rank_table(ablated).empty
    assert teacher.teacher_summary(teacher.teacher_table(ablated)).empty


def test_without_the_whole_healed_model_no_healed_curve_is_fitted(ablated, breaking):
    found = conditions.main_conditions(ablated)
    before = tables.transition_table(ablated, found)
    assert set(before["healing"]) == {"none", "lora-r4"}
    breaking(lambda one: not one.dropped.n)
    assert set(tables.transition_table(ablated, found)["healing"]) == {"none"}
    qa = tables.qa_table(ablated, found)
    assert len(qa[qa["healing"] != "none"]) == 2


@pytest.mark.parametrize("gone", ["healing != 'none' and n == 0", "healing != 'none'"])
def test_a_flat_region_starts_at_the_whole_model(gone, results_dir):
    world = paper_is_right()
    world["qa"] = world["qa"].query(f"not ({gone})")
    for name, table in world.items():
        tables.write(results_dir / f"{name}.csv", table)
    (row,) = claims.verdicts(claims.Tables(results_dir), ["gromov-1"]).itertuples()
    assert row.verdict == "not testable here"
