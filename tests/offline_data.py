"""Small made-up questions in the formats of the sets that tasks/ reads, and three ways in which
people have them in files."""

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


def arc(first: int, count: int) -> Rows:
    """Of three to five choices, lettered or numbered."""
    found = []
    for i in range(first, first + count):
        labels = list("12345" if i % 2 else "ABCDE")[: 3 + i % 3]
        choices = {"text": [f"{i + k} stones" for k in range(len(labels))], "label": labels}
        question = f"Question: of how many\nis wall {i}?"
        found.append({"question": question, "choices": choices, "answerKey": labels[i * 2 % 3]})
    return found


def openbookqa(first: int, count: int) -> Rows:
    rows = arc(first, count)
    for row in rows:
        row["question_stem"] = row.pop("question")
    return rows


def piqa(first: int, count: int) -> Rows:
    return [
        {"goal": f"Bake loaf {i}.\n", "sol1": "Stir it.", "sol2": f"Wait {i} h.", "label": i % 2}
        for i in range(first, first + count)
    ]


def winogrande(first: int, count: int) -> Rows:
    return [
        {
            "sentence": f"On day {i} Ada paid Greta since _ had sold a loaf_{i}.",
            "option1": "Ada" if i % 3 else "Hugo",
            "option2": "Greta",
            "answer": "12"[i * 5 % 2],
        }
        for i in range(first, first + count)
    ]


def cmmlu(first: int, count: int) -> Rows:
    words = ["None", "0.50", "NA", " 两者 ", "“引”", "胸,腹"]
    return [
        {
            "Question": f" 第{i}题是 ",
            **{letter: words[(i + k) % 6] for k, letter in enumerate("ABCD")},
            "Answer": "ABCD"[i * 3 % 4],
        }
        for i in range(first, first + count)
    ]


def lambada(first: int, count: int) -> Rows:
    return [
        {"text": f"{text}  So it\nwas day {i}"} for i, text in enumerate(sentences(count), first)
    ]


def queried(prompt: str, choices: list[str], gold: int) -> dict[str, Any]:
    return {"query": prompt, "choices": choices, "gold": gold}


def labelled(row: dict[str, Any]) -> tuple[list[str], int]:
    """Texts of the choices, and which is right."""
    return row["choices"]["text"], row["choices"]["label"].index(row["answerKey"])


def as_contexts(row: dict[str, Any]) -> dict[str, Any]:
    before, _, after = row["sentence"].partition("_")
    contexts = [before + row["option1"], before + row["option2"]]
    return {
        "context_options": contexts,
        "continuation": after.strip(),
        "gold": int(row["answer"]) - 1,
    }


PARTS = {"ARC-Easy": 0, "ARC-Challenge": 100}  # and the number of its first question


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
        shard = f"{split}-00000-of-00001.parquet"
        for part, offset in PARTS.items():
            write_parquet(folder / f"ai2_arc/{part}/{shard}", arc(first + offset, count))
        write_parquet(folder / f"openbookqa/main/{shard}", openbookqa(first, count))
    for split, (first, count) in {"train": (0, 9), "validation": (9, 7)}.items():
        shard = f"{split}-00000-of-00001.parquet"
        write_parquet(folder / f"piqa/piqa_{split}.parquet", piqa(first, count))
        write_parquet(folder / f"winogrande/winogrande_xl/{shard}", winogrande(first, count))
    for split, (first, count) in {"dev": (0, 5), "test": (5, 7)}.items():
        write_parquet(folder / f"cmmlu/agronomy/{split}.parquet", cmmlu(first, count))
    write_jsonl(folder / "lambada_openai/data/lambada_test.jsonl", lambada(0, 7))


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
    for split, (first, count) in {"train": (0, 9), "test": (9, 7)}.items():
        for part, offset in PARTS.items():
            name = f"ai2_arc/{part}/{split}.jsonl"
            write_jsonl(folder / name, arc(first + offset, count))
        write_jsonl(folder / f"openbookqa/{split}.jsonl", openbookqa(first, count))
    for split, (first, count) in {"train": (0, 9), "validation": (9, 7)}.items():
        rows = piqa(first, count)
        header = list(rows[0])
        lines = [[row[key] for key in header] for row in rows]
        write_csv(folder / f"piqa/{split}.csv", [header, *lines])
    for name, (first, count) in {"train_xl": (0, 9), "dev": (9, 7)}.items():
        write_jsonl(folder / f"winogrande/{name}.jsonl", winogrande(first, count))
    write_cmmlu(folder)
    write_parquet(folder / "lambada_openai/default/test-00000-of-00001.parquet", lambada(0, 7))


def write_cmmlu(folder: Path) -> None:
    """With an index that has no name."""
    for split, (first, count) in {"dev": (0, 5), "test": (5, 7)}.items():
        rows = cmmlu(first, count)
        lines = [[i, *row.values()] for i, row in enumerate(rows)]
        write_csv(folder / f"cmmlu/{split}/agronomy.csv", [["", *rows[0]], *lines])


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
        for part, offset in PARTS.items():
            rows = [
                queried(f"Question: {row['question']}", *labelled(row))
                for row in arc(first + offset, count)
            ]
            name = part.lower().replace("-", "_")
            write_jsonl(folder / f"ai2_arc/{name}/{split}.jsonl", rows)
        rows = [queried(row["question_stem"], *labelled(row)) for row in openbookqa(first, count)]
        write_jsonl(folder / f"openbookqa/{split}.jsonl", rows)
    for split, (first, count) in {"train": (0, 9), "validation": (9, 7)}.items():
        rows = [
            queried(f"Question: {row['goal']}\n", [row["sol1"], row["sol2"]], row["label"])
            for row in piqa(first, count)
        ]
        write_jsonl(folder / f"piqa/{split}.jsonl", rows)
        rows = [as_contexts(row) for row in winogrande(first, count)]
        write_jsonl(folder / f"winogrande/{split}.jsonl", rows)
    write_cmmlu(folder)
    write_jsonl(folder / "lambada_openai/test.jsonl", lambada(0, 7))
