"""Healing: a little QLoRA fine-tuning after layers were dropped (§3.2, App. A.1 of Gromov et al.).

The base is quantised to 4-bit NF4 and frozen; LoRA adapters on the FFN's linear modules are
trained on next-token loss. With W₀ the 4-bit weight and α = r, an adapted module computes

    W₀ x + (α/r) · B A x,    A: [r, in],  B: [out, r]

The 4-bit model is never run outside training. On CPUs with AVX512-BF16, bitsandbytes repacks its
weights in place at the first inference, and every later gradient is wrong without an error; so the
repacking is switched off here, and evaluation goes through `evaluable`, plain copies of the same
4-bit values in float with the adapters merged.
"""

import hashlib
import math
import tempfile
import warnings
from typing import Any

import bitsandbytes as bnb
import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.tuners.lora import LoraLayer
from torch import nn
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    enable_full_determinism,
)

from lib.blocks import Block
from lib.corpora import windows
from lib.errors import UserError
from lib.models import dtype, ffn_modules, load_model
from lib.schema import Healing, Study
from lib.surgery import drop

METHOD = 2  # raise when the code that computes healed weights changes them


def linear4bit(model: nn.Module) -> list[tuple[str, bnb.nn.Linear4bit]]:
    return [(n, m) for n, m in model.named_modules() if isinstance(m, bnb.nn.Linear4bit)]


def load_4bit(study: Study) -> PreTrainedModel:
    """The unpruned model with its linear layers in NF4, safe to train on a CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model(study, four_bit=True)
    modules = linear4bit(model)
    if not modules:
        family = model.config.get_text_config().model_type
        raise UserError(f"model family '{family}': none of its linear layers can be put in 4-bit")
    for _, module in modules:
        module.support_avx512bf16_for_cpu = False  # see the module's docstring
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
    return bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)


def adapt(model: PreTrainedModel, healing: Healing) -> PeftModel:
    """Add LoRA adapters (α = r) to every FFN module, named in full.

    Raises UserError for a rank above a module's width and for targets that match nothing."""
    names = ffn_modules(model, healing.targets)
    narrowest = min(
        min(model.get_submodule(n).in_features, model.get_submodule(n).out_features) for n in names
    )
    if healing.rank > narrowest:
        raise UserError(f"rank {healing.rank}: above the narrowest FFN width, {narrowest}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    config = LoraConfig(
        r=healing.rank,
        lora_alpha=healing.rank,
        lora_dropout=healing.dropout,
        target_modules=names,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def heal(
    study: Study,
    healing: Healing,
    block: Block,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Prune, quantise, train; returns the healed model ready to evaluate, and a report.

    The report holds the training losses (nats per token, by step) and counts: 4-bit modules,
    trainable parameters, tokens. Two runs with one seed on one machine give identical weights.

    Raises UserError when the training loss is not finite, and RuntimeError (a bug, here or in a
    library) when the frozen base changed."""
    enable_full_determinism(healing.seed, warn_only=True)
    texts = windows(
        study.healing_text, tokenizer, healing.steps * healing.batch, healing.length, healing.seed
    )
    model = load_4bit(study)
    drop(model, block)
    adapted = adapt(model, healing)
    before = base_digest(adapted)
    losses = _train(adapted, texts, healing, dtype(study))
    if base_digest(adapted) != before:
        raise RuntimeError("the frozen 4-bit weights changed during training")
    report = {
        "linear4bit": len(linear4bit(adapted)),
        "trainable_parameters": sum(p.numel() for p in adapted.parameters() if p.requires_grad),
        "tokens": texts.numel(),
        "train_loss": losses,
        "base": before,
    }
    return evaluable(adapted.get_base_model(), study, block), report


def unhealed_4bit(study: Study, block: Block) -> PreTrainedModel:
    """The control: pruned, in the same 4-bit values, not trained."""
    model = load_4bit(study)
    drop(model, block)
    return evaluable(model, study, block)


def evaluable(model: PreTrainedModel, study: Study, block: Block) -> PreTrainedModel:
    """A plain float32 copy of a pruned 4-bit model: its weights written out, adapters merged.

    In float32 whatever the study's dtype: the sum of a weight and a small adapter, rounded to 16
    bits, would mostly be the weight again."""
    plain = load_model(study, weights=torch.float32)
    drop(plain, block)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, LoraLayer):
                weight = dequantised(module.base_layer) + module.get_delta_weight("default")
            elif isinstance(module, bnb.nn.Linear4bit) and not name.endswith(".base_layer"):
                weight = dequantised(module)
            else:
                continue
            plain.get_submodule(name).weight.copy_(weight)
    return plain


class _Losses(TrainerCallback):
    """Collects the training losses and moves the progress bar."""

    def __init__(self, healing: Healing) -> None:
        self.values: list[float] = []
        self.bar = tqdm(total=healing.steps, desc=f"healing {healing.recipe}", leave=False)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.values.append(round(float(logs["loss"]), 6))


def _train(
    model: PeftModel, texts: torch.Tensor, healing: Healing, compute: torch.dtype
) -> list[float]:
    micro = healing.micro_batch or healing.batch
    if healing.batch % micro:
        raise UserError(
            f"healing.micro_batch {micro} does not divide healing.batch {healing.batch}"
        )
    losses = _Losses(healing)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=healing.steps,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=healing.batch // micro,
            learning_rate=healing.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=math.ceil(healing.warmup * healing.steps),
            logging_steps=max(1, healing.steps // 20),
            logging_first_step=True,
            seed=healing.seed,
            full_determinism=False,  # switched on before anything was built
            use_cpu=model.device.type == "cpu",
            bf16=compute == torch.bfloat16,
            fp16=compute == torch.float16,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        rows = [{"input_ids": row, "labels": row} for row in texts]
        trainer = Trainer(model, arguments, train_dataset=rows, callbacks=[losses])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    losses.bar.close()
    if not all(math.isfinite(value) for value in losses.values):
        raise UserError("healing diverged: the training loss is not finite; lower learning_rate")
    return losses.values
