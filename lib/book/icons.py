"""The icons of the site: of the theme's font and its rules, two thousand of each, those that pages
use."""

import re
from pathlib import Path

RULE = re.compile(r'(\.fa-[\w-]+:before(?:,\.fa-[\w-]+:before)*)\{content:"\\?([^"]*)"\}')
FACE = re.compile(r'src:url\(([^)]*/webfonts/)([\w-]+)\.woff2\) format\("woff2"\),[^}]*\}')


def keep_used(html: Path) -> None:
    """Leave out what no page and no script below a folder names. Does nothing for a theme that has
    its icons otherwise."""
    sheet = html / "_static" / "styles" / "pydata-sphinx-theme.css"
    if not sheet.is_file():
        return
    files = [*html.rglob("*.html"), *(html / "_static").rglob("*.js"), *html.glob("_static/*.css")]
    used = {name for file in files for name in re.findall(r"\bfa-[\w-]+", file.read_text("utf-8"))}
    drawn: set[int] = set()

    def rule(found: re.Match[str]) -> str:
        names = re.findall(r"\.(fa-[\w-]+):before", found[1])
        if used.isdisjoint(names):
            return ""
        drawn.add(int(found[2], 16) if len(found[2]) > 1 else ord(found[2]))
        return found[0]

    def face(found: re.Match[str]) -> str:
        font = sheet.parent / found[1] / f"{found[2]}.ttf"
        if not font.is_file():
            return found[0]
        _subset(font, drawn)
        font.with_suffix(".woff2").unlink()
        return f'src:url({found[1]}{found[2]}.woff) format("woff")}}'

    text = RULE.sub(rule, sheet.read_text("utf-8"))
    sheet.write_text(FACE.sub(face, text), encoding="utf-8")


def _subset(font: Path, drawn: set[int]) -> None:
    """Write the glyphs of these characters beside the font, as .woff."""
    from fontTools import subset

    options = subset.Options(flavor="woff", layout_features=[], notdef_outline=True)
    whole = subset.load_font(str(font), options)
    cut = subset.Subsetter(options)
    cut.populate(unicodes=drawn)
    cut.subset(whole)
    subset.save_font(whole, str(font.with_suffix(".woff")), options)
