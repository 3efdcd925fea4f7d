"""The finished pages of the site: lighter, described for search and sharing, with a foot.

What the theme loads and no page needs goes: a script of icons that its font draws too, and MathJax
where there is no formula and what it never asks for. Measured in the review of the site, these were
most of the bytes of the opening page.
"""

import re
import shutil
from collections.abc import Callable
from html import escape
from pathlib import Path
from urllib.parse import quote

from lib.book import icons, page_figures, repository, site_tables, styles
from lib.book.site_tables import heard

FORWARD = re.compile(r'\s*<meta http-equiv="Refresh" content="0; url=(?P<page>[^"]+)" />\s*')
FOOT = "<!-- foot -->"  # stands in the footer of each page, for `foot` to fill
ICONS = re.compile(r'\s*<script defer src="[^"]*scripts/fontawesome\.js[^>]*></script>')
MATHJAX = re.compile(
    r"\s*<script>window\.MathJax = .*?</script>|"
    r'\s*<script defer="defer" src="[^"]*_static/mathjax/[^>]*></script>'
)
# Of the search page; the theme loads them on all others for a search as you type, which is off.
SEARCH = re.compile(
    r'\s*<script src="[^"]*(?:_static/searchtools|_static/language_data|searchindex)\.js"></script>'
)
FORMULA = re.compile(r'class="[^"]*\bmath\b[^"]*\bnotranslate\b')
VIEWPORT = re.compile(r'\s*<meta name="viewport"[^>]*>')
# Of MathJax, TeX to HTML: one script and the fonts that it draws with.
KEPT = ("tex-chtml.js", "output/chtml/fonts")
UNUSED = ("scripts/fontawesome.js", "scripts/fontawesome.js.LICENSE.txt", "locales")
# For those who debug the theme; for browsers before 2014; what the theme's pages were made from.
UNUSED_ENDS = (".map", ".ttf", "macros.html")
LONGEST = 200  # characters of a description
SHARED = "share.png"  # shown with links to the site, whose address it needs
ALT = "Accuracy of a toy and of a real model against the share of their layers that is cut out"
OF_README = "landing-*.svg"
NOT_FOUND = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>No such page — {title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ max-width: 34rem; margin: 15vh auto; padding: 0 1rem; font: 1.1rem/1.6 sans-serif; }}
</style>
</head>
<body>
<h1>There is no such page</h1>
<p>It may have moved. <a href="{site}">{title}</a> lists all sections in its sidebar, and
<a href="{site}search.html">its search</a> finds words on every page.</p>
</body>
</html>
"""

MOVED = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>This page has moved</title>
<link rel="icon" href="{up}_static/favicon.svg">
<meta http-equiv="refresh" content="0; url={page}">
<link rel="canonical" href="{page}">
</head>
<body><main><p>This page has moved: <a href="{page}">{page}</a></p></main></body>
</html>
"""


def finish(html: Path, title: str, foot: Callable[[str], str]) -> None:
    """Go over every page below a folder. foot: of a page, by its path there without ".html"."""
    for path in sorted(html.rglob("*.html")):
        text = path.read_text("utf-8")
        page = path.relative_to(html).with_suffix("").as_posix()
        if '<article class="bd-article">' in text:
            text = shared(text, page, title)
        elif found := FORWARD.fullmatch(text):
            text = moved(found["page"], page)
        # A list for those who hear the page holds nothing but its items.
        text = text.replace('role="doc-biblioentry"', 'role="listitem"')
        # Folded code is called as it is written: "Code".
        text = text.replace('<summary aria-label="Toggle hidden content">', "<summary>")
        # Tables of Markdown have headers of columns alone.
        text = text.replace('<th class="head', '<th scope="col" class="head')
        text = site_tables.named(text)
        text = page_figures.both(lighter(text).replace(FOOT, foot(page)), path.parent)
        path.write_text(text, encoding="utf-8")
    icons.keep_used(html)
    styles.keep_used(html)
    drop_unused(html / "_static")


def moved(target: str, page: str) -> str:
    """What stands at a page's path where it leads to another. The icon is named, or a browser asks
    for one of its own."""
    return MOVED.format(page=target, up="../" * page.count("/"))


def addressed(html: Path, title: str) -> None:
    """A list of all pages for search engines, and a page for addresses that lead nowhere; neither
    where the site has no address."""
    if not (site := repository.site()):
        return
    pages = sorted(
        path.relative_to(html).as_posix()
        for path in html.rglob("*.html")
        if '<article class="bd-article">' in path.read_text("utf-8")
    )
    lines = "\n".join(f"<url><loc>{escape(site + quote(page))}</loc></url>" for page in pages)
    (html / "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{lines}\n</urlset>\n',
        encoding="utf-8",
    )
    page = NOT_FOUND.format(title=escape(title), site=escape(site))
    (html / "404.html").write_text(page, encoding="utf-8")


def lighter(text: str) -> str:
    """A page without what it does not need."""
    text = ICONS.sub("", text)
    if 'id="search-results"' not in text:
        text = SEARCH.sub("", text)
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
    ]
    if site := repository.site():
        tags += [
            f'<meta property="og:url" content="{escape(f"{site}{page}.html")}">',
            f'<meta property="og:image" content="{escape(f"{site}_static/{SHARED}")}">',
            '<meta property="og:image:width" content="1200">',
            '<meta property="og:image:height" content="630">',
            f'<meta property="og:image:alt" content="{ALT}">',
        ]
    card = "summary_large_image" if site else "summary"
    tags.append(f'<meta name="twitter:card" content="{card}">')
    return text.replace("</head>", "\n".join(["", *tags, "</head>"]), 1)


def heading(text: str) -> str:
    found = re.search(r"<h1>(.*?)</h1>", text[text.find("<article") :], re.S)
    return heard(found[1]) if found else ""


def description(text: str) -> str:
    """The first sentences of a page, as many as fit; without those that hold a formula."""
    for paragraph in re.findall(r"<p>(.*?)</p>", text[text.find("<article") :], re.S):
        kept = ""
        for sentence in re.split(r"(?<=[.!?]) (?=[A-Z*])", heard(paragraph)):
            if "\\" in sentence or (kept and len(kept) + len(sentence) > LONGEST):
                break
            kept = f"{kept} {sentence}".strip()
        if kept:
            return kept if len(kept) <= LONGEST else kept[: LONGEST - 1].rpartition(" ")[0] + "…"
    return ""


def drop_unused(static: Path) -> None:
    """Files of the theme and of MathJax that no page asks for."""
    math = static / "mathjax"
    for path in sorted(math.rglob("*")):
        if path.is_file() and not path.relative_to(math).as_posix().startswith(KEPT):
            path.unlink()
    for name in UNUSED:
        path = static / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    unused = [path for path in static.rglob("*") if path.name.endswith(UNUSED_ENDS)]
    unused += [*static.glob(OF_README), *([] if repository.site() else static.glob(SHARED))]
    for path in unused:
        path.unlink()
    for folder in sorted((path for path in static.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
