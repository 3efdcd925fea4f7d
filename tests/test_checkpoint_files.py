"""Which files make a checkpoint another one."""

import re
import shutil
from pathlib import Path

import pytest
import transformers
from conftest import Checkpoints, Studies

from lib import study as studies
from lib.models.checkpoint_files import SETTINGS, SUFFIXES
from lib.models.checkpoints import checkpoint_digest

# Files that a trainer, a download or a person leaves beside the weights.
BESIDE = ["notes.txt", "LICENSE.txt", "README.md", "trainer_state.json", "all_results.json"]
BESIDE += ["requirements.txt", "pytorch_model.bin.index.json", "checkpoint-500/config.json"]


@pytest.fixture
def study(tmp_path: Path, write_study: Studies, tiny_checkpoint: Checkpoints):
    shutil.copytree(tiny_checkpoint("llama"), tmp_path / "model")
    return studies.load(str(write_study(tmp_path, model="./model")))


def test_what_lies_beside_a_checkpoint_does_not_make_it_another(study) -> None:
    before = checkpoint_digest(study)
    for name in BESIDE:
        file = Path(study.model) / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("{}")
        assert checkpoint_digest(study) == before, name


@pytest.mark.parametrize(
    "name",
    [
        *("generation_config.json", "chat_template.jinja", "tokenizer.model", "qwen.tiktoken"),
        *("added_tokens.json", "tokenizer.4.0.0.json", "merges.txt"),
    ],
)
def test_what_is_read_of_a_checkpoint_makes_it_another(name: str, study) -> None:
    before = checkpoint_digest(study)
    (Path(study.model) / name).write_text("{}")
    assert checkpoint_digest(study) != before


def test_every_vocabulary_that_transformers_reads_is_one() -> None:
    """By the names in its tokenizers."""
    table = re.compile(r"VOCAB_FILES_NAMES\s*=\s*\{([^}]*)\}")
    found = {
        name
        for path in (Path(transformers.__file__).parent / "models").glob("*/tokenization_*.py")
        for names in table.findall(path.read_text("utf-8"))
        for name in re.findall(r":\s*\"([^\"]+)\"", names)
    }
    assert {"tokenizer.json", "merges.txt", "spiece.model"} <= found
    assert [one for one in found if one not in SETTINGS and Path(one).suffix not in SUFFIXES] == []
