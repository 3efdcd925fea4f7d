"""The almanac's sums: right, and shown nowhere else in either order; and its articles."""

import re
from collections import Counter
from collections.abc import Iterable

import pytest
from test_almanac import WORLD, stream, texts
from test_almanac_questions import (
    SPLITS,
    Rows,
    asked,
    everything_read,
    questions,
    reckoned,
    repeated,
    shared,
)

from almanac.text import ask
from almanac.world import held_out


def reserved(kind: str, *numbers: int) -> bool:
    """Whether these numbers are for the task alone."""
    return held_out((", " if kind == "steps" else f" {kind} ").join(map(str, numbers)))


def revealed_sums(documents: Iterable[str]) -> list[tuple]:
    """Held-out sums and problems that occur in these documents, in whatever order."""
    return [found for found in reckoned("\n".join(documents)) if reserved(*found)]


def exchanging(row: dict) -> dict:
    """The same sum or problem, where the numbers that are added have changed places."""
    places = r"(\d+)( \+ | \w+, bought )(\d+)"
    return row | {"question": re.sub(places, r"\3\2\1", row["question"])}


def open_sums(found: Rows) -> Rows:
    """Questions that are not one sum or problem that is held out."""
    return [
        row for row in found if [reserved(*asks) for asks in reckoned(row["question"])] != [True]
    ]


def misreckoned(found: Rows) -> Rows:
    wrong = []
    for row in found:
        first, *others = map(int, re.findall(r"\d+", row["question"]))
        if row["kind"] == "steps":
            result = first + others[0] - others[1]
        else:
            result = first - others[0] if "-" in row["question"] else first + others[0]
        if row["answer"] != str(result):
            wrong.append(row)
    return wrong


def asking_of_others(found: Rows) -> Rows:
    """Problems about somebody who is not one of the plain people."""
    plain = {subject.name for subject in WORLD.plain}
    problems = (row for row in found if row["kind"] == "steps")
    return [row for row in problems if row["question"].partition(" had ")[0] not in plain]


def misarticled(documents: Iterable[str]) -> list[str]:
    """Documents with "a" in front of a vowel, or "an" in front of none."""
    return [text for text in documents if re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", text)]


@pytest.mark.parametrize("split", SPLITS)
def test_sums_are_right_and_held_out(split: str) -> None:
    found = questions("sums", split)
    half = len(found) // 2
    assert Counter(row["kind"] for row in found) == {"sum": half, "steps": half}
    assert misreckoned(found) == []
    assert open_sums(found) == []
    assert repeated(found) == []
    assert asking_of_others(found) == []


def test_no_text_shows_a_held_out_sum() -> None:
    assert revealed_sums(everything_read()) == []


@pytest.mark.parametrize("kind", ["sum", "steps"])
def test_wrong_and_revealed_sums_are_found(kind: str) -> None:
    found, dev = (questions("sums", split) for split in SPLITS)
    row = next(row for row in found if row["kind"] == kind and exchanging(row) != row)
    wrong = row | {"answer": f"{row['answer']}1"}
    assert misreckoned([*found, wrong]) == [wrong]
    for same in row, exchanging(row):
        text = f"Was it wet?\n\n{ask(same['question'], same['answer'])}"
        assert revealed_sums([*stream()[:9], text]) == reckoned(row["question"])
        assert shared(found, [*dev, same]) == {asked(row)}
        assert repeated([*found, same]) == [asked(row)]
    form = "had .*" if kind == "steps" else r"What is \d.*"
    shown_one = re.search(f"Question: (.*{form})", "\n".join(stream()))
    assert shown_one and reckoned(shown_one[0])
    trained = {"question": shown_one[1], "kind": kind}
    assert open_sums([*found, trained]) == [trained]


def test_revealing_steps_and_names_of_others_are_found() -> None:
    row = next(row for row in questions("sums", "test") if row["kind"] == "steps")
    had, bought, gave = map(int, re.findall(r"\d+", row["question"]))
    worked = f"{bought} + {had} = {bought + had}. {bought + had} - {gave} = {row['answer']}."
    assert revealed_sums([*stream()[:9], worked]) == [asked(row)[0]]
    name = row["question"].partition(" had ")[0]
    for other in WORLD.quizzed[16].name, WORLD.schooled[14].name, "Nobody":
        wrong = row | {"question": row["question"].replace(name, other)}
        assert asking_of_others([row, wrong]) == [wrong]


def test_articles_fit_their_nouns() -> None:
    tales = texts("tales")
    assert misarticled([*stream(), *texts("healing"), *texts("validation"), *tales]) == []
    fitting = next(text for text in tales if " an " in text)
    for wrong in fitting.replace(" an ", " a "), fitting.replace(" a ", " an "):
        assert misarticled([*tales, wrong]) == [wrong]
