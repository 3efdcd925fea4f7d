"""The made-up world: people, short biographies, passages about invented places, and a quiz.

Everything is a pure function of a seed. To write the shipped text and task files again:

    python -m almanac.world

Which documents may be trained on is a property of their text (see `held_out`), so that the
held-out files and the endless training stream can never share one.
"""

import argparse
import itertools
import json
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from almanac.vocabulary import (
    ATTRIBUTES,
    GIVEN,
    PLACE_SYLLABLES,
    PLACES,
    PROPERTIES,
    SURNAMES,
    Attribute,
)

FOLDER = Path(__file__).resolve().parent
SEED = 1
QUIZZED, OTHERS = 200, 200
SHARE_OF_PASSAGES = 0.4
QUESTIONS_PER_PASSAGE = 3
VALIDATION_DOCUMENTS, HEALING_DOCUMENTS = 1000, 3250
KNOWLEDGE_QUESTIONS, READING_QUESTIONS, DEV_QUESTIONS = 400, 300, 120


class Person(NamedTuple):
    """A made-up person; `facts` maps the name of an attribute to its value."""

    name: str
    facts: dict[str, str]


def generator(*key: object) -> random.Random:
    """Return a random generator that depends on the key alone."""
    return random.Random("/".join(map(str, key)))


def held_out(text: str) -> bool:
    """Return whether a text (one in eight) is kept away from training and healing."""
    return zlib.crc32(text.encode()) % 8 == 0


def make_people(seed: int = SEED) -> tuple[list[Person], list[Person]]:
    """Return the quizzed people and the other people."""
    rng = generator(seed, "people")
    pairs = rng.sample(list(itertools.product(GIVEN, SURNAMES)), QUIZZED + OTHERS)
    names = [f"{given} {surname}" for given, surname in pairs]
    groups = names[:QUIZZED], names[QUIZZED:]
    return settle(groups[0], rng), settle(groups[1], rng)


