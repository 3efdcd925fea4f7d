"""Healing: a little fine-tuning after layers were dropped (§3.2, App. A.1 of Gromov et al.).

With QLoRA, the paper's recipe, the base is quantised to 4-bit NF4 and frozen; LoRA adapters on the
FFN's linear modules are trained on next-token loss. With W₀ the 4-bit weight and α = r, an adapted
module computes

    W₀ x + (α/r) · B A x,    A: [r, in],  B: [out, r]

The recipe `lora` leaves W₀ in the study's number format, and `full` trains all weights in float32.
"""

import math
import time
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, enable_full_determinism
from transformers.pytorch_utils import Conv1D

from lib.errors import UserError
from lib.files import free_place, whole_or_not_at_all, written_by_others
from lib.healing.teacher import Teacher
from lib.healing.training import last_step, logged_steps, train
from lib.models.anatomy import ffn_modules, is_fused, layers, linear_weight
from lib.models.checkpoints import dtype, load_model
from lib.models.corpora import document_sequences, measured_on, windows
from lib.models.four_bit import (
    SplitExperts,
    base_digest,
    dequantised,
    linear4bit,
    load_4bit,
    runs_in_4bit,
)
from lib.pruning.surgery import drop
from lib.schema import Healing, Study

METHOD = 2  # raise when the code that computes healed weights changes them


def load_base(study: Study, healing: Healing) -> PreTrainedModel:
    """The unpruned model as a recipe trains it: in 4-bit, in the study's number format, or in
    float32 where all weights are trained: small steps would vanish in 16 bits."""
    if healing.recipe == "qlora":
        return load_4bit(study)
    if healing.recipe == "full":
        return load_model(study, weights=torch.float32)
    model = load_model(study)
    for layer in layers(model):
        for name, module in list(layer.named_modules()):
            if is_fused(module):
                layer.set_submodule(name, SplitExperts(module, _linear))
    return model


def _linear(weight: torch.Tensor) -> nn.Linear:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    module.weight = nn.Parameter(weight.detach(), requires_grad=False)
    return module


def adapt(model: PreTrainedModel, healing: Healing) -> PeftModel:
    """Add LoRA adapters (α = r) to every FFN module, named in full; all else is frozen.

    Raises UserError for a rank above a module's width and for targets that match nothing or, with
    `qlora`, are not in 4-bit."""
    names = ffn_modules(model, healing.targets)
    modules = [model.get_submodule(name) for name in names]
    for name, module in zip(names, modules, strict=True):
        if healing.recipe == "qlora" and not isinstance(module, bnb.nn.Linear4bit):
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
        raise UserError(f"rank {healing.rank}: above the narrowest FFN width, {narrowest}")
    config = LoraConfig(
        r=healing.rank,
        lora_alpha=healing.rank,
        lora_dropout=healing.dropout,
        target_modules=names,
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in modules),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if healing.recipe == "qlora":
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        if healing.gradient_checkpointing:
            _checkpoint_gradients(model)
        return get_peft_model(model, config)


def _checkpoint_gradients(model: PreTrainedModel) -> None:
    """Each layer's activations are computed again on the way back, instead of kept."""
    try:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError:
        family = model.config.get_text_config().model_type
        raise UserError(
            f"healing.gradient_checkpointing: model family '{family}' has none"
        ) from None


@dataclass(frozen=True)
class Healed:
    """What healing leaves: the model ready to evaluate, a report that comes out the same every
    time, and how long training took (None where a part of it was done before)."""

    model: PreTrainedModel
    report: dict[str, Any]
    seconds: float | None


