"""Choosing layers: greedy search and leave-one-out against brute force, which runs every candidate
by itself, and against the layers that cannot be avoided; block influence against a bare forward
pass.

    .venv/bin/python benchmarks/choosing.py [--layers 24 --width 256 --windows 16 --length 128]
    .venv/bin/python benchmarks/choosing.py --model CHECKPOINT
"""

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from side_by_side import alternate, milliseconds, ratio, seconds, subject
from torch import nn
from transformers import PreTrainedModel

from lib.evaluation import evaluate
from lib.evaluation.sweep import Seen, layer_passes
from lib.models import anatomy
from lib.pruning import strategy
from lib.pruning.dropped import Dropped, kept_layers
from lib.pruning.strategy import Strategy


class Asked:
    """What strategies ask of a study, without one; and every set that they ask for."""

    def __init__(self, model: PreTrainedModel, windows: torch.Tensor, batch: int) -> None:
        self.model, self.windows, self.batch = model, windows, batch
        self.calls: list[list[tuple[int, ...]]] = []
        self.seen: Seen | None = None

    def losses(self, sets: Sequence[Iterable[int]]) -> np.ndarray:
        self.calls.append([tuple(one) for one in sets])
        dropped, rows = [Dropped(one) for one in sets], self.windows.tolist()
        found = evaluate.losses(self.model, dropped, rows, self.batch, 0, seen=self.seen)
        return np.array([one["loss"] for one in found])


class BruteForce(Asked):
    """Each set by itself: the layers are taken out, and the same batches run through the rest."""

    def losses(self, sets: Sequence[Iterable[int]]) -> np.ndarray:
        return np.array([self._loss(one) for one in sets])

    @torch.inference_mode()
    def _loss(self, dropped: Iterable[int]) -> float:
        total = 0.0
        with without(self.model, dropped):
            for rows in self.windows.split(self.batch):
                logits = self.model(input_ids=rows, use_cache=False).logits[:, :-1]
                total += float(
                    nn.functional.cross_entropy(
                        logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="sum"
                    )
                )
        return total / (self.windows.shape[0] * (self.windows.shape[1] - 1))


@contextmanager
def without(model: PreTrainedModel, dropped: Iterable[int]) -> Iterator[None]:
    """The model in memory without some layers."""
    stack, decoder = anatomy.layers(model), model.get_decoder()
    kept = kept_layers(list(dropped), len(stack))
    whole, model.config.num_hidden_layers = decoder.layers, len(kept)
    decoder.layers = nn.ModuleList(stack[layer] for layer in kept)
    try:
        yield
    finally:
        decoder.layers, model.config.num_hidden_layers = whole, len(whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=1024, help="of the random Llama")
    parser.add_argument("--model", help="a folder or a GGUF file, in place of a random Llama")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--length", type=int, default=128, help="tokens in a window")
    parser.add_argument("--batch", type=int, default=8, help="windows at once")
    parser.add_argument("--pairs", type=int, default=3)
    args = parser.parse_args()
    model = subject(args.model, args.layers, args.width, vocabulary=args.vocabulary)
    layers = model.config.num_hidden_layers
    tokens = torch.randint(model.config.vocab_size, (args.windows, args.length))
    shared, alone = (kind(model, tokens, args.batch) for kind in (Asked, BruteForce))
    decoder, head = model.get_decoder(), model.get_output_embeddings()

    @torch.inference_mode()
    def bare() -> None:
        for rows in tokens.split(args.batch):
            decoder(input_ids=rows, use_cache=False)

    @torch.inference_mode()
    def parts() -> tuple[float, float]:
        """Seconds of one layer, and of the head, on all windows."""
        layered = headed = 0.0
        for rows in tokens.split(args.batch):
            start = time.perf_counter()
            states = decoder(input_ids=rows, use_cache=False).last_hidden_state
            between = time.perf_counter()
            head(states[:, :-1].flatten(0, 1))
            layered += between - start
            headed += time.perf_counter() - between
        return layered / layers, headed

    for name in ("greedy", "perplexity"):
        one = strategy.shipped(name)

        def search(one: Strategy = one) -> dict:
            shared.calls.clear()
            shared.seen = Seen()
            return one.measure(shared)

        found, expected = search(), one.measure(alone)
        apart = np.abs(np.array(found["scores"]) - np.array(expected["scores"])).max()
        passes = layer_passes(*([kept_layers(s, layers) for s in one] for one in shared.calls))
        heads = sum(map(len, shared.calls))
        times: dict[str, list[float]] = {"brute": [], "shared": [], "floor": []}
        for _ in range(args.pairs):
            times["shared"].append(seconds(search))
            layer, of_head = parts()
            times["floor"].append(layer * passes + of_head * heads)
            times["brute"].append(seconds(lambda one=one: one.measure(alone)))
        print(f"{name}: {heads} sets, {passes} layer passes; scores {apart:.1e} apart at most")
        if name == "greedy":
            order = sorted(range(layers), key=found["scores"].__getitem__)
            print(f"  layers go in the order {' '.join(map(str, order))}")
        print(
            f"  brute force {milliseconds(times['brute'])}, shared {milliseconds(times['shared'])}"
        )
        print(f"  brute force over it: {ratio(times['brute'], times['shared'])}")
        print(
            "  it over the layers and heads that it cannot avoid: "
            f"{ratio(times['shared'], times['floor'])}",
            flush=True,
        )
    influence = strategy.shipped("block-influence")
    measured, forward = alternate(7 * args.pairs, lambda: influence.measure(shared), bare)
    print(f"block influence over the bare decoder: {ratio(measured, forward)}")


if __name__ == "__main__":
    main()
