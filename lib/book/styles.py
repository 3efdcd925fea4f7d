"""The style sheets of the theme, without the rules that can fit no page of the site."""

import re
from itertools import pairwise
from pathlib import Path

import tinycss2
from tinycss2 import ast

NESTED = ("media", "supports")  # at-rules that hold rules
WORD = re.compile(r"[\w-]+")


def keep_used(html: Path) -> None:
    """Drop rules for classes and ids that no page and no script below a folder names."""
    static = html / "_static"
    files = [*html.rglob("*.html"), *static.rglob("*.js")]
    words = {word for file in files for word in WORD.findall(file.read_text("utf-8"))}
    for sheet in sorted(static.rglob("*.css")):
        if sheet.name != "custom.css":  # the book's own is written by hand, and short
            sheet.write_text(used(sheet.read_text("utf-8"), words), encoding="utf-8")


def used(css: str, words: set[str]) -> str:
    """A style sheet without the rules of which a class or an id is none of these words."""
    rules = tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True)
    return _written(rules, words)


def _written(rules: list[ast.Node], words: set[str]) -> str:
    parts = []
    for rule in rules:
        if isinstance(rule, ast.QualifiedRule):
            kept = [one for one in _selectors(rule.prelude) if _named(one) <= words]
            if kept:
                selectors = ",".join(tinycss2.serialize(one).strip() for one in kept)
                parts.append(f"{selectors}{{{tinycss2.serialize(rule.content).strip()}}}")
        elif isinstance(rule, ast.AtRule) and rule.lower_at_keyword in NESTED:
            inner = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
            if text := _written(inner, words):
                about = tinycss2.serialize(rule.prelude)
                parts.append(f"@{rule.at_keyword}{about}{{{text}}}")
        else:
            parts.append(rule.serialize())
    return "\n".join(parts)


def _selectors(prelude: list[ast.Node]) -> list[list[ast.Node]]:
    """What commas part."""
    found: list[list[ast.Node]] = [[]]
    for token in prelude:
        if token == ",":
            found.append([])
        else:
            found[-1].append(token)
    return found


def _named(selector: list[ast.Node]) -> set[str]:
    """The classes and ids that an element has to have; what stands in :not(), :is() and the like
    is left open."""
    found = {one.value for one in selector if isinstance(one, ast.HashToken)}
    for dot, name in pairwise(selector):
        if dot == "." and isinstance(name, ast.IdentToken):
            found.add(name.value)
    return found
