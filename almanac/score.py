"""Scores a checkpoint on all of the almanac's questions, as lm-eval alone would:

    python -m almanac.score                                   # the shipped checkpoint
    python -m almanac.score almanac/controls/no-facts-seed0   # the one that read no facts
    python -m almanac.score almanac/controls/seed1            # any other

The first two fill their parts of the model card; all print.
"""

import argparse
import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from almanac.train import Settings
from almanac.world import FOLDER
from lib.evaluation import evaluate, harness
from lib.models import corpora
from lib.schema import Study, Task, Text

ASKED = [
    ("one_hop", 0),
    ("one_hop", 5),
    ("two_hop", 0),
    ("two_hop", 5),
    ("reading", 0),
    ("sums", 0),
]
TEXTS = ["validation", "healing_validation", "tales"]
# By folder: what stands around the scores in the model card.
MARKS = {
    Settings().folder: ("<!-- scores -->", "<!-- end of scores -->"),
    Settings(facts=False).folder: ("<!-- without facts -->", "<!-- end of without facts -->"),
}


def scores(checkpoint: Path) -> str:
    """Return all scores of a checkpoint as Markdown tables."""
    tasks = [Task(name=f"almanac_{name}", shots=shots) for name, shots in ASKED]
    study = Study(model=str(checkpoint.resolve()), task_path=str(FOLDER / "tasks"), tasks=tasks)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    manager = harness.task_manager(study)
    lines = [
        "| Task | Shots | Questions | Accuracy ± standard error | Guessing | Constant answer |"
        " Without the question |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in tasks:
        found = evaluate.accuracy(model, tokenizer, task, manager, batch=64)
        free = "–"
        if found["guess"]:
            blank = evaluate.accuracy(model, tokenizer, task, manager, 64, question_free=True)
            free = f"{blank['accuracy']:.3f} ± {blank['stderr']:.3f}"
        lines.append(
            f"| `{task.name}` | {task.shots} | {found['n_questions']} | {found['accuracy']:.3f} ± "
            f"{found['stderr']:.3f} | {found['guess']:.2f} | {found['constant']:.3f} | {free} |"
        )
    vocabulary = model.config.vocab_size
    lines += [
        "",
        "| Text | Documents | Loss ± standard error [nats] | Loss / ln V |",
        "|---|---|---|---|",
    ]
    for name in TEXTS:
        text = Text(path=str(FOLDER / "text" / f"{name}.jsonl"))
        sequences = corpora.document_sequences(text, tokenizer, 500, 256, None)
        found = evaluate.next_token_loss(model, sequences, 64, tokenizer.pad_token_id)
        lines.append(
            f"| `{name}` | {found['n_sequences']} | {found['loss']:.4f} ± {found['stderr']:.4f} | "
            f"{found['loss'] / math.log(vocabulary):.4f} |"
        )
    return "\n".join(lines)


def fill(card: Path, text: str, marks: tuple[str, str]) -> None:
    """Put the scores between two marks of the model card."""
    before, _, rest = card.read_text("utf-8").partition(marks[0])
    after = rest.partition(marks[1])[2]
    card.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{after}", "utf-8")


def main() -> None:
    """Score a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, nargs="?", default=FOLDER / "checkpoint")
    checkpoint = parser.parse_args().checkpoint
    text = scores(checkpoint)
    print(text)
    if marks := MARKS.get(checkpoint.resolve()):
        fill(FOLDER / "README.md", text, marks)


if __name__ == "__main__":
    main()
