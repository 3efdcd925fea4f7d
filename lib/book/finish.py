"""The finished pages of the site: lighter, described for search and sharing, with a foot.

What the theme loads and no page needs goes: a script of icons that its font draws too, and MathJax
where there is no formula and what it never asks for. Measured in the review of the site, these were
most of the bytes of the opening page.
"""

import re
import shutil
from collections.abc import Callable
from html import escape, unescape
from pathlib import Path

from lib.book import icons, page_figures, repository

FOOT = "<!-- foot -->"  # stands in the footer of each page, for `foot` to fill
ICONS = re.compile(r'\s*<script defer src="[^"]*scripts/fontawesome\.js[^>]*></script>')
MATHJAX = re.compile(
    r"\s*<script>window\.MathJax = .*?</script>|"
    r'\s*<script defer="defer" src="[^"]*_static/mathjax/[^>]*></script>'
)
FORMULA = re.compile(r'class="[^"]*\bmath\b[^"]*\bnotranslate\b')
VIEWPORT = re.compile(r'\s*<meta name="viewport"[^>]*>')
# Of MathJax, TeX to HTML: one script and the fonts that it draws with.
KEPT = ("tex-chtml.js", "output/chtml/fonts")
UNUSED = ("scripts/fontawesome.js", "scripts/fontawesome.js.LICENSE.txt", "locales")
# For those who debug the theme; for browsers before 2014; what the theme's pages were made from.
UNUSED_ENDS = (".map", ".ttf", "macros.html")
LONGEST = 200  # characters of a description


def finish(html: Path, title: str, foot: Callable[[str], str]) -> None:
    """Go over every page below a folder. foot: of a page, by its path there without ".html"."""
    for path in sorted(html.rglob("*.html")):
        text = path.read_text("utf-8")
        page = path.relative_to(html).with_suffix("").as_posix()
        if '<article class="bd-article">' in text:
            text = shared(text, page, title)
        # A list for those who hear the page holds nothing but its items.
        text = text.replace('role="doc-biblioentry"', 'role="listitem"')
        text = page_figures.both(lighter(text).replace(FOOT, foot(page)), path.parent)
        path.write_text(text, encoding="utf-8")
    icons.keep_used(html)
    drop_unused(html / "_static")


def lighter(text: str) -> str:
    """A page without what it does not need."""
    text = ICONS.sub("", text)
    if not FORMULA.search(text):
        text = MATHJAX.sub("", text)
    first = VIEWPORT.search(text)
    if first:
        text = text[: first.end()] + VIEWPORT.sub("", text[first.end() :])
    return text


def shared(text: str, page: str, title: str) -> str:
    """A page with its description for search engines, and for those who share its address."""
    about, name = escape(description(text)), escape(heading(text) or title)
    tags = [
        f'<meta name="description" content="{about}">',
        '<meta property="og:type" content="article">',
        f'<meta property="og:site_name" content="{escape(title)}">',
        f'<meta property="og:title" content="{name}">',
        f'<meta property="og:description" content="{about}">',
        '<meta name="twitter:card" content="summary">',
    ]
    if site := repository.site():
        tags.append(f'<meta property="og:url" content="{escape(f"{site}{page}.html")}">')
    return text.replace("</head>", "\n".join(["", *tags, "</head>"]), 1)


def heading(text: str) -> str:
    found = re.search(r"<h1>(.*?)</h1>", text[text.find("<article") :], re.S)
    return _plain(found[1]) if found else ""


def description(text: str) -> str:
    """The first sentences of a page, as many as fit; without those that hold a formula."""
    for paragraph in re.findall(r"<p>(.*?)</p>", text[text.find("<article") :], re.S):
        kept = ""
        for sentence in re.split(r"(?<=[.!?]) (?=[A-Z*])", _plain(paragraph)):
            if "\\" in sentence or (kept and len(kept) + len(sentence) > LONGEST):
                break
            kept = f"{kept} {sentence}".strip()
        if kept:
            return kept if len(kept) <= LONGEST else kept[: LONGEST - 1].rpartition(" ")[0] + "…"
    return ""


def _plain(html: str) -> str:
    html = re.sub(r'<a class="headerlink".*?</a>', "", html)
    return " ".join(unescape(re.sub(r"<[^>]+>", "", html)).split())


def drop_unused(static: Path) -> None:
    """Files of the theme and of MathJax that no page asks for."""
    math = static / "mathjax"
    for path in sorted(math.rglob("*")):
        if path.is_file() and not path.relative_to(math).as_posix().startswith(KEPT):
            path.unlink()
    for name in UNUSED:
        path = static / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for path in static.rglob("*"):
        if path.name.endswith(UNUSED_ENDS):
            path.unlink()
    for folder in sorted((path for path in static.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
