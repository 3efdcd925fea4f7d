"""What counts as the same, and what as chance, on records made by hand and on simulated runs."""

import copy
import math

import numpy as np
import pandas as pd
import pytest

from lib.book.agreement import judge
from lib.book.chance import Spread, holm, spread
from lib.book.edits import edits
from lib.book.pairing import Pair, pairs

HERE = {"processor": "P", "threads": 2, "packages": {"torch": "1"}}
ELSEWHERE = HERE | {"processor": "Q"}


def record(kind, value, name="one", provenance=HERE, **inputs):
    plain = {"checkpoint": "c", "weights": "float32", "block": [1, 2], "healing": None}
    return {
        "kind": kind,
        "name": name,
        "inputs": plain | inputs,
        "value": value,
        "provenance": provenance,
    }


def answers(right, **about):
    """A record of answers, 1 where right."""
    right, count = np.asarray(right), len(right)
    share = float(right.mean())
    value = {
        "accuracy": share,
        "stderr": math.sqrt(share * (1 - share) / (count - 1)),
        "n_questions": count,
        "guess": 0.25,
        "constant": 0.3,
        "correct": {"quiz": "".join(map(str, right))},
    }
    return record("qa", value, **({"task": {"name": "quiz"}, "source": "s"} | about))


def loss(value, **about):
    mean = {"loss": value, "stderr": 0.02 * value, "n_tokens": 900, "n_sequences": 50}
    return record("loss", mean, **({"text": "t", "sample": {"length": 9}} | about))


def judged(published, own, seeds=Spread(), differs=()):  # noqa: B008
    """The judgement of one pair."""
    (one,) = judge([Pair(published, own, differs)], [published], [own], seeds)
    return one


# By numbers.


@pytest.mark.parametrize(
    ("factor", "weights", "outcome"),
    [
        (1, "float32", "equal"),
        (1 + 3e-7, "float32", "within"),
        (1 + 3e-4, "float32", "differs"),
        (1 + 3e-4, "bf16", "within"),
        (1.03, "bf16", "differs"),
    ],
)
def test_numbers_may_differ_as_much_as_their_format_rounds(factor, weights, outcome):
    one, other = loss(2.0, weights=weights), loss(2.0, weights=weights, provenance=ELSEWHERE)
    other["value"]["loss"] *= factor
    found = judged(one, other)
    assert found.outcome == outcome
    assert found.p is None
    assert found.size == pytest.approx(1 - 1 / factor)


def test_counts_are_exact_whatever_the_format():
    one, other = loss(2.0, weights="bf16"), loss(2.0, weights="bf16", provenance=ELSEWHERE)
    other["value"]["n_tokens"] = 901
    found = judged(one, other)
    assert found.outcome == "differs"
    assert found.says == "n_tokens 900 / 901"


@pytest.mark.parametrize(
    ("flips", "weights", "provenance", "outcome"),
    [
        (1, "float32", HERE, "differs"),
        (1, "float32", ELSEWHERE, "within"),
        (2, "float32", ELSEWHERE, "differs"),
        (4, "bf16", ELSEWHERE, "within"),
        (4, "bf16", HERE, "within"),
        (5, "bf16", ELSEWHERE, "differs"),
    ],
)
def test_few_answers_may_turn_and_none_on_the_same_machine(flips, weights, provenance, outcome):
    right = np.arange(200) % 2
    turned = right.copy()
    turned[:flips] = 1 - turned[:flips]  # the accuracy may stay the same
    one = answers(right, weights=weights)
    found = judged(one, answers(turned, weights=weights, provenance=provenance))
    assert found.outcome == outcome
    assert found.size == flips / 200


def distances(chosen, tied):
    table = {"n": [1, 1, 2], "start": [0, 1, 0], "distance": [0.2, 0.2 + tied, 0.3]}
    value = {
        "table": table | {"stderr": [0.01] * 3, "n_sequences": [8] * 3},
        "after_norm": {key: [] for key in ("n", "start", "distance", "stderr", "n_sequences")},
        "optimal": {"n": [1], "start": [chosen], "stop": [chosen + 1], "distance": [0.2]},
    }
    value["optimal"]["support"] = [0.4 + 0.2 * chosen]
    return record("distances", value, provenance=ELSEWHERE if chosen else HERE)


@pytest.mark.parametrize(("tied", "outcome"), [(1e-8, "within"), (1e-3, "differs")])
def test_another_block_may_be_chosen_only_where_both_are_as_similar(tied, outcome):
    found = judged(distances(0, tied), distances(1, tied))
    assert found.outcome == outcome


