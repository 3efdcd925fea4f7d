"""Whether two runs of one study agree, record by record: by numbers or by chance.

**By numbers**: unhealed models, and those healed with the same processor, threads and packages.
Numbers may differ by a share of themselves, counts not at all. A share of a task's answers may be
right in one run only, or one answer, as two choices may be equally likely to within rounding; in
float32 with the same surroundings none. Another block may be chosen only where it is as similar.
Texts part for good after such a choice: they are judged only where no answer may turn.

**By chance**: accuracies and losses of models that were healed elsewhere. Rounding moves training
as another seed might, so their error is what the published run measured over seeds of healing,
pooled over tasks and prunings; between two runs √2 of that standard deviation. To it comes, for
accuracies, the error of the paired difference over questions. For losses both standard errors come
to it only if it is known with less than `KNOWN` degrees of freedom: the sequences are the same.
Tests are two-sided t-tests, with the fewest degrees of freedom, corrected after Bonferroni.

**Shown** are times, memory of a GPU, and what has no error where it cannot be judged by numbers.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from lib.book.comparing.edited import short
from lib.evidence.listing import leaves
from lib.evidence.records import Record, digest
from lib.statistics.paired import paired

RELATIVE = {True: 1e-5, False: 1e-2}  # in float32, in 16 bits
TURNED = {True: 0.001, False: 0.02}
TINY = 1e-9  # absolute
SUPPORT = 0.01  # share of the resamples that may choose another block
KNOWN = 4
LEVEL = 0.05  # the chance to name any record of two runs that are alike

SURROUNDINGS = ("processor", "threads", "packages")
PLACE = {"device", "threads"}  # of times: what they were taken on
TIMES = {"read", "write", "peak_bytes"} | PLACE  # in records of costs
PROBE = {"method", "task", "source", "text", "sample", "writing"}  # inputs not about the model
COUNTS = ("n_questions", "guess", "constant", "n_tokens", "n_sequences")
# What records of another form than today's come to.
UNFIT = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

# By kind of record (qa, loss): a standard deviation over seeds of healing, of losses relative to
# themselves, and its degrees of freedom.
Seeds = dict[str, tuple[float, int]]


@dataclass
class Judged:
    """Two records of the same inputs. `outcome`: equal, within (the tolerance), chance, shown or
    differs. `says`: both values, and what breaks a rule. `size`: how far apart the two are:
    relative to the value, for answers their share, with a `p` in standard errors."""

    published: Record
    own: Record
    outcome: str
    says: str = ""
    size: float = 0.0
    p: float | None = None


def identity(record: Record) -> tuple[str, str]:
    """What records of two runs have in common that belong together."""
    inputs = record["inputs"]
    if record["kind"] == "cost":
        inputs = {key: inputs[key] for key in inputs if key not in PLACE}
    return record["kind"], digest(inputs)


def spread(table: pd.DataFrame | None) -> Seeds:
    """What other seeds of healing change, from the table healing_seeds; empty where there is
    none."""
    found: Seeds = {}
    for kind, metric in {"qa": "accuracy", "loss": "normalized_loss"}.items():
        if table is None or table.empty:
            continue
        rows = table[table["metric"] == metric].astype({"value": float})
        cells = ["task", "shots", "strategy", "dropped", "healing", "weights"]
        values = rows.groupby(cells, dropna=False)["value"]
        free = values.count() - 1
        deviation = values.std() / (1.0 if kind == "qa" else values.mean())
        squares = (deviation**2 * free)[free > 0].sum()
        if squares:
            found[kind] = math.sqrt(squares / free.sum()), int(free.sum())
    return found


def judge(published: Iterable[Record], own: Iterable[Record], seeds: Seeds) -> list[Judged]:
    """A judgement of each published record that has a partner of the same inputs."""
    sides = [{identity(record): record for record in side} for side in (published, own)]
    judged = []
    for key in [key for key in sides[0] if key in sides[1]]:
        one, other = (side[key] for side in sides)
        try:
            trained = [_surroundings(_healing(side[key], side)) for side in sides]
            if trained[0] == trained[1] or not one["inputs"].get("healing"):
                judged.append(_by_numbers(one, other))
            elif one["kind"] in ("qa", "loss"):
                judged.append(_by_chance(one, other, seeds))
            else:
                same = one["value"] == other["value"]
                judged.append(Judged(one, other, "equal" if same else "shown"))
        except UNFIT as error:
            says = f"cannot be compared: {type(error).__name__}, {error}"
            judged.append(Judged(one, other, "differs", says))
    tests = [one for one in judged if one.p is not None]
    for one in tests:
        if one.p * len(tests) <= LEVEL:
            one.outcome = "differs"
            one.says += f": p = {one.p:.1g}, beyond chance among {len(tests):,} comparisons"
    return judged


def _unlike(one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where the two differ, scalar by scalar, and what stands there in each."""
    first, second = dict(leaves(one)), dict(leaves(other))
    for at in first | second:
        if (at in first, first.get(at)) != (at in second, second.get(at)):
            yield at, first.get(at), second.get(at)


