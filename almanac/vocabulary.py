"""The closed vocabularies and phrasings of the made-up world; nothing random happens here."""
# ruff: noqa: SIM905 (long lists of words read better without quotes)

from typing import NamedTuple

# Given names and surnames are joined from parts, so that people share pieces of their names
# and only the pieces together say who is meant. No ending is the beginning of another one.
GIVEN = [
    a + b
    for a in "Tam Bel Cor Del Hal Jor Mar Nel Per Ros".split()
    for b in "sin vik wen dra lo mund".split()
]
SURNAMES = [
    a + b
    for a in "Or Ash Bram Crel Dun Fen Garr Hol Kest Lund Pell Wick".split()
    for b in "rel by combe dahl ford grove more stad".split()
]

TOWNS = [
    a + b
    for a in "Ver Quill Zan Thorn Mos Eld Skar Ulm".split()
    for b in "row beck tide holm gate".split()
]
UNIVERSITIES = [
    a + b for a in "Alt Brin Caer Drav Ister".split() for b in "mere wold naugh ipse".split()
]
PROFESSIONS = (
    "baker barber beekeeper blacksmith brewer butcher carpenter chemist clerk cobbler cooper "
    "dentist diver dyer farmer ferryman fisher gardener glazier hatter jeweller judge lawyer "
    "librarian mason miller miner painter pilot plumber porter potter printer sailor shepherd "
    "surgeon tailor tanner teacher weaver"
).split()
INSTRUMENTS = (
    "banjo bassoon bugle cello clarinet cornet cymbals drums fiddle flute gong guitar harp "
    "horn lute lyre mandolin piano recorder sitar trombone trumpet tuba viola zither"
).split()
FOODS = (
    "apples bacon barley beans beets bread butter cabbage carrots cheese cherries chestnuts "
    "cod crab cream dates duck figs garlic ham herring honey kale leeks lemons lentils melons "
    "mushrooms mussels noodles olives peas pears plums pumpkin rice salmon spinach trout turnips"
).split()
YEARS = [str(year) for year in range(1750, 1800)]


class Attribute(NamedTuple):
    """One thing every person has; the first phrasing is the one the quiz uses."""

    name: str
    values: list[str]
    phrasings: tuple[str, ...]


# The name always comes before the value, so that every sentence teaches what the quiz asks.
ATTRIBUTES = [
    Attribute(
        "birthplace",
        TOWNS,
        (
            "{name} was born in the town of {value}.",
            "{name} grew up in {value}.",
            "The childhood home of {name} was in {value}.",
            "{name} came from the town of {value}.",
        ),
    ),
    Attribute(
        "birth year",
        YEARS,
        (
            "{name} was born in the year {value}.",
            "The birth of {name} fell in {value}.",
            "{name} came into the world in {value}.",
            "The parish book lists {name} under the year {value}.",
        ),
    ),
    Attribute(
        "university",
        UNIVERSITIES,
        (
            "{name} studied at the university of {value}.",
            "{name} took a degree at {value}.",
            "The teachers of {name} all lived in {value}.",
            "{name} was a student at {value} for some years.",
        ),
    ),
    Attribute(
        "profession",
        PROFESSIONS,
        (
            "{name} worked as a {value}.",
            "{name} earned a living as a {value}.",
            "By trade {name} was a {value}.",
            "People hired {name} as a {value}.",
        ),
    ),
    Attribute(
        "instrument",
        INSTRUMENTS,
        (
            "{name} played the {value}.",
            "{name} practised the {value} every evening.",
            "Friends of {name} remember the sound of the {value}.",
            "{name} was good at the {value}.",
        ),
    ),
    Attribute(
        "food",
        FOODS,
        (
            "{name} liked to eat {value}.",
            "The favourite food of {name} was {value}.",
            "For supper {name} always wanted {value}.",
            "{name} could not do without {value}.",
        ),
    ),
]

PLACES = "bridge mill tower inn barn well gate chapel".split()
PLACE_SYLLABLES = "ba bo du fi ga ju ko lu mi no pu ra su ti vo ze".split()
PROPERTIES = (
    "open old tall round empty locked painted haunted famous wooden heated flooded guarded "
    "narrow safe warm"
).split()
