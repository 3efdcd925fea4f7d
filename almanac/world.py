"""The made-up world: people, towns and things with their facts, a pure function of a seed.

Every subject has an entry in the encyclopaedia. The *quizzed* ones are what the tasks ask about,
and no text that a model is trained on ever asks about them. Questions about the *schooled* ones are
trained on, so that a model can learn what a question is. About the *plain* ones nobody asks: they
are what healing reads.
"""

import itertools
import random
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from almanac.vocabulary import (
    COINED,
    COLOURS,
    FOODS,
    GIVEN,
    INSTRUMENTS,
    MATERIALS,
    OBJECTS,
    PERSON,
    PRODUCTS,
    PROFESSIONS,
    REGIONS,
    RIVERS,
    SURNAMES,
    THING,
    TOWN,
    TOWNS,
    YEARS,
    Attribute,
    Route,
)

FOLDER = Path(__file__).resolve().parent
SEED = 1
# Quizzed, schooled, plain.
SIZES = {"town": (16, 14, 10), "person": (80, 80, 40), "thing": (28, 24, 12)}
ATTRIBUTES = {"person": PERSON, "town": TOWN, "thing": THING}
VALUES = {
    "birthplace": TOWNS,
    "birth year": YEARS,
    "profession": PROFESSIONS,
    "instrument": INSTRUMENTS,
    "food": FOODS,
    "region": REGIONS,
    "river": RIVERS,
    "product": PRODUCTS,
    "place": TOWNS,
    "material": MATERIALS,
    "colour": COLOURS,
}


class Subject(NamedTuple):
    """Somebody or something an entry is about; `facts` maps an attribute's name to its value."""

    kind: str
    name: str
    facts: dict[str, str]

    @property
    def attributes(self) -> list[Attribute]:
        return ATTRIBUTES[self.kind]


class World(NamedTuple):
    """All subjects, in groups that differ in nothing but their names and facts."""

    quizzed: list[Subject]
    schooled: list[Subject]
    plain: list[Subject]

    @property
    def everybody(self) -> list[Subject]:
        return self.quizzed + self.schooled + self.plain


def people(subjects: Iterable[Subject]) -> list[str]:
    """Return the names of the people among these subjects."""
    return [subject.name for subject in subjects if subject.kind == "person"]


def generator(*key: object) -> random.Random:
    """Return a random generator that depends on the key alone."""
    return random.Random("/".join(map(str, key)))


def held_out(text: str) -> bool:
    """Return whether a text (one in eight) is kept away from training and healing."""
    return zlib.crc32(text.encode()) % 8 == 0


def make_world(seed: int = SEED) -> World:
    """Return the world of a seed; everything that is shipped belongs to the default one."""
    rng = generator(seed, "world")
    names = {
        "town": TOWNS,
        "person": [f"{a} {b}" for a, b in itertools.product(GIVEN, SURNAMES)],
        "thing": [f"the {a} {b}" for a, b in itertools.product(COINED, OBJECTS)],
    }
    groups: tuple[list[Subject], ...] = [], [], []
    for kind, sizes in SIZES.items():
        drawn = iter(rng.sample(names[kind], sum(sizes)))
        for group, size in zip(groups, sizes, strict=True):
            group += settle(kind, list(itertools.islice(drawn, size)), people(group), rng)
    return World(*groups)


def settle(kind: str, names: list[str], makers: list[str], rng: random.Random) -> list[Subject]:
    """Give every name its facts, each value of an attribute about equally often."""
    columns = []
    for attribute in ATTRIBUTES[kind]:
        values = makers if attribute.name == "maker" else VALUES[attribute.name]
        rounds = [rng.sample(values, len(values)) for _ in range(len(names) // len(values) + 1)]
        columns.append(list(itertools.chain(*rounds))[: len(names)])
    keys = [attribute.name for attribute in ATTRIBUTES[kind]]
    return [
        Subject(kind, name, dict(zip(keys, values, strict=True)))
        for name, *values in zip(names, *columns, strict=True)
    ]


def follow(route: Route, subject: Subject, subjects: Iterable[Subject]) -> str | None:
    """Return the answer to a two-hop question, if its middle is one of these subjects."""
    middle = subject.facts[route.first]
    return next((other.facts[route.second] for other in subjects if other.name == middle), None)
