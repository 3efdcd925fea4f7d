"""The wings of the house: what each may import."""

import ast
import re
from pathlib import Path

import lib

LIB = Path(lib.__file__).parent
WINGS = re.findall(r"^(\w+) {2,}\S", lib.__doc__ or "", re.M)
GROUND = {"errors", "paths", "files", "schema", "study", "words"}


def imports(path: Path) -> set[str]:
    """What a file imports of lib: wings, and modules beside them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "lib":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lib."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("lib.")}
    return found


def test_every_wing_is_named() -> None:
    assert sorted(WINGS) == sorted(path.parent.name for path in LIB.glob("*/__init__.py"))


def test_wings_import_only_downwards() -> None:
    for path in LIB.rglob("*.py"):
        wing = path.relative_to(LIB).parts[0]
        allowed = GROUND
        if wing in WINGS:
            allowed = GROUND | set(WINGS[: WINGS.index(wing) + 1])
        elif path.stem not in GROUND:  # a door
            allowed = GROUND | set(WINGS) | {"run"}
        assert imports(path) <= allowed, f"{path.relative_to(LIB)}: {imports(path) - allowed}"
