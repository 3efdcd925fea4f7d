"""Under each figure, where it comes from: the function that draws it, and the tables that it draws.

Both are read from the notebook: the call in the figure's cell, and what its arguments were assigned
from. Nothing is imported, so that the site is built without torch.
"""

import ast
import re
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from lib import paths
from lib.book import repository


def add(notebook: dict[str, Any], tables: Collection[str], commit: str = "") -> None:
    """A line under each figure of an executed notebook. tables: names of those that are offered
    beside it; commit: of the run."""
    code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    trees = [ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.M)) for source in code]
    modules = dict(_imported(trees))
    assigned = dict(_assigned(trees))
    cells = []
    for cell in notebook["cells"]:
        cells.append(cell)
        if cell["cell_type"] == "code" and "figure" in cell["metadata"].get("mystnb", {}):
            call = _call("".join(cell["source"]))
            text = _line(call, modules, assigned, tables, commit) if call else ""
            if text:
                name = f"source-{len(cells)}"
                cells.append({"cell_type": "markdown", "id": name, "metadata": {}, "source": text})
    notebook["cells"] = cells


def _call(source: str) -> ast.Call | None:
    """The call of a figure's cell, `module.function(…);`, which is its last."""
    last = ast.parse(source).body[-1]
    call = last.value if isinstance(last, ast.Expr | ast.Assign) else None
    called = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
    return call if called and isinstance(call.func.value, ast.Name) else None


def _line(
    call: ast.Call,
    modules: dict[str, str],
    assigned: dict[str, ast.expr],
    tables: Collection[str],
    commit: str,
) -> str:
    path, function = _path(modules.get(call.func.value.id, "")), call.func.attr
    if function not in _functions(path):
        return ""
    name, where = f"`{function}`", f"`{path}`"
    if address := repository.link(path, _functions(path)[function].lineno, commit):
        name, where = f"[{name}]({address})", f"[{where}]({address})"
    text = f"Drawn by {name} in {where}"
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    every = (word for one in arguments for word in _words(one, assigned, modules, frozenset()))
    found = dict.fromkeys(word for word in every if word in tables)
    if found:
        offered = (f"{{download}}`{name}.csv <tables/{name}.csv>`" for name in found)
        text += f" from {', '.join(offered)}"
    return f":::{{div}} figure-source\n{text}.\n:::"


def _words(
    node: ast.AST,
    assigned: dict[str, ast.expr],
    modules: dict[str, str],
    passed: frozenset[str],
) -> Iterator[str]:
    """What may be names of tables in an expression: keys as in made["qa"], variables, functions as
    `qa_and_loss`, and functions that those call. passed: variables that have been gone through."""
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value
        elif isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name):
            yield from one.attr.split("_and_")
            called = _functions(_path(modules.get(one.value.id, ""))).get(one.attr)
            for two in ast.walk(called) if called is not None else ():
                if isinstance(two, ast.Call) and isinstance(two.func, ast.Name):
                    yield from two.func.id.split("_and_")
        elif isinstance(one, ast.Name) and one.id not in {*modules, *passed}:
            yield one.id
            if one.id in assigned:
                yield from _words(assigned[one.id], assigned, modules, passed | {one.id})


def _imported(trees: list[ast.Module]) -> Iterator[tuple[str, str]]:
    """Name → module of lib, of `from lib.sections import loss, pages`."""
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lib"):
                for alias in node.names:
                    yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _assigned(trees: list[ast.Module]) -> Iterator[tuple[str, ast.expr]]:
    """Name → what it was assigned; of two names at once each its own part."""
    for tree in trees:
        for node in tree.body:
            if not isinstance(node, ast.Assign):
                continue
            (target,) = node.targets
            if isinstance(target, ast.Name):
                yield target.id, node.value
            elif isinstance(target, ast.Tuple):
                apart = isinstance(node.value, ast.Tuple)
                parts = node.value.elts if apart else [node.value] * len(target.elts)
                for one, part in zip(target.elts, parts, strict=False):
                    if isinstance(one, ast.Name):
                        yield one.id, part


def _path(module: str) -> str:
    return module.replace(".", "/") + ".py"


@cache
def _functions(path: str) -> dict[str, ast.FunctionDef]:
    """The functions of a file, by name."""
    file = paths.ROOT / path
    tree = ast.parse(file.read_text("utf-8")) if file.is_file() else ast.Module([], [])
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
