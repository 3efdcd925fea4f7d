"""The figures of a finished page: one for the light and one for the dark, and large enough to read
on a phone.

What a colour becomes in the dark stands in `lib.sections.looks`. A figure with any other colour,
such as one from elsewhere, keeps its white ground. No figure is narrower than its smallest letters
need: on a narrow screen it moves sideways, in a box of its own.
"""

import re
from pathlib import Path

from lib.sections import looks

FIGURE = re.compile(
    r'<img (?P<other>[^>]*)src="(?P<file>[^"]*_images/[^"]+)\.svg"(?P<more>[^>]*?)/?>'
)
TAG = re.compile(r"<[^>]+>")
COLOUR = re.compile(r'\b((?:fill|stroke|stop-color)(?:: *|="))(#[0-9a-fA-F]{6})\b')
SIZE = re.compile(r'<svg\b[^>]*? width="([\d.]+)pt" height="([\d.]+)pt"')
LETTERS = re.compile(r"font(?:-size)?: [^;\"]*?([\d.]+)px")
POINT = 96 / 72  # pixels of one
LEAST = 10  # pixels of letters that can be read


def both(page: str, folder: Path) -> str:
    """A page in a folder, with each figure drawn by the book twice, of which the theme shows one;
    writes the dark ones."""

    def pair(found: re.Match[str]) -> str:
        light = folder / f"{found['file']}.svg"
        drawn = light.read_text("utf-8")
        size = SIZE.search(drawn)
        if "only-" in found[0] or not size:
            return found[0]
        width, height = (POINT * float(length) for length in size.groups())
        least = smallest(drawn)
        needed = f' style="min-width: {width * LEAST / (POINT * least):.0f}px"' if least else ""
        about = f"{found['other']}{found['more']}".strip()
        about += f' width="{width:.0f}" height="{height:.0f}" loading="lazy"{needed}'
        shown = [f'<img {about} src="{found["file"]}.svg">']
        if dark := in_the_dark(drawn):
            light.with_name(f"{light.stem}-dark.svg").write_text(dark, "utf-8")
            shown = [
                f'<img class="only-light" {about} src="{found["file"]}.svg">',
                f'<img class="only-dark" {about} src="{found["file"]}-dark.svg">',
            ]
        # A box that moves can be reached with the keyboard.
        box = '<span class="figure-box" tabindex="0" role="group" aria-label="Figure">'
        return f"{box}{''.join(shown)}</span>"

    return FIGURE.sub(pair, page)


def smallest(drawn: str) -> float | None:
    """Of the letters of a figure, in its own units."""
    sizes = [float(size) for tag in TAG.findall(drawn) for size in LETTERS.findall(tag)]
    return min(sizes, default=None)


def in_the_dark(drawn: str) -> str | None:
    """A figure on a dark ground; None where it has a colour that is not one of the book's."""
    used = {colour for tag in TAG.findall(drawn) for _, colour in COLOUR.findall(tag)}
    twins = {colour: looks.twin(colour.lower()) for colour in used}
    if None in twins.values():
        return None

    def turn(tag: re.Match[str]) -> str:
        return COLOUR.sub(lambda found: f"{found[1]}{twins[found[2]]}", tag[0])

    # What has no colour is black.
    return TAG.sub(turn, drawn).replace("<svg ", f'<svg fill="{looks.twin("#000000")}" ', 1)
