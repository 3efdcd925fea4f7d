"""The tables of a finished page, for those who hear it and those who go through it by keyboard.

Each has a caption, which the heading above it gives; its first column heads its rows; and the box
of a Markdown table, which may scroll, has a name and can be reached. Readers see the heading, so
the caption is heard alone.
"""

import re
from collections import Counter
from html import escape, unescape

ARTICLE = re.compile(r'<article class="bd-article">.*?</article>', re.S)
PART = re.compile(
    r"<h(?P<level>[1-6])\b[^>]*>(?P<heading>.*?)</h(?P=level)>|"
    r'(?P<box><div class="pst-scrollable-table-container")?(?(box)>\s*)'
    r"(?P<table><table\b[^>]*>)(?P<body>.*?)</table>",
    re.S,
)
LABEL = re.compile(r'(?<=role="region" aria-label=")[^"]*')
HEAD = re.compile(r"<th\b([^>]*)>(.*?)</th>", re.S)
FIRST = re.compile(r"(<tr\b[^>]*>\s*)<td\b([^>]*)>(.*?)</td>", re.S)


def named(page: str) -> str:
    """A page with the tables of its article so written."""
    found = ARTICLE.search(page)
    if not found:
        return page
    heading, met = "", Counter()

    def one(part: re.Match[str]) -> str:
        nonlocal heading
        if part["level"]:
            heading = heard(part["heading"])
            return part[0]
        met[heading] += 1
        name = escape(f"{heading}, table {met[heading]}" if met[heading] > 1 else heading)
        box = (
            f'{part["box"]} tabindex="0" role="region" aria-label="{name}">' if part["box"] else ""
        )
        rows = FIRST.sub(_header, part["body"])
        caption = f'<caption class="visually-hidden">{name}</caption>'
        return f"{box}{part['table']}{caption}{HEAD.sub(_said, rows)}</table>"

    labels: Counter[str] = Counter()

    def unlike(label: re.Match[str]) -> str:
        """Regions of a page have different names."""
        labels[label[0]] += 1
        return label[0] if labels[label[0]] == 1 else f"{label[0]}, {labels[label[0]]}"

    return page.replace(found[0], LABEL.sub(unlike, PART.sub(one, found[0])), 1)


def _header(row: re.Match[str]) -> str:
    """The first cell of a row as its header, if it says something."""
    start, about, cell = row.groups()
    return f'{start}<th scope="row"{about}>{cell}</th>' if heard(cell) else row[0]


def _said(header: re.Match[str]) -> str:
    """A header that says something; else a cell, as nothing is headed by it."""
    return header[0] if heard(header[2]) else "<td></td>"


def heard(html: str) -> str:
    """Its words."""
    html = re.sub(r'<a class="headerlink".*?</a>', "", html)
    return " ".join(unescape(re.sub(r"<[^>]+>", "", html)).split())
