"""What counts as the same, and what as chance, on records made by hand and on simulated runs."""

import copy
import math

import numpy as np
import pandas as pd
import pytest

from lib.book.comparing.agreement import judge, spread
from lib.book.comparing.edited import edits, read

HERE = {"processor": "P", "threads": 2, "packages": {"torch": "1"}}
ELSEWHERE = HERE | {"processor": "Q"}


def record(kind, value, name="one", provenance=HERE, **inputs):
    plain = {"checkpoint": "c", "weights": "float32", "block": [1, 2], "healing": None}
    made = {"kind": kind, "name": name, "value": value, "provenance": provenance}
    return made | {"inputs": plain | inputs}


def answers(right, **about):
    """A record of answers, 1 where right."""
    share, count = float(np.mean(right)), len(right)
    value = {"accuracy": share, "stderr": math.sqrt(share * (1 - share) / (count - 1))}
    value |= {"n_questions": count, "correct": {"quiz": "".join(map(str, right))}}
    return record("qa", value, **({"task": {"name": "quiz"}, "source": "s"} | about))


def loss(value, **about):
    mean = {"loss": value, "stderr": 0.02 * value, "n_tokens": 900, "n_sequences": 50}
    return record("loss", mean, **({"text": "t", "sample": {"length": 9}} | about))


def judged(published, own, seeds=None):
    """The judgement of one pair."""
    (one,) = judge([published], [own], seeds or {})
    return one


# By numbers.


def test_numbers_may_differ_as_much_as_their_format_rounds():
    for factor, weights, outcome in [
        (1, "float32", "equal"),
        (1 + 3e-7, "float32", "within"),
        (1 + 3e-4, "float32", "differs"),
        (1 + 3e-4, "bf16", "within"),
        (1.03, "bf16", "differs"),
    ]:
        one, other = loss(2.0, weights=weights), loss(2.0, weights=weights, provenance=ELSEWHERE)
        other["value"]["loss"] *= factor
        assert (judged(one, other).outcome, judged(one, other).p) == (outcome, None)
        other["value"] |= {"loss": 2.0, "n_tokens": 901}  # counts are exact whatever the format
        assert judged(one, other).says == "n_tokens 900 / 901"


def test_few_answers_may_turn_and_none_on_the_same_machine():
    for turned, weights, provenance, outcome in [
        (1, "float32", HERE, "differs"),
        (1, "float32", ELSEWHERE, "within"),
        (2, "float32", ELSEWHERE, "differs"),
        (4, "bf16", HERE, "within"),
        (5, "bf16", ELSEWHERE, "differs"),
    ]:
        right = np.arange(200) % 2
        other = np.where(np.arange(200) < turned, 1 - right, right)  # accuracies may be the same
        one = answers(right, weights=weights)
        found = judged(one, answers(other, weights=weights, provenance=provenance))
        assert found.outcome == outcome
    assert judged(one, answers(right[1:], weights="bf16")).says.startswith("cannot be compared")


def test_written_texts_are_judged_only_where_nothing_may_differ():
    def texts(last, **about):
        return record("writing", {"prompts": ["a"], "texts": [f"b {last}"]}, **about)

    assert judged(texts("c"), texts("c", provenance=ELSEWHERE)).outcome == "equal"
    assert judged(texts("c"), texts("d", provenance=ELSEWHERE)).outcome == "shown"
    found = judged(texts("c"), texts("d"))
    assert (found.outcome, found.says) == ("differs", "texts[0] b c / b d")


def test_healed_models_are_judged_by_where_they_were_healed():
    recipe = {"seed": 0}
    one, other = loss(2.0, healing=recipe), loss(2.0001, healing=recipe)
    trained = record("healing", {"train_loss": [3.0]}, healing=recipe)
    elsewhere = copy.deepcopy(trained) | {"provenance": HERE | {"threads": 1}}
    for healing, outcome in ((trained, "differs"), (elsewhere, "chance")):
        found = judge([one, trained], [other, healing], {})
        assert [of.outcome for of in found] == [outcome, "equal"]
    elsewhere["value"] = {"train_loss": [3.1]}
    assert judged(trained, elsewhere).outcome == "shown"
    assert judged(trained, loss(2.0)).outcome == "missing"


# By chance.