def heal(
    study: Study,
    healing: Healing,
    dropped: Collection[int],
    tokenizer: PreTrainedTokenizerBase,
    keep: Path | None = None,
    adapters: Path | None = None,
) -> Healed:
    """Prune, quantise, train; returns the healed model ready to evaluate, and a report.

    dropped: layers; a block where there is a teacher.

    The report holds the training losses (nats per token, by step), counts (4-bit modules, trainable
    parameters, tokens) and, in `diverged`, what went wrong: the loss was not finite, or ended above
    ln V, the loss of guessing; else None. Two runs with one seed on one machine give identical
    weights, and so does one that was killed: `keep` is a folder for its state, and where the next
    one goes on. `adapters`: a folder that gets them in peft's format.

    Raises RuntimeError (a bug, here or in a library) when the frozen base changed."""
    enable_full_determinism(healing.seed, warn_only=True)
    cut = windows if healing.packing else document_sequences
    count = healing.steps * healing.batch
    local = study.validation_text.path and study.healing_text.path
    refused = frozenset() if local else measured_on(study.validation_text, study.loss, tokenizer)
    found = cut(study.healing_text, tokenizer, count, healing.length, healing.seed, refused)
    texts = [torch.as_tensor(row, dtype=torch.int32) for row in found]
    model = load_base(study, healing)
    teacher = Teacher(model, dropped) if healing.teacher and dropped else None
    if teacher is None:
        drop(model, dropped)
    if healing.recipe == "full":
        trained = model.train()
        if healing.gradient_checkpointing:
            _checkpoint_gradients(trained)
    else:
        trained = adapt(model, healing)
    before = base_digest(trained)
    fresh = keep is None or not last_step(keep)
    start = time.monotonic()
    pad = tokenizer.pad_token_id
    name = f"{study.name} less {len(dropped)} {healing.name} seed {healing.seed}"
    losses = train(trained, texts, pad, healing, dtype(study), keep, teacher, name)
    seconds = round(time.monotonic() - start, 3) if fresh else None
    if base_digest(trained) != before:
        raise RuntimeError("the frozen 4-bit weights changed during training")
    report = {
        "linear4bit": len(linear4bit(trained)),
        "trainable_parameters": sum(p.numel() for p in trained.parameters() if p.requires_grad),
        "tokens": sum(map(len, texts)),
        "train_loss": [value if math.isfinite(value) else None for value in losses],
        "base": before,
        "diverged": _diverged(losses, model.config.get_text_config().vocab_size, healing),
    }
    if healing.recipe == "full":
        return Healed(trained.eval().requires_grad_(False), report, seconds)
    if adapters is not None:
        with (
            whole_or_not_at_all(free_place(adapters)) as unfinished,
            written_by_others(unfinished),
        ):
            trained.save_pretrained(unfinished)
    return Healed(evaluable(trained.get_base_model(), study, dropped), report, seconds)


def reload(
    study: Study, healing: Healing, dropped: Collection[int], adapters: Path, merge: bool = False
) -> PreTrainedModel:
    """The model that `heal` returned, from the adapters that it left; merge: always the plain
    copy."""
    model = load_base(study, healing)
    drop(model, dropped)
    adapted = PeftModel.from_pretrained(model, adapters).get_base_model()
    return written_out(adapted, study, dropped) if merge else evaluable(adapted, study, dropped)


def _diverged(losses: list[float], vocabulary: int, healing: Healing) -> str | None:
    steps, guessing = logged_steps(healing), math.log(vocabulary)
    if not math.isfinite(losses[-1]):
        return f"the training loss was not finite by step {steps[len(losses) - 1]}"
    if losses[-1] > guessing:
        return f"the training loss ended at {losses[-1]:.2f}, above ln V = {guessing:.2f}"
    return None


def unhealed_4bit(study: Study, dropped: Collection[int]) -> PreTrainedModel:
    """The control: pruned, in the same 4-bit values, not trained."""
    model = load_4bit(study)
    drop(model, dropped)
    return evaluable(model, study, dropped)


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
    base = module.base_layer
    return dequantised(base) if isinstance(base, bnb.nn.Linear4bit) else linear_weight(plain, name)


def _change(module: LoraLayer) -> torch.Tensor:
    """(α/r) · BA [out, in]."""
    change = module.get_delta_weight("default")
    return change.T if isinstance(module.base_layer, Conv1D) else change