def settle(names: list[str], rng: random.Random) -> list[Person]:
    """Give every name its facts, each value of an attribute equally often within the group."""
    columns = []
    for attribute in ATTRIBUTES:
        values = attribute.values * (len(names) // len(attribute.values))
        rng.shuffle(values)
        columns.append(values)
    keys = [attribute.name for attribute in ATTRIBUTES]
    return [
        Person(name, dict(zip(keys, values, strict=True)))
        for name, *values in zip(names, *columns, strict=True)
    ]


def biography(person: Person, rng: random.Random) -> str:
    """Write one biography: every fact once, in any order, each in one of its phrasings."""
    sentences = [
        rng.choice(attribute.phrasings).format(name=person.name, value=person.facts[attribute.name])
        for attribute in ATTRIBUTES
    ]
    rng.shuffle(sentences)
    return " ".join(sentences)


def place_name(rng: random.Random, reserved: bool) -> str:
    """Invent a name; the reserved ones occur in the reading task and nowhere else."""
    while True:
        name = "".join(rng.choices(PLACE_SYLLABLES, k=3)).capitalize()
        if held_out(name) == reserved:
            return name


def invent_place(rng: random.Random, reserved: bool) -> str:
    """Invent a place such as `the mill of Tiduze`."""
    return f"the {rng.choice(PLACES)} of {place_name(rng, reserved)}"


def state(place: str, facts: dict[str, bool]) -> str:
    """State the facts about a place in plain sentences."""
    subject = place[0].upper() + place[1:]
    return " ".join(f"{subject} is {'' if has else 'not '}{word}." for word, has in facts.items())


def prompt(place: str, word: str) -> str:
    """Return the text between a passage and the answer; the task's YAML has the same."""
    return f"\nQuestion: Is {place} {word}?\nAnswer:"


def passage(rng: random.Random) -> str:
    """Write a passage about a freshly invented place, with questions drawn independently."""
    count = rng.randint(1, 3)
    place = invent_place(rng, reserved=False)
    words = rng.sample(PROPERTIES, count)
    facts: dict[str, bool] = {}
    # Of several properties the place has one and lacks one, so that the order says nothing.
    while len(set(facts.values())) != min(count, 2):
        facts = {word: rng.random() < 0.5 for word in words}
    text = state(place, facts)
    for word in rng.choices(words, k=QUESTIONS_PER_PASSAGE):
        text += prompt(place, word) + (" yes" if facts[word] else " no")
    return text


def documents(people: list[Person], rng: random.Random, kept_out: bool) -> Iterator[str]:
    """Yield documents without end, either only held-out ones or none of them."""
    while True:
        is_passage = rng.random() < SHARE_OF_PASSAGES
        text = passage(rng) if is_passage else biography(rng.choice(people), rng)
        if held_out(text) == kept_out:
            yield text


def training_documents(step: int, seed: int = SEED) -> Iterator[str]:
    """Yield the documents of one training step, which depend on the step and the seed alone."""
    quizzed, others = make_people(seed)
    return documents(quizzed + others, generator(seed, "training", step), kept_out=False)


def distractors(answers: list[str], rng: random.Random) -> list[list[str]]:
    """Offer three wrong values per answer, each value in all three times as often as it is right.

    So whatever value is preferred, it is right in exactly a quarter of the times it is offered.
    """
    rows = [[answer] for answer in answers]
    for _ in range(3):
        column = rng.sample(answers, len(answers))
        while clashes := [i for i, row in enumerate(rows) if column[i] in row]:
            for i in clashes:
                j = rng.randrange(len(column))
                column[i], column[j] = column[j], column[i]
        for row, value in zip(rows, column, strict=True):
            row.append(value)
    return [row[1:] for row in rows]


def knowledge_questions(people: list[Person], count: int, rng: random.Random) -> list[dict]:
    """Return 4-choice cloze questions: every person in turn, every attribute in turn."""
    asked: dict[str, list[Person]] = {attribute.name: [] for attribute in ATTRIBUTES}
    for number in range(count):
        # One further attribute per round, so that nobody is asked the same thing twice.
        turn = number + number // len(people)
        asked[ATTRIBUTES[turn % len(ATTRIBUTES)].name].append(people[number % len(people)])
    questions = [
        question
        for attribute in ATTRIBUTES
        for question in attribute_questions(attribute, asked[attribute.name], rng)
    ]
    rng.shuffle(questions)
    positions = [number % 4 for number in range(count)]
    for question, position in zip(questions, positions, strict=True):
        question["choices"].insert(position, question.pop("right"))
        question["answer"] = position
    rng.shuffle(questions)
    return questions


def attribute_questions(
    attribute: Attribute, people: list[Person], rng: random.Random
) -> list[dict]:
    """Return one question on this attribute for each of the people."""
    answers = [person.facts[attribute.name] for person in people]
    start = attribute.phrasings[0].removesuffix(" {value}.")
    return [
        {
            "attribute": attribute.name,
            "question": start.format(name=person.name),
            "choices": wrong,
            "right": right,
        }
        for person, right, wrong in zip(people, answers, distractors(answers, rng), strict=True)
    ]


def reading_questions(count: int, taken: set[str], rng: random.Random) -> list[dict]:
    """Return yes/no questions on one-statement passages, every property as often yes as no."""
    questions = []
    for number in range(count):
        word, answer = PROPERTIES[number // 2 % len(PROPERTIES)], number % 2
        place = invent_place(rng, reserved=True)
        while place in taken:
            place = invent_place(rng, reserved=True)
        taken.add(place)
        statement = state(place, {word: bool(answer)})
        question = f"Is {place} {word}?"
        questions.append({"passage": statement, "question": question, "answer": answer})
    rng.shuffle(questions)
    return questions


def distinct(texts: Iterator[str], count: int) -> list[dict]:
    """Return the first so many different texts as rows."""
    chosen: dict[str, None] = {}
    while len(chosen) < count:
        chosen[next(texts)] = None
    return [{"text": text} for text in chosen]


def make_files(seed: int = SEED) -> dict[str, list[dict]]:
    """Return the rows of all shipped files by their path below this folder."""
    quizzed, others = make_people(seed)
    everybody = documents(quizzed + others, generator(seed, "validation"), kept_out=True)
    unquizzed = documents(others, generator(seed, "healing"), kept_out=False)
    knowledge, reading = generator(seed, "knowledge"), generator(seed, "reading")
    places: set[str] = set()
    return {
        "text/validation.jsonl": distinct(everybody, VALIDATION_DOCUMENTS),
        "text/healing.jsonl": distinct(unquizzed, HEALING_DOCUMENTS),
        "tasks/knowledge_test.jsonl": knowledge_questions(quizzed, KNOWLEDGE_QUESTIONS, knowledge),
        "tasks/knowledge_dev.jsonl": knowledge_questions(others, DEV_QUESTIONS, knowledge),
        "tasks/reading_test.jsonl": reading_questions(READING_QUESTIONS, places, reading),
        "tasks/reading_dev.jsonl": reading_questions(DEV_QUESTIONS, places, reading),
    }


def write_files(folder: Path, seed: int = SEED) -> list[Path]:
    """Write the shipped files below a folder and return their paths."""
    paths = []
    for name, rows in make_files(seed).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_bytes(lines.encode())
        paths.append(path)
    return paths


def main() -> None:
    """Write the shipped text and task files."""
    parser = argparse.ArgumentParser(description="Write the almanac's text and task files again.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write below")
    for path in write_files(parser.parse_args().out):
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
