"""QMSum's questions on meetings, from the file below the folder that PRUNING_DATA names, and how
answers to them are scored.

The file is as the authors publish it, a meeting a line; book/offline.md says where it lies. lm-eval
alone can use the task, too: this file needs nothing else of the project. What cannot be read is a
ValueError or OSError of one line.
"""

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from rouge_score.rouge_scorer import RougeScorer

PLACES = ("data/ALL/jsonl/val.jsonl", "val.jsonl", "validation.jsonl")
SCORER = RougeScorer(["rouge1", "rouge2", "rougeL"])  # without stemming, as SCROLLS takes them


def meetings(**_: object) -> dict[str, Dataset]:
    """A document for each query: transcript, query, answer. They are shuffled, always alike, so
    that the first so many are of many meetings. lm-eval passes the task's metadata along, which is
    not needed."""
    path = _file()
    name = path.relative_to(_data())
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (ValueError, OSError) as error:
        raise ValueError(f"{name}: {error}") from None
    found: list[dict[str, str]] = []
    for number, line in enumerate(lines, start=1):
        try:
            found += _queries(json.loads(line)) if line.strip() else []
        except KeyError as error:
            raise ValueError(f"{name}, line {number}: no key {error}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{name}, line {number}: {error}") from None
    if not found:
        raise ValueError(f"{name}: has no queries")
    random.Random(0).shuffle(found)
    return {"validation": Dataset.from_list(found)}


def rouge(doc: dict[str, str], results: Sequence[str]) -> dict[str, float]:
    """F-measures of the one answer that was written."""
    found = SCORER.score(doc["answer"], results[0])
    return {name: score.fmeasure for name, score in found.items()}


def _queries(meeting: dict[str, Any]) -> list[dict[str, str]]:
    turns = [f"{turn['speaker']}: {turn['content']}" for turn in meeting["meeting_transcripts"]]
    found = []
    for query in meeting["general_query_list"] + meeting["specific_query_list"]:
        one = {"transcript": "\n".join(turns), "query": query["query"], "answer": query["answer"]}
        for key, text in one.items():
            if not text.strip():
                raise ValueError(f"a query without its {key}")
        found.append(one)
    return found


def _file() -> Path:
    folder = _data() / "qmsum"
    for place in PLACES:
        if (folder / place).is_file():
            return folder / place
    raise FileNotFoundError(f"qmsum: no file {' or '.join(PLACES)} in {folder}")


def _data() -> Path:
    value = os.environ.get("PRUNING_DATA", "")
    path = Path(value).expanduser()
    if not path.is_absolute() or not path.is_dir():
        state = f"is '{value}', which is no folder's absolute path" if value else "is not set"
        raise FileNotFoundError(f"PRUNING_DATA {state}; it names the folder with the questions")
    return path
