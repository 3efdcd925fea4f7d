"""Rows of tokens to score, put into batches that compute what rows share only once.

Answers to one question share the question, and few-shot prompts share their examples. A group is
a set of rows with a common prefix: the prefix runs once, the rest of each row on top of its cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch

SHORTEST_PREFIX = 8  # a shorter one saves less than the second call of a layer costs
MOST_RESTS = 4  # times the batch size: each takes a copy of its prefix's keys and values


@dataclass(frozen=True)
class Row:
    """Tokens of which those from `start` on, at least one, are scored, given all before them."""

    tokens: tuple[int, ...]
    start: int

    def __post_init__(self) -> None:
        if not 1 <= self.start < len(self.tokens):
            raise ValueError(f"start {self.start} of {len(self.tokens)} tokens")


@dataclass(frozen=True)
class Input:
    """What has to run for some rows: their tokens without the last, and where scoring begins.

    rows: numbers of the rows; they differ in their last token, or in their start."""

    tokens: tuple[int, ...]
    first: int  # position whose logits are the first that count
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Inputs whose first `prefix` tokens are the same and are not scored."""

    prefix: int
    inputs: tuple[Input, ...]


@dataclass(frozen=True)
class Batch:
    """Groups that run together; either all of them have a prefix or none has."""

    groups: tuple[Group, ...]

    @property
    def inputs(self) -> list[Input]:
        return [one for group in self.groups for one in group.inputs]

    @property
    def rows(self) -> list[int]:
        """Their numbers."""
        return [number for one in self.inputs for number in one.rows]

    def prefixes(self, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [groups, longest prefix], padded on the left, and their mask."""
        return padded([group.inputs[0].tokens[: group.prefix] for group in self.groups], pad, True)

    def rests(self, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [inputs, longest rest], padded on the right, and their mask."""
        rests = [one.tokens[group.prefix :] for group in self.groups for one in group.inputs]
        return padded(rests, pad, False)

    def owners(self) -> torch.Tensor:
        """Each input's group, by number."""
        return torch.tensor([i for i, group in enumerate(self.groups) for _ in group.inputs])


def padded(
    rows: Sequence[Sequence[int]], pad: int, left: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [rows, longest] and their mask, filled up with `pad` on the left, or on the right."""
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(len(row))
        tokens[i, place] = torch.tensor(row, dtype=torch.long)
        mask[i, place] = 1
    return tokens, mask


def make_batches(
    rows: Sequence[Row], size: int, share: bool = True, longest: int | None = None
) -> list[Batch]:
    """Batches of at most `size` inputs, or of more that share prefixes and so make no more tokens
    than `size` whole ones. Without `share` every input runs whole; inputs of more than `longest`
    tokens run alone."""
    inputs = _inputs(rows)
    joined = [one for one in inputs if longest is None or len(one.tokens) <= longest]
    apart = [one for one in inputs if longest is not None and len(one.tokens) > longest]
    groups = _groups(joined, size) if share else [Group(0, (one,)) for one in joined]
    alone = [group for group in groups if group.prefix == 0]
    together = [group for group in groups if group.prefix > 0]
    alone.sort(key=lambda group: -len(group.inputs[0].tokens))
    together.sort(key=lambda group: (-group.prefix, -len(group.inputs)))
    # Shortest first: transformers' "dynamic" positions stay scaled to the longest text so far.
    apart.sort(key=lambda one: len(one.tokens))
    singles = [Batch((Group(0, (one,)),)) for one in apart]
    return singles + _packed(alone, size) + _packed(together, size)


def _inputs(rows: Sequence[Row]) -> list[Input]:
    """One input for all rows that differ in their last token alone."""
    found: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        found.setdefault(row.tokens[:-1], []).append(number)
    return [
        Input(tokens, min(rows[i].start for i in numbers) - 1, tuple(numbers))
        for tokens, numbers in found.items()
    ]


def _groups(inputs: list[Input], size: int) -> list[Group]:
    """Neighbours in lexicographic order, joined where that leaves fewer tokens to run."""
    groups: list[Group] = []
    members: list[Input] = []
    prefix = 0

    def close() -> None:
        if len(members) > 1:
            groups.append(Group(prefix, tuple(members)))
        else:
            groups.extend(Group(0, (one,)) for one in members)

    for one in sorted(inputs, key=lambda one: one.tokens):
        if members:
            common = min(prefix, one.first, _common(members[0].tokens, one.tokens))
            # Joining shortens the prefix of those that are in already. Where less than half is
            # common, this input will have more in common with those that follow.
            saves = (prefix - common) * (len(members) - 1) < common
            joined = Group(common, (*members, one))
            if saves and common >= max(SHORTEST_PREFIX, one.first / 2) and _fit([joined], size):
                members.append(one)
                prefix = common
                continue
        close()
        members, prefix = [one], one.first
    close()
    return groups


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _fit(groups: list[Group], size: int) -> bool:
    """Whether groups make no more tokens, padding included, than `size` of the longest input."""
    prefix = max(group.prefix for group in groups)
    rest = max(len(one.tokens) - group.prefix for group in groups for one in group.inputs)
    longest = max(len(one.tokens) for group in groups for one in group.inputs)
    count = sum(len(group.inputs) for group in groups)
    tokens = len(groups) * prefix + count * rest
    return tokens <= size * longest and count <= MOST_RESTS * size


def _packed(groups: list[Group], size: int) -> list[Batch]:
    batches: list[Batch] = []
    open_groups: list[Group] = []
    for group in groups:
        if open_groups and not _fit([*open_groups, group], size):
            batches.append(Batch(tuple(open_groups)))
            open_groups = []
        open_groups.append(group)
    return batches + ([Batch(tuple(open_groups))] if open_groups else [])
