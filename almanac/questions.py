"""The almanac's questions: rows of the lm-eval tasks, in which no habit scores above chance."""

import random
import re
from collections import Counter, defaultdict

from almanac.text import invented_name, journey, plain_sum, steps_sum
from almanac.vocabulary import ROUTES, TOPICS
from almanac.world import Subject, follow

Question = dict[str, object]


def distractors(answers: list[str], rng: random.Random) -> list[list[str]]:
    """Offer three wrong values per answer, each value in all three times as often as it is right.

    So whatever value is preferred, it is right in exactly a quarter of the times it is offered.
    """
    for _ in range(1000):
        rows = [[answer] for answer in answers]
        if all(add_column(rows, rng.sample(answers, len(answers)), rng) for _ in range(3)):
            return [row[1:] for row in rows]
    raise ValueError(f"one answer is too common among {answers}")


def add_column(rows: list[list[str]], column: list[str], rng: random.Random) -> bool:
    """Add the values, reordered so that none meets its equal; False where that is not found."""
    for _ in range(100):
        clashes = [i for i, row in enumerate(rows) if column[i] in row]
        if not clashes:
            for row, value in zip(rows, column, strict=True):
                row.append(value)
            return True
        for i in clashes:
            j = rng.randrange(len(column))
            column[i], column[j] = column[j], column[i]
    return False


def four_choice(asked: dict[str, list[tuple[str, str]]], rng: random.Random) -> list[Question]:
    """Make 4-choice questions of (question, answer) pairs by kind; positions are balanced."""
    rows: list[Question] = []
    for kind, pairs in asked.items():
        wrong = distractors([answer for _, answer in pairs], rng)
        for (question, answer), others in zip(pairs, wrong, strict=True):
            rows.append({"kind": kind, "question": question, "right": answer, "choices": others})
    rng.shuffle(rows)
    for number, row in enumerate(rows):
        row["answer"] = number % 4
        row["choices"].insert(number % 4, row.pop("right"))
    rng.shuffle(rows)
    return rows


def sampled(pairs: list[tuple[str, str]], count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Draw so many pairs, of which no answer is more than a quarter: see `distractors`."""
    for _ in range(1000):
        drawn = rng.sample(pairs, count)
        if 4 * Counter(answer for _, answer in drawn).most_common(1)[0][1] <= count:
            return drawn
    raise ValueError(f"one answer is too common among {pairs}")


def one_hop(subjects: list[Subject], counts: dict[str, int], rng: random.Random) -> list[Question]:
    """Return 4-choice questions on one fact, so many per attribute of each kind of subject."""
    asked: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for kind, count in counts.items():
        members = [subject for subject in subjects if subject.kind == kind]
        for attribute in members[0].attributes:
            pairs = [
                (attribute.questions[0].format(name=subject.name), subject.facts[attribute.name])
                for subject in members
            ]
            asked[attribute.name] = sampled(pairs, count, rng)
    return four_choice(asked, rng)


def two_hop(
    subjects: list[Subject], known: list[Subject], counts: dict[str, int], rng: random.Random
) -> list[Question]:
    """Return 4-choice questions over two facts, so many per route from each kind of subject.

    The middle of each is one of the known subjects.
    """
    asked: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for route in ROUTES:
        pairs = [
            (route.question.format(name=subject.name), answer)
            for subject in subjects
            if subject.kind == route.kind and (answer := follow(route, subject, known))
        ]
        asked[f"{route.first}, {route.second}"] = sampled(pairs, counts[route.kind], rng)
    return four_choice(asked, rng)


def yes_no(count: int, taken: set[str], rng: random.Random) -> list[Question]:
    """Return yes/no questions on journeys of reserved people, each question as often yes as no."""
    rows: list[Question] = []
    while len(rows) < count:
        name = invented_name(rng, reserved=True)
        if name in taken:
            continue
        taken.add(name)
        asked, answer = TOPICS[len(rows) // 2 % len(TOPICS)], len(rows) % 2
        others = rng.sample([topic for topic in TOPICS if topic is not asked], rng.randint(1, 3))
        topics = rng.sample([asked, *others], len(others) + 1)
        told = {topic: rng.random() < 0.5 for topic in topics} | {asked: bool(answer)}
        question = asked.question.format(name=name)
        rows.append({"passage": journey(name, told, rng), "question": question, "answer": answer})
    rng.shuffle(rows)
    return rows


def arithmetic(
    names: list[str], counts: dict[str, int], taken: set[str], rng: random.Random
) -> list[Question]:
    """Return sums and problems that training never shows, with the final number.

    No two have the same numbers, in whatever order; `taken` collects them.
    """
    write = {"sum": lambda: plain_sum(rng), "steps": lambda: steps_sum(names, rng)}
    rows: list[Question] = []
    for kind, count in counts.items():
        wanted = len(rows) + count
        while len(rows) < wanted:
            problem = write[kind]()
            first, second, *rest = re.findall(r"\d+", problem.question)
            sign = "-" if "-" in problem.question else "+"
            numbers = " ".join([kind, sign, *sorted([first, second]), *rest])
            if problem.held_out and numbers not in taken:
                taken.add(numbers)
                answer = problem.worked.removesuffix(".").split()[-1]
                rows.append({"kind": kind, "question": problem.question, "answer": answer})
    rng.shuffle(rows)
    return rows
