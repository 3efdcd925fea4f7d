"""Training what `lib.healing` has prepared, so that a kill costs minutes and changes nothing."""

import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from lib.errors import UserError
from lib.evidence import sums
from lib.files import written_by_others
from lib.healing import weights
from lib.healing.distillation import divergence, targets
from lib.healing.reading import Read
from lib.healing.recipe import check_tensorboard, logged_steps
from lib.healing.teacher import Teacher, mismatch
from lib.healing.unpruned import Apart, Shared
from lib.open_sets import Healing
from lib.paths import from_clone

SAVE_EVERY = 600  # seconds
SAVING = 0.05  # of the time at most, where a state is large or its disk slow
IGNORED = -100  # a label without a loss


class _Watch(TrainerCallback):
    """Moves the progress bar, and has the state saved every now and then, and at the end."""

    def __init__(self, healing: Healing, done: int, save: bool) -> None:
        self.bar = tqdm(
            total=healing.steps, initial=done, desc=f"healing {healing.name}", leave=False
        )
        self.save, self.began = save, 0.0
        self.next = time.monotonic() + SAVE_EVERY

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update()
        self.began = time.monotonic()
        if self.save and (self.began >= self.next or state.global_step == state.max_steps):
            control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if not math.isfinite(logs.get("loss", 0.0)):
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        sums.write(_checkpoint(Path(args.output_dir), state.global_step))
        ended = time.monotonic()
        self.next = ended + max(SAVE_EVERY, (ended - self.began) / SAVING)


def _checkpoint(folder: Path, step: int) -> Path:
    return folder / f"checkpoint-{step}"


def saved_steps(folder: Path) -> list[int]:
    """The steps of the states in a folder that were written to their ends, the last one first."""
    found = [path.parent.name for path in folder.glob(f"checkpoint-*/{sums.NAME}")]
    return sorted((int(name.partition("-")[2]) for name in found), reverse=True)


def last_step(folder: Path) -> int:
    """The step of the last state in a folder that is as it was written; 0: there is none. What is
    damaged is named and thrown away, so that training goes on from the one before."""
    for step in saved_steps(folder):
        state = _checkpoint(folder, step)
        problem = sums.damage(state)
        if problem is None:
            return step
        print(f"state of training {state}: {problem}; thrown away", file=sys.stderr)
        shutil.rmtree(state)
    return 0


def _collate(rows: Sequence[dict[str, torch.Tensor]], pad: int) -> dict[str, torch.Tensor]:
    """input_ids, labels and, where lengths differ, attention_mask [rows, longest]."""
    texts = [row["input_ids"].long() for row in rows]
    scored = [row["labels"].long() for row in rows]
    tokens = pad_sequence(texts, batch_first=True, padding_value=pad)
    labels = pad_sequence(scored, batch_first=True, padding_value=IGNORED)
    if len(set(map(len, texts))) == 1:
        return {"input_ids": tokens, "labels": labels}
    mask = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
    return {"input_ids": tokens, "labels": labels, "attention_mask": mask}


def _rows(read: Read) -> list[dict[str, torch.Tensor]]:
    """input_ids and labels of each row."""
    if not read.unscored:
        return [{"input_ids": text, "labels": text} for text in read.texts]
    found = []
    for text, unscored in zip(read.texts, read.unscored, strict=True):
        labels = text.clone()
        labels[:unscored] = IGNORED
        found.append({"input_ids": text, "labels": labels})
    return found


