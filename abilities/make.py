"""Writes the questions of abilities/tasks again, byte for byte:

python -m abilities.make
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from abilities.fours import Row, in_fours, write
from abilities.words import FOODS, NAMES, OBJECTS, PLACES, WORDS

FOLDER = Path(__file__).resolve().parent / "tasks"
PROSE = FOLDER.parents[1] / "commons" / "text" / "prose.jsonl"
TEST, DEV, CONTEXTS = 36, 3, 25  # fours of each task, of its examples, and of the long contexts
SHORT, LONG = 80, 480  # words between a fact and the question, at least
NEAR = (0, 1, 10, 11)  # two tens and two units: neither digit alone says which
BRACKETS = ("( )", "[ ]", "{ }")


def plus_or_minus(value: int, rng: random.Random) -> tuple[str, list[int]]:
    """An expression of two numbers with this value, and its numbers."""
    if rng.random() < 0.5:
        a = rng.randint(6, value - 6)
        return f"{a} + {value - a}", [a, value - a]
    b = rng.randint(6, 49)
    return f"{value + b} - {b}", [value + b, b]


def arithmetic(rng: random.Random) -> list[Row]:
    """Sums and differences whose values lie close together."""
    base = 10 * rng.randint(2, 7) + rng.randrange(9)
    values = [base + more for more in NEAR]

    def ask(value: int) -> Row:
        while True:
            expression, numbers = plus_or_minus(value, rng)
            # What is smaller than a number that is added, or larger than what is taken from, is no
            # answer at sight; nor is a number of the question itself.
            bound = all(n < base for n in numbers) or numbers[0] > values[-1]
            if bound and not {*numbers} & {*values}:
                return {"question": f"What is {expression}?"}

    return in_fours([ask(value) for value in values], [*map(str, values)], rng)


def steps(rng: random.Random) -> list[Row]:
    """Two steps on three numbers; the number between the two is no option."""
    base = 10 * rng.randint(1, 3) + rng.randrange(9)
    values = [base + more for more in NEAR]

    def ask(value: int) -> Row:
        while True:
            a, b, c = rng.randint(5, 50), rng.randint(5, 30), rng.randint(5, 30)
            if a + b - c == value and not {a, b, c, a + b} & {*values}:
                break
        who, what = rng.choice(NAMES), rng.choice(FOODS)
        told = f"{who} had {a} {what}, bought {b} more and gave away {c}."
        return {"question": f"{told} How many {what} were left?"}

    return in_fours([ask(value) for value in values], [*map(str, values)], rng)


def brackets(rng: random.Random) -> list[Row]:
    """Three brackets are open, and may be closed in four orders, all with the same brackets.

    Two of the orders begin alike, so the last bracket alone does not say which is right. Pairs
    that are closed already stand in between, the same in all four."""
    a, b, c = rng.sample(BRACKETS, 3)
    gaps = [rng.choices(("", *BRACKETS), (5, 1, 1, 1))[0] for _ in range(2)]
    inner = f"{rng.choice(BRACKETS)[0]} {rng.choice(BRACKETS)}".split()
    gaps.append(" ".join([*inner, next(p[-1] for p in BRACKETS if p[0] == inner[0])]))
    rng.shuffle(gaps)
    orders = [(a, b, c), (a, c, b), (b, a, c), (b, c, a)]  # as they are closed

    def opened(order: tuple[str, ...]) -> str:
        parts = [
            part for pair, gap in zip(order[::-1], gaps, strict=True) for part in (pair[0], gap)
        ]
        return " ".join(filter(None, parts))

    closed = [" ".join(pair[-1] for pair in order) for order in orders]
    return in_fours([{"opened": opened(order)} for order in orders], closed, rng)


def orders(words: list[str], swaps: tuple[int, int]) -> list[str]:
    """A list of words in four orders: as it is, and with the words from one of two places on, from
    the other, or from both changing places."""
    found = []
    for one, two in ((False, False), (True, False), (False, True), (True, True)):
        order = list(words)
        for place, swapped in zip(swaps, (one, two), strict=True):
            if swapped:
                order[place : place + 2] = order[place : place + 2][::-1]
        found.append(", ".join(order))
    return found


def copying(rng: random.Random) -> list[Row]:
    """Eight words, to be said again; the options are their orders."""
    found = orders(rng.sample(WORDS, 8), (2, 5))
    return in_fours([{"words": one} for one in found], found, rng)


def fillers() -> Iterator[Row]:
    """Runs of whole sentences of the book's prose, none in two: a long one, and its beginning."""
    sentences: list[str] = []
    for line in PROSE.read_text("utf-8").splitlines():
        sentences += re.split(r"(?<=[.?!]) (?=[A-Z])", " ".join(json.loads(line)["text"].split()))
    found: dict[str, str] = {}
    run: list[str] = []
    for sentence in sentences:
        run.append(sentence)
        text = " ".join(run)
        if "short" not in found and len(text.split()) >= SHORT:
            found["short"] = text
        if len(text.split()) >= LONG:
            yield found | {"long": text}
            found, run = {}, []


def contexts(rng: random.Random) -> list[Row]:
    """Somebody puts something somewhere, and is asked for after a text about other things; which
    of `fillers.jsonl` follows the fact stands in `filler`."""
    prose = PROSE.read_text("utf-8").lower()
    places = [place for place in PLACES if place not in prose]
    things = [thing for thing in OBJECTS if thing not in prose]
    rows = []
    for number in range(CONTEXTS):
        options = [f"in the {place}" for place in rng.sample(places, 4)]
        who, what = rng.choice(NAMES), rng.choice(things)
        facts = [{"fact": f"{who} has put the {what} {where}."} for where in options]
        question = f"Where has {who} put the {what}?"
        rows += in_fours(facts, options, rng, question=question, filler=number)
    return rows


def drawn(kind: Callable[[random.Random], list[Row]]) -> dict[str, list[Row]]:
    """Test questions and examples of a kind; no prompt stands twice."""
    rng = random.Random(kind.__name__)
    seen: set[str] = set()
    rows: list[Row] = []
    while len(rows) < 4 * (TEST + DEV):
        found = kind(rng)
        prompts = {next(iter(row.values())) for row in found}
        if len(prompts) == 4 and not prompts & seen:
            rows += found
            seen |= prompts
    return {"test": rows[: 4 * TEST], "dev": rows[4 * TEST :]}


def main(folder: Path = FOLDER) -> None:
    for kind in (arithmetic, steps, brackets, copying):
        for split, rows in drawn(kind).items():
            write(folder / f"{kind.__name__}_{split}.jsonl", rows)
    write(folder / "contexts.jsonl", contexts(random.Random("contexts")))
    write(folder / "fillers.jsonl", islice(fillers(), CONTEXTS))


if __name__ == "__main__":
    main()