def _healing(record: Record, side: dict[tuple[str, str], Record]) -> Record:
    """The healing of the model that a record is about; itself where there is none."""
    model = {key: value for key, value in record["inputs"].items() if key not in PROBE}
    return side.get(("healing", digest(model)), record)


def _surroundings(record: Record) -> list[Any]:
    return [record["provenance"].get(key) for key in SURROUNDINGS]


def _by_numbers(published: Record, own: Record) -> Judged:
    kind, inputs = own["kind"], own["inputs"]
    one, other = dict(published["value"]), dict(own["value"])
    full = inputs.get("compute", inputs.get("weights", "float32")) == "float32"
    strict = full and _surroundings(published) == _surroundings(own)
    judged, broken = Judged(published, own, "equal"), []
    if kind == "writing" and one != other and not strict:
        return Judged(published, own, "shown")
    if kind == "qa":
        turned, count = int((_right(one) != _right(other)).sum()), one["n_questions"]
        allowed = 0 if strict else max(1, int(TURNED[full] * count))
        judged.size, judged.outcome = turned / count, "within" if turned else "equal"
        if turned > allowed:
            values = f"accuracy {one['accuracy']:.4g} / {other['accuracy']:.4g}: of {count} answers"
            broken = [f"{values} {turned} are right in one run only, {allowed} may be"]
        one, other = ({key: of.get(key) for key in COUNTS} for of in (one, other))
    if kind == "distances" and one["optimal"]["start"] != other["optimal"]["start"]:
        # Each is the least of its own distances (`recorded` sees to it): as similar if these agree.
        judged.outcome, one["optimal"], other["optimal"] = "within", {}, {}
    for at, first, second in _unlike(one, other):
        if kind == "cost" and not TIMES.isdisjoint(re.findall(r"\w+", at)):
            continue
        judged.outcome = "within"
        numbers = isinstance(first, float) and isinstance(second, float)
        near = SUPPORT if at.startswith("optimal.support") else TINY
        if numbers and near == TINY:
            judged.size = max(judged.size, abs(first - second) / max(abs(first), abs(second)))
        if not (numbers and math.isclose(first, second, rel_tol=RELATIVE[full], abs_tol=near)):
            broken.append(f"{at} {_shown(first)} / {_shown(second)}")
    if broken:
        more = f" and {len(broken) - 2:,} more" if len(broken) > 2 else ""
        judged.outcome, judged.says = "differs", f"{'; '.join(broken[:2])}{more}"
    return judged


def _by_chance(published: Record, own: Record, seeds: Seeds) -> Judged:
    kind, one, other = own["kind"], published["value"], own["value"]
    for at, *values in _unlike(*({key: of.get(key) for key in COUNTS} for of in (one, other))):
        return Judged(published, own, "differs", f"{at} {values[0]} / {values[1]}")
    if kind == "qa":
        key, scale = "accuracy", 1.0
        errors = [(paired(_right(other)[None], _right(one)[None])[1], one["n_questions"] - 1)]
    else:
        key, scale = "loss", (one["loss"] + other["loss"]) / 2
        errors = [(of["stderr"], of["n_sequences"] - 1) for of in (one, other)]
    if kind in seeds:
        deviation, free = seeds[kind]
        errors = [] if kind == "loss" and free >= KNOWN else errors
        errors.append((math.sqrt(2) * deviation * scale, free))
    difference, error = abs(one[key] - other[key]), math.hypot(*(error for error, _ in errors))
    size = difference / error if error else math.inf if difference else 0.0
    p = float(2 * t.sf(size, min(free for _, free in errors)))
    says = f"{key} " + " / ".join(f"{of[key]:.4g} ± {of['stderr']:.2g}" for of in (one, other))
    return Judged(published, own, "equal" if one == other else "chance", says, size, p)


def _right(value: dict[str, Any]) -> np.ndarray:
    """For each question of a record of answers, 1 where it was right, else 0; by sub-task."""
    correct = value["correct"]
    return np.array([int(one) for name in sorted(correct) for one in correct[name]])


def _shown(value: Any) -> str:
    return short(f"{value:.6g}" if isinstance(value, float) else str(value), 32)
