"""Writes the shipped text and question files again, byte for byte:

python -m almanac.files
"""

import argparse
import json
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from almanac.questions import arithmetic, one_hop, two_hop, yes_no
from almanac.text import (
    INSTRUCTION,
    PLAIN,
    Lesson,
    documents,
    entry,
    exam,
    instruction,
    lesson,
)
from almanac.world import FOLDER, SEED, Subject, World, generator, held_out, make_world, people

VALIDATION, HEALING, HEALING_VALIDATION, TALES, INSTRUCTIONS = 1000, 4000, 500, 500, 1500
CALIBRATION, HELD_OUT = 500, 500
LESSONS, EXAM = 2500, 1000
ONE_HOP = {"person": 48, "town": 16, "thing": 28}  # questions per attribute
TWO_HOP = {"person": 48, "thing": 16}  # questions per route
SUMS = {"sum": 80, "steps": 80}
YES_NO = 400
DEV_ONE_HOP, DEV_TWO_HOP = {"person": 8, "town": 8, "thing": 8}, {"person": 8, "thing": 4}
DEV_YES_NO, DEV_SUMS = 40, {"sum": 16, "steps": 16}


def distinct(texts: Iterator[str], count: int, without: Iterable[dict] = ()) -> list[dict]:
    """Return the first so many different texts as rows, none of them among other rows."""
    others = {row["text"] for row in without}
    chosen: dict[str, None] = {}
    while len(chosen) < count:
        if (text := next(texts)) not in others:
            chosen[text] = None
    return [{"text": text} for text in chosen]


def different(write: Callable[[World, random.Random], Lesson], count: int, seed: int) -> list[dict]:
    """Return the first so many different lessons of a kind as rows."""
    world, rng = make_world(seed), generator(seed, write.__name__)
    found: dict[Lesson, None] = {}
    while len(found) < count:
        found[write(world, rng)] = None
    return [one._asdict() for one in found]


def an_entry_each(subjects: list[Subject], seed: int) -> Iterator[str]:
    """Yield an entry about every subject, none of them held out."""
    rng = generator(seed, "an entry each")
    for subject in subjects:
        text = entry(subject, rng)
        while held_out(text):
            text = entry(subject, rng)
        yield text


def make_texts(seed: int = SEED) -> dict[str, list[dict]]:
    """Return the rows of the text files by their path below this folder.

    Healing, calibration and what is held out for it read about the plain subjects, of whom no
    question asks; healing's twin `healing_facts`, a control, about everybody. All files but those
    for healing hold documents that training never shows. What calibrates or is held out shares
    none with another file. Lessons and exam are instructions with responses, for healing; they
    name nobody who is quizzed.
    """
    world = make_world(seed)

    def text(name: str, subjects: list[Subject], kept_out: bool = False) -> Iterator[str]:
        return documents(subjects, world, PLAIN, generator(seed, name), kept_out)

    tales = documents([], world, {"tale": 1.0}, generator(seed, "tales"), kept_out=True)
    rng = generator(seed, "instructions")
    pairs: dict[tuple[str, str], None] = {}
    while len(pairs) < INSTRUCTIONS:
        pairs[instruction(world, rng)] = None
    validation = distinct(text("validation", world.everybody, True), VALIDATION)
    healing_validation = distinct(text("healing validation", world.plain, True), HEALING_VALIDATION)
    taken = validation + healing_validation
    calibration = distinct(text("calibration", world.plain, True), CALIBRATION, taken)
    taken += calibration
    return {
        "text/validation.jsonl": validation,
        "text/calibration.jsonl": calibration,
        "text/held_out.jsonl": distinct(text("held out", world.plain, True), HELD_OUT, taken),
        "text/healing.jsonl": distinct(text("healing", world.plain), HEALING),
        "text/healing_validation.jsonl": healing_validation,
        "text/healing_facts.jsonl": distinct(
            chain(an_entry_each(world.everybody, seed), text("healing facts", world.everybody)),
            HEALING,
        ),
        "text/tales.jsonl": distinct(tales, TALES),
        "text/instructions.jsonl": [
            {"instruction": asked, "input": "", "output": response}
            | {"text": INSTRUCTION.format(asked, response)}
            for asked, response in pairs
        ],
        "text/lessons.jsonl": different(lesson, LESSONS, seed),
        "text/exam.jsonl": different(exam, EXAM, seed),
    }


def make_questions(seed: int = SEED) -> dict[str, list[dict]]:
    """Return the rows of the question files by their path below this folder.

    Tests ask about the quizzed subjects, the examples of few-shot prompts about schooled ones.
    """
    world = make_world(seed)
    invented: set[str] = set()
    numbers: set[str] = set()
    found: dict[str, list[dict]] = {}
    for split, group, known, hop, hops, yes, sums in (
        # Second facts of plain subjects, which healing reads, are not asked for.
        ("test", world.quizzed, world.quizzed + world.schooled, ONE_HOP, TWO_HOP, YES_NO, SUMS),
        # Within the schooled, whom training asks about too.
        ("dev", world.schooled, world.schooled, DEV_ONE_HOP, DEV_TWO_HOP, DEV_YES_NO, DEV_SUMS),
    ):
        rng = generator(seed, "questions", split)
        found |= {
            f"tasks/one_hop_{split}.jsonl": one_hop(group, hop, rng),
            f"tasks/two_hop_{split}.jsonl": two_hop(group, known, hops, rng),
            f"tasks/reading_{split}.jsonl": yes_no(yes, invented, rng),
            f"tasks/sums_{split}.jsonl": arithmetic(people(world.plain), sums, numbers, rng),
        }
    return found


def write_files(folder: Path, seed: int = SEED) -> list[Path]:
    """Write the shipped files below a folder and return their paths."""
    paths = []
    for name, rows in (make_texts(seed) | make_questions(seed)).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_bytes(lines.encode())
        paths.append(path)
    return paths


def main() -> None:
    """Write the shipped text and question files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write below")
    for path in write_files(parser.parse_args().out):
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
