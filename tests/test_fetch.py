"""Fetching what a study needs from a hub that answers as the real one does, and reading it where
there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Checkpoints, Studies
from datasets import load_dataset
from fake_hub import SHA, hub

from lib import paths
from lib.models import corpora

READ = """
import sys
from lib import study
from lib.models import checkpoints, corpora
one = study.load(sys.argv[1])
print(checkpoints.commit(one), checkpoints.load_config(one).num_hidden_layers)
print(corpora.source(one.validation_text)["commit"])
for seed in (None, 3):
    print("|".join(corpora.documents(one.validation_text, seed)))
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of three files with its card."""
    folder = tmp_path / "dataset"
    (folder / "en").mkdir(parents=True)
    for i in range(3):
        rows = (json.dumps({"text": f"Document {i}, {j}."}) for j in range(4))
        (folder / f"en/part-{i}.json").write_text("\n".join(rows))
    card = "---\nconfigs:\n- config_name: en\n  data_files:\n"
    card += "  - {split: validation, path: 'en/part-*.json'}\n---\n"
    (folder / "README.md").write_text(card)
    return folder


def called(arguments: list[str], home: Path, **more: str) -> subprocess.CompletedProcess:
    offline = {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_HOME": str(home)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=paths.ROOT, env=os.environ | offline | more, capture_output=True, text=True,
        timeout=180,
    )  # fmt: skip


def test_what_is_fetched_is_read_without_a_network(
    data: Path, tmp_path: Path, tiny_checkpoint: Checkpoints, write_study: Studies
) -> None:
    text = {"dataset": "some/text", "config": "en", "split": "validation"}
    study = str(write_study(tmp_path, model="some/model", validation_text=text))
    with hub({"some/model": Path(tiny_checkpoint("llama"))}, {"some/text": data}) as address:
        done = called(
            ["-m", "lib.run", "fetch", "--study", study], tmp_path / "home", HF_ENDPOINT=address
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "text some/text, split 'validation': 3 files" in done.stdout
    nowhere = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    read = called(
        ["-c", READ, study], tmp_path / "home", HF_ENDPOINT="http://127.0.0.1:1", **nowhere
    )
    assert read.returncode == 0, read.stderr[-3000:]
    commit, source, *orders = read.stdout.splitlines()
    assert commit == f"{SHA} 6" and source == SHA
    rows = load_dataset(str(data), "en", split="validation", streaming=True)
    shuffled = rows.shuffle(seed=3, buffer_size=corpora.SHUFFLE_BUFFER)
    for order, expected in zip(orders, (rows, shuffled), strict=True):
        assert order.split("|") == [row["text"] for row in expected]
