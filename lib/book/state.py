"""What a section or a measurement is made from, by content.

Something is out of date when its study, its notebook, a helper that it uses or a table that it
reads has changed: not when a file is newer, and not after a commit. Comments and layout of helpers
do not count; of a notebook they do, since readers see it.

Importing this module is cheap (no torch).
"""

import ast
import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from lib import paths
from lib.evidence.records import digest, file_digest
from lib.schema import Study, Text

LIB = paths.ROOT / "lib"
# Paths, which say nothing about what is there, and what is only shown with the settings.
PLACES = {"like", "model", "task_path", "validation_text", "healing_text", "other_texts"}


def imported(source: str) -> set[str]:
    """The modules of lib that some code imports, anywhere in it, such as `pruning.surgery`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("lib."):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found |= {name.removeprefix("lib.") for name in names}
    return found & modules().keys()


@cache
def modules() -> dict[str, Path]:
    """Every module of lib by its name below it; a wing stands for its `__init__`."""
    found = {}
    for path in sorted(LIB.rglob("*.py")):
        parts = path.relative_to(LIB).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


@cache
def _module(name: str) -> tuple[str, frozenset[str]]:
    """A digest of a module's code, and what it imports."""
    source = modules()[name].read_text("utf-8")
    return code_digest(source), frozenset(imported(source))


def code_digest(source: str) -> str:
    """Of what code does: comments and layout do not count."""
    return digest(ast.dump(ast.parse(source)))


def helpers(names: Iterable[str]) -> dict[str, str]:
    """These modules and all that they import in turn, each with the digest of its code."""
    found: dict[str, str] = {}
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found[name], more = _module(name)
            todo += more
    return found


def of_notebook(path: Path) -> dict[str, Any]:
    """A notebook, and every helper that it uses."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    return {"notebook": file_digest(path), "helpers": helpers(imported(code))}


def of_study(study: Study) -> dict[str, Any]:
    """A study's settings, and what its local files hold. Content of the hub is not looked at."""
    texts = (study.validation_text, study.healing_text, *study.other_texts)
    data = os.environ.get("PRUNING_DATA") if study.task_path else None
    return {
        "settings": study.model_dump(exclude=PLACES),
        "model": _folder(study.model) if study.model_is_local else study.model,
        "tasks": _folder(study.task_path),
        "data": _folder(data),
        "texts": [_text(text) for text in texts],
        "controls": {name: _folder(paths.published(name)) for name in study.controls.studies},
    }


def _text(text: Text) -> Any:
    if text.path is None:
        return text.model_dump()
    path = Path(text.path)
    return file_digest(path) if path.is_file() else "missing"


def _folder(folder: str | Path | None) -> dict[str, str]:
    """The files below a folder, by their names in it."""
    if folder is None or not Path(folder).is_dir():
        return {}
    files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): file_digest(path)
        for path in files
        if path.suffix != ".pyc" and not path.name.startswith(".")
    }


def of_other_runs(study: Study) -> dict[str, str]:
    """The tables of other studies, which the families' section sets side by side."""
    read = {"angular_distances", "qa", "loss", "transitions", "verdicts", "study"}
    own = (paths.results(study.name), paths.published(study.name))
    found = [
        *paths.results("").glob("*/tables/*.csv"),
        *paths.published("").glob("*/tables/*.csv"),
        *paths.published("").glob("*/study.json"),
    ]
    return {
        "/".join(path.parts[-3:]): file_digest(path)
        for path in sorted(found)
        if path.stem in read and not any(folder in path.parents for folder in own)
    }
