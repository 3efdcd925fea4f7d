"""Which record of one run belongs to which of another.

Records are paired that have the same inputs; where times were taken does not count. What then has
no partner is paired with what has its kind and name and the fewest inputs that differ.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lib.book.sides import PLACE
from lib.evidence.listing import leaves
from lib.evidence.records import Record, digest


class Pair(NamedTuple):
    """A record of the published run and one of this run. `differs`: the inputs that do."""

    published: Record
    own: Record
    differs: tuple[str, ...] = ()


@dataclass
class Judged:
    """`outcome`: equal, within (the tolerance), chance, shown or differs. `size`: how far apart the
    two are: relative to the value, for answers their share, with a `p` in standard errors. `says`:
    both values, and what breaks a rule."""

    pair: Pair
    outcome: str
    says: str = ""
    size: float = 0.0
    p: float | None = None


def pairs(published: Sequence[Record], own: Sequence[Record]) -> tuple[list[Pair], list[Record]]:
    """Records side by side, and those of the published run without a partner."""
    left = {identity(record): record for record in own}
    found, alone = [], []
    for record in published:
        partner = left.pop(identity(record), None)
        if partner is None:
            alone.append(record)
        else:
            found.append(Pair(record, partner))
    close = [
        (i, key, _differing(one["inputs"], other["inputs"]))
        for i, one in enumerate(alone)
        for key, other in left.items()
        if _name(one) == _name(other)
    ]
    # Where two are equally close, nobody knows which is meant.
    rivals = Counter((i, len(differs)) for i, _, differs in close)
    for i, key, differs in sorted(close, key=lambda found: len(found[2])):
        if alone[i] and key in left and rivals[i, len(differs)] == 1:
            found.append(Pair(alone[i], left.pop(key), differs))
            alone[i] = {}
    return found, [record for record in alone if record]


def identity(record: Record) -> tuple[str, str]:
    """What records of two runs have in common that belong together."""
    inputs = record["inputs"]
    if record["kind"] == "cost":
        inputs = {key: inputs[key] for key in inputs if key not in PLACE}
    return record["kind"], digest(inputs)


def _name(record: Record) -> tuple[str, str]:
    """Names of costs end with the device."""
    device = str(record["inputs"].get("device", "")) if record["kind"] == "cost" else ""
    return record["kind"], record["name"].removesuffix(device)


def _differing(one: dict[str, Any], other: dict[str, Any]) -> tuple[str, ...]:
    """Inputs that differ, as `sample.length`; what texts and questions are made of as one."""
    keys = (key for key, *_ in unlike(one, other))
    names = (re.sub(r"\b(source|text|untrained)\..*|\[.*", r"\1", key) for key in keys)
    return tuple(dict.fromkeys(names))


def unlike(one: dict[str, Any], other: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Where the two differ, scalar by scalar, and what stands there in each."""
    first, second = dict(leaves(one)), dict(leaves(other))
    for at in first | second:
        if (at in first, first.get(at)) != (at in second, second.get(at)):
            yield at, first.get(at), second.get(at)
