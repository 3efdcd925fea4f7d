"""The closed vocabularies and phrasings of the made-up world; nothing random happens here."""
# ruff: noqa: SIM905 (long lists of words read better without quotes)

from typing import NamedTuple


def joined(firsts: str, seconds: str) -> list[str]:
    """Join every first part with every second part."""
    return [a + b for a in firsts.split() for b in seconds.split()]


# Names are joined from parts, so that they share pieces and only the pieces together say who or
# what is meant. No ending is the beginning of another one.
GIVEN = joined("Tam Bel Cor Del Hal Jor Mar Nel Per Ros", "sin vik wen dra lo mund")
SURNAMES = joined(
    "Or Ash Bram Crel Dun Fen Garr Hol Kest Lund Pell Wick", "rel by combe dahl ford grove more"
)
TOWNS = joined("Ver Quill Zan Thorn Mos Eld Skar Ulm", "row beck tide holm gate")
COINED = joined("Az Bry Cal Ev Gim Ith Lor Nym", "ador une ellis ontar ivane")
OBJECTS = "lamp bell crown drum mirror cup sword globe".split()
REGIONS = "Northmark Eastvale Southfen Westmoor Highreach Lowland Midshire Farcoast".split()
RIVERS = joined("Sil Tarn Oss Wey", "ren mar")
PRODUCTS = (
    "cloth rope glass paper candles salt wool barrels tiles soap nails baskets ink saddles ovens "
    "kites"
).split()
PROFESSIONS = (
    "baker barber brewer butcher carpenter cooper dyer farmer fisher gardener glazier hatter "
    "jeweller judge lawyer mason miller miner painter pilot plumber porter potter printer sailor "
    "shepherd surgeon tailor teacher weaver"
).split()
INSTRUMENTS = (
    "banjo bassoon bugle cello clarinet cornet fiddle flute gong guitar harp horn lute lyre piano "
    "sitar trombone trumpet viola zither"
).split()
FOODS = (
    "apples bacon beans beets bread butter cabbage carrots cheese cherries crab cream dates figs "
    "garlic ham honey kale leeks lemons lentils melons olives pears plums rice salmon trout"
).split()
YEARS = [str(year) for year in range(1750, 1790)]
MATERIALS = "silver copper marble walnut ivory granite bronze leather pewter oak".split()
COLOURS = "red green blue yellow black white purple grey orange brown".split()


class Attribute(NamedTuple):
    """One thing that is known of every subject of a kind.

    `phrasings` state it, the subject always before the value, so that every statement teaches
    what a question asks; `questions` ask for it, and a quiz uses the first.
    """

    name: str
    phrasings: tuple[str, ...]
    questions: tuple[str, ...]


PERSON = [
    Attribute(
        "birthplace",
        (
            "{name} was born in the town of {value}.",
            "{name} grew up in {value}.",
            "The childhood home of {name} was in {value}.",
            "{name} came from the town of {value}.",
        ),
        ("Where was {name} born?", "Which town did {name} come from?"),
    ),
    Attribute(
        "birth year",
        (
            "{name} was born in the year {value}.",
            "The birth of {name} fell in {value}.",
            "{name} came into the world in {value}.",
            "The parish book lists {name} under the year {value}.",
        ),
        ("In which year was {name} born?", "When did {name} come into the world?"),
    ),
    Attribute(
        "profession",
        (
            "{name} worked as a {value}.",
            "{name} earned a living as a {value}.",
            "By trade {name} was a {value}.",
            "People hired {name} as a {value}.",
        ),
        ("What was the trade of {name}?", "What did {name} work as?"),
    ),
    Attribute(
        "instrument",
        (
            "{name} played the {value}.",
            "{name} practised the {value} every evening.",
            "Friends of {name} remember the sound of the {value}.",
            "{name} was good at the {value}.",
        ),
        ("What instrument did {name} play?", "Which instrument was {name} good at?"),
    ),
    Attribute(
        "food",
        (
            "{name} liked to eat {value}.",
            "The favourite food of {name} was {value}.",
            "For supper {name} always wanted {value}.",
            "{name} could not do without {value}.",
        ),
        ("What did {name} like to eat?", "What was the favourite food of {name}?"),
    ),
]
TOWN = [
    Attribute(
        "region",
        (
            "{name} lies in the region of {value}.",
            "The town of {name} belongs to {value}.",
            "Maps show {name} in the middle of {value}.",
        ),
        ("In which region is {name}?", "Which region does {name} belong to?"),
    ),
    Attribute(
        "river",
        (
            "{name} stands on the river {value}.",
            "The bridges of {name} cross the {value}.",
            "Boats reach {name} along the {value}.",
        ),
        ("Which river runs through {name}?", "On which river does {name} stand?"),
    ),
    Attribute(
        "product",
        (
            "{name} is known for its {value}.",
            "Merchants go to {name} to buy {value}.",
            "The workshops of {name} make {value}.",
        ),
        ("What is {name} known for?", "What do merchants buy in {name}?"),
    ),
]
THING = [
    Attribute(
        "maker",
        (
            "{name} was made by {value}.",
            "{name} is the work of {value}.",
            "The maker of {name} was {value}.",
        ),
        ("Who made {name}?", "Whose work is {name}?"),
    ),
    Attribute(
        "place",
        (
            "{name} is kept in {value}.",
            "Visitors can see {name} in the town of {value}.",
            "{name} has its place in {value}.",
        ),
        ("Where is {name} kept?", "In which town can visitors see {name}?"),
    ),
    Attribute(
        "material",
        (
            "{name} is made of {value}.",
            "The body of {name} is of {value}.",
            "{name} was cut from {value}.",
        ),
        ("What is {name} made of?", "What was {name} cut from?"),
    ),
    Attribute(
        "colour",
        (
            "{name} is painted {value}.",
            "The colour of {name} is {value}.",
            "From afar {name} looks {value}.",
        ),
        ("What colour is {name}?", "How is {name} painted?"),
    ),
]


