"""How to cite the book and the papers that it reruns, as BibTeX.

What is not known is left out: an address without `repository.url`, a DOI that CITATION.cff lacks.
"""

import re

import yaml

from lib import claims, paths
from lib.book import repository


def markdown() -> str:
    """A block for the book, and one for each paper of claims that the bibliography has."""
    parts = ["This book:", _block(book())]
    for paper in claims.papers().values():
        if entry := _entry(paper.arxiv):
            parts += [f"*{paper.title}*, which it reruns:", _block(entry)]
    return "\n\n".join(parts) + "\n"


def _block(entry: str) -> str:
    return f"```bibtex\n{entry}\n```"


def book() -> str:
    """An entry for the book, of what CITATION.cff says."""
    about = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text("utf-8"))
    years = re.findall(r"\d{4}", str(repository.settings()["copyright"]))
    names = [one.get("name") for one in about["authors"]]
    fields = {
        "title": about["title"],
        "author": " and ".join(f"{{{name}}}" for name in names if name),
        "year": years[-1] if years else "",
        "version": about["version"],
        "url": repository.site() or repository.address(),
        "doi": about.get("doi", ""),
    }
    lines = [f"  {key.ljust(7)} = {{{value}}}" for key, value in fields.items() if value]
    return "@software{layer_pruning_companion,\n" + ",\n".join(lines) + "\n}"


def _entry(arxiv: str) -> str:
    """The entry of the bibliography with this number at arXiv; empty without one."""
    entries = (paths.ROOT / "book" / "references.bib").read_text("utf-8").strip().split("\n\n")
    return next((one for one in entries if arxiv and f"{{{arxiv}}}" in one), "")
