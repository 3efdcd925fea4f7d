"""What tests of pruning on disk share: comparing checkpoints, and one line of refusal."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from lib.pruning import on_disk
from lib.pruning.dropped import span

CONTIGUOUS, SCATTERED = span(1, 4), (0, 2, 5)
N_LAYERS = 6


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, read by the safetensors library."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                assert name not in found
                found[name] = file.get_tensor(name)
    return found


def assert_same(one: Path, other: Path) -> None:
    """Equal tensors under equal names, bit for bit, and equal configs."""
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name], b[name]), name
    assert (one / "config.json").read_text() == (other / "config.json").read_text()


def load(folder: Path) -> AutoModelForCausalLM:
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype="auto", output_loading_info=True
    )
    assert not any(info.values()), info
    return model.eval()


def fails(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line of a command that is refused."""
    assert on_disk.main([str(argument) for argument in arguments]) == 1
    out, line = capsys.readouterr()
    assert out == ""
    assert line.startswith("error: ") and line.endswith("\n") and line.count("\n") == 1, line
    return line
