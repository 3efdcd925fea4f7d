"""Prompts, seeds, ranks and a teacher: which models are asked what, once, and the tables of it."""

import json
import math
import statistics
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import write_task
from test_comparisons import by_loop
from test_rules import paper_is_right
from transformers import AutoConfig, AutoModelForCausalLM

from lib import ablations, check, claims, conditions, harness, healing, measure, models, tables
from lib import study as studies
from lib.bench import Bench
from lib.blocks import Block
from lib.conditions import TEACHING
from lib.errors import UserError
from lib.evidence import Store
from lib.schema import Task
from lib.teacher import Teacher, relative_cost

STUDY = {
    "pruned_layers": [1, 3],
    "healing": {"recipe": "lora", "learning_rate": 0.3, "steps": 4, "seed": 5},
    "prompts": {"shots": 5, "orders": 3, "numbers": [5, 0], "limit": 20},
    "healing_seeds": {"seeds": [2], "fractions": [0.5]},
    "teacher": {"seeds": [5, 2], "fractions": [0.5], "weight": 2.0},
    "lora_rank": {"ranks": [2], "fractions": [0.5]},
    "writing": {"n_prompts": 1, "tokens": 2},
}


def all_conditions(bench) -> list:
    """What the sections on ablations ask for, one after the other."""
    return [
        *conditions.main_conditions(bench),
        *conditions.rank_conditions(bench),
        *conditions.seed_conditions(bench),
        *(one for group in conditions.teacher_conditions(bench).values() for one in group),
    ]


@pytest.fixture(scope="module")
def file(write_study, tmp_path_factory):
    return str(write_study(tmp_path_factory.mktemp("ablations"), **STUDY))