def test_written_texts_are_judged_only_where_nothing_may_differ():
    def texts(last, **about):
        return record("writing", {"prompts": ["a"], "texts": [f"b {last}"]}, **about)

    assert judged(texts("c"), texts("c", provenance=ELSEWHERE)).outcome == "equal"
    assert judged(texts("c"), texts("d", provenance=ELSEWHERE)).outcome == "shown"
    found = judged(texts("c"), texts("d"))
    assert found.outcome == "differs"
    assert found.says == "texts[0] b c / b d"


def test_healed_models_are_judged_by_where_they_were_healed():
    recipe = {"seed": 0}
    one, other = loss(2.0, healing=recipe), loss(2.0001, healing=recipe)
    trained = record("healing", {"train_loss": [3.0]}, healing=recipe)
    elsewhere = copy.deepcopy(trained) | {"provenance": HERE | {"threads": 1}}
    (found,) = judge([Pair(one, other)], [one, trained], [other, trained], Spread())
    assert found.outcome == "differs"
    (found,) = judge([Pair(one, other)], [one, trained], [other, elsewhere], Spread())
    assert found.outcome == "chance"
    (found,) = judge([Pair(trained, elsewhere)], [trained], [elsewhere], Spread())
    assert found.outcome == "equal"
    elsewhere["value"] = {"train_loss": [3.1]}
    assert judged(trained, elsewhere).outcome == "shown"


def test_records_that_cannot_be_compared_differ():
    one = answers([0, 1, 1])
    for value in ({}, {"correct": 3}, one["value"] | {"correct": {"quiz": "0x1"}}):
        other = copy.deepcopy(one) | {"value": value}
        found = judged(one, other)
        assert found.outcome == "differs"
        assert found.says
    one, other = loss(2.0), loss(2.5, checkpoint="d")
    other["value"]["stderr"] = 1e200  # its square is no float
    found = judged(one, other, differs=("checkpoint",))
    assert found.outcome == "differs"
    assert found.says.startswith("cannot be compared")


# By chance.


def test_holm_rejects_step_by_step():
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]  # .05/4, .05/3, .05/2
    assert holm([0.02, 0.02, 0.02]) == [False] * 3
    assert holm([0.03]) == [True]
    assert holm([]) == []


def test_what_seeds_make_is_pooled_over_tasks_and_fractions():
    cells = {"task": "quiz", "strategy": "similarity", "healing": "q", "weights": "nf4"}
    rows = [
        {"metric": metric, "n": n, "seed": seed, "value": value, "shots": shots} | cells
        for metric, shots, values in [
            ("accuracy", 0, {1: [0.5, 0.52, 0.54], 2: [0.3, 0.34]}),
            ("normalized_loss", None, {1: [1.0, 1.02], 2: [4.0, 4.0], 3: [2.0]}),
        ]
        for n, several in values.items()
        for seed, value in enumerate(several)
    ]
    found = spread(pd.DataFrame(rows))
    # Variances 0.0004 (twice free) and 0.0008; of losses (0.02²/2)/1.01² and 0.
    assert found.accuracy == (pytest.approx(math.sqrt((2 * 0.0004 + 0.0008) / 3)), 3)
    assert found.loss == (pytest.approx(math.sqrt(0.0002 / 1.01**2 / 2)), 2)
    assert spread(None) == spread(pd.DataFrame(rows).head(1)) == Spread()


def healed(seed):
    return {"healing": {"seed": seed}}


def simulated(rng, count, shift):
    """Pairs of healed models that answer 200 questions: each turns some answers of one in ten;
    one pair's second model loses `shift` of them too."""
    found = []
    for i in range(count):
        known = rng.random(200)
        one, other = (
            np.where(rng.random(200) < 0.1, rng.random(200) < 0.5, known < 0.7).astype(int)
            for _ in range(2)
        )
        if i == 3:
            other[rng.random(200) < shift] = 0
        about = healed(i) | {"name": str(i)}
        found.append(Pair(answers(one, **about), answers(other, **about, provenance=ELSEWHERE)))
    return found


def named(found):
    one, other = [pair.published for pair in found], [pair.own for pair in found]
    judgements = judge(found, one, other, Spread((0.01, 40), (0.005, 8)))
    return [one.pair.own["name"] for one in judgements if one.outcome == "differs"]


