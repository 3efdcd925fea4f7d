"""Where things are. The only module that knows the layout of the repository."""

import os
import re
from pathlib import Path

from lib.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
STUDIES = ROOT / "studies"
BUILD = ROOT / "_build"

DEFAULT_STUDY = "almanac"


def results(study: str) -> Path:
    """Folder of one study's evidence and tables; RESULTS_DIR moves it to another disk."""
    return from_clone(os.environ.get("RESULTS_DIR") or "results") / study


def from_clone(path: str | Path) -> Path:
    """The path made absolute, a relative one from the repository's folder on: jobs run there, so
    that one setting is one place wherever a command is typed."""
    return (ROOT / from_home(path)).resolve()


def from_home(path: str | Path) -> Path:
    """The path with a leading ~ or ~name replaced by that user's home.

    Raises UserError when there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"path '{path}': names no user's folder here") from None


def tables(study: str) -> Path:
    return results(study) / "tables"


def published(study: str) -> Path:
    """Folder of a reference run's tables and evidence, in git."""
    return ROOT / "published" / study


def executed(study: str, notebook: str) -> Path:
    """The executed copy of a section's notebook for a study."""
    return BUILD / "executed" / study / notebook


def sections() -> dict[str, Path]:
    """Name → notebook, in the order of _toc.yml: {"at_a_glance": notebooks/at_a_glance.ipynb,
    "angular_distances": notebooks/01_angular_distances.ipynb, …}."""
    text = (ROOT / "_toc.yml").read_text("utf-8")
    pages = re.findall(r"^[^#\n]*: *notebooks/(\w+)", text, re.M)
    return {re.sub(r"^\d\d_", "", page): NOTEBOOKS / f"{page}.ipynb" for page in pages}


def section(given: str) -> str:
    """The name of the section that is meant by its number, its name or its notebook's.

    Raises UserError, one line that lists what there is."""
    for name, path in sections().items():
        number = path.stem.removesuffix(name).strip("_")
        if given in (name, path.stem, path.name) or given.zfill(2) == number:
            return name
    known = ", ".join(path.stem for path in sections().values())
    raise UserError(f"there is no section '{given}'; there are {known}")