@pytest.fixture(scope="module")
def bench(file, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULTS_DIR", str(tmp_path_factory.mktemp("results")))
        bench = Bench(studies.load(file))
        measure.measure(bench, all_conditions(bench))
        yield bench


def hits(bench, condition, task) -> list[int]:
    return [int(one) for one in measure.recorded(bench, condition, task)["correct"][task.name]]


def similar(bench, healed: bool) -> list:
    """Similarity-informed prunings of half the layers, healed with the study's recipe or not."""
    (found,) = (
        one
        for one in conditions.main_conditions(bench)
        if one.strategy == "similarity" and one.block.n == 3 and bool(one.healing) == healed
    )
    return [found]


# Which models there are, and what they are asked.


@pytest.mark.parametrize("recipe", ["qlora", "lora", "full"])
@pytest.mark.parametrize("wanted", [[1, 3], [1], None], ids=str)
def test_every_model_is_listed_once(bench, recipe, wanted):
    recipe = bench.study.healing.model_copy(update={"recipe": recipe, "fractions": [0.2, 0.5]})
    update = {"healing": recipe, "pruned_layers": wanted}
    other = Bench(bench.study.model_copy(update=update))
    other.__dict__["distances"] = bench.distances
    found = conditions.main_conditions(other)
    keys = [(one.strategy, one.block.n, one.recipe, one.weights) for one in found]
    assert len(set(keys)) == len(keys)
    healed = {(s, n) for s, n, name, _ in keys if name != "none"}
    assert healed == {("none", 0)} | {(s, n) for s in ("similarity", "simple") for n in (1, 3)}
    format_ = "nf4" if recipe.recipe == "qlora" else "float32"
    controls = {(s, n) for s, n, name, weights in keys if (name, weights) == ("none", format_)}
    assert healed <= controls  # each has its control, in the weights that it started from
    plain = {n for _, n, name, weights in keys if (name, weights) == ("none", "float32")}
    assert plain >= {0, *(wanted or range(1, 6))}


@pytest.mark.parametrize("recipe", ["lora-r8", "full"])
def test_claims_are_judged_whatever_the_recipe(recipe, results_dir):
    """Of other recipes than qlora the controls are the unhealed models themselves: where these are
    as good in 4-bit, nothing changes."""
    found = []
    for name in ("qlora-r8", recipe):
        world = paper_is_right()
        for key in ("qa", "loss", "transitions"):
            table = world[key]
            if name != "qlora-r8":
                table = table[(table["healing"] != "none") | (table["weights"] != "nf4")]
                table = table.assign(weights="float32").replace({"qlora-r8": name})
            world[key] = table
        for key, table in world.items():
            tables.write(results_dir / name / "tables" / f"{key}.csv", table)
        found.append(claims.verdicts(claims.Tables(results_dir / name / "tables")))
    assert found[0]["verdict"].equals(found[1]["verdict"])
    assert (found[0]["verdict"] == "reproduced").sum() == 11


def test_one_task_is_asked_in_orders_and_numbers(bench):
    found = bench.prompt_tasks
    assert len(set(found)) == len(found)
    assert {(task.name, task.limit, task.role) for task in found} == {("quiz", 20, "knowledge")}
    asked = {(task.shots, task.order) for task in found}
    assert asked == {(5, 0), (5, 1), (5, 2), (0, 0)}


def prompts(bench, tasks, **changes):
    study = bench.study.model_copy(
        update={"tasks": tasks, "prompts": bench.study.prompts.model_copy(update=changes)}
    )
    return Bench(study).prompt_tasks


def test_the_task_of_the_prompts_is_the_first_of_knowledge_or_the_one_named(bench):
    tasks = [
        Task(name="read", role="reading"),
        Task(name="know", limit=7),
        Task(name="know", shots=3, limit=5),
        Task(name="more", limit=9),
    ]
    # Its limit is that of the same number of examples, where the study asks it so.
    for shots, limit in ((3, 5), (2, 7)):
        found = prompts(bench, tasks, limit=None, shots=shots)
        assert {(task.name, task.limit) for task in found} == {("know", limit)}
    assert {task.limit for task in prompts(bench, tasks)} == {20}
    assert {task.name for task in prompts(bench, tasks, task="more")} == {"more"}
    assert {task.name for task in prompts(bench, tasks[:1])} == {"read"}


def test_only_models_of_one_curve_are_asked_the_prompts(bench):
    tasks = set(bench.prompt_tasks)
    seen = []
    for one in all_conditions(bench):
        found = conditions.asked(bench, one)
        assert found[0] == bench.study.tasks[0] and len(set(found)) == len(found)
        if tasks <= set(found):
            key = (one.strategy, one.block.n, one.healing)
            seen += [key] if key not in seen else []
        else:
            assert not tasks & set(found)
    recipe = bench.study.healing
    assert seen == [
        ("none", 0, None),
        *(("similarity", n, None) for n in (1, 3)),
        ("none", 0, recipe),
        ("similarity", 3, recipe),
    ]


def test_seeds_and_ways_of_teaching_change_one_thing_each(bench):
    recipe = bench.study.healing
    seeds = [one.healing for one in conditions.seed_conditions(bench) if one.healing]
    assert [one.seed for one in seeds] == [2, 5]
    assert all(one.model_copy(update={"seed": 5}) == recipe for one in seeds)
    ways = conditions.teacher_conditions(bench)
    assert tuple(ways) == TEACHING
    for plain, longer, taught in zip(*ways.values(), strict=True):
        assert plain.block == longer.block == taught.block == bench.block("similarity", 3)
        factor = relative_cost(bench.config, plain.block)
        assert longer.healing.steps == round(4 * factor) > 4
        assert longer.healing.model_copy(update={"steps": 4}) == plain.healing
        assert taught.healing.model_copy(update={"teacher": 0.0}) == plain.healing
        assert taught.healing.teacher == 2.0
        assert plain.healing.model_copy(update={"seed": 5}) == recipe
    assert [one.healing.seed for one in ways[TEACHING[0]]] == [5, 2]


def test_where_all_weights_are_trained_nobody_teaches(bench):
    full = bench.study.healing.model_copy(update={"recipe": "full"})
    other = Bench(bench.study.model_copy(update={"healing": full}))
    assert conditions.teacher_conditions(other) == {way: [] for way in TEACHING}


# What they are asked: the prompts themselves.


def listener():
    """A model for lm-eval that knows nothing, and remembers what it was asked."""
    base = harness.harness().api.model.LM

    class Listener(base):
        def loglikelihood(self, requests):
            self.asked = [request.args for request in requests]
            return [(0.0, False)] * len(requests)

        generate_until = loglikelihood_rolling = None

    return Listener()


def heard(bench, task) -> list[tuple[list[str], str, str]]:
    """Examples, question and choice of every request."""
    model = listener()
    harness.Questions(task, bench.task_manager).ask(model)
    return [(*split(prompt), choice) for prompt, choice in model.asked]


def split(prompt: str) -> tuple[list[str], str]:
    *examples, question = prompt.split("\n\n")
    return examples, question


@pytest.mark.parametrize("shots", [5, 8])
def test_orders_hold_the_same_examples(bench, shots):
    own, *others = (
        heard(bench, Task(name="quiz", shots=shots, order=order, limit=6)) for order in range(3)
    )
    permutations = set()
    for other in others:
        found = set()
        for (before, *asked), (after, *also) in zip(own, other, strict=True):
            assert asked == also and len(before) == len(set(before)) == shots
            found.add(tuple(before.index(example) for example in after))
        assert len(found) == 1  # for every question
        permutations |= found
    assert len(permutations) == 2
    assert all(sorted(one) == list(range(shots)) != list(one) for one in permutations)


def test_the_first_order_is_the_harnesss_own(bench):
    """After others, of which nothing is left, it is what lm-eval asks by itself."""
    heard(bench, Task(name="quiz", shots=3, order=1, limit=6))
    found = heard(bench, Task(name="quiz", shots=3, limit=6))
    alone = listener()
    harness.harness().simple_evaluate(
        alone,
        tasks=["quiz"],
        num_fewshot=3,
        limit=6,
        task_manager=bench.task_manager,
        bootstrap_iters=0,
    )
    assert found == [(*split(prompt), choice) for prompt, choice in alone.asked]


def test_orders_do_not_share_evidence(bench):
    """And what was recorded before there were orders stays."""
    one = similar(bench, healed=False)[0]
    tasks = [task for task in bench.prompt_tasks if task.shots == 5]
    inputs = [measure.probe_inputs(bench, one, task) for task in tasks]
    assert ["order" in given["task"] for given in inputs] == [False, True, True]
    kinds_and_names = [measure.kind_and_name(one, task) for task in tasks]
    found = [bench.store.path(*k, g) for k, g in zip(kinds_and_names, inputs, strict=True)]
    assert len(set(found)) == len({path.name.rpartition("-")[2] for path in found}) == 3
    assert all(path.exists() for path in found)


# What is recorded is not measured again.


def test_what_is_recorded_is_not_measured_again(bench, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("measured again")

    again = Bench(bench.study)
    monkeypatch.setattr(Store, "put", refuse)
    monkeypatch.setattr(models, "load_model", refuse)
    monkeypatch.setattr(healing, "heal", refuse)
    measure.measure(again, all_conditions(again))
    table = tables.qa_table(again, conditions.main_conditions(again))
    assert len(table) == 1 + 2 * 2 + 1 + 2


def test_a_healed_model_is_asked_more_without_being_trained_again(bench, monkeypatch, tmp_path):
    """And answers as one does that was healed and asked at once, with no results from before."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    write_task(folder, "later", 40)
    later = Task(name="later")
    tasks = {"tasks": [*bench.study.tasks, later], "task_path": str(folder)}
    write_task(folder)
    more = Bench(bench.study.model_copy(update=tasks))
    wanted = similar(more, healed=True)
    with monkeypatch.context() as patch:
        patch.setattr(healing, "heal", None)
        measure.measure(more, wanted)
    fresh_results = tmp_path / "fresh"
    monkeypatch.setenv("RESULTS_DIR", str(fresh_results))
    fresh = Bench(more.study)
    fresh.__dict__["distances"] = bench.distances
    measure.measure(fresh, wanted)
    assert list(fresh_results.rglob("evidence/healing/*.json"))
    answered = [hits(one, wanted[0], later) for one in (more, fresh)]
    assert answered[0] == answered[1]
    unhealed = similar(fresh, healed=False)
    measure.measure(fresh, unhealed)
    assert hits(fresh, unhealed[0], later) != answered[0]


# The tables.


def test_prompts_are_tabled_by_order_and_by_number(bench):
    table = ablations.prompts_table(bench)
    models_ = ablations.prompt_models(bench)
    assert len(models_) == 5
    rows = table.groupby(["varied", "shots", "order"]).size().to_dict()
    keys = {("order", 5, order) for order in range(3)} | {("shots", 5, 0), ("shots", 0, 0)}
    assert rows == dict.fromkeys(keys, 5)
    for row in table.itertuples():
        (one,) = (
            one
            for one in models_
            if (one.strategy, one.block.n, one.recipe) == (row.strategy, row.n, row.healing)
        )
        task = Task(name="quiz", shots=row.shots, order=row.order, limit=20)
        assert row.accuracy == statistics.mean(hits(bench, one, task)) and row.n_questions == 20


def test_other_orders_are_compared_with_the_harnesss_own(bench):
    table = ablations.prompts_compared(bench).query("varied == 'order'")
    found = set(table[["models", "order", "shots"]].itertuples(index=False, name=None))
    assert found == {(kind, order, 5) for kind in ("healed", "unhealed") for order in (1, 2)}
    for row in table.itertuples():
        (one,) = similar(bench, row.models == "healed")
        task = Task(name="quiz", shots=5, limit=20)
        own = hits(bench, one, task)
        other = hits(bench, one, task.model_copy(update={"order": row.order}))
        assert (row.difference, row.stderr) == pytest.approx(by_loop([other], [own]))
        assert (row.base, row.prunings, row.n_questions) == ("order 0", 1, 20)
    assert table["stderr"].any()


def test_other_numbers_of_examples_are_compared_with_the_smallest(bench):
    table = ablations.prompts_compared(bench).query("varied == 'shots'")
    assert list(table["models"]) == ["unhealed", "healed"]
    for row in table.itertuples():
        (one,) = similar(bench, row.models == "healed")
        more, none = (Task(name="quiz", shots=shots, limit=20) for shots in (5, 0))
        sides = [[hits(bench, one, more)], [hits(bench, one, none)]]
        assert (row.difference, row.stderr) == pytest.approx(by_loop(*sides))
        assert (row.compared, row.base, row.shots) == ("5 examples", "0 examples", 5)
    assert table["difference"].any()


def test_other_seeds_are_compared_with_the_studys_own(bench):
    table = ablations.seeds_compared(bench)
    quiz = bench.study.tasks[0]
    models_ = {one.healing.seed: one for one in conditions.seed_conditions(bench) if one.healing}
    (row,) = table.itertuples()
    sides = [[hits(bench, models_[seed], quiz)] for seed in (2, 5)]
    assert (row.difference, row.stderr) == pytest.approx(by_loop(*sides))
    assert (row.compared, row.base) == ("seed 2", "seed 5")
    assert (row.task, row.shots, row.n_questions) == ("quiz", 0, 24)
    seeds = ablations.seeds_table(bench)
    assert sorted(seeds["seed"]) == [2, 2, 5, 5]
    assert seeds[seeds["metric"] == "accuracy"]["value"].nunique() > 1


def test_strategies_are_compared_healed_and_not(bench):
    table = ablations.strategies_compared(bench)
    assert list(table["models"]) == ["unhealed", "healed"]
    quiz = bench.study.tasks[0]
    for row in table.itertuples():
        sides = []
        for strategy in ("similarity", "simple"):
            (one,) = (
                one
                for one in conditions.main_conditions(bench)
                if (one.strategy, one.block.n) == (strategy, 3)
                and bool(one.healing) == (row.models == "healed")
            )
            sides.append([hits(bench, one, quiz)])
        assert (row.difference, row.stderr) == pytest.approx(by_loop(*sides))
        assert (row.compared, row.base, row.prunings) == ("similarity", "simple", 1)


def test_ranks_are_compared_with_the_lowest(bench):
    (row,) = ablations.ranks_compared(bench).itertuples()
    assert (row.compared, row.base, row.prunings) == ("rank 4", "rank 2", 2)
    quiz = bench.study.tasks[0]
    sides = [
        [
            hits(bench, one, quiz)
            for one in conditions.rank_conditions(bench)
            if one.healing and one.healing.rank == rank
        ]
        for rank in (4, 2)
    ]
    assert (row.difference, row.stderr) == pytest.approx(by_loop(*sides))


def test_what_a_teacher_changes_is_tabled_by_seed_and_summed_up(bench):
    table = ablations.teacher_table(bench)
    assert len(table) == 3 * 2 * 2  # ways, seeds, metrics
    for way, group in conditions.teacher_conditions(bench).items():
        for one in group:
            rows = table[(table["way"] == way) & (table["seed"] == one.healing.seed)]
            assert set(rows["steps"]) == {one.healing.steps}
            assert (rows["seconds"] > 0).all()
            values = rows.set_index("metric")["value"]
            share = statistics.mean(hits(bench, one, bench.study.tasks[0]))
            loss = measure.recorded(bench, one, bench.study.loss)["loss"]
            assert values["accuracy"] == share
            assert values["normalized_loss"] == pytest.approx(loss / math.log(bench.vocab_size))
    summary = ablations.teacher_summary(table)
    assert len(summary) == 3 * 2
    for row in summary.itertuples():
        rows = table[(table["way"] == row.way) & (table["metric"] == row.metric)]
        first, second = rows["value"]
        assert row.value == pytest.approx((first + second) / 2)
        assert row.stderr == pytest.approx(abs(first - second) / 2)  # s / √2 of two
        assert row.seconds == pytest.approx(statistics.mean(rows["seconds"]))
        assert row.seeds == 2


# What a teacher costs.


@pytest.mark.parametrize("block", [Block(2, 5), Block(0, 3), Block(3, 6)], ids=str)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_a_step_with_a_teacher_costs_is_counted_by_hand(block, checkpointing):
    d, kv, ff, vocabulary, count = 64, 32, 176, 500, 6
    config = AutoConfig.for_model(
        "llama", hidden_size=d, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=ff, num_hidden_layers=count, vocab_size=vocabulary,
    )  # fmt: skip
    layer = 2 * d * d + 2 * d * kv + 3 * d * ff + 2 * d
    through_layers = (3 if checkpointing else 2) * (count - block.n) * layer
    through_head = 2 * vocabulary * d
    expected = (through_layers + through_head + block.stop * layer) / (
        through_layers + through_head
    )
    assert relative_cost(config, block, checkpointing) == pytest.approx(expected)


@pytest.mark.parametrize("block", [Block(2, 5), Block(0, 3), Block(3, 6)], ids=str)
def test_the_teacher_runs_up_to_the_end_of_the_block_and_no_further(block, tiny_checkpoint):
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint("llama"))
    layers = list(models.layers(model))
    teacher = Teacher(model, block)
    ran = []
    for number, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    model.lm_head.register_forward_hook(lambda *_: ran.append("head"))
    teacher.expected(model, {"input_ids": torch.arange(5, 15)[None]})
    assert ran == list(range(block.stop))


def test_no_healing_is_longer_than_what_the_texts_are_checked_for(bench):
    """Whatever the block, which is not known before distances are measured."""
    most = check._most_steps(bench)
    n_layers, recipe = bench.n_layers, bench.study.healing
    possible = [
        conditions.equal_time_steps(bench, recipe, Block(start, start + 3))
        for start in range(n_layers - 2)
    ]
    assert most == max(possible) > possible[0] > recipe.steps
    assert all(a <= b for a, b in pairwise(possible))


def documents(path: str) -> list[str]:
    return [json.loads(line)["text"] for line in Path(path).read_text("utf-8").splitlines()]


@pytest.mark.parametrize(
    ("changes", "enough"),
    [
        ({}, False),
        ({"teacher": {"seeds": []}}, True),
        ({"healing": {"recipe": "full"}}, True),
        ({"healing": {"batch": 5}}, True),
    ],
    ids=["longer with a teacher", "no seeds", "full", "small batch"],
)
def test_the_healing_text_has_to_last_for_the_longest_healing(
    write_study, tmp_path, tokenizer, changes, enough
):
    plain = {"recipe": "lora", "steps": 10, "length": 32}
    lines = studies.load(str(write_study(tmp_path))).healing_text.path
    rows = tokenizer(documents(lines))["input_ids"]
    batch = sum(map(len, rows)) // 32 // 10  # all windows there are, in ten steps
    settings = {"healing": {**plain, "batch": batch} | changes.get("healing", {})}
    path = write_study(
        tmp_path, **({k: v for k, v in changes.items() if k != "healing"} | settings)
    )
    if enough:
        check.check(studies.load(str(path)))
    else:
        with pytest.raises(UserError, match=r"healing\.jsonl: too short, it gives \d+ windows"):
            check.check(studies.load(str(path)))


@pytest.mark.parametrize(("batch", "enough"), [(60, True), (61, False)])
def test_documents_are_counted_where_they_are_not_packed(write_study, tmp_path, batch, enough):
    """120 of them, though there are many more windows."""
    recipe = {"steps": 2, "batch": batch, "length": 16}
    path = {}
    for packing in (True, False):
        path = write_study(tmp_path, healing=recipe | {"packing": packing}, teacher={"seeds": []})
        study = studies.load(str(path))
        assert len(documents(study.healing_text.path)) == 120
        if packing or enough:
            check.check(study)
        else:
            with pytest.raises(UserError, match="too short, it gives 120 documents"):
                check.check(study)
