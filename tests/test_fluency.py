"""How fluent texts are: of texts whose answer is known by hand, and against sacrebleu and nltk."""

import math
import random

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from nltk.util import ngrams
from sacrebleu import sentence_bleu as by_sacrebleu

from lib.evaluation.fluency import distinct, n_grams, repeated, self_bleu

SAME = [["the", "cat", "sat", "on", "the", "mat"]] * 5
DIFFERENT = [[f"w{i}-{k}" for k in range(6)] for i in range(5)]
PHRASE = [["a", "b", "c", "d"] * 8] * 2  # 29 n-grams of four, of which four differ
LOOP = [["a"] * 10] * 3


def drawn(count: int, words: int, seed: int = 0, length: int = 14) -> list[list[int]]:
    """Texts of random words, some of which are commoner."""
    rng = random.Random(seed)
    return [[rng.randrange(words) * rng.randrange(2) for _ in range(length)] for _ in range(count)]


def test_one_repeated_phrase():
    value, stderr = repeated(PHRASE)
    assert value == pytest.approx(25 / 29)
    assert stderr == 0
    assert repeated(LOOP).value == pytest.approx(6 / 7)
    assert distinct(PHRASE, 1).value == pytest.approx(4 / 64)
    assert distinct(PHRASE, 2).value == pytest.approx(4 / 62)


def test_all_the_same():
    assert repeated(SAME) == (0, 0)  # within each text no four words come twice
    assert distinct(SAME, 1).value == pytest.approx(5 / 30)
    assert distinct(SAME, 2).value == pytest.approx(5 / 25)
    assert self_bleu(SAME) == pytest.approx((1, 0))


def test_all_different():
    assert repeated(DIFFERENT) == (0, 0)
    assert distinct(DIFFERENT, 1) == (1, 0)
    assert distinct(DIFFERENT, 2) == (1, 0)
    assert self_bleu(DIFFERENT) == (0, 0)


def test_shares_are_of_all_texts_together():
    """Ten n-grams, of which nine are repetitions, beside one that is none."""
    value, stderr = repeated([["a"] * 13, ["p", "q", "r", "s"]])
    assert value == pytest.approx(9 / 11)
    # Residuals 9 − 90/11 and 0 − 9/11.
    assert stderr == pytest.approx(math.sqrt(2 * ((9 / 11) ** 2) * 2) / 11)


def test_token_ids_do_as_well_as_words():
    texts = drawn(6, 9)
    names = [[f"word {one}" for one in text] for text in texts]
    for measure in (repeated, distinct, self_bleu):
        assert measure(texts) == measure(names)


def test_too_little_to_go_by_is_not_known():
    for texts in ([], [[]], [[], []]):
        for measure in (repeated, distinct, self_bleu):
            assert all(map(math.isnan, measure(texts)))
    value, stderr = repeated([["a"] * 6])
    assert value == pytest.approx(2 / 3) and math.isnan(stderr)
    assert distinct([["a", "b"]]).value == 1 and math.isnan(distinct([["a", "b"]]).stderr)
    assert math.isnan(self_bleu([["a"]]).value)
    assert self_bleu([["a"], ["a"]]).value == pytest.approx(1)
    assert math.isnan(self_bleu([["a"], ["a"]]).stderr)


def test_texts_without_n_grams_change_nothing():
    texts = drawn(5, 8)
    assert repeated([*texts, ["a", "b"]]) == repeated(texts)
    assert distinct([*texts, []]) == distinct(texts)
    assert self_bleu([*texts, []]) == self_bleu(texts)


def test_n_grams_are_nltks():
    (text,) = drawn(1, 5, length=30)
    for n in (1, 2, 3, 4):
        found = list(n_grams(text, n).elements())
        assert sorted(found) == sorted(ngrams(text, n))


def test_self_bleu_is_the_mean_of_the_librarys_scores():
    texts = [" ".join(f"w{one}" for one in text) for text in drawn(6, 7)]
    scores = [
        by_sacrebleu(text, [*texts[:i], *texts[i + 1 :]], tokenize="none").score / 100
        for i, text in enumerate(texts)
    ]
    assert self_bleu([text.split() for text in texts]).value == pytest.approx(np.mean(scores))
    # nltk's third smoothing is the same one.
    words = [text.split() for text in texts]
    others = [
        sentence_bleu(
            [*words[:i], *words[i + 1 :]],
            text,
            smoothing_function=SmoothingFunction().method3,
        )
        for i, text in enumerate(words)
    ]
    assert self_bleu(words).value == pytest.approx(np.mean(others))


@pytest.mark.parametrize("measure", [distinct, self_bleu])
def test_an_error_is_that_of_texts_left_out_by_hand(measure):
    texts = drawn(7, 6)
    left = [measure([*texts[:i], *texts[i + 1 :]]).value for i in range(7)]
    expected = math.sqrt(6 / 7 * sum((one - np.mean(left)) ** 2 for one in left))
    assert measure(texts).stderr == pytest.approx(expected)
    assert measure(texts).stderr > 0


def test_errors_are_the_scatter_over_samples_of_texts():
    for measure in (repeated, distinct, self_bleu):
        samples = [measure(drawn(12, 5, seed)) for seed in range(40)]
        scatter = np.std([one.value for one in samples], ddof=1)
        assert np.mean([one.stderr for one in samples]) == pytest.approx(scatter, rel=0.5)
