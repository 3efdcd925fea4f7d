"""Questions for the tasks beside this file, from files below the folder that PRUNING_DATA names.

Places and columns are those of the sets as they are published, on the hub or elsewhere;
book/offline.md lists them. lm-eval alone can use the tasks, too: this file needs nothing else of
the project. What cannot be read is a ValueError or OSError of one line.
"""

import csv
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
from datasets import Dataset
from lm_eval.tasks.hellaswag.utils import preprocess
from lm_eval.tasks.wikitext.preprocess_wikitext import process_results, wikitext_detokenizer

Row = dict[str, Any]
HEADING = re.compile(r"\s*= [^=].*[^=] =\s*")  # of a page; those within it have more signs
HEADER = ["question", "choice0", "choice1", "choice2", "choice3", "answer"]


def mmlu(subject: str, **_: object) -> dict[str, Dataset]:
    """One subject. lm-eval passes the task's metadata along, which is not needed."""

    def document(row: Row) -> Row:
        choices = row["choices"] if "choices" in row else [row[f"choice{i}"] for i in range(4)]
        if len(choices) != 4:
            raise ValueError(f"{len(choices)} choices, not 4")
        answer = _position(row["answer"], "ABCD")
        return {"subject": about, "question": row["question"], "choices": choices, "answer": answer}

    about = subject.replace("_", " ")
    dev, test = ([f"{subject}/{split}", f"{split}/{subject}_{split}"] for split in ("dev", "test"))
    return {
        "dev": _read("mmlu", dev, document, needed=False),
        "test": _read("mmlu", test, document),
    }


def boolq(**_: object) -> dict[str, Dataset]:
    """lm-eval's columns passage, question and label, the passage after the title of its page."""

    def document(row: Row) -> Row:
        if "query" in row:
            passage, question = row["query"].removeprefix("Passage: ").rsplit("\nQuestion: ", 1)
            label = _position(row["choices"][int(row["gold"])], ["no", "yes"])
            return {"passage": passage, "question": question.removesuffix("?"), "label": label}
        passage = f"{row['title']} -- {row['passage']}" if "title" in row else row["passage"]
        label = _position(row["label"] if "label" in row else row["answer"], ["false", "true"])
        return {"passage": passage, "question": row["question"], "label": label}

    train = ["boolq/train", "data/train", "train"]
    validation = ["boolq/validation", "data/validation", "validation", "val", "dev"]
    return {
        "train": _read("boolq", train, document, needed=False),
        "validation": _read("boolq", validation, document),
    }


def gsm8k(**_: object) -> dict[str, Dataset]:
    """lm-eval's columns question and answer."""

    def document(row: Row) -> Row:
        return {"question": row["question"], "answer": row["answer"]}

    return {
        "train": _read("gsm8k", ["main/train", "train"], document, needed=False),
        "test": _read("gsm8k", ["main/test", "test"], document),
    }


def hellaswag(**_: object) -> dict[str, Dataset]:
    """Query and choices as lm-eval makes them of the published columns, or as they are given."""

    def document(row: Row) -> Row:
        if "query" in row:
            query, choices, label = row["query"], row["choices"], row["gold"]
        else:
            context = f"{row['ctx_a']} {row['ctx_b'].capitalize()}"
            query = preprocess(f"{row['activity_label']}: {context}")
            choices, label = [preprocess(ending) for ending in row["endings"]], row["label"]
        return {"query": query, "choices": choices, "label": _position(label, range(len(choices)))}

    train = ["data/train", "train", "hellaswag_train"]
    validation = ["data/validation", "validation", "hellaswag_val"]
    return {
        "train": _read("hellaswag", train, document, needed=False),
        "validation": _read("hellaswag", validation, document),
    }


def arc(part: str, **_: object) -> dict[str, Dataset]:
    """Easy or Challenge: a question, its choices and the number of the right one."""

    def document(row: Row) -> Row:
        question = row["query"].removeprefix("Question: ") if "query" in row else row["question"]
        return {"question": question, **_labelled(row)}

    train, test = (
        [f"ARC-{part}/{split}", f"arc_{part.lower()}/{split}"] for split in ("train", "test")
    )
    return {
        "train": _read("ai2_arc", train, document, needed=False),
        "test": _read("ai2_arc", test, document),
    }


