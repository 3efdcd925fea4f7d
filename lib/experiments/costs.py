"""What dropping layers saves: memory, operations and time against the fraction dropped (§1, §5).

The models are those of the simple strategy, which needs no data, in the study's number format and
in 4-bit. Weights are weighed tensor by tensor, operations counted on a real forward pass, and times
taken with all models in turn, so that a noisy moment of the machine hits them alike.

Times belong to a machine: its name and its number of threads are part of what decides a record. A
CPU computes with one thread, and its time is the one it spends on that thread: several threads wait
for each other, and one on the clock waits for whatever else runs, which would then decide the
times. On a CPU 4-bit saves memory, not time: weights are turned back into floats whenever they are
used.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm
from transformers import PreTrainedModel

from lib import study as studies
from lib.errors import UserError
from lib.evidence import provenance
from lib.experiments.opened import OpenStudy
from lib.models import checkpoints, four_bit, shapes
from lib.models.anatomy import decoder, skeleton
from lib.pruning.dropped import UNPRUNED, Dropped, layers_to_drop, simple
from lib.pruning.surgery import pruned

METHOD = 1  # raise when the code that computes the values changes them
RESAMPLES = 2000  # draws for a standard error
ON_CPU = {"threads": 1, "clock": "thread"}
# What §5 prints of Llama-2-70B, in bytes and operations per token: whole at 16 bits, and in 4-bit
# without half of its layers.
PAPERS_STUDY = "llama-2-70b"
PRINTED = {("16 bits", 0.0): (140e9, 3e10), ("4-bit", 0.5): (17.5e9, 1.5e10)}


def check(opened: OpenStudy) -> None:
    """Raises UserError where the study's `cost` cannot be measured on its model."""
    study, cost = opened.study, opened.study.cost
    if len(opened.healed_ns(cost.fractions)) < 2:
        raise UserError(
            f"study {study.name}: cost.fractions {cost.fractions} stand for fewer than two numbers "
            f"of layers of {opened.n_layers}, too few for a line"
        )
    longest = getattr(opened.config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and cost.length + cost.tokens > longest:
        raise UserError(
            f"study {study.name}: cost.length {cost.length} and cost.tokens {cost.tokens} are "
            f"together above the model's context of {longest}"
        )


def cost_table(opened: OpenStudy) -> pd.DataFrame:
    """A row per number format and number of layers, the unpruned model first.

    `bytes` are those of the weights in memory, `peak_bytes` on a GPU the most that was allocated
    while it read and wrote. `flops_per_token` is counted on the float model over a prompt,
    `flops_by_parameters` twice the parameters that a token is multiplied with; in 4-bit a model
    multiplies the same. Seconds are per token of the batch: the median of the repeats, and the
    standard error of that median.

    In the study's format alone where the model cannot be put in 4-bit. Raises UserError as `check`
    does."""
    check(opened)
    rows = []
    plain = _measured(opened, opened.weights)
    counts = {one["n"]: one["counts"] for one in plain["models"]}
    measured = {opened.weights: plain}
    if four_bit.impossible(skeleton(opened.config), checkpoints.device(opened.study)) is None:
        measured["nf4"] = _measured(opened, "nf4")
    for weights, found in measured.items():
        for one in found["models"]:
            rows.append(
                {"weights": weights, "n": one["n"], "fraction": opened.fraction(one["n"])}
                | {"start": one["start"], "stop": one["stop"]}
                | {"parameters": counts[one["n"]]["parameters"], "bytes": one["bytes"]}
                | {key: counts[one["n"]][key] for key in ("flops_per_token", "flops_by_parameters")}
                | _with_error("read", one["read"])
                | _with_error("write", one["write"])
                | {"repeats": len(one["read"])}
                | {"device": found["device"], "threads": found["threads"]}
                | {"peak_bytes": one["peak_bytes"]}
            )
    return pd.DataFrame(rows)


def _with_error(what: str, seconds: list[float]) -> dict[str, float]:
    value, error = median(seconds)
    return {f"{what}_seconds": value, f"{what}_stderr": error}


def median(values: Sequence[float]) -> tuple[float, float]:
    """The median of repeats and its standard error, by resampling them (with a fixed seed).

    The median, because interruptions only ever make a repeat slower, some of them by much."""
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
    return float(np.median(values)), float(np.median(drawn, axis=1).std(ddof=1))


def _measured(opened: OpenStudy, weights: str) -> dict[str, Any]:
    """From evidence or measured now: `models`, and the `device` and `threads` that they ran on."""
    study, cost = opened.study, opened.study.cost
    blocks = [UNPRUNED, *(simple(n, opened.n_layers) for n in opened.healed_ns(cost.fractions))]
    place = _place(opened)
    inputs = place | {
        "method": METHOD,
        "checkpoint": opened.checkpoint,
        "weights": weights,
        "blocks": [[block.start, block.stop] for block in blocks],
        "sample": cost.model_dump(exclude={"fractions"}),
    }
    if weights == "nf4":
        inputs["compute"] = opened.weights

    def run() -> dict[str, Any]:
        plain = weights != "nf4"
        if not plain:
            opened.release()
        model = opened.model if plain else four_bit.load_4bit(study)
        with _threads(place["threads"]):
            return place | {"models": _measure(opened, model, blocks, counted=plain)}

    name = f"{weights} {cost.batch}x{cost.length}+{cost.tokens} {place['device']}"
    return opened.store.get_or_measure("cost", name, inputs, run, batch=cost.batch)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _place(opened: OpenStudy) -> dict[str, Any]:
    """The processor or GPU that times are taken on, and the threads; of a published run the one
    that they were taken on."""
    if opened.published:
        timed = (one["inputs"] for one in opened.store.records() if one["kind"] == "cost")
        on_cpu = any(inputs.items() >= ON_CPU.items() for inputs in timed)
        return {"device": opened.recorded("device"), **(ON_CPU if on_cpu else {})}
    on_cpu = checkpoints.device(opened.study).type == "cpu"
    timed = ON_CPU if on_cpu else {"threads": torch.get_num_threads()}
    return {"device": device_name(opened), **timed}


def device_name(opened: OpenStudy) -> str:
    """The processor or GPU that the study runs on."""
    device = checkpoints.device(opened.study)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else provenance.processor()


def _measure(
    opened: OpenStudy, model: PreTrainedModel, blocks: list[Dropped], counted: bool
) -> list[dict[str, Any]]:
    """For each dropped block what the model weighs and every repeat of its times; `counted`: its
    parameters and operations too."""
    cost, whole = opened.study.cost, weight_bytes(model)
    prompt = random_prompt(opened.vocab_size, cost.batch, cost.length).to(model.device)
    found = []
    for block in blocks:
        with pruned(model, block):
            one = {"n": block.n, "start": block.start, "stop": block.stop}
            one |= {"bytes": weight_bytes(model), "peak_bytes": None, "read": [], "write": []}
            found.append(one | ({"counts": counts(model, prompt)} if counted else {}))
    turns = [(turn, i) for turn in range(cost.repeats + 1) for i in range(len(blocks))]
    for turn, i in tqdm(turns, desc="times", leave=False):
        with pruned(model, blocks[i]):
            one = found[i]
            if model.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(model.device)
            read, write, _ = read_and_write(model, prompt, cost.tokens)
            if model.device.type == "cuda":
                # The layers set aside are still there.
                aside = whole - one["bytes"]
                peak = torch.cuda.max_memory_allocated(model.device) - aside
                one["peak_bytes"] = max(peak, one["peak_bytes"] or 0)
            if turn:  # the first one sets things up
                one["read"].append(read / prompt.numel())
                one["write"].append(write / (cost.batch * cost.tokens))
    return found


def random_prompt(vocabulary: int, rows: int, length: int) -> torch.Tensor:
    """[rows, length] token ids, each as likely as the others, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (rows, length), generator=generator)


def weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of all weights that are in memory, each once; in 4-bit with scales and code book."""
    total = 0
    for weight in model.parameters():
        total += weight.nbytes
        quantised = getattr(weight, "quant_state", None)
        if quantised is not None:
            total += quantised.absmax.nbytes + quantised.code.nbytes
    return total


def counts(model: PreTrainedModel, prompt: torch.Tensor) -> dict[str, float]:
    """Parameters, and operations per token both ways; prompt [rows, length]."""
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "flops_per_token": counted_flops(model, prompt) / prompt.numel(),
        "flops_by_parameters": 2 * multiplied(model),
    }


