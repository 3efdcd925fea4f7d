"""On a GPU: all distances, all prunings in one pass, and healing, each against what anyone would
write, in turn in one run, on a random model of Llama-2-7B's shape that is made on the device.

    PYTHONPATH=. python benchmarks/gpu.py --out FILE.json [--minutes 8 --parts geometry letters]
    PYTHONPATH=. python benchmarks/gpu.py --out FILE.json --shape small --device cpu

geometry   all angular distances, against a bare forward pass of the decoder
letters    the sweep over all prunings of the simple strategy, on questions with four letters,
           against the same models one by one, and against as many layers and heads run bare
answers    the same with answers of several tokens, whose question the sweep runs once
healing    LoRA on the FFN of a pruned model, against a bare loop of torch and peft
nf4        the same on a base in 4-bit, where bitsandbytes is installed

Ratios are of times in one round: the median, with the smallest and the largest. A part that no
longer fits into the minutes, or lacks a package, is left out and named. Studies heal with
deterministic kernels: `--deterministic` runs everything so, which only a new process can.
"""

import argparse
import gc
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

# Parts import what they need of lib: where a package is missing, the others run all the same.

CHOICES = 4  # answers to a question
FFN = ["gate_proj", "up_proj", "down_proj"]
Row = dict[str, Any]  # what the table and the JSON say of one way
Found = tuple[dict[str, Row], dict[str, object]]  # by way, and what else there is to say


@dataclass(frozen=True)
class Shape:
    """A Llama, and how much of everything is run on it."""

    vocabulary: int = 32_000
    width: int = 4096
    ffn: int = 11_008
    layers: int = 32
    heads: int = 32
    dtype: torch.dtype = torch.bfloat16
    texts: tuple[int, int, int] = (32, 1024, 8)  # geometry: sequences, tokens in each, batch
    questions: int = 128
    context: int = 64  # tokens of a question
    answer: int = 4  # tokens of an answer that is no letter
    batch: int = 64  # rows at a time, of the sweep and of the models one by one
    dropped: int = 8  # layers, before healing
    micro_batch: int = 2  # half of healing's batch
    length: int = 1024
    steps: int = 17  # the first one does not count


SMALL = {"vocabulary": 512, "width": 64, "ffn": 128, "layers": 6, "heads": 4, "context": 24}
SMALL |= {"texts": (8, 64, 4), "questions": 16, "batch": 8, "dropped": 2, "length": 32, "steps": 3}
SHAPES = {"llama-2-7b": Shape(), "small": Shape(**SMALL, dtype=torch.float32)}


class NoTime(Exception):
    """What is left of the minutes is too short for a part."""


@dataclass(frozen=True)
class Way:
    """One way of doing something. work: returns its seconds where not all of it counts; over: the
    way by whose time its own is divided."""

    work: Callable[[], float | None]
    tokens: int
    over: str | None = None


@dataclass(frozen=True)
class Bench:
    shape: Shape
    device: torch.device
    rounds: int
    deadline: float

    def model(self) -> PreTrainedModel:
        """Random, and made where it is used."""
        shape = self.shape
        config = LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.ffn,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            max_position_embeddings=4096,
        )
        torch.manual_seed(0)
        with self.device:
            return AutoModelForCausalLM.from_config(config, dtype=shape.dtype).eval()

    def take_turns(self, ways: dict[str, Way]) -> dict[str, Row]:
        """Run all ways in turn, in the other order every other round, after a round that does not
        count. Raises NoTime when the rounds would not end in time."""
        began = time.monotonic()
        for way in ways.values():
            self.timed(way.work)
        now, one_round = time.monotonic(), time.monotonic() - began
        if now + self.rounds * one_round > self.deadline:
            raise NoTime(f"{self.rounds} rounds of {one_round:.0f} s would end too late")
        runs: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
        for number in range(self.rounds):
            for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
                runs[name].append(self.timed(ways[name].work))
        found: dict[str, Row] = {}
        for name, way in ways.items():
            seconds, peaks = zip(*runs[name], strict=True)
            pace = way.tokens / statistics.median(seconds)
            found[name] = {"seconds": seconds, "peak_bytes": max(peaks), "tokens_per_second": pace}
            if way.over:
                pairs = zip(seconds, found[way.over]["seconds"], strict=True)
                ratios = [one / other for one, other in pairs]
                summary = statistics.median(ratios), min(ratios), max(ratios)
                found[name] |= {"over": way.over, "ratio": summary, "ratios": ratios}
        return found

    def timed(self, work: Callable[[], float | None]) -> tuple[float, int]:
        """Seconds, and the most memory of the GPU in bytes, the model's own included."""
        gc.collect()  # what the last way left is not this one's memory
        self.synchronize()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        counted = work()
        self.synchronize()
        seconds = time.perf_counter() - start if counted is None else counted
        return seconds, torch.cuda.max_memory_allocated() if self.device.type == "cuda" else 0

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def geometry(bench: Bench) -> Found:
    from lib.pruning.geometry import measure

    model, (count, length, batch) = bench.model(), bench.shape.texts
    texts = torch.randint(bench.shape.vocabulary, (count, length))

    @torch.inference_mode()
    def bare() -> None:
        for part in texts.split(batch):
            model.model(input_ids=part.to(bench.device), use_cache=False)

    def all_distances() -> None:
        measure(model, texts, batch, bootstrap=1000, seed=0)

    return bench.take_turns(
        {
            "bare decoder": Way(bare, texts.numel()),
            "all distances": Way(all_distances, texts.numel(), over="bare decoder"),
        }
    ), {}


