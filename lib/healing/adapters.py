"""LoRA adapters on linear modules of the layers, the FFN's (§3.2, App. A.1 of Gromov et al.) or all
(§3.2 of Lu et al.): putting them on, and merging them. With W₀ the frozen weight, a module computes

    W₀ x + (α/r) · B A x,    A: [r, in],  B: [out, r]

Imports bitsandbytes inside functions: adapters on a base that is not in 4-bit need none.
"""

import json
import warnings
from collections.abc import Collection
from pathlib import Path

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    prepare_model_for_kbit_training,
    set_peft_model_state_dict,
)
from peft.tuners.lora import LoraLayer
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lib.errors import UserError
from lib.healing.recipe import Damaged
from lib.models.anatomy import adapter_modules, is_fused, layers, linear_weight
from lib.models.checkpoints import dtype, load_model
from lib.models.four_bit import SplitExperts, dequantised, linear4bit, runs_in_4bit
from lib.open_sets import Adapters
from lib.pruning.surgery import drop
from lib.schema import Study


def split_experts(model: PreTrainedModel) -> PreTrainedModel:
    """The model, its fused experts as one linear module each, which can carry adapters."""
    for layer in layers(model):
        for name, module in list(layer.named_modules()):
            if is_fused(module):
                layer.set_submodule(name, SplitExperts(module, _linear))
    return model


def _linear(weight: torch.Tensor) -> nn.Linear:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    module.weight = nn.Parameter(weight.detach(), requires_grad=False)
    return module


def adapt(model: PreTrainedModel, healing: Adapters, needs_4bit: bool) -> PeftModel:
    """Add LoRA adapters to the modules that the settings name, in full; all else is frozen.

    Raises UserError for a rank above a module's width and for targets that match nothing or, where
    the base has to be in 4-bit, are not."""
    names = adapter_modules(model, healing.targets)
    modules = [model.get_submodule(name) for name in names]
    if needs_4bit:
        in_4bit = {module for _, module in linear4bit(model)}
        for name, module in zip(names, modules, strict=True):
            if module not in in_4bit:
                raise UserError(f"healing.targets: {name} cannot be put in 4-bit")
    # Of a 4-bit module only the attributes tell; GPT-2's transposed one has but its weight.
    sizes = [
        module.weight.shape
        if isinstance(module, Conv1D)
        else (module.in_features, module.out_features)
        for module in modules
    ]
    narrowest = min(map(min, sizes))
    if healing.rank > narrowest:
        raise UserError(f"rank {healing.rank}: above the narrowest adapted width, {narrowest}")
    transposed = any(isinstance(module, Conv1D) for module in modules)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if needs_4bit:
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        if healing.gradient_checkpointing:
            checkpoint_gradients(model)
        return get_peft_model(model, lora(names, healing, transposed))


def lora(names: list[str], healing: Adapters, transposed: bool) -> LoraConfig:
    """Adapters of rank r on the named modules; all else is frozen."""
    return LoraConfig(
        r=healing.rank,
        lora_alpha=healing.alpha or healing.rank,
        lora_dropout=healing.dropout,
        target_modules=names,
        task_type="CAUSAL_LM",
        fan_in_fan_out=transposed,  # weights are [in, out], as GPT-2's
    )


def restored(prepared: PeftModel, folder: Path) -> PeftModel:
    """Adapters that were kept in a folder, laid over those of a model that is prepared as it was
    for their training.

    Raises Damaged unless they are those of this model, all of them, and of its settings."""
    expected = get_peft_model_state_dict(prepared, save_embedding_layers=False)
    own = prepared.peft_config["default"]
    try:
        found = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
        kept = json.loads((folder / CONFIG_NAME).read_text("utf-8"))
        settings = kept["r"], kept["lora_alpha"], sorted(kept["target_modules"])
    except (FileNotFoundError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{folder}: not whole: {error}") from None
    if settings != (own.r, own.lora_alpha, sorted(own.target_modules)):
        raise Damaged(f"{folder}: {CONFIG_NAME} is of other adapters")
    if {name: one.shape for name, one in found.items()} != {
        name: one.shape for name, one in expected.items()
    }:
        raise Damaged(f"{folder}: {SAFETENSORS_WEIGHTS_NAME} is of other adapters")
    set_peft_model_state_dict(prepared, found)
    return prepared


def checkpoint_gradients(model: PreTrainedModel) -> None:
    """Each layer's activations are computed again on the way back, instead of kept."""
    try:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError:
        family = model.config.get_text_config().model_type
        raise UserError(
            f"healing.gradient_checkpointing: model family '{family}' has none"
        ) from None


def evaluable(model: PreTrainedModel, study: Study, dropped: Collection[int]) -> PreTrainedModel:
    """A pruned model ready to evaluate: on a GPU itself if it is in 4-bit, its adapters beside its
    weights; else a plain copy."""
    if linear4bit(model) and runs_in_4bit(study):
        return model.eval().requires_grad_(False)
    return written_out(model, study, dropped)


def written_out(model: PreTrainedModel, study: Study, dropped: Collection[int]) -> PreTrainedModel:
    """A plain float32 copy of a pruned model: 4-bit weights written out, adapters merged.

    In float32 whatever the study's dtype: the sum of a weight and a small adapter, rounded to 16
    bits, would mostly be the weight again."""
    import bitsandbytes as bnb

    # What is not in 4-bit has the rounded values that its adapters were trained on.
    values = torch.float32 if linear4bit(model) else dtype(study)
    plain = load_model(study, weights=values).float()
    drop(plain, dropped)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, LoraLayer):
                weight = _base_weight(module, plain, name) + _change(module)
            elif isinstance(module, bnb.nn.Linear4bit) and not name.endswith(".base_layer"):
                weight = dequantised(module)
            else:
                continue
            linear_weight(plain, name).copy_(weight)
    return plain


def _base_weight(module: LoraLayer, plain: PreTrainedModel, name: str) -> torch.Tensor:
    """W₀ [out, in] of an adapted module; what is not in 4-bit, the plain copy has too."""
    import bitsandbytes as bnb

    base = module.base_layer
    return dequantised(base) if isinstance(base, bnb.nn.Linear4bit) else linear_weight(plain, name)


def _change(module: LoraLayer) -> torch.Tensor:
    """(α/r) · BA [out, in]."""
    change = module.get_delta_weight("default")
    return change.T if isinstance(module.base_layer, Conv1D) else change