def counted_flops(model: PreTrainedModel, prompt: torch.Tensor) -> int:
    """Operations of all matrix products in one forward pass, logits of every token included; a
    multiplication and an addition are two.

    Attention runs as plain matrix products for this: of the fused kernels, torch counts those of
    GPUs and takes the one of CPUs for nothing. Neither does it know products grouped by expert."""
    grouped = {torch.ops.aten._grouped_mm: _grouped_product}
    counter = FlopCounterMode(display=False, custom_mapping=grouped)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(prompt, use_cache=False)
    return counter.get_total_flops()


def _grouped_product(rows: list[int], weights: list[int], *_: Any, **__: Any) -> int:
    """rows [tokens, in], each times one of weights [expert, in, out]."""
    return 2 * math.prod(rows) * weights[-1]


def multiplied(model: PreTrainedModel) -> int:
    """The parameters that a token's vector is multiplied with as matrices: those of the text
    decoder and the head, without tables that are only looked up in, and norms and biases. Of
    experts, as many as a token is sent to."""
    stack, head = decoder(model), model.get_output_embeddings()
    config = model.config.get_text_config()
    tables = {id(m.weight) for m in stack.modules() if isinstance(m, torch.nn.Embedding)}
    total = head.weight.numel()
    for weight in stack.parameters():
        if id(weight) in tables or weight.ndim < 2:
            continue
        experts = len(weight) if weight.ndim == 3 else 1
        chosen = config.num_experts_per_tok if weight.ndim == 3 else 1
        total += weight.numel() * chosen // experts
    return total