def piqa(**_: object) -> dict[str, Dataset]:
    """lm-eval's column goal, both ways as choices, and the number of the right one."""

    def document(row: Row) -> Row:
        if "query" in row:
            goal = row["query"].removeprefix("Question: ").removesuffix("\n")
            return {"goal": goal, **_labelled(row)}
        choices = [row["sol1"], row["sol2"]]
        return {"goal": row["goal"], "choices": choices, "label": _position(row["label"], "01")}

    train, validation = (
        [f"piqa_{split}", f"data/{split}", f"plain_text/{split}", split]
        for split in ("train", "validation")
    )
    return {
        "train": _read("piqa", train, document, needed=False),
        "validation": _read("piqa", validation, document),
    }


def openbookqa(**_: object) -> dict[str, Dataset]:
    """lm-eval's column question_stem, the choices and the number of the right one."""

    def document(row: Row) -> Row:
        stem = row["query"] if "query" in row else row["question_stem"]
        return {"question_stem": stem, **_labelled(row)}

    return {
        "train": _read("openbookqa", ["main/train", "train"], document, needed=False),
        "test": _read("openbookqa", ["main/test", "test"], document),
    }


def winogrande(**_: object) -> dict[str, Dataset]:
    """Two contexts, the continuation of both, and the number of the right context."""

    def document(row: Row) -> Row:
        if "continuation" in row:
            contexts, label = row["context_options"], _position(row["gold"], "01")
            return {"contexts": contexts, "continuation": row["continuation"], "label": label}
        before, gap, after = row["sentence"].partition("_")
        if not gap:
            raise ValueError("there is no _ in the sentence")
        contexts = [before + row["option1"], before + row["option2"]]
        label = _named(row["answer"], ["1", "2"])
        return {"contexts": contexts, "continuation": after.strip(), "label": label}

    train = ["winogrande_xl/train", "train_xl", "train"]
    validation = ["winogrande_xl/validation", "validation", "dev"]
    return {
        "train": _read("winogrande", train, document, needed=False),
        "validation": _read("winogrande", validation, document),
    }


def cmmlu(subject: str, **_: object) -> dict[str, Dataset]:
    """One subject, in the columns of its files."""

    def document(row: Row) -> Row:
        _named(row["Answer"], "ABCD")
        return {key: row[key] for key in ("Question", *"ABCD", "Answer")}

    dev, test = ([f"{split}/{subject}", f"{subject}/{split}"] for split in ("dev", "test"))
    return {
        "dev": _read("cmmlu", dev, document, needed=False),
        "test": _read("cmmlu", test, document),
    }


def lambada_openai(**_: object) -> dict[str, Dataset]:
    """lm-eval's column text, whose last word is asked for."""

    def document(row: Row) -> Row:
        if " " not in row["text"]:
            raise ValueError("a single word, with none before it")
        return {"text": row["text"]}

    test = ["default/test", "data/lambada_test", "lambada_test", "test"]
    return {"test": _read("lambada_openai", test, document)}


def wikitext(**_: object) -> dict[str, Dataset]:
    """Pages of WikiText-2, lm-eval's column page: as they are given, or put together of its lines,
    where a heading of the first level begins the next one."""
    stems = ["wikitext-2-raw-v1/test", "wiki.test", "test", "wiki.valid", "valid"]
    found = _read(
        "wikitext", stems, lambda row: {"page": row.get("page", row.get("text"))}, more=TEXT
    )
    rows = found["page"]
    if any(not isinstance(row, str) for row in rows):
        raise ValueError("wikitext: neither a column page nor a column text")
    lines = [line for row in rows for line in row.removesuffix("\n").split("\n")]
    pages: list[list[str]] = [[]]
    for line in lines:
        if HEADING.fullmatch(line) and any(map(str.strip, pages[-1])):
            pages.append([])
        pages[-1].append(line)
    return {"test": Dataset.from_list([{"page": "\n".join(page)} for page in pages])}


def wikitext_plain(doc: Row) -> str:
    """The page without the marks of its tokenisation."""
    return wikitext_detokenizer(doc)


