"""What lm-eval's task files pull in from elsewhere than their folder, found without running any.

Importing this module is cheap (neither torch nor lm-eval).
"""

import ast
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import yaml

from lib.evidence.imports import imported
from lib.files import files_below

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def pulled_in(folder: Path, tasks: Iterable[Path]) -> dict[str, Path]:
    """What task files use beside `files_below` their folder: hidden files and such
    elsewhere that YAML includes, and Python that `!function` names or that helpers import. By
    their place relative to the folder, or the name of the module."""
    known = {path.resolve() for path in files_below(folder).values()}
    included, helpers, names = _closure(tasks)
    files = {os.path.relpath(path, folder.resolve()): path for path in included | helpers}
    files |= imported(sorted(helpers), sorted(names))
    return {name: path for name, path in sorted(files.items()) if path not in known}


def named_in(folder: Path, tasks: Iterable[Path], cwd: Path) -> dict[str, Path]:
    """Files that task files and their helpers name, such as data, by their places relative to the
    folder: text in them that is the place of a file, from where it is named or from the working
    directory of jobs."""
    included, helpers, names = _closure(tasks)
    found = {}
    for path in sorted({*included, *helpers, *imported(helpers, names).values()}):
        for text in set(_texts(path)):
            for place in (path.parent / text, cwd / text):
                if _is_file(place):
                    found[os.path.relpath(place, folder)] = place
    return found


def _closure(tasks: Iterable[Path]) -> tuple[set[Path], set[Path], set[str]]:
    """Task files with all that they include, the Python files that these name with `!function`,
    and the modules that they name so: lm-eval looks beside the file first."""
    included: set[Path] = set()
    helpers: set[Path] = set()
    names: set[str] = set()
    todo = [path.resolve() for path in tasks]
    while todo:
        path = todo.pop()
        if path in included or not path.is_file():
            continue
        included.add(path)
        nodes = list(_nodes(path))
        for function in (node.value for node in nodes if node.tag == "!function"):
            module = str(function).rpartition(".")[0]
            beside = (path.parent / f"{module.replace('.', '/')}.py").resolve()
            if beside.is_file():
                helpers.add(beside)
            else:
                names.add(module)
        todo += [(path.parent / name).resolve() for name in _includes(nodes)]
    return included, helpers, names


def _nodes(path: Path) -> Iterator[yaml.Node]:
    """All nodes of a YAML file, its root first; none of a file that is no YAML."""
    try:
        todo = [yaml.compose(path.read_bytes(), Loader=LOADER)]
    except (OSError, yaml.YAMLError, RecursionError):
        return
    seen: set[int] = set()  # an anchor may be used many times
    while todo:
        node = todo.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            todo += [one for pair in node.value for one in pair]
        elif isinstance(node, yaml.SequenceNode):
            todo += node.value


def _includes(nodes: Collection[yaml.Node]) -> list[str]:
    root = next(iter(nodes), None)
    if not isinstance(root, yaml.MappingNode):
        return []
    given = [value for key, value in root.value if key.value == "include"]
    listed = [one.value if isinstance(one, yaml.SequenceNode) else [one] for one in given]
    return [str(one.value) for some in listed for one in some]


def _texts(path: Path) -> Iterator[str]:
    if path.suffix != ".py":
        yield from (node.value for node in _nodes(path) if isinstance(node, yaml.ScalarNode))
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _is_file(place: Path) -> bool:
    try:
        return place.is_file()
    except (OSError, ValueError):  # too long for a name, or with a null in it
        return False
