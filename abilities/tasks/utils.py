"""Loads the questions that lie beside the task files, wherever this folder is."""

import json
from pathlib import Path
from typing import Any

from datasets import Dataset

FOLDER = Path(__file__).resolve().parent


def load_questions(kind: str, **_: object) -> dict[str, Dataset]:
    """Both splits; lm-eval passes the task's metadata along, which is not needed."""
    return {split: Dataset.from_list(_read(f"{kind}_{split}")) for split in ("test", "dev")}


def load_contexts(length: str, **_: object) -> dict[str, Dataset]:
    """The questions with the text of this length between fact and question as `filler`."""
    fillers = [row[length] for row in _read("fillers")]
    rows = [row | {"filler": fillers[row["filler"]]} for row in _read("contexts")]
    return {"test": Dataset.from_list(rows)}


def _read(name: str) -> list[dict[str, Any]]:
    text = (FOLDER / f"{name}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]
