"""Scores between 0 and 1, chance levels, and tasks that are not read: against counting by hand."""

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import Studies, write_jsonl

from lib import study as studies
from lib.book.comparing import agreement
from lib.claims.rules import reading
from lib.errors import UserError
from lib.evaluation import evaluate, harness, per_question
from lib.experiments.opened import OpenStudy
from lib.schema import Task
from lib.sections import figures, qa_transitions, tables, what_it_writes
from lib.statistics.transitions import fit

HELPERS = '''
import math


def mass(doc, results):
    """As truthfulqa_mc2: the share of probability that lies on what is right."""
    p = [math.exp(score) for score, _ in results]
    return {"acc": sum(p[i] for i in doc["several"]) / sum(p)}


def half(doc, results):
    return {"exact_match": 0.5}


def too_much(doc, results):
    return {"acc": 1.5}


def no_number(doc, results):
    return {"acc": float("nan")}


def commonest(items):
    return max(items)
'''
ACC = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
EXACT = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
MUTUAL = {"metric": "acc_mutual_info", "aggregation": "mean", "higher_is_better": True}
PROBABILITY = {"metric": "acc", "aggregation": "!commonest", "higher_is_better": True}
PERPLEXITY = {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}
GENERATED = {
    "output_type": "generate_until",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 2, "do_sample": False},
    "metric_list": EXACT,
}
# By name, what of the quiz's own task file is replaced; None: nothing of it.
TASKS: dict[str, dict[str, Any]] = {
    "mass": {"process_results": "!mass"},
    "half": GENERATED | {"process_results": "!half", "doc_to_choice": None},
    "too_much": {"process_results": "!too_much"},
    "no_number": {"process_results": "!no_number"},
    "mutual": {"metric_list": [*ACC, MUTUAL]},
    "several": {"doc_to_target": "several"},
    "words": {"doc_to_target": "word"},
    "written": GENERATED | {"doc_to_choice": None, "doc_to_target": "word"},
    "written_several": GENERATED | {"doc_to_choice": None, "doc_to_target": "both"},
    "same_place": {"doc_to_choice": "{{shifted}}", "doc_to_target": "{{1}}"},
    "inputs": {"doc_to_text": "{{answer}}", "doc_to_target": "{{' there.'}}"},
    "normed": {"metric_list": [{**ACC[0], "metric": "acc_norm"}]},
    "maximum": {"metric_list": [PROBABILITY]},
    "likely": {
        "output_type": "loglikelihood",
        "doc_to_choice": None,
        "doc_to_target": "word",
        "metric_list": ACC,
    },
}
TASKS["likelier"] = TASKS["likely"] | {"metric_list": [PERPLEXITY]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, write_study: Studies):
    """An opened study with all these tasks, and the rows of their questions."""
    folder = tmp_path_factory.mktemp("scores")
    path = write_study(folder)
    tasks = folder / "tasks"
    rows = []
    for i, line in enumerate((tasks / "quiz_test.jsonl").read_text("utf-8").splitlines()):
        row = json.loads(line)
        row["choices"] = row["choices"][: 3 + i % 2]
        row["answer"] = answer = row["answer"] % 3
        row["several"] = [answer, (answer + 1) % 3]
        row["word"] = row["choices"][answer]
        row["both"] = [row["choices"][place] for place in row["several"]]
        row["shifted"] = row["choices"][answer - 1 :] + row["choices"][: answer - 1]
        rows.append(row)
    write_jsonl(tasks / "quiz_test.jsonl", rows)
    (tasks / "helpers.py").write_text(HELPERS)
    own = yaml.safe_load((tasks / "quiz.yaml").read_text("utf-8"))
    for name, changes in TASKS.items():
        text = yaml.safe_dump(own | changes | {"task": name}, sort_keys=False)
        text = text.replace("'!", "!function helpers.'").replace("helpers.'", "helpers.")
        lines = [one.rstrip("'") if "!function" in one else one for one in text.splitlines()]
        (tasks / f"{name}.yaml").write_text("\n".join(lines) + "\n", "utf-8")
    asked = [Task(name=name, role="reading") for name in TASKS]
    opened = OpenStudy(studies.load(str(path)).model_copy(update={"tasks": asked}))
    return opened, rows


