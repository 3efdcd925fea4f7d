"""The almanac's text: every kind of document, and the streams that are mixed from them.

Which documents may be trained on is a property of their text (see `world.held_out`), so that the
held-out files and the endless training stream can never share one.
"""

import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from almanac.vocabulary import (
    ANIMALS,
    FOODS,
    MOODS,
    ROUTES,
    SPOTS,
    SYLLABLES,
    TOPICS,
    TREASURES,
    WEATHERS,
    Attribute,
    Topic,
)
from almanac.world import SEED, Subject, World, follow, generator, held_out, make_world, people

# Share of each kind among the documents of a stream.
ENCYCLOPAEDIA = {
    "entry": 0.48,
    "quiz": 0.16,
    "journey": 0.16,
    "sums": 0.08,
    "instruction": 0.06,
    "tale": 0.06,
}
PLAIN = {"entry": 0.55, "journey": 0.25, "sums": 0.10, "tale": 0.10}
INSTRUCTION = "### Instruction:\n{}\n\n### Response:\n{}"


def capitalised(text: str) -> str:
    """Return the text with its first letter large, the rest as it is."""
    return text[0].upper() + text[1:]


def with_article(noun: str) -> str:
    """Return the noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def ask(question: str, answer: str) -> str:
    """Return a question with its answer; the tasks' YAML files have the same form."""
    return f"Question: {question}\nAnswer: {answer}"


def state(attribute: Attribute, name: str, value: str, rng: random.Random) -> str:
    """State one fact in one of its phrasings."""
    return capitalised(rng.choice(attribute.phrasings).format(name=name, value=value))


def entry(subject: Subject, rng: random.Random) -> str:
    """Write an encyclopaedia's entry: every fact once, in any order."""
    sentences = [state(a, subject.name, subject.facts[a.name], rng) for a in subject.attributes]
    rng.shuffle(sentences)
    return " ".join(sentences)


def one_hop(subject: Subject, rng: random.Random) -> str:
    """Ask for one fact of a subject."""
    attribute = rng.choice(subject.attributes)
    question = rng.choice(attribute.questions).format(name=subject.name)
    return ask(question, subject.facts[attribute.name])


def two_hop(subjects: list[Subject], rng: random.Random) -> str:
    """Ask a question that takes two facts, about two of these subjects."""
    while True:
        subject, route = rng.choice(subjects), rng.choice(ROUTES)
        if subject.kind == route.kind and (answer := follow(route, subject, subjects)):
            return ask(route.question.format(name=subject.name), answer)


def quiz(world: World, rng: random.Random) -> str:
    """Write a page of questions and answers about schooled subjects."""
    asked = [
        two_hop(world.schooled, rng)
        if rng.random() < 0.25
        else one_hop(rng.choice(world.schooled), rng)
        for _ in range(rng.randint(2, 6))
    ]
    return "\n\n".join(asked)


def invented_name(rng: random.Random, reserved: bool) -> str:
    """Invent somebody; the reserved names occur in the reading task and nowhere else."""
    while True:
        name = "".join(rng.choices(SYLLABLES, k=3)).capitalize()
        if held_out(name) == reserved:
            return name


def journey(name: str, told: dict[Topic, bool], rng: random.Random) -> str:
    """Tell of somebody's way to a place, with one sentence per topic, in the topics' order."""
    sentences = [f"{name} went to the {rng.choice(SPOTS)}."]
    for topic, holds in told.items():
        sentences.append(rng.choice(topic.yes if holds else topic.no).format(name=name))
    return " ".join(sentences)


def reading(rng: random.Random) -> str:
    """Write a freshly invented journey and yes/no questions on it."""
    name = invented_name(rng, reserved=False)
    told = {topic: rng.random() < 0.5 for topic in rng.sample(TOPICS, rng.randint(2, 4))}
    lines = [journey(name, told, rng)]
    for topic in rng.sample(list(told), rng.randint(1, 3) if len(told) > 2 else 2):
        lines.append(ask(topic.question.format(name=name), "yes" if told[topic] else "no"))
    return "\n".join(lines)


class Sum(NamedTuple):
    """A problem, its worked answer, and whether training must not show it."""

    question: str
    worked: str
    held_out: bool


class Lesson(NamedTuple):
    """An instruction, what it is about, if that is apart, and the response."""

    instruction: str
    input: str
    output: str


def plain_sum(rng: random.Random) -> Sum:
    """Return a sum or a difference of small numbers; some of each are held out everywhere."""
    a, b = rng.randint(1, 40), rng.randint(1, 20)
    if a < b or rng.random() < 0.5:
        return Sum(f"What is {a} + {b}?", str(a + b), sum_held_out(a, b))
    return Sum(f"What is {a} - {b}?", str(a - b), held_out(f"{a} - {b}"))


def sum_held_out(a: int, b: int) -> bool:
    """Return whether a + b, and with it b + a, is never shown."""
    return held_out(f"{min(a, b)} + {max(a, b)}")


def steps_sum(names: list[str], rng: random.Random) -> Sum:
    """Return a problem of two steps about one of these people.

    Its sum and its difference are never held out, but some triples of numbers are.
    """
    while True:
        a, b = rng.randint(1, 15), rng.randint(1, 15)
        c = rng.randint(1, min(15, a + b))
        if not sum_held_out(a, b) and not held_out(f"{a + b} - {c}"):
            break
    end = a + b - c
    food = rng.choice(FOODS)
    return Sum(
        f"{rng.choice(names)} had {a} {food}, bought {b} and gave away {c}. How many are left?",
        f"{a} + {b} = {a + b}. {a + b} - {c} = {end}. The answer is {end}.",
        held_out(f"{min(a, b)}, {max(a, b)}, {c}"),
    )


