"""Data sets of the hub that were fetched, for machines that reach no network.

A data set is streamed otherwise, so that nothing of it is kept. What is fetched lies in the hub's
cache, and a note beside it says which files are a split, in their order: read from there it gives
the same rows in the same order, shuffled or not.
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download

from lib.errors import UserError
from lib.evidence.records import digest
from lib.fields import Text
from lib.files import check_space, write_atomically
from lib.words import size


def note(text: Text) -> dict[str, Any] | None:
    """commit, kind (as `datasets` calls it) and files of a text that has been fetched whole."""
    try:
        found = json.loads(_note(text).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if all(Path(file).is_file() for file in found["files"]) else None


def _note(text: Text) -> Path:
    which = digest([text.dataset, text.config, text.split, text.revision])
    return Path(constants.HF_HUB_CACHE) / "fetched-texts" / f"{which}.json"


def stream(found: dict[str, Any]) -> Any:
    """The rows of a text that has been fetched."""
    from datasets import load_dataset

    files = {"train": found["files"]}
    return load_dataset(found["kind"], data_files=files, split="train", streaming=True)


def fetch(text: Text) -> str:
    """Download the files of a data set's split, and note them; says what is there then.

    Raises UserError where the disk is too small or the split has no files of its own; else what
    the libraries raise."""
    about = f"text {text.dataset}"
    commit = HfApi().dataset_info(text.dataset, revision=text.revision, timeout=10).sha
    kind, files = _split(text, commit)
    if not files:
        raise UserError(f"{about}: split '{text.split}' has no files that can be fetched")
    paths = HfApi().get_paths_info(text.dataset, files, repo_type="dataset", revision=commit)
    total = sum(one.size for one in paths)
    try:
        check_space(Path(constants.HF_HUB_CACHE) / "datasets", total)
    except UserError as error:
        raise UserError(
            f"{about}: split '{text.split}' has {size(total)}; {error}; give a part of it as a "
            "local file (path)"
        ) from None
    local = [
        hf_hub_download(text.dataset, file, repo_type="dataset", revision=commit) for file in files
    ]
    _note(text).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(_note(text), json.dumps({"commit": commit, "kind": kind, "files": local}))
    return f"{about}, split '{text.split}': {len(files)} files, {size(total)}"


def _split(text: Text, commit: str) -> tuple[str, list[str]]:
    """How a split's files are read, and their names in the repository, in the data set's order."""
    from datasets import load_dataset_builder

    builder = load_dataset_builder(text.dataset, text.config, revision=commit)
    files = (builder.config.data_files or {}).get(text.split, [])
    kind = type(builder).__module__.rpartition(".")[2]
    return kind, [str(file).partition(f"@{commit}/")[2] for file in files]
