"""Python of a user's own: running it as it stands, and what it imports, which is a part of what
decides a value, wherever it lies.

Left aside is what came with Python or was installed, whose versions are provenance, and this
repository's own `lib`, whose code has numbers of its own (METHOD).
"""

import ast
import site
import sys
import sysconfig
from collections.abc import Iterable
from functools import cache
from importlib.util import module_from_spec, resolve_name, spec_from_file_location
from pathlib import Path
from types import ModuleType

from lib import paths


def run(name: str, path: Path) -> ModuleType:
    """A .py file as a module. Not by Python's own loader: that takes what it has compiled for any
    source of the same size and second."""
    module = module_from_spec(spec_from_file_location(name, path))
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    return module


def imported(files: Iterable[Path], names: Iterable[str] = ()) -> dict[str, Path]:
    """The modules of a user's own that some files import, or that are named, and all that these
    import in turn: name → file."""
    found: dict[str, Path] = {}
    todo = [("", path) for path in files]

    def look_at(name: str) -> None:
        """A module, and the packages that are imported on the way to it."""
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            one = ".".join(parts[:end])
            if one not in found and (path := _file(one)):
                found[one] = path
                todo.append((one, path))

    for name in names:
        look_at(name)
    while todo:
        for name in _named(*todo.pop()):
            look_at(name)
    return found


def _named(module: str, path: Path) -> list[str]:
    """The modules, or what may be one, that a file imports; `module`: its own name in a package."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []  # whoever runs it says what is wrong
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            relative = "." * node.level + (node.module or "")
            try:
                name = resolve_name(relative, package)
            except ImportError:  # beyond the package
                continue
            found += [name, *(f"{name}.{alias.name}" for alias in node.names)]
    return found


def _file(name: str) -> Path | None:
    """The file of a module, if it is one of the user's own; nothing is imported to find it."""
    if name.partition(".")[0] in sys.stdlib_module_names:
        return None
    loaded = getattr(sys.modules.get(name), "__file__", None)
    parts = name.replace(".", "/")
    places = [Path(place, parts) for place in sys.path] if loaded is None else []
    tried = [Path(loaded)] if loaded else []
    tried += [one for place in places for one in (place / "__init__.py", place.with_suffix(".py"))]
    path = next((one.resolve() for one in tried if one.is_file()), None)
    if path is None or path.suffix != ".py":
        return None
    return None if any(path.is_relative_to(place) for place in _installed()) else path


@cache
def _installed() -> list[Path]:
    given = sysconfig.get_paths()
    found = [given[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    found += [*site.getsitepackages(), site.getusersitepackages(), paths.ROOT / "lib"]
    return [Path(place).resolve() for place in found]
