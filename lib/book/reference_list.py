"""The list of references, by author and year: a style of sphinxcontrib-bibtex, for Sphinx.

Each entry is linked to where it can be read: its DOI, arXiv, or its address.
"""

from typing import Any

from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.style.formatting import toplevel
from pybtex.style.formatting.unsrt import Style, pages
from pybtex.style.template import Node, field, first_of, join, names, optional, sentence, tag

NAME = "author_year"  # as _config.yml names it


class AuthorYear(Style):
    """Authors (year). Title. Where. Links."""

    default_sorting_style = "author_year_title"

    def _template(self, entry: Entry) -> Node:
        where = first_of[
            optional[tag("em")[field("journal")]],
            optional[tag("em")[field("booktitle")]],
            optional[field("howpublished")],
        ]
        numbers = optional[
            join[field("volume"), optional["(", field("number"), ")"], optional[":", pages]]
        ]
        return toplevel[
            sentence[join[names("author", sep=", ", last_sep=" and "), " (", field("year"), ")"]],
            sentence[field("title")],
            optional[sentence[where, numbers]],
            self.format_web_refs(entry),
        ]

    get_article_template = get_inproceedings_template = get_misc_template = _template


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    register_plugin("pybtex.style.formatting", NAME, AuthorYear)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