def value_of(opened: OpenStudy, name: str) -> dict[str, Any]:
    task = next(one for one in opened.study.tasks if one.name == name)
    return evaluate.accuracy(opened.model, opened.tokenizer, task, opened.task_manager, batch=8)


@torch.inference_mode()
def by_hand(opened: OpenStudy, row: dict[str, Any]) -> list[float]:
    """Log-likelihood of each choice."""
    found, known = [], len(opened.tokenizer.encode(row["question"]))
    for choice in row["choices"]:
        ids = opened.tokenizer.encode(f"{row['question']} {choice}")
        logs = opened.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        found.append(sum(float(logs[i - 1, ids[i]]) for i in range(known, len(ids))))
    return found


def test_a_probability_is_read_as_a_number(world) -> None:
    opened, rows = world
    expected = []
    for row in rows:
        p = np.exp(by_hand(opened, row))
        expected.append(p[row["several"]].sum() / p.sum())
    value = value_of(opened, "mass")
    assert value["correct"]["mass"] == pytest.approx(expected, abs=1e-4)
    assert value["accuracy"] == pytest.approx(np.mean(expected), abs=1e-4)
    spread = np.std(expected, ddof=1) / math.sqrt(len(rows))
    assert value["stderr"] == pytest.approx(spread, rel=1e-3)
    assert (value["guess"], value["constant"]) == (None, None)
    json.dumps(value, allow_nan=False)


def test_half_a_point_for_every_answer_is_half(world) -> None:
    opened, rows = world
    value = value_of(opened, "half")
    assert (value["accuracy"], value["stderr"], value["guess"]) == (0.5, 0, None)
    assert value["correct"]["half"] == [0.5] * len(rows)


@pytest.mark.parametrize(("name", "says"), [("too_much", "1.5"), ("no_number", "nan")])
def test_other_scores_are_one_line(world, name: str, says: str) -> None:
    opened, _ = world
    with pytest.raises(UserError, match=f"'{name}': 'acc' of question 0 is {says}; .*from 0 to 1"):
        value_of(opened, name)


def commonest(answers: list[set[str]]) -> float:
    every = set().union(*answers)
    return max(sum(one in right for right in answers) for one in every) / len(answers)


@pytest.mark.parametrize("name", ["mutual", "words", "same_place", "several", "inputs"])
def test_chance_follows_from_choices_and_what_is_right(world, name: str) -> None:
    opened, rows = world
    right = 2 if name == "several" else 1
    guess = [right / len(row["choices"]) for row in rows]
    answers = [set(row["both"]) if name == "several" else {row["word"]} for row in rows]
    value = value_of(opened, name)
    assert value["guess"] == pytest.approx(np.mean(guess))
    assert value["constant"] == pytest.approx(commonest(answers))


def test_several_right_answers_are_each_right(world) -> None:
    opened, rows = world
    right = "".join(str(int(np.argmax(by_hand(opened, r)) in r["several"])) for r in rows)
    assert value_of(opened, "several")["correct"]["several"] == right


@pytest.mark.parametrize("name", ["written", "written_several", "likely"])
def test_what_is_written_is_not_guessed(world, name: str) -> None:
    opened, rows = world
    answers = [set(row["both"]) if "several" in name else {row["word"]} for row in rows]
    value = value_of(opened, name)
    assert (value["guess"], value["constant"]) == (0, pytest.approx(commonest(answers)))


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("likelier", "is loglikelihood with perplexity; read are multiple_choice with acc, logl"),
        ("normed", "is multiple_choice with acc_norm; read are"),
        ("maximum", "its acc is aggregated by 'commonest'; only means"),
    ],
)
def test_tasks_of_other_kinds_are_refused_wherever_they_come_from(
    world, name: str, says: str, local: bool
) -> None:
    """lm-eval's own are looked at like those in the study's folder."""
    opened, _ = world
    study = opened.study if local else opened.study.model_copy(update={"task_path": []})
    with pytest.raises(UserError, match=says):
        harness.check_tasks(study, opened.task_manager, [Task(name=name)])
    harness.check_tasks(study, opened.task_manager, [Task(name="mass"), Task(name="several")])


