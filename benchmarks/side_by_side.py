"""What the benchmarks share: models, alternating timings, and how ratios are printed."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lib import paths
from lib.models import checkpoints
from lib.schema import Study

TOKENIZER = paths.ROOT / "almanac" / "checkpoint"


def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(TOKENIZER)


def random_llama(
    layers: int, width: int, positions: int = 512, vocabulary: int | None = None
) -> PreTrainedModel:
    """A Llama with random weights; as large a vocabulary as the embedded default's, or another."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary or len(tokenizer()),
        hidden_size=width,
        intermediate_size=width * 5 // 2,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 32),
        num_key_value_heads=max(1, width // 32),
        max_position_embeddings=positions,
    )
    return LlamaForCausalLM(config).eval()


def subject(
    model: str | None, layers: int, width: int, positions: int = 512, vocabulary: int | None = None
) -> PreTrainedModel:
    """A checkpoint in a folder or a GGUF file, in float32; or a random Llama."""
    if model is None:
        return random_llama(layers, width, positions, vocabulary)
    return checkpoints.load_model(Study(model=str(Path(model).resolve()), device="cpu")).eval()


def text_of(model: str | None) -> PreTrainedTokenizerBase:
    """Its tokenizer; or the embedded default's."""
    if model is None:
        return tokenizer()
    study = Study(model=str(Path(model).resolve()), device="cpu")
    return checkpoints.load_tokenizer(study, checkpoints.load_config(study))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(
    pairs: int,
    one: Callable[[], object],
    other: Callable[[], object],
    timed: Callable[[Callable[[], Any]], float] = seconds,
) -> tuple[list[float], list[float]]:
    """Seconds of both, taken in turn, each first every other time, after a round that does not
    count. timed: what takes the time of a piece of work, where it is not all of it."""
    one(), other()
    found: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            found[which].append(timed((one, other)[which]))
    return found


def ratio(above: Sequence[float], below: Sequence[float]) -> str:
    """Median of the ratios of pairs, with a 95% bootstrap interval of that median."""
    ratios = np.array(above) / np.array(below)
    draws = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return f"{np.median(ratios):.3f} [{low:.3f}, {high:.3f}] ({len(ratios)} pairs)"


def milliseconds(times: Sequence[float]) -> str:
    return f"{1000 * statistics.median(times):,.0f} ms"
