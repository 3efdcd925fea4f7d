"""Which models are asked what, with which prompts, and that none is asked twice."""

import pytest
from ablation_study import all_conditions, hits, similar
from conftest import write_task
from test_rules import paper_is_right

from lib import claims
from lib import study as studies
from lib.errors import UserError
from lib.evaluation import harness
from lib.evidence.store import Store
from lib.experiments import conditions, measure, probes
from lib.experiments.conditions import TEACHING
from lib.experiments.opened import OpenStudy
from lib.healing import heal
from lib.healing.teacher import relative_cost
from lib.models import checkpoints
from lib.open_sets import healing
from lib.schema import Task
from lib.sections import lora_rank, tables

# Which models there are, and what they are asked.


@pytest.mark.parametrize("recipe", ["qlora", "lora", "full"])
@pytest.mark.parametrize("wanted", [[1, 3], [1], None], ids=str)
def test_every_model_is_listed_once(ablated, recipe, wanted):
    recipe = healing(recipe=recipe, fractions=[0.2, 0.5])
    update = {"healing": recipe, "pruned_layers": wanted}
    other = OpenStudy(ablated.study.model_copy(update=update))
    found = conditions.main_conditions(other)
    keys = [(one.strategy, one.dropped.n, one.recipe, one.weights) for one in found]
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
                table = table[table["state"] != "control"]
                table = table.assign(weights="float32").replace({"qlora-r8": name})
            world[key] = table
        for key, table in world.items():
            tables.write(results_dir / name / "tables" / f"{key}.csv", table)
        found.append(claims.verdicts(claims.Tables(results_dir / name / "tables")))
    assert found[0]["verdict"].equals(found[1]["verdict"])
    assert (found[0]["verdict"] == "reproduced").sum() == 11


def test_one_task_is_asked_in_orders_and_numbers(ablated):
    found = ablated.prompt_tasks
    assert len(set(found)) == len(found)
    assert {(task.name, task.limit, task.role) for task in found} == {("quiz", 20, "knowledge")}
    asked = {(task.shots, task.order) for task in found}
    assert asked == {(5, 0), (5, 1), (5, 2), (0, 0)}


def prompts(ablated, tasks, **changes):
    study = ablated.study.model_copy(
        update={"tasks": tasks, "prompts": ablated.study.prompts.model_copy(update=changes)}
    )
    return OpenStudy(study).prompt_tasks


def test_the_task_of_the_prompts_is_the_first_of_knowledge_or_the_one_named(ablated):
    tasks = [
        Task(name="read", role="reading"),
        Task(name="know", limit=7, role="knowledge"),
        Task(name="know", shots=3, limit=5, role="knowledge"),
        Task(name="more", limit=9, role="knowledge"),
    ]
    # Its limit is that of the same number of examples, where the study asks it so.
    for shots, limit in ((3, 5), (2, 7)):
        found = prompts(ablated, tasks, limit=None, shots=shots)
        assert {(task.name, task.limit) for task in found} == {("know", limit)}
    assert {task.limit for task in prompts(ablated, tasks)} == {20}
    assert {task.name for task in prompts(ablated, tasks, task="more")} == {"more"}
    assert {task.name for task in prompts(ablated, tasks[:1])} == {"read"}


def test_only_models_of_one_curve_are_asked_the_prompts(ablated):
    tasks = set(ablated.prompt_tasks)
    seen = []
    for one in all_conditions(ablated):
        found = conditions.asked(ablated, one)
        assert found[0] == ablated.study.tasks[0] and len(set(found)) == len(found)
        if tasks <= set(found):
            key = (one.strategy, one.dropped.n, one.healing)
            seen += [key] if key not in seen else []
        else:
            assert not tasks & set(found)
    recipe = ablated.study.healing
    assert seen == [
        ("none", 0, None),
        *(("similarity", n, None) for n in (1, 3)),
        ("none", 0, recipe),
        ("similarity", 3, recipe),
    ]


def test_seeds_and_ways_of_teaching_change_one_thing_each(ablated):
    recipe = ablated.study.healing
    seeds = [one.healing for one in conditions.seed_conditions(ablated) if one.healing]
    assert [one.seed for one in seeds] == [2, 5]
    assert all(one.model_copy(update={"seed": 5}) == recipe for one in seeds)
    ways = conditions.teacher_conditions(ablated)
    assert tuple(ways) == TEACHING
    for plain, longer, taught in zip(*ways.values(), strict=True):
        assert plain.dropped == longer.dropped == taught.dropped == ablated.chosen("similarity", 3)
        factor = relative_cost(ablated.config, plain.dropped)
        assert longer.healing.steps == round(4 * factor) > 4
        assert longer.healing.model_copy(update={"steps": 4}) == plain.healing
        assert taught.healing.model_copy(update={"teacher": 0.0}) == plain.healing
        assert taught.healing.teacher == 2.0
        assert plain.healing.model_copy(update={"seed": 5}) == recipe
    assert [one.healing.seed for one in ways[TEACHING[0]]] == [5, 2]


def test_where_all_weights_are_trained_nobody_teaches(ablated):
    full = healing(recipe="full")
    other = OpenStudy(ablated.study.model_copy(update={"healing": full}))
    assert conditions.teacher_conditions(other) == {way: [] for way in TEACHING}