def test_what_seeds_make_is_pooled_over_tasks_and_prunings():
    cells = {"task": "quiz", "strategy": "similarity", "healing": "q", "weights": "nf4"}
    rows = [
        {"metric": metric, "dropped": dropped, "seed": seed, "value": value, "shots": shots} | cells
        for metric, shots, values in [
            ("accuracy", 0, {"1": [0.5, 0.52, 0.54], "1 5": [0.3, 0.34]}),
            ("normalized_loss", None, {"1": [1.0, 1.02], "1 5": [4.0, 4.0], "3": [2.0]}),
        ]
        for dropped, several in values.items()
        for seed, value in enumerate(several)
    ]
    found = spread(pd.DataFrame(rows))
    # Variances 0.0004 (twice free) and 0.0008; of losses (0.02²/2)/1.01² and 0.
    assert found["qa"] == (pytest.approx(math.sqrt((2 * 0.0004 + 0.0008) / 3)), 3)
    assert found["loss"] == (pytest.approx(math.sqrt(0.0002 / 1.01**2 / 2)), 2)
    assert spread(pd.DataFrame(rows).head(1)) == {}


def simulated(rng, count, shift):
    """Records of healed models that answer 200 questions, of two runs: each turns some answers of
    one in ten; of the fourth the second run loses `shift`, too."""
    sides = [], []
    for i in range(count):
        known = rng.random(200)
        one, other = (
            np.where(rng.random(200) < 0.1, rng.random(200) < 0.5, known < 0.7).astype(int)
            for _ in range(2)
        )
        if i == 3:
            other[rng.random(200) < shift] = 0
        about = {"healing": {"seed": i}, "name": str(i)}
        sides[0].append(answers(one, **about))
        sides[1].append(answers(other, **about, provenance=ELSEWHERE))
    return sides


def test_noise_in_many_records_is_chance_and_a_shift_is_found():
    def named(shift):
        found = judge(*simulated(rng, 150, shift), {"qa": (0.01, 40)})
        return [one.own["name"] for one in found if one.outcome == "differs"]

    rng = np.random.default_rng(0)
    assert sum(bool(named(0.0)) for _ in range(20)) <= 2  # of 20 runs one at most is expected
    assert named(0.3) == ["3"]


def test_losses_of_healed_models_are_measured_by_what_seeds_make():
    one, near, far = (
        loss(value, healing={"seed": 0}, provenance=at)
        for value, at in [(2.0, HERE), (2.02, ELSEWHERE), (2.2, ELSEWHERE)]
    )
    seeds = {"loss": (0.005, 8)}  # 0.01 apart are √2 · 0.005 · 2.01 = 0.0142; t(8) of 1.41: 0.2
    assert judged(one, near, seeds).p == pytest.approx(0.1973, abs=1e-3)
    assert judged(one, near, seeds).outcome == "chance"
    assert judged(one, far, seeds).outcome == "differs"
    # Where that is not known, with both standard errors: 0.2 / √(0.04² + 0.044²) is 3.4 of them.
    assert judged(one, far).p == pytest.approx(0.0015, abs=1e-4)
    assert judged(one, far).p < judged(one, far, {"loss": (0.005, 3)}).p


# Tables.


def test_rows_are_matched_by_what_they_are_about_and_cells_but_for_last_digits(tmp_path):
    def lines(stands, gives):
        for name, text in {"stands": stands, "gives": gives}.items():
            (tmp_path / f"{name}.csv").write_text(text)
        return edits("t.csv", read(tmp_path / "stands.csv"), read(tmp_path / "gives.csv"))

    gives = "task,dropped,start,value\nquiz,3 7,,0.12345678\nquiz,,0,\nquiz,1 2,1,0.5\n"
    assert lines(gives.replace("5678", "5679"), gives) == []
    header, *rows = gives.splitlines(keepends=True)
    assert lines(header + "".join(reversed(rows)), gives) == []
    assert lines("task,start,value\nquiz,,0.12345678\nquiz,0,\nquiz,1,0.5\n", gives) == []  # older
    assert lines(gives.replace("5678", "6678"), gives) == [
        "t.csv line 2 (task quiz, dropped 3 7): value is 0.12346678, its records give 0.12345678"
    ]
    assert lines(gives.replace("0,\n", "0,0\n"), gives) == [
        "t.csv line 3 (task quiz): value is 0, its records give empty"
    ]
    assert lines(gives.replace("1 2", "1 3"), gives) == [
        "t.csv line 4 (task quiz, dropped 1 3): its records give no such row",
        "t.csv: lacks a row that its records give (task quiz, dropped 1 2)",
    ]
    assert lines(gives.replace("value", "v"), gives) == ["t.csv: its records give no column 'v'"]
    assert lines(gives.replace("0.5", "0.5,1"), gives) == ["t.csv: is empty, or no table"]
    assert lines("", gives) == ["t.csv: is empty, or no table"]