@pytest.mark.parametrize("name", ["mutual", "several", "mass", "written_several", "inputs"])
def test_what_was_counted_by_requests_is_measured_again(world, name: str) -> None:
    opened, _ = world
    source = harness.task_source(opened.study, Task(name=name), opened.task_manager)
    plain = harness.task_source(opened.study, Task(name="quiz"), opened.task_manager)
    assert "scored" in source and "scored" not in plain
    assert source.get("choices") == ("prompts" if name == "inputs" else None)


def test_scores_are_spelled_so_that_records_stay() -> None:
    assert per_question.spelled([1.0, 0, True]) == "101"
    assert per_question.spelled([1.0, 0.25]) == [1.0, 0.25]
    both = {"a": "101", "b": [1.0, 0.25]}
    assert per_question.of_all_tasks(both).tolist() == [1, 0, 1, 1, 0.25]
    right = np.array([1.0] * 7 + [0.0] * 4)
    assert math.sqrt(per_question.variance(right)) == math.sqrt(7 / 11 * (1 - 7 / 11) / 10)


@pytest.fixture
def scored(world, monkeypatch: pytest.MonkeyPatch):
    """`scored({n: scores}, guess)`: an opened study of one task, unhealed models of which have
    these scores; its conditions."""
    opened, _ = world

    def make(scores: dict[int, list[float]], guess: float | None):
        study = opened.study.model_copy(
            update={"tasks": opened.study.tasks[:1], "pruned_layers": sorted(scores.keys() - {0})}
        )
        one = OpenStudy(study)
        one.chosen = lambda strategy, n: tables.UNPRUNED if n == 0 else _simple(n)

        def record(_: OpenStudy, condition: Any, probe: Any) -> dict[str, Any]:
            found = scores[condition.dropped.n]
            values = np.array(found, float)
            return {
                "accuracy": per_question.mean(values),
                "stderr": math.sqrt(per_question.variance(values)),
                "n_questions": len(values),
                "correct": {"mass": per_question.spelled(found)},
                "guess": guess,
                "constant": guess,
                "truncated_prompts": 0,
            }

        monkeypatch.setattr(tables, "record", record)
        conditions = [
            tables.Condition("simple" if n else "none", one.chosen("", n), "float32")
            for n in sorted(scores)
        ]
        return one, conditions

    return make


def _simple(n: int) -> Any:
    from lib.pruning.dropped import simple

    return simple(n, 6)


FALLING = {0: 0.96, 1: 0.95, 2: 0.93, 3: 0.55, 4: 0.3, 5: 0.26}


def test_a_step_in_numbers_is_the_step_in_answers(scored) -> None:
    """Half of each score, over half of the chance: the same curve, half as high."""
    random = np.random.default_rng(0)
    whole = {n: (random.random(400) < p).astype(float) for n, p in FALLING.items()}
    fits = []
    for factor in (1.0, 0.5):
        scores = {n: [float(factor * x) for x in of_n] for n, of_n in whole.items()}
        opened, conditions = scored(scores, factor * 0.25)
        fits.append(tables.transition_table(opened, conditions).iloc[0])
    assert fits[0]["fraction"] == pytest.approx(fits[1]["fraction"], abs=1e-3)
    assert fits[0]["low"] == pytest.approx(fits[1]["low"], abs=1e-2)
    assert 0.35 < fits[0]["fraction"] < 0.6


