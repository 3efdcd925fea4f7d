"""What tests of Qwen version 1 share: loading, logits, and how far apart two of them are."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from lib.models import qwen

qwen.register()


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False).eval()


@torch.no_grad()
def logits(model: PreTrainedModel, text: list[int], **options: Any) -> torch.Tensor:
    return model(torch.tensor([text]), **options).logits[0]


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return (ours.double() - theirs.double()).abs().max().item()
