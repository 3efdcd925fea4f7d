"""Models with their linear layers in 4-bit NF4, the base that QLoRA trains on.

On a CPU such a model is never run outside training. Where that has AVX512-BF16, bitsandbytes
repacks its weights in place at the first inference, and every later gradient is wrong without an
error; so the repacking is switched off here, and evaluation goes through plain copies of the same
values (`lib.healing.evaluable`).

Transformers puts ordinary linear modules (and GPT-2's transposed ones) in 4-bit while it loads
them. What it leaves in 16 or 32 bits, Falcon's own linear class and fused experts, follows here, so
that the FFN of every family is 4-bit; for those the whole layers have to fit beside it.

Imports bitsandbytes inside functions: it takes two seconds, and few who import this need it.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lib.errors import UserError
from lib.models.anatomy import is_fused, layers
from lib.models.checkpoints import device, dtype, load_model
from lib.schema import Study

if TYPE_CHECKING:
    import bitsandbytes as bnb

BLOCK = 64  # values that share a scale


class SplitExperts(nn.Module):
    """A layer's experts as one linear module each, instead of fused in two tensors: only linear
    modules can be in 4-bit and carry adapters. Computes what transformers' fused experts do."""

    def __init__(self, fused: nn.Module, linear: Callable[[torch.Tensor], nn.Module]) -> None:
        """linear: makes a module of a weight [out, in]."""
        super().__init__()
        self.gate_up_proj = nn.ModuleList(linear(weight) for weight in fused.gate_up_proj)
        self.down_proj = nn.ModuleList(linear(weight) for weight in fused.down_proj)
        self.act_fn = fused.act_fn

    def forward(
        self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Σ over each token's chosen experts e of weight · down_e(act(gate_e x) · up_e x).

        hidden [tokens, width]; chosen and weights [tokens, experts per token]."""
        out = torch.zeros_like(hidden)
        for expert in chosen.unique().tolist():
            token, place = torch.where(chosen == expert)
            gate, up = self.gate_up_proj[expert](hidden[token]).chunk(2, dim=-1)
            found = self.down_proj[expert](self.act_fn(gate) * up)
            out.index_add_(0, token, (found * weights[token, place, None]).to(out.dtype))
        return out


def nf4(weight: torch.Tensor, bias: torch.Tensor | None, compute: torch.dtype) -> bnb.nn.Linear4bit:
    """A 4-bit linear module of these values; weight [out, in]."""
    import bitsandbytes as bnb

    module = bnb.nn.Linear4bit(
        weight.shape[1],
        weight.shape[0],
        bias=bias is not None,
        compute_dtype=compute,
        compress_statistics=False,
        quant_type="nf4",
        device="meta",
    )
    module.weight = bnb.nn.Params4bit(
        weight.detach().contiguous(),
        requires_grad=False,
        compress_statistics=False,
        blocksize=BLOCK,
        quant_type="nf4",
        module=module,
    ).to(weight.device)
    module.bias = bias
    return module.requires_grad_(False)


def linear4bit(model: nn.Module) -> list[tuple[str, bnb.nn.Linear4bit]]:
    import bitsandbytes as bnb

    return [(n, m) for n, m in model.named_modules() if isinstance(m, bnb.nn.Linear4bit)]


def load_4bit(study: Study) -> PreTrainedModel:
    """The unpruned model with its linear layers in NF4, safe to train on a CPU.

    Raises UserError for a family that has none, and for widths of which bitsandbytes gets the
    values wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model(study, four_bit=True)
    four_bit = partial(nf4, bias=None, compute=dtype(study))
    for layer in layers(model):
        quantised = dict(linear4bit(layer))
        for name, module in list(layer.named_modules()):
            if is_fused(module):
                layer.set_submodule(name, SplitExperts(module, four_bit))
            elif isinstance(module, nn.Linear) and name not in quantised:
                layer.set_submodule(name, nf4(module.weight, module.bias, dtype(study)))
    modules = linear4bit(model)
    if not modules:
        family = model.config.get_text_config().model_type
        raise UserError(f"model family '{family}': none of its linear layers can be put in 4-bit")
    for name, module in modules:
        module.support_avx512bf16_for_cpu = False  # see the module's docstring
        if not _reads_back(module):
            raise UserError(f"model {study.model}: {_misread(name, module.in_features)}")
    return model


def base_digest(model: nn.Module) -> str:
    """SHA-256 over the 4-bit bytes and their scales: equal before and after training."""
    state = hashlib.sha256()
    for name, module in linear4bit(model):
        quantised = module.weight.quant_state
        state.update(name.split("base_model.model.")[-1].replace(".base_layer", "").encode())
        for tensor in (module.weight.data, quantised.absmax, quantised.code):
            state.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def dequantised(module: bnb.nn.Linear4bit) -> torch.Tensor:
    """The weight [out, in] that a 4-bit module stands for."""
    import bitsandbytes as bnb

    return bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)


def impossible(skeleton: PreTrainedModel, device: torch.device) -> str | None:
    """Why a model without weights could not be put in 4-bit on a device; None: it could."""
    widths: dict[int, str] = {}
    for name, module in layers(skeleton).named_modules():
        if is_fused(module):
            for weight in (module.gate_up_proj, module.down_proj):
                widths.setdefault(weight.shape[-1], name)
        elif isinstance(module, nn.Linear):
            widths.setdefault(module.in_features, name)
        elif isinstance(module, Conv1D):
            widths.setdefault(module.weight.shape[0], name)
    for width, name in sorted(widths.items()):
        if width % BLOCK == 0:
            continue
        weight = torch.randn(64, width, generator=torch.Generator().manual_seed(0))
        if not _reads_back(nf4(weight.to(device), None, torch.float32)):
            return _misread(name, width)
    return None


def _misread(name: str, width: int) -> str:
    return (
        f"{name} cannot be put in 4-bit on this device: bitsandbytes misreads rows of {width} "
        "numbers"
    )


def _reads_back(module: bnb.nn.Linear4bit) -> bool:
    """Whether the 4-bit values are read the same as a matrix and as one row. On CPUs with AVX512,
    bitsandbytes 0.50.2 takes other scales for widths that 16 divides and the block of 64 does not:
    a quarter off instead of a tenth, with no error."""
    if module.in_features % BLOCK == 0:
        return True
    import bitsandbytes as bnb

    flat = copy.copy(module.weight.quant_state)
    flat.shape = torch.Size([module.in_features * module.out_features])
    one_row = bnb.functional.dequantize_4bit(module.weight.data, flat)
    return torch.equal(dequantised(module).flatten(), one_row)


def runs_in_4bit(study: Study) -> bool:
    """Whether 4-bit models are evaluated as they are. On a GPU they are; on a CPU they have to be
    written out first (see the module's docstring)."""
    return device(study).type == "cuda"
