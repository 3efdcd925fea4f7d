"""The questions of commons/ cannot be answered without being read."""

import json
import re
from collections import Counter
from itertools import groupby
from typing import Any

import pytest

from lib import paths
from lib.models import instructions

COMMONS = paths.ROOT / "commons"


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (COMMONS / name).read_text("utf-8").splitlines()]


def of_a_set(row: dict[str, Any]) -> str:
    return row["id"].rpartition("-")[0]


@pytest.mark.parametrize(("name", "least"), [("questions.jsonl", 300), ("examples.jsonl", 20)])
def test_options_alone_say_nothing(name: str, least: int) -> None:
    found = rows(name)
    assert len(found) >= least
    groups = [list(group) for _, group in groupby(found, of_a_set)]
    assert len(groups) == len({of_a_set(row) for row in found})
    for group in groups:
        assert len(group) == 4
        assert len({frozenset(row["choices"]) for row in group}) == 1
        # Whatever somebody takes for right, of options or of places, is right once in four.
        assert {row["choices"][row["answer"]] for row in group} == set(group[0]["choices"])
        assert sorted(row["answer"] for row in group) == [0, 1, 2, 3]
        for place in range(4):
            assert len({row["choices"][place] for row in group}) == 4
    kinds = [frozenset(group[0]["choices"]) for group in groups]
    assert len(set(kinds)) == len(kinds)


def test_no_question_holds_its_answer_or_stands_twice() -> None:
    found = rows("questions.jsonl") + rows("examples.jsonl")
    assert len({row["question"].casefold() for row in found}) == len(found)
    assert len({row["id"] for row in found}) == len(found)
    for row in found:
        asked = set(re.findall(r"\w{4,}", row["question"].casefold()))
        answer = set(re.findall(r"\w{4,}", row["choices"][row["answer"]].casefold()))
        assert not asked & answer, row
        assert row["question"].endswith("?")


def test_the_first_questions_are_of_every_topic() -> None:
    found = rows("questions.jsonl")
    topics = {row["topic"] for row in found}
    assert {row["topic"] for row in found[: 4 * len(topics)]} == topics


@pytest.mark.parametrize(
    ("name", "least"), [("passages.jsonl", 100), ("passage_examples.jsonl", 6)]
)
def test_neither_passage_nor_question_alone_says_anything(name: str, least: int) -> None:
    found = rows(name)
    assert len({row["passage"] for row in found}) >= least
    for part in ("passage", "question"):
        answers: dict[str, list[bool]] = {}
        for row in found:
            answers.setdefault(row[part], []).append(row["answer"])
        assert set(map(tuple, map(sorted, answers.values()))) == {(False, True)}
    assert Counter(row["answer"] for row in found[:100])[True] == 50 or len(found) < 100


def test_the_examples_are_others() -> None:
    assert not {row["question"] for row in rows("passages.jsonl")} & {
        row["question"] for row in rows("passage_examples.jsonl")
    }


def runs(text: str, length: int = 12) -> set[tuple[str, ...]]:
    """Runs of so many words."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


def test_nothing_that_healing_reads_is_measured_on() -> None:
    """No run of twelve words stands in two documents, in the prose, a passage or a question."""
    measured = [row["text"] for row in rows("text/prose.jsonl")]
    measured += [row["passage"] for row in rows("passages.jsonl")]
    measured += [row["question"] for row in rows("questions.jsonl")]
    seen = set().union(*map(runs, measured))
    for row in rows("text/healing.jsonl"):
        own = runs(row["text"])
        assert not own & seen, row["text"][:60]
        seen |= own


@pytest.mark.parametrize(("name", "words"), [("prose", 15_000), ("healing", 50_000)])
def test_prose_is_prose(name: str, words: int) -> None:
    found = rows(f"text/{name}.jsonl")
    assert sum(len(row["text"].split()) for row in found) > words
    assert len({row["text"] for row in found}) == len(found)
    for row in found:
        assert not re.search(r"[{}|\\]|```", row["text"]), row["text"][:80]


@pytest.mark.parametrize("name", ["lessons", "exam"])
def test_instructions_are_apart_from_what_is_asked(name: str) -> None:
    """No run of six words stands in a question or a passage, nor an instruction twice."""
    found = list(instructions.of_files(COMMONS / "text" / f"{name}.jsonl"))
    other = {"lessons": "exam", "exam": "lessons"}[name]
    twin = {row["instruction"] for row in rows(f"text/{other}.jsonl")}
    assert len({(one.instruction, one.input) for one in found}) == len(found) >= 500
    assert not {one.instruction for one in found} & twin
    asked = [row["question"] for row in rows("questions.jsonl") + rows("examples.jsonl")]
    asked += [row[part] for row in rows("passages.jsonl") for part in ("passage", "question")]
    seen = set().union(*(runs(text, 6) for text in asked))
    for one in found:
        for text in one:
            assert not runs(text, 6) & seen, one
