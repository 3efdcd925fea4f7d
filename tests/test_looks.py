"""Colours: what they are told apart by, in the light, in the dark, and by those who see fewer."""

import re
from itertools import combinations

import gallery
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import rgb2hex, to_rgb

from lib.book import page_figures
from lib.sections import looks

# What those see who lack the cones for green (Machado et al. 2009).
DEUTERANOPIA = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
MAP = {rgb2hex(shade) for shade in colormaps[looks.MAP].colors}


def linear(colour: str) -> np.ndarray:
    value = np.array(to_rgb(colour))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def seen(colour: str) -> np.ndarray:
    """In CIELAB, without the cones for green."""
    xyz = TO_XYZ @ np.clip(DEUTERANOPIA @ linear(colour), 0, 1) / (0.9505, 1, 1.089)
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def in_the_dark(colour: str) -> str:
    found = looks.twin(colour)
    assert found is not None
    return found


@pytest.mark.parametrize("colours", [looks.STRATEGIES[:3], looks.OTHERS[:5]])
def test_colours_differ_for_those_who_see_fewer(colours: list[str]) -> None:
    """From so many on marks and dashes tell what they are."""
    for theme in (colours, [*map(in_the_dark, colours)]):
        for one, other in combinations(theme, 2):
            assert np.linalg.norm(seen(one) - seen(other)) > 12


def test_strategies_have_colours_of_their_own() -> None:
    assert not {*looks.STRATEGIES} & {*looks.OTHERS, looks.INK, looks.GONE}
    assert looks.by_strategy(["a", "b"])["b"] == {"color": looks.STRATEGIES[1], "marker": "s"}
    assert looks.series("ab")["a"] == {"color": looks.OTHERS[0], "marker": "o"}


def test_an_order_runs_through_the_scale() -> None:
    shades = [one["color"] for one in looks.ordered([8, 2, 4, 2]).values()]
    assert [*looks.ordered([8, 2, 4])] == [2, 4, 8] and len({*shades}) == 3
    assert shades[0] == rgb2hex(looks.ORDER(0)) and shades[-1] == rgb2hex(looks.ORDER(255))
    assert len(looks.ordered([5])) == 1


def test_greys_are_turned_round() -> None:
    assert (looks.twin("#ffffff"), looks.twin("#000000")) == (looks.SURFACE, looks.BRIGHT)
    assert looks.twin("#123456") is None


@pytest.mark.parametrize("name", gallery.FIGURES)
def test_figures_can_be_read_on_both_grounds(name: str) -> None:
    """Text has a contrast of at least 4.5 to its ground, and lines and marks of 3. Not held to it:
    grid and frame, and what lies on cells and areas or is one of their shades."""
    drawn = gallery.svg(name)
    dark = page_figures.in_the_dark(drawn)
    assert dark is not None
    ground = {drawn: "#ffffff", dark: looks.SURFACE}
    for text, paper in ground.items():
        tags = re.findall(r"<[^>]+>", text)
        letters = {shade for tag in tags if tag.startswith("<text") for shade in colours(tag)}
        lines = {
            shade
            for tag in tags
            if tag.startswith(("<path", "<use"))
            for shade in re.findall(r"stroke: (#\w{6})(?![^>]*stroke-opacity)", tag)
        }
        assert all(contrast(shade, paper) >= 4.5 for shade in letters - {paper}), letters
        faint = {of(shade, text is dark) for shade in ("#cccccc", "#e6e6e6", "#999999")}
        for shade in lines - faint - MAP - {paper} - shares(text is dark):
            assert contrast(shade, paper) >= 3, shade


def colours(tag: str) -> list[str]:
    return [shade for _, shade in page_figures.COLOUR.findall(tag)]


def of(shade: str, dark: bool) -> str:
    return in_the_dark(shade) if dark else shade


def shares(dark: bool) -> set[str]:
    return {of(rgb2hex(shade), dark) for shade in looks.SHARES.colors}