@contextmanager
def only(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[None]:
    """The model with these of its layers, by hand; without a cache their numbers do not matter."""
    whole = model.model.layers
    model.model.layers = nn.ModuleList(whole[number] for number in layers)
    model.config.num_hidden_layers = len(layers)
    try:
        yield
    finally:
        model.model.layers, model.config.num_hidden_layers = whole, len(whole)


@torch.inference_mode()
def one_by_one(
    model: PreTrainedModel, kept: Sequence[Sequence[int]], rows: torch.Tensor, k: int, size: int
) -> torch.Tensor:
    """Log-likelihoods [models, rows] of the last k of the tokens [rows, length], by plain forward
    passes with logits where they count. Rows that differ in their last token run once, as they do
    in lm-eval."""
    inputs, owner = rows[:, :-1].unique(dim=0, return_inverse=True)
    found = torch.empty(len(kept), len(rows), dtype=torch.float64)
    for number, layers in enumerate(kept):
        with only(model, layers):
            for first in range(0, len(inputs), size):
                tokens = inputs[first : first + size].to(model.device)
                logits = model(input_ids=tokens, use_cache=False, logits_to_keep=k).logits
                mine = ((owner >= first) & (owner < first + size)).nonzero()[:, 0]
                at, targets = (owner[mine] - first).to(model.device), rows[mine, -k:, None]
                chosen = logits.float().log_softmax(-1)[at].gather(2, targets.to(model.device))
                found[number, mine] = chosen.sum((1, 2)).double().cpu()
    return found


def sweep(bench: Bench, k: int) -> Found:
    """Questions whose answers have k tokens."""
    from lib.evaluation import batches, sweep
    from lib.pruning.dropped import UNPRUNED, simple

    model, shape = bench.model(), bench.shape
    blocks = [UNPRUNED, *(simple(n, shape.layers) for n in range(1, shape.layers))]
    kept = [block.kept(shape.layers) for block in blocks]
    contexts = torch.randint(shape.vocabulary, (shape.questions, shape.context))
    answers = [torch.randperm(shape.vocabulary)[: CHOICES * k] for _ in contexts]
    ends = torch.stack(answers).view(-1, k)
    tokens = torch.cat([contexts.repeat_interleave(CHOICES, dim=0), ends], dim=1)
    rows = [batches.Row(tuple(row), shape.context) for row in tokens.tolist()]
    found: dict[str, torch.Tensor] = {}

    def in_one_pass() -> None:
        scores = sweep.log_likelihoods(model, blocks, rows, shape.batch, 0, "questions")
        found["sweep"] = scores.log_likelihood

    def by_hand() -> None:
        found["by hand"] = one_by_one(model, kept, tokens, k, shape.batch)

    passes = sweep.layer_passes(kept)
    must_run: list[tuple[torch.Tensor, int]] = []  # of each batch: tokens, and scored positions
    for batch in batches.make_batches(rows, shape.batch):
        first = batch.groups[0]  # all are alike: a prefix once, and the rest of each row
        length = first.prefix + sum(len(one.tokens) - first.prefix for one in first.inputs)
        texts = torch.randint(shape.vocabulary, (len(batch.groups), length))
        must_run.append((texts, k * len(batch.inputs)))

    @torch.inference_mode()
    def unavoidable() -> None:
        """As many tokens as the sweep's through as many layers, and positions through heads."""
        with only(model, [number % shape.layers for number in range(passes)]):
            for texts, positions in must_run:
                hidden = model.model(input_ids=texts.to(bench.device), use_cache=False)[0]
                for _ in blocks:
                    model.lm_head(hidden.flatten(0, 1)[:positions])

    asked = len(blocks) * tokens[:, :-1].unique(dim=0).numel()
    ways = bench.take_turns(
        {
            "bare layers and heads": Way(unavoidable, asked),
            "sweep": Way(in_one_pass, asked, over="bare layers and heads"),
            "one by one": Way(by_hand, asked, over="sweep"),
        }
    )
    way = sweep._ways[model]  # None: the sweep itself ran them one by one
    apart, by_both = found["sweep"] - found["by hand"], []
    for scores in found.values():
        by_both.append(scores.unflatten(1, (-1, CHOICES)).argmax(-1))
    # Neither is right where numbers are rounded: of every fourth model and some questions, how far
    # each is from the same weights in float32.
    some = slice(0, len(tokens) // 4)
    exact = one_by_one(model.float(), kept[::4], tokens[some], k, shape.batch)
    off = {name: (scores[::4, some] - exact).abs().max() for name, scores in found.items()}
    return ways, {
        "models": len(blocks),
        "layer passes": passes,
        "way": way,
        "log-likelihoods apart at most": apart.abs().max().item(),
        "judged alike": (by_both[0] == by_both[1]).double().mean().item(),
        "from float32 at most, sweep": off["sweep"].item(),
        "from float32 at most, one by one": off["by hand"].item(),
    }


def healing(bench: Bench, in_4bit: bool) -> Found:
    from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training

    from lib import open_sets
    from lib.healing import reading, recipe, training
    from lib.pruning.dropped import simple
    from lib.pruning.surgery import drop

    model, shape = bench.model(), bench.shape
    dropped = simple(shape.dropped, shape.layers)
    drop(model, dropped)
    if in_4bit:
        put_in_4bit(model, shape.dtype)
    sizes = {"steps": shape.steps, "batch": 2 * shape.micro_batch, "length": shape.length}
    settings = open_sets.healing(
        recipe="qlora" if in_4bit else "lora", micro_batch=shape.micro_batch, **sizes
    )
    texts = torch.randint(shape.vocabulary, (shape.steps * settings.batch, shape.length))
    trained: set[int] = set()

    def own() -> float:
        adapted = recipe.of(settings).prepare(model, settings, dropped)
        read = reading.Read(list(texts.int()))
        return later_steps(adapted, lambda: training.train(adapted, read, 0, settings, shape.dtype))

    def bare() -> float:
        if in_4bit:
            prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        rank, dropout = settings.rank, settings.dropout
        lora = LoraConfig(
            r=rank, lora_alpha=rank, lora_dropout=dropout, target_modules=FFN, task_type="CAUSAL_LM"
        )
        adapted = get_peft_model(model, lora).train()
        weights = [one for one in adapted.parameters() if one.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate)
        mixed = torch.autocast(bench.device.type, torch.bfloat16, shape.dtype == torch.bfloat16)

        def loop() -> None:
            for number, part in enumerate(texts.split(shape.micro_batch)):
                tokens = part.to(bench.device)
                with mixed:
                    loss = adapted(input_ids=tokens, labels=tokens, use_cache=False).loss / 2
                loss.backward()
                if number % 2:
                    torch.nn.utils.clip_grad_norm_(weights, 1.0)  # as the Trainer does
                    optimizer.step()
                    optimizer.zero_grad()

        return later_steps(adapted, loop)

    def later_steps(adapted: PeftModel, work: Callable[[], object]) -> float:
        """Seconds without the first step, in which everything is set up: nothing in hundreds of
        steps, and much in these few. Afterwards the base is as it was."""
        trained.add(adapted.get_nb_trainable_parameters()[0])
        starts: list[float] = []

        def watch(*_: object) -> None:
            bench.synchronize()
            starts.append(time.perf_counter())

        handle = model.get_input_embeddings().register_forward_pre_hook(watch)
        work()
        bench.synchronize()
        seconds = time.perf_counter() - starts[2]  # a step has two micro-batches
        handle.remove()
        adapted.unload()
        return seconds

    tokens = (shape.steps - 1) * settings.batch * shape.length
    return bench.take_turns(
        {"bare loop": Way(bare, tokens), "healing": Way(own, tokens, over="bare loop")}
    ), {"trained parameters": sorted(trained)}  # one number, as both train the same


def put_in_4bit(model: PreTrainedModel, compute: torch.dtype) -> None:
    """As `lib.models.four_bit.load_4bit` leaves a model, which it loads from a disk."""
    import bitsandbytes  # noqa: F401  (named where it is missing)

    from lib.models.four_bit import nf4

    for layer in model.model.layers:
        for name, module in list(layer.named_modules()):
            if isinstance(module, nn.Linear):
                layer.set_submodule(name, nf4(module.weight, None, compute))
                layer.get_submodule(name).support_avx512bf16_for_cpu = False
    model.is_loaded_in_4bit = True


PARTS: dict[str, Callable[[Bench], Found]] = {
    "geometry": geometry,
    "letters": lambda bench: sweep(bench, k=1),
    "answers": lambda bench: sweep(bench, k=bench.shape.answer),
    "healing": lambda bench: healing(bench, in_4bit=False),
    "nf4": lambda bench: healing(bench, in_4bit=True),
}


def run(name: str, bench: Bench) -> dict[str, Any]:
    """What a part found, or why it was left out."""
    try:
        if time.monotonic() > bench.deadline:
            raise NoTime("the minutes are over")
        ways, notes = PARTS[name](bench)
        return {"ways": ways, "notes": notes}
    except NoTime as reason:
        return {"left out": f"no time: {reason}"}
    except ModuleNotFoundError as error:
        return {"left out": f"not installed: {error.name}"}
    except Exception as error:  # on a lent machine the other parts still count
        traceback.print_exc()
        return {"left out": f"failed: {type(error).__name__}: {error}"}
    finally:
        gc.collect()  # the model, before the next one is made
        torch.cuda.empty_cache()


def table(parts: dict[str, dict[str, Any]]) -> str:
    layout = "{:<9} {:<22} {:>12} {:>9} {:>9}  {}"
    lines = [layout.format("part", "way", "tokens/s", "seconds", "peak GiB", "its time over")]
    for part, found in parts.items():
        for name, way in found.get("ways", {}).items():
            numbers = f"{way['tokens_per_second']:,.0f}", f"{statistics.median(way['seconds']):.3f}"
            peak = f"{way['peak_bytes'] / 2**30:.2f}" if way["peak_bytes"] else ""
            ratio = "{}: {:.3f} [{:.3f}, {:.3f}]" if "over" in way else ""
            ratio = ratio.format(way.get("over"), *way.get("ratio", ()))
            lines.append(layout.format(part, name, *numbers, peak, ratio))
        for what, value in found.get("notes", {}).items():
            shown = f"{value:.4g}" if isinstance(value, float) else value
            lines.append(f"{part:<9}   {what}: {shown}")
        if "left out" in found:
            lines.append(f"{part:<9} left out, {found['left out']}")
    return "\n".join(line.rstrip() for line in lines)


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="a file for all numbers, as JSON")
    parser.add_argument("--shape", choices=SHAPES, default="llama-2-7b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=8, help="for all parts together")
    parser.add_argument("--rounds", type=int, default=3, help="of each part")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--deterministic", action="store_true")
    args = parser.parse_args(given)
    start, device = time.monotonic(), torch.device(args.device)
    if args.deterministic:
        from lib.healing.heal import reproducible

        reproducible(0)
    packages = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")
    machine = {name: version(name) for name in packages if find_spec(name)}
    machine["device"] = torch.cuda.get_device_name() if device.type == "cuda" else str(device)
    found = {"shape": args.shape, "deterministic": args.deterministic, **machine, "parts": {}}
    bench = Bench(SHAPES[args.shape], device, args.rounds, start + 60 * args.minutes)
    for name in args.parts:
        print(f"{time.monotonic() - start:.0f} s: {name}", file=sys.stderr, flush=True)
        found["parts"][name] = run(name, bench)
        found["seconds"] = time.monotonic() - start
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(", ".join(f"{key} {value}" for key, value in found.items() if key != "parts"))
    print(table(found["parts"]))
    return found


if __name__ == "__main__":
    outcome = main()["parts"].values()
    sys.exit(any("failed" in part.get("left out", "") for part in outcome))
