"""Where things are. The only module that knows the layout of the repository."""

import os
from pathlib import Path

from lib.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
STUDIES = ROOT / "studies"
BUILD = ROOT / "_build"

DEFAULT_STUDY = "almanac"


def results(study: str) -> Path:
    """Folder of one study's evidence and tables; RESULTS_DIR moves it to another disk."""
    return from_home(os.environ.get("RESULTS_DIR") or ROOT / "results").resolve() / study


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
    """The executed copy of a section for a study, e.g. _build/executed/almanac/01_….ipynb."""
    return BUILD / "executed" / study / notebook


def sections() -> dict[str, Path]:
    """Number → notebook source, in reading order: {"00": notebooks/00_….ipynb, …}."""
    return {path.name[:2]: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
