"""Whether two runs of one study agree, record by record: by numbers or by chance.

**By numbers** are judged measurements of the same inputs, unhealed, or healed with the same
processor, threads and packages. Numbers may differ by `RELATIVE` of themselves, according to the
number format that the model is in; counts not at all. Of a task's answers a share of `FLIPPED` may
be right in one run only, or one answer, since two choices may be equally likely to within rounding;
in float32 with the same surroundings none. Another block may be the most similar one only if both
are as similar to within `RELATIVE`. Texts part for good after such a choice: they are judged only
in float32 with the same surroundings, and shown otherwise.

**By chance** is judged whatever else has an error (`lib.book.chance`).

**Shown** are times, memory of a GPU, and what has no error where it cannot be judged by numbers.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from lib.book.chance import Spread, beyond_chance, by_chance, right
from lib.book.pairing import Judged, Pair, unlike
from lib.book.sides import PLACE, UNFIT
from lib.evidence.records import Record, digest

RELATIVE = {"float32": 1e-5, "fp16": 1e-2, "bf16": 1e-2}
FLIPPED = {"float32": 0.001, "fp16": 0.02, "bf16": 0.02}
TINY = 1e-9  # absolute
SUPPORT = 0.01  # share of the resamples that may choose another block

MODEL = ("checkpoint", "weights", "compute", "evaluated", "block", "healing")  # its inputs
SURROUNDINGS = ("processor", "threads", "packages")
TIMES = {"read", "write", "peak_bytes"} | PLACE  # in records of costs


def judge(
    found: Sequence[Pair], published: Iterable[Record], own: Iterable[Record], seeds: Spread
) -> list[Judged]:
    """A judgement of each pair. `published`, `own`: all records, with the healings of the models
    that pairs are about."""
    healings = [
        {digest(record["inputs"]): record for record in side if record["kind"] == "healing"}
        for side in (published, own)
    ]
    judged = []
    for pair in found:
        try:
            judged.append(_judged(pair, healings, seeds))
        except UNFIT as error:
            says = f"cannot be compared: {type(error).__name__}, {error}"
            judged.append(Judged(pair, "differs", says))
    beyond_chance(judged)
    return judged


def _judged(pair: Pair, healings: list[dict[str, Record]], seeds: Spread) -> Judged:
    kind, healed = pair.own["kind"], bool(pair.own["inputs"].get("healing"))
    trained = list(map(_healing, pair[:2], healings))
    if not pair.differs and (not healed or _surroundings(trained[0]) == _surroundings(trained[1])):
        return _by_numbers(pair, _surroundings(pair.published) == _surroundings(pair.own))
    if kind in ("qa", "loss", "distances"):
        return by_chance(pair, seeds if healed else Spread())
    same = pair.published["value"] == pair.own["value"]
    return Judged(pair, "equal" if same else "shown")


def _healing(record: Record, healings: dict[str, Record]) -> Record:
    """The healing of the model that a record is about; itself where there is none."""
    inputs = record["inputs"]
    return healings.get(digest({key: inputs[key] for key in MODEL if key in inputs}), record)


def _surroundings(record: Record) -> list[Any]:
    return [record["provenance"].get(key) for key in SURROUNDINGS]


def _by_numbers(pair: Pair, alike: bool) -> Judged:
    kind, inputs = pair.own["kind"], pair.own["inputs"]
    form = inputs.get("compute", inputs.get("weights", "float32"))
    relative = RELATIVE.get(form, max(RELATIVE.values()))
    strict = alike and form == "float32"
    judged, broken = Judged(pair, "equal"), []
    if kind == "qa":
        broken += _answers(judged, 0.0 if strict else FLIPPED.get(form, max(FLIPPED.values())))
    tied = _ties(pair, relative) if kind == "distances" else set()
    for at, one, other in unlike(pair.published["value"], pair.own["value"]):
        if at in tied:
            judged.outcome = "within"
            continue
        if _elsewhere(kind, at):
            continue
        if at.startswith("texts") and kind == "writing" and not strict:
            judged.outcome = "shown"
            continue
        numbers = isinstance(one, float) and isinstance(other, float)
        absolute = SUPPORT if at.startswith("optimal.support") else TINY
        if numbers and math.isclose(one, other, rel_tol=relative, abs_tol=absolute):
            judged.outcome = "within"
        else:
            broken.append(f"{at} {_shown(one)} / {_shown(other)}")
        if numbers and absolute == TINY:
            judged.size = max(judged.size, abs(one - other) / max(abs(one), abs(other)))
    if broken:
        judged.outcome = "differs"
        more = f" and {len(broken) - 2:,} more" if len(broken) > 2 else ""
        judged.says = f"{'; '.join(broken[:2])}{more}"
    return judged


def _elsewhere(kind: str, at: str) -> bool:
    """What is judged as answers, or belongs to a machine."""
    if kind == "qa":
        return re.split(r"\W", at)[0] in ("correct", "accuracy", "stderr")
    return kind == "cost" and not TIMES.isdisjoint(re.findall(r"\w+", at))


def _answers(judged: Judged, share: float) -> list[str]:
    """`share` of the answers may be right in one run only, and one if it is not 0."""
    one, other = (right(record) for record in judged.pair[:2])
    if len(one) != len(other):
        return [f"{len(one):,} / {len(other):,} answers"]
    flipped = int((one != other).sum())
    judged.size = flipped / len(one)
    if flipped:
        judged.outcome = "within"
    allowed = max(1, int(share * len(one))) if share else 0
    if flipped <= allowed:
        return []
    values = " / ".join(f"{record['value']['accuracy']:.4g}" for record in judged.pair[:2])
    return [
        f"accuracy {values}: of {len(one)} answers {flipped} are right in one run only, "
        f"{allowed} may be"
    ]


def _ties(pair: Pair, relative: float) -> set[str]:
    """Where another block was chosen that is as similar in both runs."""
    one, other = (record["value"] for record in pair[:2])
    tables = []
    for value in (one, other):
        table = value["table"]
        rows = zip(table["n"], table["start"], table["distance"], strict=True)
        tables.append({(n, start): distance for n, start, distance in rows})
    tied = set()
    starts = zip(one["optimal"]["start"], other["optimal"]["start"], strict=True)
    for i, (n, (first, second)) in enumerate(zip(one["optimal"]["n"], starts, strict=True)):
        if first != second and all(
            math.isclose(table[n, first], table[n, second], rel_tol=relative) for table in tables
        ):
            tied |= {f"optimal.{key}[{i}]" for key in ("start", "stop", "support")}
    return tied


def _shown(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 32 else f"{text[:31]}…"
