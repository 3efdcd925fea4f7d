"""A small results folder with evidence of three kinds, for tests of what reads and merges it."""

from pathlib import Path

from lib.evidence.records import digest
from lib.evidence.store import Store

LOSS = {"loss": 1.25, "stderr": 0.5, "n_tokens": 10}
QA = {"accuracy": 0.75, "stderr": 0.1, "n_questions": 12, "correct": {"quiz": "0110"}}


def fill(folder: Path) -> Path:
    """Three records, one of them with adapters."""
    store = Store(folder)
    store.put("loss", "drop 1:3 none", {"block": [1, 3]}, LOSS, seconds=1.5, threads=2)
    store.put("qa", "quiz drop 1:3 none", {"block": [1, 3]}, QA, seconds=2.5, threads=1)
    heal(folder, "here")
    return folder


def heal(folder: Path, weights: str, loss: float = 0.5) -> Path:
    """A healing's record with its adapters, whose folder is returned."""
    inputs = {"healing": "r8"}
    adapters = folder / "adapters" / digest(inputs)
    adapters.mkdir(parents=True)
    (adapters / "adapter_model.safetensors").write_text(weights)
    Store(folder).put("healing", "r8", inputs, {"train_loss": [2.0, loss]}, seconds=60, threads=4)
    return adapters


def content(folder: Path) -> dict[str, bytes]:
    """Every file, but hidden ones such as locks."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in found if path.name[0] != "."
    }
