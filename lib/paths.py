"""Where things are. The only module that knows the layout of the repository."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
STUDIES = ROOT / "studies"
BUILD = ROOT / "_build"

DEFAULT_STUDY = "almanac"


def results(study: str) -> Path:
    """Folder of one study's evidence and tables; RESULTS_DIR moves it to another disk."""
    return Path(os.environ.get("RESULTS_DIR") or ROOT / "results").expanduser().resolve() / study


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