def wikitext_results(doc: Row, results: Sequence[float]) -> Row:
    """Words and bytes are counted in the page as it is given."""
    return process_results(doc, results)


def _data() -> Path:
    value = os.environ.get("PRUNING_DATA", "")
    path = Path(value).expanduser()
    if not path.is_absolute() or not path.is_dir():
        state = f"is '{value}', which is no folder's absolute path" if value else "is not set"
        raise FileNotFoundError(f"PRUNING_DATA {state}; it names the folder with the questions")
    return path


def _read(
    folder: str,
    stems: Sequence[str],
    document: Callable[[Row], Row],
    needed: bool = True,
    more: dict[str, Callable[[Path], list[Row]]] | None = None,
) -> Dataset:
    """The documents of the first of these files that is there; none where none is needed."""
    readers = READERS | (more or {})
    # As on the hub, sets of one file are numbered all the same.
    files = [f"{stem}{shard}" for stem in stems for shard in ("", "-00000-of-00001")]
    paths = [_data() / folder / f"{file}{kind}" for file in files for kind in readers]
    path = next((path for path in paths if path.is_file()), None)
    if path is None and not needed:
        return Dataset.from_list([])
    if path is None:
        where = f"{' or '.join(stems)} ({', '.join(readers)})"
        raise FileNotFoundError(f"{folder}: no file {where} in {_data() / folder}")
    name = path.relative_to(_data())
    try:
        rows = readers[path.suffix](path)
    except (ValueError, OSError, csv.Error) as error:
        raise ValueError(f"{name}: {error}") from None
    if not rows:
        raise ValueError(f"{name}: is empty")
    found = [_checked(document, row, f"{name}, {i}.") for i, row in enumerate(rows, start=1)]
    return Dataset.from_list(found)


def _checked(document: Callable[[Row], Row], row: Row, where: str) -> Row:
    try:
        return document(row)
    except KeyError as error:
        raise ValueError(f"{where}: no column {error}, only {', '.join(row)}") from None
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise ValueError(f"{where}: {error}") from None


def _labelled(row: Row) -> Row:
    """The choices, and which of them is right: by its number, or by its label as published."""
    if "gold" in row:
        label = _position(row["gold"], range(len(row["choices"])))
        return {"choices": row["choices"], "label": label}
    choices = row["choices"]
    return {"choices": choices["text"], "label": _named(row["answerKey"], choices["label"])}


def _named(answer: object, names: Sequence[str]) -> int:
    """Which of `names` an answer is. 1 may be the first, so no number counted from 0 will do."""
    known, text = list(names), str(answer).strip()
    if text not in known:
        raise ValueError(f"'{answer}' is none of the answers {', '.join(known)}")
    return known.index(text)


def _position(label: object, names: Sequence[object]) -> int:
    """Which of `names` a label means: its number, counted from 0, or the name itself."""
    known = [str(name).casefold() for name in names]
    text = str(label).strip().casefold()
    if text in known:
        return known.index(text)
    if text.isdecimal() and int(text) < len(known):
        return int(text)
    raise ValueError(f"'{label}' is none of the answers {', '.join(known)}")


def _parquet(path: Path) -> list[Row]:
    return pyarrow.parquet.read_table(path).to_pylist()


def _jsonl(path: Path) -> list[Row]:
    with open(path, encoding="utf-8-sig") as file:
        return [json.loads(line) for line in file if line.strip()]


def _csv(path: Path) -> list[Row]:
    """With a header; or MMLU as first published, without one. All values stay text: readers that
    guess take the choice None for a missing value, and 0.50 for 0.5."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    plain = bool(rows) and len(rows[0]) == len(HEADER) and rows[0][-1] in {*"ABCD0123"}
    header = HEADER if plain or not rows else rows.pop(0)
    return [dict(zip(header, row, strict=True)) for row in rows]


def _lines(path: Path) -> list[Row]:
    with open(path, encoding="utf-8") as file:
        return [{"text": line} for line in file]


READERS = {".parquet": _parquet, ".jsonl": _jsonl, ".csv": _csv}
TEXT = {".raw": _lines, ".txt": _lines}
