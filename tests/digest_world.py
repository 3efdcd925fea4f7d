"""A small study of everything, with files of every kind that a study touches."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import sentences, write_jsonl
from tiny import random_model

from lib import paths

QUIZ = """
task: {name}
custom_dataset: !function utils.load
dataset_kwargs: {{file: questions.jsonl}}
test_split: test
fewshot_split: dev
output_type: multiple_choice
{text}
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
UTILS = """
import json
from pathlib import Path

import common_words
from datasets import Dataset

FOLDER = Path(__file__).parent


def load(file, **_):
    lines = (FOLDER / file).read_text().splitlines()
    lines += (FOLDER / "../aside/more.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {"test": Dataset.from_list(rows[4:]), "dev": Dataset.from_list(rows[:4])}


def text(doc):
    return (FOLDER / "../aside/template.txt").read_text() + doc["question"] + common_words.END
"""
MINE = """
import common_scores


def scores(model, windows):
    return common_scores.of(model)
"""


def write(folder: Path) -> Path:
    """A study of everything, and the files that it touches; returns the study's path."""
    checkpoint = folder / "checkpoint"
    random_model("llama", vocab_size=512).save_pretrained(checkpoint)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(paths.ROOT / "almanac" / "checkpoint" / name, checkpoint)
    given = {
        "checkpoint/chat_template.jinja": "{{ messages }}",
        "checkpoint/special_tokens_map.json": '{"bos_token": "<s>"}',
        "checkpoint/vocab.json": "{}",
        "checkpoint/tokenizer.model": "pieces",
        "checkpoint/README.md": "a card",
        "checkpoint/LICENSE.txt": "free",
        "checkpoint/notes.txt": "ask the owner",
        "checkpoint/trainer_state.json": "{}",
        "checkpoint/checkpoint-500/optimizer.pt": "moments",
        "tasks/quiz.yaml": QUIZ.format(
            name="quiz", text="include: [../aside/base.yaml, .hidden.yaml]"
        ),
        "tasks/other.yaml": QUIZ.format(name="other", text="doc_to_text: '{{question}}'"),
        "tasks/utils.py": UTILS,
        "tasks/README.md": "questions",
        "tasks/.hidden.yaml": "description: Answer.",
        "tasks/.unused.yaml": "description: Never.",
        "aside/base.yaml": "include: deeper.yaml",
        "aside/deeper.yaml": "doc_to_text: !function helpers.text",
        "aside/helpers.py": UTILS,
        "aside/template.txt": "Question: ",
        "aside/unused.txt": "never read",
        "modules/common_words.py": "from common_package.inner import END\n",
        "modules/common_package/__init__.py": "",
        "modules/common_package/inner.py": "END = '?'\n",
        "modules/common_scores.py": "def of(model):\n    return range(6)\n",
        "modules/never_imported.py": "",
        "mine.py": MINE,
        "other.py": MINE + "\n# another\n",
    }
    for name, text in given.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    rows = [
        {"question": f"On day {i} it", "choices": ["rained", "snowed"], "answer": i % 2}
        for i in range(16)
    ]
    write_jsonl(folder / "tasks/questions.jsonl", rows[:8])
    write_jsonl(folder / "aside/more.jsonl", rows[8:])
    for i, name in enumerate(("validation", "healing", "tales")):
        write_jsonl(folder / f"{name}.jsonl", [{"text": one} for one in sentences(30, 100 * i)])
    taught = [{"instruction": f"Say {one}", "response": one} for one in sentences(8, 300)]
    write_jsonl(folder / "taught.jsonl", taught)
    (folder / "s.yaml").write_text(STUDY)
    return folder / "s.yaml"


STUDY = """
model: ./checkpoint
device: cpu
dtype: float32
task_path: ./tasks
validation_text: {path: ./validation.jsonl}
healing_text: {path: ./healing.jsonl}
healing_data: [{name: taught, path: ./taught.jsonl, rows: instructions}]
other_texts: [{name: tales, path: ./tales.jsonl}]
tasks:
  - {name: quiz, role: knowledge, limit: 4}
  - {name: quiz, role: knowledge, limit: 4, shots: 2}
strategies: [{name: mine, file: ./mine.py}, simple]
distances: {n_sequences: 4, length: 8, bootstrap: 100}
loss: {n_sequences: 4, length: 16}
perplexity: [{name: quiz, limit: 4}]
healing: {recipe: lora, rank: 2, steps: 2, batch: 2, length: 16}
"""


@contextmanager
def world() -> Iterator[Path]:
    """The study in a folder of its own, with no GPU and a hub that knows every name."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULTS_DIR", str(Path(folder) / "results"))
        patch.setattr(paths, "BUILD", Path(folder) / "_build")
        patch.setattr("torch.cuda.is_available", lambda: False)
        path = write(Path(folder))
        patch.syspath_prepend(str(path.parent / "modules"))

        def info(_: Any, name: str, revision: str | None = None, **__: Any) -> Any:
            return type("Info", (), {"sha": f"{name} at {revision}"})

        def fetched(name: str, file: str, revision: str | None = None) -> str:
            cached = paths.BUILD / file
            cached.parent.mkdir(exist_ok=True)
            cached.write_bytes(b"GGUF" + f"{name} {file} {revision}".encode())
            return str(cached)

        patch.setattr("lib.models.checkpoints.hf_hub_download", fetched)
        patch.setattr("huggingface_hub.HfApi.model_info", info)
        patch.setattr("huggingface_hub.HfApi.dataset_info", info)
        yield path
        for name in [name for name in sys.modules if name.startswith("common_")]:
            del sys.modules[name]
