"""Whose results a folder holds: results/<study>/checkpoint.json names the checkpoint and the file
of the study. Studies of one name share that folder, and the tables of one would replace the other's
without a word."""

import json
from pathlib import Path
from typing import Any

from lib import paths
from lib import study as studies
from lib.errors import UserError
from lib.files import write_atomically
from lib.schema import Study


def check(study: Study, checkpoint: str | None = None) -> None:
    """Raises UserError where the study's folder holds results of another checkpoint, or of another
    study of this name. checkpoint: its digest; None: not known here."""
    known = _noted(study)
    if known is None:
        return
    if checkpoint is not None and known["checkpoint"] != checkpoint:
        owner = (
            f"another checkpoint ({known['checkpoint']}, of {known['model']}; "
            f"this one is {checkpoint})"
        )
    elif another(study, known["file"]):
        owner = f"another study of this name ({known['file']})"
    else:
        return
    raise UserError(
        f"study {study.name}: {_note(study).parent} belongs to {owner}: move that folder away, "
        "give the study another name, or set RESULTS_DIR"
    )


def take(study: Study, checkpoint: str) -> None:
    """Note whose results the study's folder holds from now on. Raises UserError as `check` does,
    and where the note cannot be written."""
    check(study, checkpoint)
    about = {"checkpoint": checkpoint, "model": Path(study.model).name, "file": study.file}
    if _noted(study) != about:
        write_atomically(_note(study), json.dumps(about, indent=1))


def another(study: Study, file: str) -> bool:
    """Whether a study's file that was noted is that of another study. A file that is gone was
    moved, or lies on another machine; one that says the same in another place is the same study."""
    shipped = Path(study.file).parent == paths.STUDIES  # with every clone, and the name is its own
    if shipped or file == study.file or not Path(file).is_file():
        return False
    try:
        other = studies.load(file)
    except UserError:
        return True
    own = study.model_copy(update={"name": other.name, "file": other.file})
    return other != own


def _note(study: Study) -> Path:
    return paths.results(study.name) / "checkpoint.json"


def _noted(study: Study) -> dict[str, Any] | None:
    note = _note(study)
    try:
        known = json.loads(note.read_text("utf-8"))
        return {key: str(known[key]) for key in ("checkpoint", "model", "file")}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"study {study.name}: {note} cannot be read ({error}): delete it if the results beside "
            "it are this study's"
        ) from None
