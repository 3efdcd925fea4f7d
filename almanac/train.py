"""Train the almanac's language model from scratch, or one of its controls.

    python -m almanac.train              # the shipped checkpoint: seed 0
    python -m almanac.train --seed 1     # another seed, into almanac/controls/seed1
    python -m almanac.train --no-facts   # one that never reads of a quizzed subject
    python -m almanac.train --steps 0    # untrained: the random weights that training starts from

Stopped at any time (Ctrl-C, a killed job), the same command goes on from the last saved state
and ends with the same weights, because the data of a step depends on its number alone and
nothing else is random after the start. At the end it writes the checkpoint and its log.

Matrices inside the layers are trained with Muon, which learns facts from far fewer tokens than
AdamW does; embeddings and norms with AdamW. Products of matrices are in bf16, weights in float32.
"""

import argparse
import csv
import dataclasses
import itertools
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from almanac.text import training_documents
from almanac.tokenizer import train_tokenizer
from almanac.world import FOLDER

SAVE_EVERY_SECONDS = 60
LOG_EVERY_STEPS = 40
TOKENIZER_DOCUMENTS = 4000


@dataclass(frozen=True)
class Settings:
    """All that decides the weights; a saved state is continued under the same settings only."""

    steps: int = 3600
    batch: int = 8
    length: int = 256
    peak: float = 4e-3  # of Muon; AdamW has half of it
    warmup: int = 200
    decay: float = 0.1
    clip: float = 1.0
    layers: int = 16
    width: int = 128
    heads: int = 4
    ffn: int = 320
    positions: int = 512
    vocabulary: int = 1024
    seed: int = 0
    facts: bool = True

    @property
    def folder(self) -> Path:
        """Where the checkpoint goes unless the command line says otherwise."""
        if self == Settings():
            return FOLDER / "checkpoint"
        kind = "" if self.facts else "no-facts-"
        length = "" if self.steps == Settings.steps else f"-steps{self.steps}"
        depth = "" if self.layers == Settings.layers else f"-{self.layers}-layers"
        return FOLDER / "controls" / f"{kind}seed{self.seed}{length}{depth}"


def make_tokenizer(settings: Settings) -> PreTrainedTokenizerFast:
    """Learn the tokenizer from the documents of the training stream."""
    texts = itertools.islice(training_documents(0), TOKENIZER_DOCUMENTS)
    return train_tokenizer(texts, settings.vocabulary, settings.positions)


