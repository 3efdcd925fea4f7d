"""Whether two runs of one study agree, record by record.

**By numbers** are judged unhealed models, and those healed with the same processor, threads and
packages. Numbers may differ by a share of themselves, counts not at all. A share of a task's
answers, or one, may be right in one run only, as two choices may be equally likely to within
rounding; in float32 with the same surroundings none. Only there written texts are judged.

**By chance** are judged accuracies and losses of models that were healed elsewhere. Rounding moves
training as another seed might, so their error is what the published run measured over seeds of
healing, √2 of that standard deviation between two runs; for accuracies also that of the paired
difference over questions, for losses both standard errors if the first has less than `KNOWN`
degrees of freedom. Two-sided t-tests with the fewest degrees of freedom, after Bonferroni.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from lib.book.comparing.edited import short
from lib.evaluation import per_question
from lib.evidence.listing import leaves
from lib.evidence.records import Record, digest
from lib.statistics.paired import paired

RELATIVE, TURNED = (1e-2, 1e-5), (0.02, 0.001)  # in 16 bits, in float32
TINY, SUPPORT = 1e-9, 0.01  # absolute; of the share of resamples that choose a block
KNOWN = 4  # degrees of freedom
LEVEL = 0.05  # the chance to name any record of two runs that are alike

PLACE = {"device", "threads", "clock"}  # of times: what they were taken on, and how
TIMES = {"read", "write", "peak_bytes"} | PLACE  # in records of costs
PROBE = {"method", "task", "source", "text", "sample", "writing"}  # inputs not about the model
PROBE |= {"prompt_end", "chat_template"}
WRITTEN = ("writing", "answers")  # kinds of records
COUNTS = ("n_questions", "guess", "constant", "n_tokens", "n_sequences")
# What records of another form than today's come to.
UNFIT = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

Seeds = dict[str, tuple[float, int]]  # by kind (qa, loss): a standard deviation, its freedom


@dataclass
class Judged:
    """Two records of the same inputs. `outcome`: equal, within (the tolerance), chance, shown,
    differs or missing. `says`: both values, what breaks a rule. `p`: where judged by chance."""

    published: Record
    own: Record
    outcome: str
    says: str = ""
    p: float | None = None


def identity(record: Record) -> tuple[str, str]:
    """What records of two runs have in common that belong together."""
    inputs = record["inputs"]
    if record["kind"] == "cost":
        inputs = {key: inputs[key] for key in inputs if key not in PLACE}
    return record["kind"], digest(inputs)


def spread(table: pd.DataFrame) -> Seeds:
    """What other seeds of healing change, from the table healing_seeds; losses by shares."""
    found: Seeds = {}
    for kind, metric in {"qa": "accuracy", "loss": "normalized_loss"}.items():
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
    """A judgement of each published record."""
    sides = [{identity(record): record for record in side} for side in (published, own)]
    judged = []
    for key, one in sides[0].items():
        if (other := sides[1].get(key)) is None:
            judged.append(Judged(one, {}, "missing"))
            continue
        try:
            trained = [_surroundings(side[key], side) for side in sides]
            if trained[0] == trained[1] or not one["inputs"].get("healing"):
                judged.append(_by_numbers(one, other))
            elif one["kind"] in ("qa", "loss"):
                judged.append(_by_chance(one, other, seeds))
            else:
                same = one["value"] == other["value"]
                judged.append(Judged(one, other, "equal" if same else "shown"))
        except UNFIT as error:
            judged.append(Judged(one, other, "differs", f"cannot be compared: {error!r}"))
    tests = [one for one in judged if one.p is not None]
    for one in tests:
        if one.p * len(tests) <= LEVEL:
            one.outcome = "differs"
            one.says += f": p = {one.p:.1g}, beyond chance among {len(tests):,} comparisons"
    return judged


def _surroundings(record: Record, side: dict[tuple[str, str], Record] | None = None) -> list[Any]:
    """In which a record was made or, among those of a `side`, its model was healed."""
    model = {key: value for key, value in record["inputs"].items() if key not in PROBE}
    made = (side or {}).get(("healing", digest(model)), record)["provenance"]
    return [made.get(key) for key in ("processor", "threads", "packages")]


def _by_numbers(published: Record, own: Record) -> Judged:
    kind, inputs = own["kind"], own["inputs"]
    one, other = dict(published["value"]), dict(own["value"])
    full = inputs.get("compute", inputs.get("weights", "float32")) == "float32"
    strict = full and _surroundings(published) == _surroundings(own)
    judged, broken = Judged(published, own, "equal"), []
    if kind in WRITTEN and one != other and not strict:
        return Judged(published, own, "shown")
    if kind == "qa":
        moved, count = np.abs(_scores(one) - _scores(other)), one["n_questions"]
        judged.outcome = "within" if moved.any() else "equal"
        turned = float(moved[moved > RELATIVE[full]].sum())  # of right and wrong ones, their number
        allowed = 0 if strict else max(1, int(TURNED[full] * count))
        if turned > allowed:
            values = f"accuracy {one['accuracy']:.4g} / {other['accuracy']:.4g}: of {count} answers"
            broken = [f"{values} {turned:g} are right in one run only, {allowed} may be"]
        one, other = ({key: of.get(key) for key in COUNTS} for of in (one, other))
    flat, other_flat = dict(leaves(one)), dict(leaves(other))
    for at in flat | other_flat:
        first, second = flat.get(at), other_flat.get(at)
        timed = kind == "cost" and not TIMES.isdisjoint(re.findall(r"\w+", at))
        if timed or (first == second and (at in flat) == (at in other_flat)):
            continue
        judged.outcome = "within"
        near = SUPPORT if at.startswith("optimal.support") else TINY
        numbers = isinstance(first, float) and isinstance(second, float)
        if not (numbers and math.isclose(first, second, rel_tol=RELATIVE[full], abs_tol=near)):
            broken.append(f"{at} {short(str(first))} / {short(str(second))}")
    if broken:
        more = f" and {len(broken) - 2:,} more" if len(broken) > 2 else ""
        judged.outcome, judged.says = "differs", f"{'; '.join(broken[:2])}{more}"
    return judged


def _by_chance(published: Record, own: Record, seeds: Seeds) -> Judged:
    kind, one, other = own["kind"], published["value"], own["value"]
    if wrong := [key for key in COUNTS if one.get(key) != other.get(key)]:
        return Judged(published, own, "differs", f"another {', '.join(wrong)}")
    key, (deviation, free), errors = "accuracy", seeds.get(kind, (0.0, 0)), []
    if kind == "qa":
        errors = [(paired(_scores(other)[None], _scores(one)[None])[1], one["n_questions"] - 1)]
    else:
        key, deviation = "loss", deviation * (one["loss"] + other["loss"]) / 2
        if free < KNOWN:
            errors = [(of["stderr"], of["n_sequences"] - 1) for of in (one, other)]
    errors += [(math.sqrt(2) * deviation, free)] if deviation else []
    difference, error = abs(one[key] - other[key]), math.hypot(*(error for error, _ in errors))
    apart = difference / error if error else math.inf if difference else 0.0
    p = float(2 * t.sf(apart, min(free for _, free in errors)))
    says = f"{key} " + " / ".join(f"{of[key]:.4g} ± {of['stderr']:.2g}" for of in (one, other))
    return Judged(published, own, "equal" if one == other else "chance", says, p)


def _scores(value: dict[str, Any]) -> np.ndarray:
    """The score of each question of a record of answers; by sub-task."""
    correct = value["correct"]
    return per_question.of_all_tasks({name: correct[name] for name in sorted(correct)})
