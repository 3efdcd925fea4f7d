"""What a job is made from, by content.

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
from itertools import chain
from pathlib import Path
from typing import Any

from lib import paths
from lib.errors import UserError
from lib.evaluation import task_files
from lib.evidence import imports
from lib.evidence.records import digest, file_digest
from lib.fields import Text
from lib.files import files_below
from lib.models import text_files
from lib.models.checkpoint_files import made_of
from lib.schema import BESIDE, Study

LIB = paths.ROOT / "lib"
# Paths, which say nothing about what is there, and what is only shown with the settings.
TEXTS = {"validation_text", "healing_text", "held_out_text", "healing_data"}
TEXTS |= {"calibration", "other_texts"}
PLACES = {"like", "model", "task_path", *TEXTS}
# Packages whose modules are found by their places, so that no import names them.
STRATEGIES, RECIPES = "pruning.strategies", "healing.recipes"
OPEN = ("sections", "claims", STRATEGIES, RECIPES)


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


def discovered() -> list[str]:
    """The modules that are found by their places: sections, claims, strategies and recipes."""
    return [name for name in modules() if name.rpartition(".")[0] in OPEN]


def of_notebook(path: Path) -> dict[str, Any]:
    """A notebook, and every helper that it uses."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    found = helpers(imported(code))
    if "claims" in found:  # papers are found by their places
        found |= helpers(name for name in discovered() if name.startswith("claims."))
    return {"notebook": file_digest(path), "helpers": found}


def of_study(study: Study) -> dict[str, Any]:
    """A study's settings, and what its local files hold. Content of the hub is not looked at."""
    apart = filter(None, [study.calibration, study.held_out_text])
    texts = [study.validation_text, *apart, *study.other_texts]
    if study.healing:
        texts[1:1] = [study.healing_text, *study.healing_data]
    data = os.environ.get("PRUNING_DATA") if study.task_path else None
    settings = study.model_dump(exclude=PLACES)
    for one in strategies(settings):
        if one["file"]:  # a user's own
            one["file"] = [_file(one["file"]), _digests(imports.imported([Path(one["file"])]))]
    return {
        "settings": settings,
        "code": helpers(_named(settings)),
        "model": _checkpoint(study.model) if study.model_is_local else study.model,
        "tasks": {k: v for folder in study.task_path for k, v in _tasks(Path(folder)).items()},
        "data": _folder(data),
        "texts": [_said(text) for text in texts],
        "controls": {name: _folder(paths.published(name)) for name in study.controls.studies},
    }


def strategies(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """All that a study names, as its settings have them."""
    beside = settings.get("which_layers", {})
    return [*settings.get("strategies", []), *beside.get("strategies", [])]


def _named(settings: dict[str, Any]) -> list[str]:
    """The modules of the strategies and of the recipes, if any, that a study names."""
    named = [f"{STRATEGIES}.{one['kind'] or one['name']}" for one in strategies(settings)]
    if isinstance(settings["healing"], dict):  # else nothing is healed
        beside = [settings[key]["recipes"] for key in BESIDE]
        healed = [settings["healing"], *chain(*beside)]
        named += [f"{RECIPES}.{one['recipe']}" for one in healed]
    return [name for one in named if (name := one.replace("-", "_")) in modules()]


def _file(path: str | Path) -> str:
    try:
        return file_digest(Path(path))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return "missing"  # or gone since it was listed


def _digests(files: dict[str, Path]) -> dict[str, str]:
    return {name: _file(path) for name, path in files.items()}


def _checkpoint(folder: str) -> str | dict[str, str]:
    """What a checkpoint is made of; not what else lies there, such as states of a training."""
    if Path(folder).suffix == ".gguf":
        return _file(folder)
    try:
        return _digests({path.name: path for path in made_of(Path(folder))})
    except (UserError, OSError):
        return {}  # the check of the study says what is wrong


def _tasks(folder: Path) -> dict[str, str]:
    """The files of a task path, what they pull in from elsewhere, and the data that they name."""
    tasks = sorted(folder.glob("**/*.yaml"))
    named = task_files.named_in(folder, tasks, paths.ROOT)
    return _folder(folder) | _digests(task_files.pulled_in(folder, tasks) | named)


def _said(text: Text) -> dict[str, Any]:
    """What a study says of a text, but for where it lies: there what it holds counts."""
    said = text.model_dump(exclude={"path"})
    return said | {"content": _text(text.path)} if text.path else said


def _text(path: str) -> str | dict[str, str]:
    if not Path(path).is_dir():
        return _file(path)
    try:
        return text_files.source(Path(path))
    except UserError:
        return "missing"


def _folder(folder: str | Path | None) -> dict[str, str]:
    """The files below a folder, by their names in it."""
    return _digests(files_below(Path(folder))) if folder is not None else {}


def of_other_runs(study: Study) -> dict[str, str]:
    """The tables of other studies, which some sections set side by side."""
    own = (paths.results(study.name), paths.published(study.name))
    found = [
        *paths.results("").glob("*/tables/*.csv"),
        *paths.published("").glob("[!.]*/tables/*.csv"),
        *paths.published("").glob("[!.]*/study.json"),
    ]
    return {
        "/".join(path.parts[-3:]): file_digest(path)
        for path in sorted(found)
        if not any(folder in path.parents for folder in own)
    }


def of_site() -> dict[str, str]:
    """What the site shows: pages, studies, reference runs, and by their notes the sections."""
    files = [
        *(paths.ROOT / "book").rglob("*"),
        *paths.STUDIES.glob("*.yaml"),
        *paths.published("").glob("[!.]*/*.json*"),
        *paths.results("").glob("*/jobs/section-*.json"),
        *(paths.ROOT / name for name in ("_config.yml", "_toc.yml", "CITATION.cff")),
    ]
    return {str(one): file_digest(one) for one in sorted(files) if one.is_file()}