def make_model(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return a Llama with random weights, which depend on the seed alone."""
    torch.manual_seed(settings.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.width,
            intermediate_size=settings.ffn,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            max_position_embeddings=settings.positions,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.set_attn_implementation("eager")  # in bf16 on CPUs far faster than the fused one
    # Each layer adds to the residual stream twice; without this a deep stack starts too loud.
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_((2 * settings.layers) ** -0.5)
            layer.mlp.down_proj.weight.mul_((2 * settings.layers) ** -0.5)
    return model


def make_optimizers(settings: Settings, model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices inside the layers and AdamW for all other weights."""
    inside = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = set(inside)
    others = [p for p in model.parameters() if p not in chosen]
    return [
        torch.optim.Muon(
            inside,
            lr=settings.peak,
            weight_decay=settings.decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            others, lr=settings.peak / 2, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        ),
    ]


def schedule(settings: Settings, step: int) -> float:
    """Return the share of the peak rate: a linear rise, then half a cosine down to nothing."""
    warmup = min(settings.warmup, settings.steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / (settings.steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


def make_batch(
    settings: Settings, step: int, tokenizer: PreTrainedTokenizerFast
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and next tokens of a step, cut from `<s> document </s><s> document </s>…`."""
    needed = settings.batch * settings.length + 1
    stream: list[int] = []
    documents = training_documents(step, settings.seed, settings.facts)
    while len(stream) < needed:
        stream += [*tokenizer(next(documents))["input_ids"], tokenizer.eos_token_id]
    tokens = torch.tensor(stream[:needed])
    shape = settings.batch, settings.length
    return tokens[:-1].view(shape), tokens[1:].view(shape)


def save_state(path: Path, state: dict) -> None:
    """Write the training state so that a kill in between leaves the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    torch.save(state, unfinished)
    os.replace(unfinished, path)


def load_state(path: Path, settings: Settings, device: str) -> dict | None:
    """Return the saved training state, if there is one and it was made under these settings."""
    if not path.exists():
        return None
    state = torch.load(path, map_location=device, weights_only=True)
    if state["settings"] != dataclasses.asdict(settings):
        sys.exit(f"{path} was saved under other settings; add --fresh to start over.")
    return state


def catch_stop_signals() -> list[int]:
    """Return a list that collects Ctrl-C and SIGTERM, so that no step is ever cut in two."""
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: received.append(number))
    return received


def train(
    settings: Settings,
    out: Path,
    state_path: Path,
    device: str = "cpu",
    stop: Callable[[int], bool] = lambda done: False,
) -> bool:
    """Train, or go on training, and write the checkpoint; return whether the end was reached.

    After each step `stop` is told how many are done; when it returns true, the state is saved.
    """
    tokenizer = make_tokenizer(settings)
    model = make_model(settings, tokenizer).to(device).train()
    optimizers = make_optimizers(settings, model)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    first, log = 0, []
    if state := load_state(state_path, settings, device):
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first, log = state["step"], state["log"]

    def save(step: int) -> None:
        save_state(
            state_path,
            {
                "settings": dataclasses.asdict(settings),
                "step": step,
                "log": log,
                "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            },
        )

    saved_at = time.monotonic()
    bar = tqdm(range(first, settings.steps), initial=first, total=settings.steps, unit="step")
    for step in bar:
        inputs, targets = make_batch(settings, step, tokenizer)
        share = schedule(settings, step)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * share
        with torch.autocast(device, torch.bfloat16):
            logits = model(input_ids=inputs.to(device), use_cache=False).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.to(device).flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

        done = step + 1
        if done % LOG_EVERY_STEPS == 0 or done == settings.steps:
            value = round(loss.item(), 4)
            log.append([done, done * targets.numel(), value, round(settings.peak * share, 7)])
            bar.set_postfix(loss=f"{value:.3f}")
        if done < settings.steps and stop(done):
            save(done)
            bar.close()
            return False
        if time.monotonic() - saved_at > SAVE_EVERY_SECONDS:
            save(done)
            saved_at = time.monotonic()
    write_checkpoint(out, model, tokenizer, log)
    state_path.unlink(missing_ok=True)
    return True


def write_checkpoint(
    out: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, log: list[list[float]]
) -> None:
    """Write weights (in float16, to stay small in git), tokenizer and log."""
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    with (out / "training_log.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "tokens", "loss", "lr"])
        writer.writerows(log)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        description="Train the almanac's language model from scratch and write its checkpoint.",
        epilog="Stop with Ctrl-C; the same command goes on from there. On a machine that is busy "
        "with other work, GOMP_SPINCOUNT=1000 in the environment keeps steps short.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    cuda = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="folder for the checkpoint (in almanac/, by settings)",
    )
    parser.add_argument("--seed", type=int, default=Settings.seed, help="of weights and text order")
    parser.add_argument(
        "--no-facts",
        dest="facts",
        action="store_false",
        help="leave the entries on quizzed subjects out: a control",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=FOLDER / ".state",
        help="folder for the state that training continues from",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=Settings.steps,
        help="training steps, each about 0.28 s on two cores; 0: an untrained control",
    )
    parser.add_argument(
        "--layers", type=int, default=Settings.layers, help="depth; another one: a control"
    )
    parser.add_argument("--device", default=cuda, help="where to train")
    parser.add_argument("--fresh", action="store_true", help="forget a saved state, start over")
    args = parser.parse_args()
    if args.steps < 0:
        parser.error("--steps must be at least 0")
    if args.layers < 1:
        parser.error("--layers must be at least 1")
    settings = Settings(steps=args.steps, seed=args.seed, facts=args.facts, layers=args.layers)
    out = args.out or settings.folder
    state_path = args.state / f"{out.name}.pt"
    if args.fresh:
        state_path.unlink(missing_ok=True)
    signals = catch_stop_signals()
    if train(settings, out, state_path, args.device, stop=lambda _done: bool(signals)):
        print(f"Wrote {out}")
    else:
        sys.exit("Stopped; the state is saved, the same command goes on from there.")


if __name__ == "__main__":
    main()
