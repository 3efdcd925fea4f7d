"""Open sets: pruning strategies and healing recipes. Each is one file in a folder of its own, and
its name is the file's. Who adds one has nothing to list anywhere.

Files of open sets import torch and peft inside functions: a study is read without them.
"""

import importlib
from functools import cache
from types import ModuleType

from lib import paths
from lib.errors import UserError

FOLDERS = {"strategy": "lib.pruning.strategies", "recipe": "lib.healing.recipes"}


@cache
def known(kind: str) -> list[str]:
    """The names in an open set: files as they are called, with dashes in place of underscores."""
    folder = paths.ROOT.joinpath(*FOLDERS[kind].split("."))
    return sorted(path.stem.replace("_", "-") for path in folder.glob("[a-z]*.py"))


@cache
def module(kind: str, name: str) -> ModuleType:
    """Raises UserError, one line that lists what is known, for any other name."""
    if name not in known(kind):
        raise UserError(f"unknown {kind} '{name}'; known are {', '.join(known(kind))}")
    return importlib.import_module(f"{FOLDERS[kind]}.{name.replace('-', '_')}")