def test_without_adapters_there_are_no_ranks(ablated):
    full = healing(recipe="full")
    other = OpenStudy(ablated.study.model_copy(update={"healing": full}))
    found = conditions.rank_conditions(other)
    assert not any(one.healing for one in found)
    assert lora_rank.rank_table(other).empty
    assert lora_rank.ranks_compared(other).empty


def test_a_task_has_one_row_in_the_tables(write_study, tmp_path):
    """Which do not say in which order its examples stood."""
    tasks = [
        {"name": "quiz", "shots": 2, "role": "knowledge"},
        {"name": "quiz", "shots": 2, "order": 1, "role": "knowledge"},
    ]
    with pytest.raises(UserError, match="tasks lists the same value twice"):
        studies.load(str(write_study(tmp_path, tasks=tasks)))


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


def heard(ablated, task) -> list[tuple[list[str], str, str]]:
    """Examples, question and choice of every request."""
    model = listener()
    harness.Questions(task, ablated.task_manager).ask(model)
    return [(*split(prompt), choice) for prompt, choice in model.asked]


def split(prompt: str) -> tuple[list[str], str]:
    *examples, question = prompt.split("\n\n")
    return examples, question


@pytest.mark.parametrize("shots", [5, 8])
def test_orders_hold_the_same_examples(ablated, shots):
    own, *others = (
        heard(ablated, Task(name="quiz", shots=shots, order=order, limit=6)) for order in range(3)
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


@pytest.mark.parametrize(("shots", "orders"), [(2, 2), (3, 6), (4, 5)])
def test_no_two_orders_are_alike(ablated, shots, orders):
    limited = ablated.study.prompts.model_copy(
        update={"shots": shots, "orders": orders, "limit": 2}
    )
    other = OpenStudy(ablated.study.model_copy(update={"prompts": limited}))
    tasks = [task for task in other.prompt_tasks if task.shots == shots]
    assert len(tasks) == orders and tasks[0].order == 0
    asked = [tuple(tuple(examples) for examples, *_ in heard(other, task)) for task in tasks]
    assert len(set(asked)) == orders


def test_of_two_examples_there_are_no_three_orders(write_study, tmp_path):
    with pytest.raises(UserError, match=r"prompts.*2 examples have no 3 orders"):
        studies.load(str(write_study(tmp_path, prompts={"shots": 2, "orders": 3})))


def test_the_first_order_is_the_harnesss_own(ablated):
    """After others, of which nothing is left, it is what lm-eval asks by itself."""
    heard(ablated, Task(name="quiz", shots=3, order=1, limit=6))
    found = heard(ablated, Task(name="quiz", shots=3, limit=6))
    alone = listener()
    harness.harness().simple_evaluate(
        alone,
        tasks=["quiz"],
        num_fewshot=3,
        limit=6,
        task_manager=ablated.task_manager,
        bootstrap_iters=0,
    )
    assert found == [(*split(prompt), choice) for prompt, choice in alone.asked]


def test_orders_do_not_share_evidence(ablated):
    """And what was recorded before there were orders stays."""
    one = similar(ablated, healed=False)[0]
    tasks = [task for task in ablated.prompt_tasks if task.shots == 5]
    inputs = [probes.probe_inputs(ablated, one, task) for task in tasks]
    assert ["order" in given["task"] for given in inputs] == [False, True, True]
    kinds_and_names = [probes.kind_and_name(one, task) for task in tasks]
    found = [ablated.store.path(*k, g) for k, g in zip(kinds_and_names, inputs, strict=True)]
    assert len(set(found)) == len({path.name.rpartition("-")[2] for path in found}) == 3
    assert all(path.exists() for path in found)


# What is recorded is not measured again.


def test_what_is_recorded_is_not_measured_again(ablated, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("measured again")

    again = OpenStudy(ablated.study)
    monkeypatch.setattr(Store, "put", refuse)
    monkeypatch.setattr(checkpoints, "load_model", refuse)
    monkeypatch.setattr(heal, "heal", refuse)
    measure.measure(again, all_conditions(again))
    table = tables.qa_table(again, conditions.main_conditions(again))
    assert len(table) == 1 + 2 * 2 + 1 + 2


def test_a_healed_model_is_asked_more_without_being_trained_again(ablated, monkeypatch, tmp_path):
    """And answers as one does that was healed and asked at once, with no results from before."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    write_task(folder, "later", 40)
    later = Task(name="later")
    tasks = {"tasks": [*ablated.study.tasks, later], "task_path": [str(folder)]}
    write_task(folder)
    more = OpenStudy(ablated.study.model_copy(update=tasks))
    wanted = similar(more, healed=True)
    with monkeypatch.context() as patch:
        patch.setattr(heal, "heal", None)
        measure.measure(more, wanted)
    fresh_results = tmp_path / "fresh"
    monkeypatch.setenv("RESULTS_DIR", str(fresh_results))
    fresh = OpenStudy(more.study)
    fresh.__dict__["distances"] = ablated.measure_distances()
    measure.measure(fresh, wanted)
    assert list(fresh_results.rglob("evidence/healing/*.json"))
    answered = [hits(one, wanted[0], later) for one in (more, fresh)]
    assert answered[0] == answered[1]
    unhealed = similar(fresh, healed=False)
    measure.measure(fresh, unhealed)
    assert hits(fresh, unhealed[0], later) != answered[0]
