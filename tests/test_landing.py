"""The README's picture and numbers: those of the published tables."""

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from lib import paths
from lib.book import landing

README = (paths.ROOT / "README.md").read_text("utf-8")
FILES = ("landing-light.svg", "landing-dark.svg", "share.png")


@pytest.mark.parametrize("name", FILES)
def test_a_picture_shows_todays_numbers(name: str) -> None:
    path = landing.FOLDER / name
    if name.endswith("png"):
        with Image.open(path) as image:
            assert image.size == (1200, 630)
            said = image.text["Description"]
    else:
        root = ElementTree.parse(path).getroot()
        (said,) = (one.text for one in root.iter("{http://purl.org/dc/elements/1.1/}description"))
    drawn = landing.numbers()
    assert json.loads(said) == drawn
    # By hand, of one curve.
    qa = pd.read_csv(paths.published("almanac") / "tables/qa.csv")
    rows = qa[(qa["task"] == "almanac_sums") & (qa["state"] == "healed")]
    rows = rows[rows["strategy"].isin(["none", "similarity"])].sort_values("n")
    points = rows[["n", "accuracy", "stderr"]].round(6).to_numpy().tolist()
    assert drawn["almanac: almanac_sums, healed"] == points


def test_what_is_drawn_are_the_numbers() -> None:
    """Heights of the marks in the panels, drawn anew."""
    figure = landing.picture()
    found = set()
    for axes in figure.axes:
        for line in axes.lines:
            found |= {float(y) for y in np.asarray(line.get_ydata(), float)}
    plt.close(figure)
    for name, points in landing.numbers().items():
        if not name.endswith("layers"):
            for _, y, _ in points:
                assert min(abs(y - one) for one in found) < 1e-5, name


def test_the_readme_has_the_numbers_of_the_published_tables() -> None:
    for line in landing.lines():
        assert f"{line}\n" in README, line


def test_the_picture_has_words_and_both_themes() -> None:
    (shown,) = re.findall(
        r"<picture>((?:(?!</picture>).)*landing-light.*?)</picture>", README, re.S
    )
    (words,) = re.findall(r'alt="([^"]*)"', shown)
    assert len(words) > 100 and "landing-dark.svg" in shown and "prefers-color-scheme" in shown
    assert "badge" not in README.lower()  # none until there are addresses
