"""The wings of the house: what each may import."""

import ast
import re
from pathlib import Path

import lib
from lib import open_sets, paths

LIB = Path(lib.__file__).parent
WINGS = re.findall(r"^(\w+) {2,}\S", lib.__doc__ or "", re.M)
GROUND = {"errors", "paths", "files", "fields", "schema", "study", "words"}
GROUND |= {"consistency", "labels", "open_sets", "section_settings", "strict_yaml"}


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


# Where a strategy or a recipe may be named: a study's defaults, the papers' claims, and the
# documented options of lib.pruning and lib.export.
NAMED = {"open_sets.py", "pruning/on_disk.py"}
# Not the strategies: a key of studies and a kind of record; samples of text, and the layers that a
# recipe trains.
OTHERWISE = {
    (where, "perplexity")
    for where in (
        "schema.py",
        "consistency.py",
        "book/check.py",
        "sections/loss.py",
        "experiments/probes.py",
    )
} | {
    *(("schema.py", word) for word in ("first", "random")),
    *((where, "random") for where in ("models/corpora.py", "experiments/opened.py")),
    ("healing/recipes/partial.py", "first"),
}


def test_members_of_open_sets_are_named_in_their_own_files_alone() -> None:
    names = {name for kind in open_sets.FOLDERS for name in open_sets.known(kind)}
    folders = {folder.rpartition(".")[2] for folder in open_sets.FOLDERS.values()}
    found = []
    for path in LIB.rglob("*.py"):
        where = path.relative_to(LIB).as_posix()
        if where in NAMED or where.startswith("claims/"):
            continue
        own = {path.stem.replace("_", "-")} if path.parent.name in folders else set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Constant) or (where, node.value) in OTHERWISE:
                continue
            if node.value in names - own:
                found.append(f"{where}:{node.lineno}: {node.value!r}")
    assert not found, found


def test_no_section_is_called_by_its_number() -> None:
    numbers = {f"{number:02}" for number in range(30)}
    found = [
        f"{path.relative_to(LIB)}:{node.lineno}: {node.value!r}"
        for path in LIB.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and node.value in numbers
    ]
    assert not found, found


def test_the_map_shows_every_wing_with_its_sentence() -> None:
    sentences = dict(re.findall(r"^(\w+) {2,}(\S.*)$", lib.__doc__ or "", re.M))
    for theme in ("light", "dark"):
        drawing = (paths.ROOT / f"book/_static/house-{theme}.svg").read_text("utf-8")
        text = " ".join(re.findall(r"<text[^>]*>([^<]*)<", drawing))
        for wing, sentence in sentences.items():
            assert wing in text and sentence in text, wing


def test_each_wing_says_its_own_sentence() -> None:
    sentences = dict(re.findall(r"^(\w+) {2,}(\S.*)$", lib.__doc__ or "", re.M))
    for wing, sentence in sentences.items():
        source = (LIB / wing / "__init__.py").read_text("utf-8")
        assert (ast.get_docstring(ast.parse(source)) or "").startswith(sentence), wing