def test_a_narrow_spread_counts_as_it_is() -> None:
    """A score of 0.4 for all is well above a chance of 0.35, as a share of right answers is not."""
    f = np.arange(6) / 6
    level = np.array([0.4, 0.4, 0.4, 0.36, 0.35, 0.35])
    noise = np.random.default_rng(0).normal(0, 0.01, (6, 100))
    assert fit(f, level[:, None] + noise, 0.35) is not None
    right = np.random.default_rng(0).random((6, 100)) < level[:, None]
    assert fit(f, right.astype(float), 0.35) is None


def test_a_chance_that_is_not_known_is_said_and_fits_nothing(scored) -> None:
    scores = {n: [p, p / 2, p] for n, p in FALLING.items()}
    opened, conditions = scored(scores, None)
    qa = tables.qa_table(opened, conditions)
    assert qa[["guess", "constant", "chance"]].isna().all(axis=None)
    assert qa["accuracy"].tolist() == pytest.approx([5 / 6 * p for p in FALLING.values()])
    assert qa["by_subject_stderr"].tolist() == pytest.approx(qa["stderr"].tolist())
    transitions = tables.transition_table(opened, conditions)
    assert transitions["fraction"].isna().all() and len(transitions) == 1
    figure = qa_transitions.accuracy_panels(qa, transitions)
    assert [text.get_text() for text in figure.axes[0].texts] == ["chance is not known"]
    with pytest.raises(reading.Untestable, match="chance is not known on any task"):
        reading.testable_tasks(qa)


def test_where_one_chance_is_known_that_task_is_judged() -> None:
    base = {"strategy": "none", "state": "unhealed", "shots": 0, "accuracy": 0.9, "stderr": 0.01}
    qa = pd.DataFrame(
        [base | {"task": "known", "chance": 0.25}, base | {"task": "unknown", "chance": math.nan}]
    )
    assert reading.testable_tasks(qa) == [("known", 0)]


def test_levels_of_metrics_have_a_panel_without_a_line() -> None:
    _, panels = figures.grid(1, 1, width=4, height=3)
    figures.metric_levels(panels[0, 0], ("accuracy", "mass", 0), (0.6, None))
    assert len(panels[0, 0].lines) == 1
    assert panels[0, 0].texts[0].get_text() == "chance is not known"


def test_shares_of_questions_add_up(scored, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {0: [0.75, 0.5, 1.0, 0.0], 3: [0.25, 1.0, 1.0, 0.0]}
    opened, conditions = scored(scores, None)
    monkeypatch.setattr(what_it_writes, "curve", lambda _opened, _which: conditions)
    monkeypatch.setattr(what_it_writes, "answers", tables.answers)
    row = what_it_writes.question_table(opened).query("n == 3 and models == 'unhealed'").iloc[0]
    assert row[["kept", "lost", "gained", "wrong"]].tolist() == [1.75, 0.5, 0.5, 1.25]
    assert math.isnan(row["by_chance"])
    what_it_writes.question_panels(what_it_writes.question_table(opened))


def of_scores(scores: list[float]) -> dict[str, Any]:
    values = np.array(scores)
    value = {"accuracy": float(values.mean()), "stderr": 0.1, "n_questions": len(scores)}
    value |= {"guess": None, "constant": None, "correct": {"mass": scores}}
    made = {"processor": "one", "threads": 1, "packages": {}}
    inputs = {"weights": "float32", "healing": None, "task": "mass"}
    return {"kind": "qa", "name": "mass", "inputs": inputs, "value": value, "provenance": made}


@pytest.mark.parametrize(("moved", "outcome"), [(0.0, "equal"), (1e-7, "within"), (0.2, "differs")])
def test_two_runs_agree_where_scores_are_the_same_to_rounding(moved: float, outcome: str) -> None:
    scores = [0.25, 0.5, 0.75, 1.0]
    other = [0.25, 0.5 + moved, 0.75, 1.0]
    (judged,) = agreement.judge([of_scores(scores)], [of_scores(other)], {})
    assert judged.outcome == outcome, judged.says
