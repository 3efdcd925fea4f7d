"""Colours and marks by what they mean, the same through the book, each with its twin for the dark.

Strategies have colours that nothing else has. All else that stands side by side, such as ways of
healing, runs, texts and measures, takes those of OTHERS. What was done to a model after pruning is
told by line and fill, never by colour. All that carries data has a contrast of at least 3 to its
ground, text of 4.5, in the light and in the dark.
"""

from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any

from matplotlib import colormaps
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, rgb2hex, to_rgb

# In the light: in the dark.
_STRATEGIES = {
    "#0072b2": "#56b4e9",  # blue
    "#b35900": "#f0a04b",  # orange
    "#00805e": "#3fc79a",  # green
    "#5a6b00": "#b3c34d",
    "#8a3b12": "#e0855a",
    "#00657a": "#3fb3cc",
}
_OTHERS = {
    "#5b3fb0": "#a997f0",  # violet
    "#c2347f": "#f08abf",  # magenta
    "#8a6d00": "#d9bb45",  # ochre
    "#0f7f8c": "#4fc4cf",  # teal
    "#7a1f3d": "#dd7f9c",  # wine
    "#5f6b78": "#a3b0bd",
    "#3a3f8f": "#8f97ea",
}
STRATEGIES, OTHERS = [*_STRATEGIES], [*_OTHERS]
INK = "#0b4f6c"  # of layers that are there, of sets of them, and of the study's own model
GONE = "#a8501b"  # the edge of a layer that is dropped
FAINT = "#ededed"  # of what is not there
LEVEL = "#7f7f7f"  # what the unpruned model reaches
GREY = "#595959"  # chance, and other lines to measure by
# What becomes of questions.
FATES = {"kept": (INK, ""), "gained": (OTHERS[3], "///"), "lost": (OTHERS[1], "...")}
FATES |= {"wrong": ("#d9d9d9", "")}

MARKS = "os^Dv<>P"
LINES = {"healed": "-", "unhealed": "--", "control": ":"}  # by the state of a model
DASHES = ["--", "-.", (0, (1, 1.5)), (0, (5, 1, 1, 1, 1, 1))]  # of runs and texts beside the own

SURFACE, BRIGHT = "#121212", "#e6eaee"  # of the theme in the dark: its ground, and near white
STEPS = 256  # of a scale


def _mixed(first: str, second: str, share: float) -> str:
    pairs = zip(to_rgb(first), to_rgb(second), strict=True)
    return rgb2hex([(1 - share) * a + share * b for a, b in pairs])


def _scale(colours: Sequence[str]) -> list[str]:
    """So many colours between given ones that next to each other they look like one another."""
    found = LinearSegmentedColormap.from_list("", colours)
    return [rgb2hex(found(step / (STEPS - 1))) for step in range(STEPS)]


# For what has an order, as the number of layers dropped: from few to many.
_ORDER = _scale(["#1f1147", "#6b2a8c", "#b0357a", "#d8493f", "#c26a00"])
_ORDER_DARK = _scale(["#7d74d6", "#b684e8", "#f08abf", "#f59a8f", "#f5c069"])
# For shares, from none to all.
_SHARES = _scale([FAINT, INK])
_SHARES_DARK = _scale([_mixed(BRIGHT, SURFACE, 0.93), "#68aac8"])
ORDER, SHARES = ListedColormap(_ORDER), ListedColormap(_SHARES)
MAP = "viridis_r"  # of heat maps, which look the same in the dark
ON_MAP = "#c8256f"  # of marks on their brightest cells, which stay too
TURNS = 0.62  # share from which on text in a cell is white

_TWINS = (
    {rgb2hex(shade): rgb2hex(shade) for shade in colormaps[MAP].colors}
    | dict(zip(_ORDER, _ORDER_DARK, strict=True))
    | dict(zip(_SHARES, _SHARES_DARK, strict=True))
    | _STRATEGIES
    | _OTHERS
    | {INK: "#7cc4e4", GONE: "#e8965c", ON_MAP: ON_MAP}
)


def twin(colour: str) -> str | None:
    """What takes a colour's place in the dark: of "#rrggbb", in small letters. Greys are turned
    round; None where it is not one of the book's."""
    red, green, blue = colour[1:3], colour[3:5], colour[5:7]
    if red == green == blue:
        return _mixed(BRIGHT, SURFACE, int(red, 16) / 255)
    return _TWINS.get(colour)


def series(names: Iterable[Any], marks: str = MARKS) -> dict[Any, dict[str, Any]]:
    """Colour and mark of what stands side by side and is no strategy, by name, in their order."""
    found = zip(names, cycle(OTHERS), cycle(marks), strict=False)
    return {name: {"color": shade, "marker": mark} for name, shade, mark in found}


def ordered(values: Iterable[Any]) -> dict[Any, dict[str, Any]]:
    """The same of values with an order, from the smallest to the largest."""
    values = sorted(set(values))
    last = max(1, len(values) - 1)
    found = zip(values, cycle(MARKS), strict=False)
    return {
        value: {"color": _ORDER[(STEPS - 1) * place // last], "marker": mark}
        for place, (value, mark) in enumerate(found)
    }


def by_strategy(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and mark of each strategy, in the order of the study."""
    found = zip(names, cycle(STRATEGIES), cycle(MARKS), strict=False)
    return {name: {"color": shade, "marker": mark} for name, shade, mark in found}
