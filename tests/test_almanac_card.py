"""The almanac's model card: its scores are the shipped checkpoint's, filled in by a script."""

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from almanac.score import ASKED, MARKS, fill
from almanac.world import FOLDER
from lib.evaluation import evaluate, harness
from lib.schema import Study, Task

CARD = (FOLDER / "README.md").read_text("utf-8")
SHIPPED = CARD.partition(MARKS[FOLDER / "checkpoint"][1])[0]
ROW = re.compile(r"\| `almanac_(\w+)` \| (\d) \| (\d+) \| ([\d.]+) ± ([\d.]+) \|")


def test_the_card_has_a_row_for_every_task() -> None:
    found = [(name, int(shots)) for name, shots, *_ in ROW.findall(SHIPPED)]
    assert found == ASKED


@pytest.mark.parametrize("name", ["one_hop", "reading", "sums"])
def test_the_card_says_what_the_shipped_checkpoint_scores(name: str) -> None:
    """Within half a point: processors differ in the last digits of a product."""
    task = Task(name=f"almanac_{name}")
    checkpoint = FOLDER / "checkpoint"
    study = Study(model=str(checkpoint), task_path=str(FOLDER / "tasks"), tasks=[task])
    found = evaluate.accuracy(
        AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval(),
        AutoTokenizer.from_pretrained(checkpoint),
        task,
        harness.task_manager(study),
        batch=64,
    )
    row = next(row for row in ROW.findall(SHIPPED) if row[:2] == (name, "0"))
    assert found["n_questions"] == int(row[2])
    assert found["accuracy"] == pytest.approx(float(row[3]), abs=0.0055)
    assert found["stderr"] == pytest.approx(float(row[4]), abs=0.002)


@pytest.mark.parametrize("marks", MARKS.values(), ids=["shipped", "without facts"])
def test_filling_in_scores_leaves_the_rest_of_a_card(tmp_path: Path, marks: tuple) -> None:
    assert all(CARD.count(mark) == 1 for mark in marks)
    card = tmp_path / "card.md"
    card.write_text(f"before\n{marks[0]}\nold\n{marks[1]}\nafter\n", "utf-8")
    for _ in range(2):
        fill(card, "| new |", marks)
        assert card.read_text("utf-8") == f"before\n{marks[0]}\n| new |\n{marks[1]}\nafter\n"