class _Taught(Trainer):
    """Gives the gradients what a teacher and the unpruned model's probabilities add; the loss that
    is logged stays that of the next token."""

    def __init__(
        self,
        *given: Any,
        healing: Healing,
        teacher: Teacher | None,
        unpruned: Shared | Apart | None,
        **named: Any,
    ) -> None:
        super().__init__(*given, **named)
        self.healing, self.teacher, self.unpruned = healing, teacher, unpruned

    def _save_checkpoint(self, *given: Any) -> None:
        with written_by_others(Path(self.args.output_dir)):
            super()._save_checkpoint(*given)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Of a model without adapters what is trained alone, by its own names: transformers would
        write some families' weights by others, and not find them again."""
        if isinstance(self.model, PeftModel):
            super()._save(output_dir, state_dict)
        else:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            weights.write(self.model, folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if isinstance(self.model, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            weights.read(self.model, Path(resume_from_checkpoint))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        given = {"num_items_in_batch": num_items_in_batch}
        if self.teacher is None and self.unpruned is None:
            return super().compute_loss(model, inputs, return_outputs, **given)
        scored = inputs["labels"][:, 1:].ne(IGNORED)
        # Of a batch in several parts each counts by its tokens, as in the loss of the next token.
        tokens = scored.sum() if num_items_in_batch is None else num_items_in_batch
        expected = self.teacher and self.teacher.expected(model, inputs)
        wanted = self.unpruned and targets(self.unpruned, model, inputs, scored)
        more = 0.0
        with self.teacher.watching() if self.teacher else nullcontext() as found:
            loss, out = super().compute_loss(model, inputs, return_outputs=True, **given)
            if self.teacher:
                apart = mismatch(found(), expected, inputs.get("attention_mask"))
                more += self.healing.teacher * (scored.sum() / tokens) * apart
        if self.unpruned:
            apart = divergence(out["logits"][:, :-1][scored], wanted) / tokens
            more += self.healing.distillation * (apart - loss)
        return loss + (more - more.detach())


def _tensorboard(name: str) -> list[TrainerCallback]:
    """Logs for TensorBoard below TENSORBOARD_DIR, where that is set."""
    folder = os.environ.get("TENSORBOARD_DIR")
    if not folder:
        return []
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return [TensorBoardCallback(SummaryWriter(str(from_clone(folder) / name)))]


def _reported(losses: Sequence[float], healing: Healing) -> list[float]:
    """Of the loss of every step the means since the step reported before. A training that ended
    early ends with the mean up to there."""
    ends = logged_steps(healing)
    if len(losses) < healing.steps:
        ends = [*(end for end in ends if end < len(losses)), len(losses)]
    return [round(fmean(losses[begin:end]), 6) for begin, end in pairwise([0, *ends])]


def train(
    model: nn.Module,
    read: Read,
    pad: int,
    healing: Healing,
    compute: torch.dtype,
    keep: Path | None = None,
    teacher: Teacher | None = None,
    name: str = "healing",
    unpruned: Shared | Apart | None = None,
) -> list[float]:
    """Train what requires gradients on the steps · batch rows that are read; returns the losses
    at `logged_steps` (nats per token, each the mean since the one before). Rows shorter than others
    are filled up with `pad`, which is neither seen nor predicted. A loss that is not finite ends
    the training and stands last.

    keep: a folder for the state on the way; where there is some, training goes on from it and ends
    as if it had never stopped. name: what its logs are called. teacher, unpruned: where the
    settings ask for them.

    Raises UserError for a micro-batch that does not divide the batch, and where the disk is too
    full for the state."""
    micro = healing.micro_batch or healing.batch
    if healing.batch % micro:
        raise UserError(
            f"healing.micro_batch {micro} does not divide healing.batch {healing.batch}"
        )
    with tempfile.TemporaryDirectory() as nowhere:
        folder = keep or Path(nowhere)
        done = last_step(folder)
        watch = _Watch(healing, done, save=keep is not None)
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=healing.steps,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=healing.batch // micro,
            learning_rate=healing.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=math.ceil(healing.warmup * healing.steps),
            logging_steps=1,  # a state is saved after any step, and knows only what was logged
            logging_nan_inf_filter=False,
            seed=healing.seed,
            full_determinism=False,  # switched on before anything was built
            use_cpu=model.device.type == "cpu",
            bf16=compute == torch.bfloat16,
            fp16=compute == torch.float16,
            save_strategy="no",  # the watch says when
            save_total_limit=2,  # one may be half written
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        with written_by_others(folder.parent):  # it makes the folder
            trainer = _Taught(
                model,
                arguments,
                healing=healing,
                teacher=teacher,
                unpruned=unpruned,
                train_dataset=_rows(read),
                data_collator=partial(_collate, pad=pad),
                callbacks=[watch, *_tensorboard(name)],
            )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(_checkpoint(folder, done)) if done else None)
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    watch.bar.close()
    return _reported(losses, healing)
