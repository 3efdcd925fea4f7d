"""The figures of finished pages."""

from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from lib.book import page_figures
from lib.sections import looks

DRAWING = (
    '<svg xmlns:xlink="x" width="600pt" height="300pt" viewBox="0 0 600 300">'
    '<path style="fill: #ffffff; stroke: {shade}"/><path d="M 0 0"/>'
    '<text style="font-size: 12px; fill: #262626">fill: #0072b2</text>'
    '<text style="font: 8px sans-serif">small</text></svg>'
)


@pytest.fixture
def page(tmp_path: Path):
    def put(shade: str, image: str = '<img alt="A &gt; B" src="_images/a.svg" />') -> BeautifulSoup:
        (tmp_path / "_images").mkdir()
        (tmp_path / "_images" / "a.svg").write_text(DRAWING.format(shade=shade))
        made = page_figures.both(f"<figure>{image}</figure>", tmp_path)
        return BeautifulSoup(made, "html.parser")

    return put


def test_a_figure_has_a_twin_for_the_dark(page, tmp_path: Path) -> None:
    light, dark = page(looks.STRATEGIES[0]).find_all("img")
    assert (light["class"], dark["class"]) == (["only-light"], ["only-dark"])
    assert (light["src"], dark["src"]) == ("_images/a.svg", "_images/a-dark.svg")
    assert light["alt"] == dark["alt"] == "A > B"
    drawn = (tmp_path / "_images" / "a-dark.svg").read_text()
    assert f"fill: {looks.SURFACE}; stroke: {looks.twin(looks.STRATEGIES[0])}" in drawn
    assert ">fill: #0072b2<" in drawn  # a name is no colour
    assert f'<svg fill="{looks.BRIGHT}"' in drawn  # of what has none


def test_a_figure_with_other_colours_stays_as_it_is(page, tmp_path: Path) -> None:
    (image,) = page("#123456").find_all("img")
    assert "class" not in image.attrs and not (tmp_path / "_images" / "a-dark.svg").exists()


def test_letters_are_no_smaller_than_can_be_read(page) -> None:
    found = page(looks.INK)
    for image in found.find_all("img"):
        # 600 units wide with letters of 8: as many pixels as make these 10.
        assert image["style"] == "min-width: 750px" and image["loading"] == "lazy"
        assert (image["width"], image["height"]) == ("800", "400")
    assert found.find(class_="figure-box")["tabindex"] == "0"


def test_drawings_that_know_both_themes_are_left_alone(page) -> None:
    image = '<img class="only-light" alt="" src="_images/a.svg" />'
    assert str(page(looks.INK, image).img) == '<img alt="" class="only-light" src="_images/a.svg"/>'
