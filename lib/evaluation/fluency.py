"""How fluently models write, of texts as lists of words or of token ids: how much they repeat
themselves, how many words they know, and how alike their texts are.

    repeated  = Σᵢ (Tᵢ − Dᵢ) / Σᵢ Tᵢ     Tᵢ n-grams in text i, Dᵢ of them different
    distinct  = D / Σᵢ Tᵢ                D different n-grams in all texts together
    self-BLEU = 1/N Σᵢ BLEU(text i, against all others)

The first is seq-rep-n of Welleck et al. (2020), over all texts together; the second distinct-n of
Li et al. (2016); the third of Zhu et al. (2018), with the BLEU of sacrebleu. The text is the unit
of every standard error. What has too little to go by is NaN: no text of n words, or an error from
one text.

The second falls and the third rises with the number of texts and with their lengths, so models are
compared on the same prompts and with the same number of tokens.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from sacrebleu.metrics import BLEU

Text = Sequence[Hashable]


class Measured(NamedTuple):
    """A value with its standard error over texts."""

    value: float
    stderr: float


def n_grams(text: Text, n: int) -> Counter[tuple[Hashable, ...]]:
    """How often each run of n words stands in a text."""
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))


def repeated(texts: Sequence[Text], n: int = 4) -> Measured:
    """The share of n-grams that their own text has had before; 0 where none comes twice.

    Its error is that of a ratio of sums R, √(N/(N−1) Σᵢ (rᵢ − R Tᵢ)²) / Σᵢ Tᵢ with rᵢ = Tᵢ − Dᵢ,
    over the N texts that have n-grams at all."""
    found = [counts for text in texts if (counts := n_grams(text, n))]
    if not found:
        return Measured(math.nan, math.nan)
    total = np.array([counts.total() for counts in found])
    again = total - np.array([len(counts) for counts in found])
    share, count = again.sum() / total.sum(), len(found)
    if count < 2:
        return Measured(float(share), math.nan)
    missed = ((again - share * total) ** 2).sum()
    return Measured(float(share), math.sqrt(count / (count - 1) * missed) / int(total.sum()))


def distinct(texts: Sequence[Text], n: int = 1) -> Measured:
    """The share of n-grams of all texts that differ; 1 where none comes twice.

    Its error is the jackknife's, over the texts that have n-grams at all."""
    found = [counts for text in texts if (counts := n_grams(text, n))]
    if not found:
        return Measured(math.nan, math.nan)
    everywhere = sum(found, Counter())

    def without(one: Counter) -> float:
        """Those that only the text left out has are gone."""
        own = sum(everywhere[gram] == times for gram, times in one.items())
        return (len(everywhere) - own) / (everywhere.total() - one.total())

    value = len(everywhere) / everywhere.total()
    return Measured(value, _jackknife(found, without))


def self_bleu(texts: Sequence[Text]) -> Measured:
    """The mean BLEU, from 0 to 1, of each text with all others as its references: 1 where all are
    the same, 0 where no two share a word. Empty texts are left out: there is nothing to compare.

    BLEU is that of sacrebleu for single sentences: n-grams of up to four words, or of fewer in a
    shorter text, with its exponential smoothing. The error is the jackknife's, for which every text
    is compared again with each of the others left out: N² comparisons."""
    bleu = BLEU(tokenize="none", effective_order=True)
    # Words may be anything; numbers have no spaces in them, where sacrebleu parts words.
    numbers: dict[Hashable, str] = {}
    spelled = [" ".join(numbers.setdefault(w, str(len(numbers))) for w in t) for t in texts if t]

    def mean(of: Sequence[str]) -> float:
        others = [[*of[:i], *of[i + 1 :]] for i in range(len(of))]
        scores = [bleu.sentence_score(*pair).score for pair in zip(of, others, strict=True)]
        return math.fsum(scores) / len(of) / 100

    if len(spelled) < 2:
        return Measured(math.nan, math.nan)
    places = range(len(spelled))
    if len(spelled) < 3:  # one left out leaves nothing to compare with
        return Measured(mean(spelled), math.nan)
    return Measured(mean(spelled), _jackknife(places, lambda i: mean(_without(spelled, i))))


def _without(texts: Sequence[str], place: int) -> list[str]:
    return [*texts[:place], *texts[place + 1 :]]


def _jackknife(units: Sequence, without: Callable[..., float]) -> float:
    """√((N−1)/N Σ (θ₍ᵢ₎ − mean)²) of the values θ₍ᵢ₎ with one of N units left out."""
    count = len(units)
    if count < 2:
        return math.nan
    values = np.array([without(one) for one in units])
    return math.sqrt((count - 1) / count * ((values - values.mean()) ** 2).sum())
