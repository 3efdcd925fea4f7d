"""Small made-up questions in the formats of MMLU, BoolQ, GSM8K and HellaSwag, and three ways in
which people have them in files."""

import csv
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from conftest import sentences, write_jsonl
from datasets import Dataset
from lm_eval.tasks.hellaswag.utils import process_docs

Rows = list[dict[str, Any]]


def mmlu(first: int, count: int) -> Rows:
    words = ["None", "0.50", "NA", " both, of them", '"quoted"', "two\nlines"]
    return [
        {
            "question": f" Which of these is number {i}? ",
            "choices": [words[(i + k) % 6] for k in range(4)],
            "answer": i * 3 % 4,
        }
        for i in range(first, first + count)
    ]


def boolq(first: int, count: int) -> Rows:
    return [
        {
            "title": f"Day {i}",
            "passage": f"{text}\nQuestion: none.",
            "question": f"was it day {i}",
            "answer": i % 3 == 0,
        }
        for i, text in enumerate(sentences(count, first), start=first)
    ]


def super_glue(rows: Rows) -> Rows:
    """As lm-eval's own task reads it."""
    return [
        {
            "passage": f"{row['title']} -- {row['passage']}",
            "question": row["question"],
            "label": int(row["answer"]),
        }
        for row in rows
    ]


def gsm8k(first: int, count: int) -> Rows:
    return [
        {
            "question": f"How much is {i} + {i}?",
            "answer": f"It is <<{i}+{i}={2 * i}>>.\n#### {2 * i}",
        }
        for i in range(first, first + count)
    ]


def hellaswag(first: int, count: int) -> Rows:
    return [
        {
            "activity_label": "Baking",
            "ctx_a": f"{text} [header] How to bake [title] Step  {i}",
            "ctx_b": "" if i % 2 else "the BAKER",
            "ctx": "not used",
            "endings": [f"takes {k} [substeps] loaves.  [title] Eats." for k in range(4)],
            "label": str(i % 4),
        }
        for i, text in enumerate(sentences(count, first), start=first)
    ]


def write_parquet(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_csv(path: Path, rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def as_on_the_hub(folder: Path) -> None:
    """Parquet files under the names that the repositories have."""
    for split, (first, count) in {"dev": (0, 5), "test": (5, 7)}.items():
        rows = [{**row, "subject": "anatomy"} for row in mmlu(first, count)]
        write_parquet(folder / f"mmlu/anatomy/{split}-00000-of-00001.parquet", rows)
    for split, (first, count) in {"train": (0, 9), "validation": (9, 7)}.items():
        shard = f"{split}-00000-of-00001.parquet"
        write_parquet(folder / f"boolq/boolq/{shard}", super_glue(boolq(first, count)))
        write_parquet(folder / f"hellaswag/data/{shard}", hellaswag(first, count))
    for split, (first, count) in {"train": (0, 9), "test": (9, 7)}.items():
        write_parquet(folder / f"gsm8k/main/{split}-00000-of-00001.parquet", gsm8k(first, count))


def as_first_published(folder: Path) -> None:
    """MMLU's CSV without a header and with letters; JSON lines for the rest."""
    for split, (first, count) in {"dev": (0, 5), "test": (5, 7)}.items():
        rows = [
            [row["question"], *row["choices"], "ABCD"[row["answer"]]] for row in mmlu(first, count)
        ]
        write_csv(folder / f"mmlu/{split}/anatomy_{split}.csv", rows)
    for split, (first, count) in {"train": (0, 9), "dev": (9, 7)}.items():
        write_jsonl(folder / f"boolq/{split}.jsonl", boolq(first, count))
        write_jsonl(folder / f"gsm8k/{split.replace('dev', 'test')}.jsonl", gsm8k(first, count))
        name = f"hellaswag_{split.replace('dev', 'val')}.jsonl"
        rows = [{**row, "label": int(row["label"])} for row in hellaswag(first, count)]
        write_jsonl(folder / f"hellaswag/{name}", rows)


def as_queries(folder: Path) -> None:
    """With a header and numbers, and with prompts that are put together already."""
    header = ["question", "choice0", "choice1", "choice2", "choice3", "answer"]
    for split, (first, count) in {"dev": (0, 5), "test": (5, 7)}.items():
        rows = [[row["question"], *row["choices"], row["answer"]] for row in mmlu(first, count)]
        write_csv(folder / f"mmlu/{split}/anatomy_{split}.csv", [header, *rows])
    for split, (first, count) in {"train": (0, 9), "validation": (9, 7)}.items():
        rows = [
            {
                "query": f"Passage: {row['passage']}\nQuestion: {row['question']}?",
                "choices": ["no", "yes"],
                "gold": row["label"],
            }
            for row in super_glue(boolq(first, count))
        ]
        write_jsonl(folder / f"boolq/{split}.jsonl", rows)
        ready = process_docs(Dataset.from_list(hellaswag(first, count)))
        rows = [{key: row[key] for key in ("query", "choices", "gold")} for row in ready]
        write_jsonl(folder / f"hellaswag/{split}.jsonl", rows)
    for split, (first, count) in {"train": (0, 9), "test": (9, 7)}.items():
        write_jsonl(folder / f"gsm8k/{split}.jsonl", gsm8k(first, count))
