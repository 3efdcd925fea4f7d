"""A study is one model with its settings for every section: a YAML file, checked against a schema
before anything is loaded.

    study = load("almanac")            # studies/almanac.yaml
    study = load("path/to/mine.yaml")  # any other file; its name is the file's stem

Importing this module is cheap (no torch), so that the command line can refuse a bad file at once.
The settings themselves are described in `lib.schema`.
"""

import itertools
import math
import os
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lib import open_sets, paths, strict_yaml
from lib.errors import UserError
from lib.fields import Text
from lib.open_sets import Chosen
from lib.schema import Study, Task

PUBLISHED = "published/"  # before the name of a run that is opened from what is published
LONGEST_NAME = 100  # of a study: names of files begin with it
# Where a study that is like another has settings of its own for the first, the other's names of
# such things may be none of its own, and are not inherited.
NAMED = [
    ("healing", ("last_layer", "recipes")),
    ("healing", ("step_by_step", "recipes")),
    ("what_to_train", ("last_layer", "recipes")),
    ("what_to_train", ("step_by_step", "recipes")),
    ("which_layers", ("which_layers", "healed")),
    ("other_texts", ("on_what", "texts")),
]
LONGEST_PART = 255  # bytes between two slashes of a path, on any file system


def find(name: str) -> Path:
    """The YAML file of a study given by name or by path.

    Raises UserError when there is none, or when a file shadows a study shipped in studies/."""
    shipped = sorted(path.stem for path in paths.STUDIES.glob("*.yaml"))
    if name in shipped:
        return paths.STUDIES / f"{name}.yaml"
    path = paths.from_home(name)
    looks_like_path = path.suffix in {".yaml", ".yml"} or "/" in name
    if not looks_like_path:
        raise UserError(
            f"unknown study '{name}': studies here are {', '.join(shipped)}; "
            "for your own give the path of its YAML file"
        )
    if path.suffix != ".yaml":
        raise UserError(f"study '{name}': the file's name must end in .yaml")
    try:
        there = path.is_file()
        path = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # too long, links in a circle, NUL
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"study '{name[:80]}': {reason}") from None
    if not there:
        raise UserError(f"study '{name}': there is no such file")
    if path.stem in shipped and path.parent != paths.STUDIES:
        raise UserError(
            f"study '{name}': the name '{path.stem}' belongs to a shipped study; rename the file"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", path.stem) or len(path.stem) > LONGEST_NAME:
        raise UserError(
            f"study '{name}': the file's name may hold letters, digits, '.', '_' and '-' only, "
            f"and at most {LONGEST_NAME} of them"
        )
    return path


def load(name: str) -> Study:
    """Read and check a study. Local paths in it are made absolute, relative to the YAML file.

    Raises UserError: one line naming the file, the key and what is allowed."""
    path = find(str(name))
    raw = _read(path)
    for key in ("name", "file"):  # fields, but never given in the file
        if key in raw:
            allowed = ", ".join(_allowed((key,)))
            raise UserError(f"study {path.name}: unknown key '{key}'; allowed: {allowed}")
    if isinstance(raw.get("like"), str):
        raw = _inherited(raw, path)
    try:
        study = Study(**(raw | {"name": path.stem, "file": str(path)}))
    except ValidationError as error:
        raise UserError(*(f"study {path.name}: {one}" for one in _errors(error))) from None
    except TypeError:
        raise UserError(f"study {path.name}: keys must be text") from None
    missing = [
        f"study {path.name}: key '{key}.{number}.role' is missing ({task.name}): say knowledge, "
        "reading or generation; claims about healing tell these apart"
        for key, one in {"tasks": study, "what_breaks.tasks": study.what_breaks}.items()
        for number, task in enumerate(one.tasks)
        if task.role is None
    ]
    if missing:
        raise UserError(*missing)
    return _resolved(study, path.parent)


def _read(path: Path) -> dict[str, object]:
    try:
        with open(path, encoding="utf-8") as file:
            raw = strict_yaml.load(file.read(strict_yaml.LONGEST + 1))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"study {path.name}: not readable as YAML: {error}") from None
    except UserError as error:
        raise UserError(f"study {path.name}: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(f"study {path.name}: expected keys and values, e.g. 'model: ./checkpoint'")
    return raw


def base(study_file: Path, like: str) -> Path:
    """The file of the study that another one's `like` names, by name or relative to its file."""
    return find(str((study_file.parent / paths.from_home(like)).resolve()) if "/" in like else like)


def _inherited(raw: dict[str, object], path: Path) -> dict[str, object]:
    """The settings of the study named by `like`, with this file's own laid over them, key by key
    within each section. What a study is called and compared with is not inherited, nor what goes
    with a model or text of its own."""
    own = base(path, str(raw["like"]))
    if own == path or "like" in _read(own):
        raise UserError(f"study {path.name}: like: {raw['like']} may not have a 'like' itself")
    found = load(str(own))
    gone = {"like", "title", "about", "controls"}
    of_model = {"revision", "gguf", "shape", "sign", "pretraining_tokens"}
    gone |= of_model if "model" in raw else set()
    gone |= {"text_name"} if "validation_text" in raw else set()
    settings = found.model_dump(exclude=gone)
    for key, value in raw.items():
        both_sections = isinstance(value, dict) and isinstance(settings.get(key), dict)
        merge = both_sections and not key.endswith("_text")
        if merge and {"path", "dataset"} & value.keys():  # a text has one source
            settings[key] = {k: v for k, v in settings[key].items() if k not in Text.model_fields}
        settings[key] = _merged(key, settings[key], value) if merge else value
    for changed, (key, names) in NAMED:
        given = raw.get(key)
        if changed in raw and not (isinstance(given, dict) and names in given):
            settings[key] = settings[key] | {names: []}
    if {"tasks", "abilities"} & raw.keys():  # which name tasks
        settings["abilities"] = raw.get("abilities", {})
    healing, own_healing = settings["healing"], raw.get("healing")
    says = isinstance(own_healing, dict) and "data" in own_healing
    if "healing_text" in raw and isinstance(healing, dict) and not says:
        healing.pop("data", None)  # which was in place of the other's text
    return settings


def _merged(key: str, base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Keys laid over keys."""
    return open_sets.laid_over(base, own) if key == "healing" else base | own


def override(study: Study, **changes: object) -> Study:
    """A copy with some keys replaced, `None` meaning "as the study says"; a dict replaces keys of
    that section: `override(study, pruned_layers=[4, 8], distances={"length": 64})`.

    Parameters of notebooks go through here, so they are checked like the file itself."""
    values = study.model_dump()
    for key, change in changes.items():
        if isinstance(change, dict) and isinstance(values.get(key), dict):
            given = {inner: value for inner, value in change.items() if value is not None}
            values[key] = _merged(key, values[key], given)
        elif change is not None:
            values[key] = change
    try:
        return Study(**values, name=study.name, file=study.file)
    except ValidationError as error:
        lines = [f"parameters of study {study.name}: {one}" for one in _errors(error)]
        raise UserError(*lines) from None


def _orders(shots: int, count: int) -> list[int]:
    """The first so many seeds, from 0 on, that put the examples in different orders; fewer where
    there are no more orders."""
    count = min(count, math.factorial(shots))
    found: dict[tuple[int, ...], int] = {}
    for order in itertools.count():
        found.setdefault(tuple(permuted(range(shots), order)), order)
        if len(found) == count:
            break
    return list(found.values())


def published_sign(about: dict[str, Any], name: str) -> str:
    """Of a published run, from what its study.json says; of one of before there were signs that of
    the shipped study of its name."""
    if "sign" in about:
        return about["sign"]
    shipped = (paths.STUDIES / f"{name}.yaml").is_file()
    return load(name).sign if shipped else Study.model_fields["sign"].default


def permuted(examples: Iterable, order: int) -> list:
    """A task's examples in an order of its own; 0: as they are."""
    found = list(examples)
    if order:
        random.Random(order).shuffle(found)
    return found


def prompt_tasks(study: Study) -> dict[str, list[Task]]:
    """One task as it is asked for the ablations of prompts (Fig. 7): by `order` with its examples
    in several orders, by `shots` with several numbers of them, the smallest first. Empty where the
    study's prompts have no examples."""
    prompts, tasks = study.prompts, study.tasks
    knowledge = [task for task in tasks if task.role == "knowledge"] or tasks
    named = [task for task in tasks if task.name == (prompts.task or knowledge[0].name)]
    shots = prompts.shots or max(task.shots for task in named)
    if not shots:
        return {}
    like = next((task for task in named if task.shots == shots), named[0])

    def asked(shots: int, order: int) -> Task:
        changes = {"shots": shots, "order": order, "limit": prompts.limit or like.limit}
        return like.model_copy(update=changes)

    numbers = sorted(prompts.numbers or {0, 1, shots})
    return {
        "order": [asked(shots, order) for order in _orders(shots, prompts.orders)],
        "shots": [asked(number, 0) for number in numbers],
    }


def effective(study: Study) -> dict[str, object]:
    """All settings, defaults included, as flat `section.key: value` pairs for display."""
    flat: dict[str, object] = {}
    for key, value in study.model_dump().items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[key] = value
    return flat


def _resolved(study: Study, folder: Path) -> Study:
    def local(value: str | None, always: bool = False) -> str | None:
        if value is None:
            return None
        path = paths.from_home(value)
        if not (always or value.startswith(("./", "../", "~")) or path.is_absolute()):
            return value
        # Not `resolve`, which does not go on at links that lead to themselves.
        found = os.path.realpath(folder / path)
        if any(len(os.fsencode(part)) > LONGEST_PART for part in found.split("/")):
            raise UserError(
                f"study {study.name}.yaml: path '{value[:80]}…': a name in it is too long"
            )
        return found

    def strategies(named: list[Chosen]) -> list[Chosen]:
        return [one.model_copy(update={"file": local(one.file, always=True)}) for one in named]

    def text(source: Text | None) -> Text | None:
        return source and source.model_copy(update={"path": local(source.path, always=True)})

    return study.model_copy(
        update={
            "model": local(study.model),
            "task_path": [local(folder, always=True) for folder in study.task_path],
            "validation_text": text(study.validation_text),
            "healing_text": text(study.healing_text),
            "healing_data": [text(source) for source in study.healing_data],
            "calibration": text(study.calibration),
            "held_out_text": text(study.held_out_text),
            "other_texts": [text(source) for source in study.other_texts],
            "strategies": strategies(study.strategies),
            "which_layers": study.which_layers.model_copy(
                update={"strategies": strategies(study.which_layers.strategies)}
            ),
            "title": study.title or study.name,
            "text_name": study.text_name or _text_name(study.validation_text),
        }
    )


def _text_name(text: Text) -> str:
    if text.path is not None:
        return Path(text.path.removesuffix(".gz").removesuffix(".zst")).stem
    return "C4" if text.dataset == "allenai/c4" else str(text.dataset)


def _errors(error: ValidationError) -> Iterator[str]:
    """All of them, a line each."""
    for one in error.errors():
        if one["type"] == "settings":  # of a strategy or recipe, checked as its own file says
            for inner in one["ctx"]["errors"]:
                yield _line(inner, (*one["loc"], *inner["loc"]), one["ctx"]["model"])
        else:
            yield _line(one, one["loc"])


def _line(first: Any, loc: tuple, owner: type[BaseModel] | None = None) -> str:
    """An error of pydantic for people. owner: whose settings it is about, where that is no part of
    the schema."""
    key = ".".join(str(part) for part in loc)
    if first["type"] == "extra_forbidden":
        allowed = [*owner.model_fields] if owner else _allowed(loc)
        allowed += ["name", "file"] if loc[0] == "strategies" else []
        return f"unknown key '{key}'; allowed: {', '.join(allowed)}"
    if first["type"] == "missing":
        return f"key '{key}' is missing"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    # Of healing as a whole the input is all of it.
    if not key or (owner and not first["loc"]):
        return f"key '{key}': {message}" if key else message
    given = repr(first["input"])
    given = given if len(given) <= 80 else f"{given[:79]}…"
    if first["type"] == "string_type" and type(first["input"]) in (bool, int, float):
        given += "; in quotes it is text"
    return f"key '{key}': {message}, not {given}"


def _allowed(loc: tuple) -> list[str]:
    model: type[BaseModel] = Study
    for part in loc[:-1]:
        if isinstance(part, int):
            continue
        field = model.model_fields[part].annotation
        inner = [a for a in getattr(field, "__args__", [field]) if isinstance(a, type)]
        model = next((a for a in inner if issubclass(a, BaseModel)), Task)
    hidden = {"name", "file"} if model is Study else set()
    return [name for name in model.model_fields if name not in hidden]
