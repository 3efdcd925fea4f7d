"""Labels of sections, equations and figures, which stay unique where several studies have pages."""

import re
from collections.abc import Sequence
from typing import Any

from lib.book.parts import Part
from lib.evidence.records import digest
from lib.schema import Study

LABEL = re.compile(r"\b(?:fig|eq|sec)-[a-z0-9-]+")


def labels(notebook: dict[str, Any]) -> set[str]:
    """Labels that a notebook declares: (sec-…)=, $$ … $$ (eq-…), and figure names."""
    found = set()
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            found |= set(re.findall(r"^\((\S+)\)=|\$\$ \((\S+)\)", text, re.M))
        figure = cell["metadata"].get("mystnb", {}).get("figure", {})
        found.add((figure.get("name", ""), ""))
    return {label for pair in found for label in pair if LABEL.fullmatch(label)}


def renamed(text: str, own: set[str], suffix: str) -> str:
    return LABEL.sub(lambda m: f"{m[0]}-{suffix}" if m[0] in own else m[0], text)


def suffixes(studies: Sequence[Study | Part]) -> dict[str, str]:
    """What labels of each study end in, by its name: that in small letters and dashes. Of names
    that are the same so, the one that is written so, or else the first, has it plain."""
    found: dict[str, str] = {}
    for name in sorted(
        (one.name for one in studies), key=lambda name: (_dashed(name) != name, name)
    ):
        plain = _dashed(name)
        found[name] = plain if plain not in found.values() else f"{plain}-{digest(name, 6)}"
    return found


def _dashed(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def rename_labels(notebook: dict[str, Any], own: set[str], suffix: str) -> None:
    """Give a further study's labels its name, so that each stays unique in the book."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = renamed("".join(cell["source"]), own, suffix)
        if figure := cell["metadata"].get("mystnb", {}).get("figure"):
            for key in figure:
                figure[key] = renamed(figure[key], own, suffix)