def test_noise_in_many_records_is_chance_and_a_shift_is_found():
    rng = np.random.default_rng(0)
    falsely = sum(bool(named(simulated(rng, 150, 0.0))) for _ in range(20))
    assert falsely <= 2  # of 20 runs one at most is expected
    assert named(simulated(rng, 150, 0.3)) == ["3"]


def test_losses_of_healed_models_are_measured_by_what_seeds_make():
    one, near, far = (
        loss(value, **healed(0), provenance=at)
        for value, at in [(2.0, HERE), (2.02, ELSEWHERE), (2.2, ELSEWHERE)]
    )
    seeds = Spread(loss=(0.005, 8))
    assert judged(one, near, seeds).size == pytest.approx(0.02 / (math.sqrt(2) * 0.005 * 2.01))
    assert judged(one, near, seeds).outcome == "chance"
    assert judged(one, far, seeds).outcome == "differs"
    # Where that is not known, with both standard errors: 0.2 / √(0.04² + 0.044²) is 3.4 of them.
    unknown = judged(one, far)
    assert unknown.size == pytest.approx(0.2 / math.hypot(0.04, 0.044))
    assert unknown.p > judged(one, far, seeds).p
    # Where seeds made no difference at all, too: any difference would be beyond chance.
    assert judged(one, near, Spread(loss=(0.0, 8))).outcome == "chance"


def test_accuracies_are_paired_where_the_questions_are_the_same():
    rng = np.random.default_rng(1)
    right = (rng.random(400) < 0.7).astype(int)
    lower = right.copy()
    lower[np.flatnonzero(right)[:20]] = 0
    one = answers(right)
    differs = ("checkpoint",)
    paired = judged(one, answers(lower, checkpoint="d"), differs=differs)
    assert paired.outcome == "differs"
    assert paired.size == pytest.approx(0.05 / (math.sqrt(0.05 * 0.95 / 399)), rel=1e-6)
    other = answers(lower, checkpoint="d", source="others")
    unpaired = judged(one, other, differs=("checkpoint", "source"))
    assert unpaired.outcome == "chance"
    errors = [side["value"]["stderr"] for side in (one, other)]
    assert unpaired.size == pytest.approx(0.05 / math.hypot(*errors))


# Pairs, and tables.


def test_records_are_paired_by_inputs_then_by_name_and_the_fewest_that_differ():
    same = loss(1.0)
    seeds = [loss(2.0 + seed, name="healed", **healed(seed)) for seed in (0, 1)]
    own = [loss(2.5 + seed, name="healed", **healed(seed), checkpoint="d") for seed in (1, 0)]
    gone = loss(3.0, name="gone")
    found, missing = pairs([same, *seeds, gone], [*own, loss(1.5)])
    assert [(pair.published["value"]["loss"], pair.own["value"]["loss"]) for pair in found] == [
        (1.0, 1.5),
        (2.0, 2.5),
        (3.0, 3.5),
    ]
    assert [pair.differs for pair in found] == [(), ("checkpoint",), ("checkpoint",)]
    assert missing == [gone]


def test_of_two_that_are_as_close_none_is_taken():
    one = loss(1.0)
    others = [loss(2.0, sample={"length": length}) for length in (10, 11)]
    assert pairs([one], others) == ([], [one])


def test_cells_are_the_same_but_for_last_digits(tmp_path):
    def lines(stands, gives, **of):
        for name, text in {"stands": stands, "gives": gives}.items():
            (tmp_path / f"{name}.csv").write_text(text)
        return edits("t.csv", tmp_path / "stands.csv", tmp_path / "gives.csv", **of)

    gives = "task,n,value\nquiz,1,0.12345678\nquiz,2,\n"
    assert lines(gives.replace("5678", "5679"), gives) == []
    assert lines(gives.replace("5678", "6678"), gives) == [
        "t.csv line 2 (task quiz, n 1): value is 0.12346678, its records give 0.12345678"
    ]
    assert lines(gives.replace("2,", "2,0"), gives) == [
        "t.csv line 3 (task quiz, n 2): value is 0, its records give empty"
    ]
    assert lines(gives + "more,1,2\n", gives) == ["t.csv: has 3 rows, its records give 2"]
    assert lines(gives + "more,1,2\n", gives, of=("task", "quiz")) == []
    assert lines(gives.replace("value", "v"), gives) == [
        "t.csv: has other columns than its records give: v, value"
    ]
    assert lines("", gives) == ["t.csv: is empty, or no table"]
    assert len(lines(gives.replace("quiz", "quizz"), gives)) == 2