@torch.no_grad()
def read_and_write(
    model: PreTrainedModel, prompt: torch.Tensor, tokens: int
) -> tuple[float, float, torch.Tensor]:
    """Seconds to read a prompt [rows, length], its keys and values kept and logits made for every
    token; seconds to write so many tokens after the first one; and all that was written
    [rows, 1 + tokens], the likeliest token at each step."""
    start = _now(model.device)
    out = model(prompt, use_cache=True)
    after = _now(model.device)
    written = [out.logits[:, -1:].argmax(-1)]
    for _ in range(tokens):
        out = model(written[-1], past_key_values=out.past_key_values, use_cache=True)
        written.append(out.logits[:, -1:].argmax(-1))
    return after - start, _now(model.device) - after, torch.cat(written, dim=1)


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.thread_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def paper_example(opened: OpenStudy) -> pd.DataFrame:
    """The arithmetic of §5, from shapes alone: Llama-2-70B and this study's model, whole and
    without half of the layers, at 16 bits and with the layers in 4-bit. Operations are 2 ×
    parameters; `printed_bytes` and `printed_flops` are what the paper says."""
    paper = studies.load(PAPERS_STUDY)
    sizes = {paper.title: shapes.shape_of(checkpoints.config_of_shape(paper))}
    sizes[opened.study.title] = shapes.shape_of(opened.config)
    rows = []
    for (title, shape), fraction, weights in product(
        sizes.items(), (0.0, 0.5), ("16 bits", "4-bit")
    ):
        n = layers_to_drop(fraction, shape.n_layers)
        total = shape.pruned(simple(n, shape.n_layers) if n else UNPRUNED)
        outside = shape.total - sum(shape.by_layer)
        each = shapes.NF4 if weights == "4-bit" else 2.0
        printed = PRINTED.get((weights, fraction)) if title == paper.title else None
        rows.append(
            {"model": title, "weights": weights, "n": n, "fraction": n / shape.n_layers}
            | {"parameters": total, "bytes": each * (total - outside) + 2 * outside}
            | {"printed_bytes": printed[0] if printed else None, "flops": 2 * total}
            | {"printed_flops": printed[1] if printed else None}
        )
    return pd.DataFrame(rows)