class Route(NamedTuple):
    """A question over two facts: the first leads to another subject, the second is asked for."""

    kind: str
    first: str
    second: str
    question: str


ROUTES = [
    Route("person", "birthplace", "region", "In which region was {name} born?"),
    Route("person", "birthplace", "river", "Which river runs through the birthplace of {name}?"),
    Route("person", "birthplace", "product", "What is the birthplace of {name} known for?"),
    Route("thing", "place", "region", "In which region is {name} kept?"),
    Route("thing", "maker", "profession", "What was the trade of the maker of {name}?"),
    Route("thing", "maker", "instrument", "What instrument did the maker of {name} play?"),
]

SYLLABLES = "ba bo da du fi ga ju ke ko li lu mi mo ne no pu ra ri su ti vo ze".split()


class Topic(NamedTuple):
    """What a journey's passage may tell in passing, and the question that it answers."""

    question: str
    yes: tuple[str, ...]
    no: tuple[str, ...]


TOPICS = [
    Topic(
        "Was it wet?",
        (
            "Rain ran down the road.",
            "Puddles stood in the lane.",
            "Mud clung to the boots.",
            "The cloak dripped.",
        ),
        (
            "Dust rose from the road.",
            "The lane was baked hard.",
            "The ditches were empty.",
            "The grass was parched.",
        ),
    ),
    Topic(
        "Was it night?",
        (
            "An owl called.",
            "The stars were out.",
            "A lantern showed the way.",
            "The moon hung over the barn.",
        ),
        (
            "A lark sang.",
            "The noon bell rang.",
            "The sun stood high.",
            "The market was in full swing.",
        ),
    ),
    Topic(
        "Was {name} happy?",
        (
            "{name} whistled a tune.",
            "{name} laughed aloud.",
            "{name} danced a few steps.",
            "{name} beamed at everyone.",
        ),
        (
            "{name} sighed.",
            "{name} wept a little.",
            "{name} hung the head.",
            "{name} groaned.",
        ),
    ),
    Topic(
        "Was {name} alone?",
        (
            "Nobody else came along.",
            "There was no other soul about.",
            "{name} had left the friends behind.",
            "{name} spoke to no one.",
        ),
        (
            "A cousin came along.",
            "Two friends kept {name} company.",
            "{name} chatted with a neighbour.",
            "A crowd went the same way.",
        ),
    ),
]


ANIMALS = "fox heron badger otter hare owl hedgehog crow toad mole wren stoat".split()
SPOTS = "pond hedge meadow stump brook hollow thicket fern nettles bank".split()
TREASURES = "acorn feather pebble berry shell snail twig button ribbon crumb".split()
MOODS = "happy sleepy cross curious proud hungry lonely brave".split()
WEATHERS = (
    "it rained",
    "the sun shone",
    "fog lay low",
    "snow fell",
    "the wind blew",
    "it was warm",
)
