"""Modules of lib import only from the floors that `lib/__init__.py` lists above them."""

import ast
import re

import lib
from lib import paths

FLOORS = re.findall(r"\w+", lib.__doc__.split(":", 1)[1])
FOLDER = paths.ROOT / "lib"


def imported(name: str) -> set[str]:
    """Modules of lib that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "lib":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lib."):
            found.add(node.module.split(".")[1])
    return found


def test_every_module_has_its_floor() -> None:
    modules = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    assert len(FLOORS) == len(set(FLOORS))
    assert set(FLOORS) == modules


def test_modules_import_downwards_only() -> None:
    for floor, name in enumerate(FLOORS):
        assert imported(name) <= set(FLOORS[:floor]), name
