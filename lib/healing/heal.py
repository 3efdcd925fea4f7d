"""Healing: a little fine-tuning after layers were dropped (§3.2, App. A.1 of Gromov et al.). What
is trained, and on which base, the recipe says."""

import math
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from lib.errors import UserError
from lib.evidence import sums
from lib.files import free_place, whole_or_not_at_all, written_by_others
from lib.healing import recipe as recipes
from lib.healing.adapters import evaluable
from lib.healing.reading import read, refused
from lib.healing.recipe import Damaged, logged_steps
from lib.healing.teacher import Teacher
from lib.healing.training import saved_steps, train
from lib.healing.unpruned import Apart, Shared
from lib.models import untouched
from lib.models.checkpoints import dtype, load_model
from lib.models.four_bit import base_digest, linear4bit, load_4bit
from lib.open_sets import Healing
from lib.pruning.dropped import Dropped
from lib.pruning.surgery import drop
from lib.schema import Study


@dataclass(frozen=True)
class Healed:
    """What healing leaves: the model ready to evaluate, a report that comes out the same every
    time, and how long training took (None where a part of it was done before)."""

    model: PreTrainedModel
    report: dict[str, Any]
    seconds: float | None


def reproducible(seed: int) -> None:
    """One seed, and kernels that come out the same wherever there are such: always on a CPU, and
    on CUDA but for what torch warns of. Unlike transformers' own switch this leaves launches on
    CUDA unblocked and new memory unfilled, which decide no value (benchmarks/README.md)."""
    set_seed(seed)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def heal(
    study: Study,
    healing: Healing,
    dropped: Collection[int],
    tokenizer: PreTrainedTokenizerBase,
    keep: Path | None = None,
    kept: Path | None = None,
    whole: Study | None = None,
) -> Healed:
    """Prune, quantise, train; returns the healed model ready to evaluate, and a report.

    dropped: layers; a block where there is a teacher. whole: the study of the unpruned model, where
    that of `study` lacks layers already.

    The report holds the training losses (nats per token, by step), counts (4-bit modules, trainable
    parameters, tokens) and, in `diverged`, what went wrong: the loss was not finite, or ended above
    ln V, the loss of guessing; else None. Two runs with one seed on one machine give identical
    weights, and so does one that was killed: `keep` is a folder for its state, and where the next
    one goes on. `kept`: a folder that gets what was trained, as the recipe keeps it.

    Raises UserError for scattered layers with a teacher and where a library has changed weights
    that it was to leave alone, and RuntimeError when those in 4-bit have changed."""
    if healing.teacher and not Dropped(dropped).contiguous:
        raise UserError(
            f"healing.teacher: goes with one block of layers, not with {Dropped(dropped)}"
        )
    reproducible(healing.seed)
    count, unseen = healing.steps * healing.batch, refused(study, healing, tokenizer)
    found = read(study, healing, tokenizer, count, healing.seed, unseen)
    recipe = recipes.of(healing)
    model = recipe.base(study)
    cached = getattr(model.config, "use_cache", None)
    shared = Shared(model, dropped)
    teacher = Teacher(shared) if healing.teacher and dropped else None
    unpruned = None
    if healing.distillation:
        sharing = healing.TEACHABLE and whole is None
        unpruned = shared if sharing else Apart(load_model(whole or study))
    given = untouched.of_model(model)
    trained = recipe.prepare(model, healing, dropped)
    before = base_digest(trained)
    fresh = keep is None or not saved_steps(keep)
    start = time.monotonic()
    pad = tokenizer.pad_token_id
    name = f"{study.name} less {len(dropped)} {healing.name} seed {healing.seed}"
    losses = train(trained, found, pad, healing, dtype(study), keep, teacher, name, unpruned)
    seconds = round(time.monotonic() - start, 3) if fresh else None
    if cached is not None:
        model.config.use_cache = cached  # which training switches off
    if base_digest(trained) != before:
        raise RuntimeError("the frozen 4-bit weights changed during training")
    untouched.check(given, _frozen(trained), "training")
    report = {
        "linear4bit": len(linear4bit(trained)),
        "trainable_parameters": sum(p.numel() for p in trained.parameters() if p.requires_grad),
        "tokens": sum(map(len, found.texts)),
        **found.report,
        "train_loss": [value if math.isfinite(value) else None for value in losses],
        "base": before,
        "diverged": _diverged(losses, model.config.get_text_config().vocab_size, healing),
    }
    if kept is not None:
        with whole_or_not_at_all(free_place(kept)) as unfinished, written_by_others(unfinished):
            recipe.keep(trained, unfinished)
            sums.write(unfinished)
    return Healed(recipe.evaluable(trained, study, dropped), report, seconds)


def reload(
    study: Study, healing: Healing, dropped: Collection[int], kept: Path, plain: bool = False
) -> PreTrainedModel:
    """The model that `heal` returned, from what it kept; plain: always a plain copy, everything
    merged.

    Raises Damaged when what was kept is not whole."""
    if problem := sums.damage(kept):
        raise Damaged(f"{kept}: {problem}")
    recipe = recipes.of(healing)
    model = recipe.base(study)
    drop(model, dropped)
    given = untouched.of_model(model)
    trained = recipe.restore(model, healing, dropped, kept)
    untouched.check(given, _frozen(trained), "restoring what was trained")
    return recipe.evaluable(trained, study, dropped, plain)


def _frozen(trained: nn.Module) -> untouched.Weights:
    """What is not trained, by its names before peft wrapped the model."""
    found = trained.named_parameters(remove_duplicate=False)
    return untouched.weights(
        (name.removeprefix("base_model.model.").replace(".base_layer", ""), parameter)
        for name, parameter in found
        if not parameter.requires_grad
    )


def _diverged(losses: list[float], vocabulary: int, healing: Healing) -> str | None:
    steps, guessing = logged_steps(healing), math.log(vocabulary)
    if not math.isfinite(losses[-1]):
        return f"the training loss was not finite by step {steps[len(losses) - 1]}"
    if losses[-1] > guessing:
        return f"the training loss ended at {losses[-1]:.2f}, above ln V = {guessing:.2f}"
    return None


def unhealed(study: Study, dropped: Collection[int], in_4bit: bool = True) -> PreTrainedModel:
    """A model that was not trained: pruned, in 4-bit (the control of what is healed so) or in the
    study's number format; ready to evaluate."""
    model = load_4bit(study) if in_4bit else load_model(study)
    drop(model, dropped)
    return evaluable(model, study, dropped) if in_4bit else model