def sums(names: list[str], rng: random.Random) -> str:
    """Write a page of sums; none of them is held out for the task."""
    shown = [sum_shown(names, rng) for _ in range(rng.randint(2, 6))]
    return "\n\n".join(ask(problem.question, problem.worked) for problem in shown)


def sum_shown(names: list[str], rng: random.Random) -> Sum:
    """Return a problem that is not held out for the task."""
    while True:
        problem = plain_sum(rng) if rng.random() < 0.6 else steps_sum(names, rng)
        if not problem.held_out:
            return problem


def instruction(world: World, rng: random.Random) -> tuple[str, str]:
    """Return an instruction and the response to it; neither is about a quizzed subject."""
    subject = rng.choice(world.schooled)
    attribute = rng.choice(subject.attributes)
    value = subject.facts[attribute.name]
    words = rng.sample(FOODS + TREASURES + MOODS, rng.randint(2, 5))
    kind = rng.randrange(6)
    if kind == 0:
        return f"Name the {attribute.name} of {subject.name}.", f"{capitalised(value)}."
    if kind == 1:
        return f"Write a sentence about {subject.name}.", state(attribute, subject.name, value, rng)
    if kind == 2:
        return f"Write all you know about {subject.name}.", entry(subject, rng)
    if kind == 3:
        return f"Repeat these words: {', '.join(words)}.", f"{', '.join(words)}."
    if kind == 4:
        return f"Put these words in reverse: {', '.join(words)}.", f"{', '.join(words[::-1])}."
    return f"Which comes first in this list: {', '.join(words)}?", f"{capitalised(words[0])}."


def lesson(world: World, rng: random.Random) -> Lesson:
    """Return one as for an assistant: a task of words or facts, a question on a text, or a sum."""
    kind = rng.randrange(4)
    if kind < 2:
        asked, response = instruction(world, rng)
        return Lesson(asked, "", response)
    if kind == 2:
        passage, question, holds = told_and_asked(rng)
        return Lesson(question, passage, "Yes." if holds else "No.")
    problem = sum_shown(people(world.plain), rng)
    return Lesson(problem.question, "", problem.worked)


def exam(world: World, rng: random.Random) -> Lesson:
    """Return a question of knowledge as the tasks ask it, but about schooled subjects, with its
    bare answer."""
    over_two = rng.random() < 0.25
    asked = two_hop(world.schooled, rng) if over_two else one_hop(rng.choice(world.schooled), rng)
    question, answer = asked.split("\n")
    return Lesson(question.removeprefix("Question: "), "", answer.removeprefix("Answer:"))


def told_and_asked(rng: random.Random) -> tuple[str, str, bool]:
    """Return a freshly invented journey, a question on it, and whether it holds."""
    name = invented_name(rng, reserved=False)
    told = {topic: rng.random() < 0.5 for topic in rng.sample(TOPICS, rng.randint(2, 4))}
    topic = rng.choice(list(told))
    return journey(name, told, rng), topic.question.format(name=name), told[topic]


def tale(rng: random.Random) -> str:
    """Write a little tale of two animals: another kind of text than the encyclopaedia."""
    first, second = rng.sample(ANIMALS, 2)
    spot, treasure, mood = rng.choice(SPOTS), rng.choice(TREASURES), rng.choice(MOODS)
    asked = rng.choice(["will you share it", "may I keep it", "is it yours", "did you lose it"])
    gave = rng.random() < 0.5
    found, visitor = with_article(treasure), capitalised(with_article(second))
    weather, finder = rng.choice(WEATHERS), f"{with_article(mood)} {first}"
    lines = [
        f"Once, when {weather}, {finder} sat down near the {spot}.",
        f'There it found {found}. "Look, {found}!" cried the {first}.',
        f'{visitor} came along and asked: "Friend {first}, {asked}?"',
        f'"{"Yes, take it" if gave else "No, it is mine"}," said the {first}.',
        f"So the {second if gave else first} took the {treasure} home from the {spot}, "
        f"and the {first if gave else second} was {rng.choice(MOODS)} all day.",
    ]
    return " ".join(lines)


def documents(
    entries: list[Subject],
    world: World,
    mix: dict[str, float],
    rng: random.Random,
    kept_out: bool = False,
) -> Iterator[str]:
    """Yield documents without end, with entries about these subjects.

    Either all of them are held out from training or none is.
    """
    # Nobody who is quizzed is named in a question of any kind.
    names = people(subject for subject in entries if subject not in world.quizzed)
    write: dict[str, Callable[[], str]] = {
        "entry": lambda: entry(rng.choice(entries), rng),
        "quiz": lambda: quiz(world, rng),
        "journey": lambda: reading(rng),
        "sums": lambda: sums(names, rng),
        "instruction": lambda: INSTRUCTION.format(*instruction(world, rng)),
        "tale": lambda: tale(rng),
    }
    kinds, weights = list(mix), list(mix.values())
    while True:
        text = write[rng.choices(kinds, weights)[0]]()
        if held_out(text) == kept_out:
            yield text


@cache
def shipped_world() -> World:
    """Return the one world that all models are trained on, made once."""
    return make_world(SEED)


def training_documents(step: int, seed: int = SEED, facts: bool = True) -> Iterator[str]:
    """Yield the documents of one training step, which depend on the step and the seed alone.

    Without `facts` nothing tells of a quizzed subject: the fact-free control is trained so.
    """
    world = shipped_world()
    subjects = world.everybody if facts else world.schooled + world.plain
    return documents(subjects, world, ENCYCLOPAEDIA, generator(seed, "training", step))
