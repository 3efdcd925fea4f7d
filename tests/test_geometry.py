"""Distances against an independent float64 computation in NumPy."""

import numpy as np
import pytest
import torch
from tiny import FAMILIES, random_model, random_tokens

from lib.errors import UserError
from lib.geometry import angular_distance, measure, optimal_blocks, pairs
from lib.models import layers


def stream_by_hand(model: torch.nn.Module, tokens: torch.Tensor) -> np.ndarray:
    """[L+1, rows, width] residual stream at the last token, each sequence run alone in float64.

    The input of every layer from `output_hidden_states`; the last layer's output, which that list
    only holds after the final norm, from a copy of the model whose final norm does nothing."""
    decoder = model.double().get_decoder()
    norms = ("norm", "final_layernorm", "final_layer_norm")
    name = next(n for n in norms if getattr(decoder, n, None) is not None)
    setattr(decoder, name, torch.nn.Identity())
    rows = []
    for row in tokens:
        with torch.no_grad():
            states = decoder(row[None], output_hidden_states=True, use_cache=False).hidden_states
        rows.append(np.stack([state[0, -1].numpy() for state in states]))
    return np.stack(rows, axis=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_cell_equals_float64_by_hand(family):
    model, tokens = random_model(family), random_tokens(7, 10)
    found = measure(model, tokens, batch=3, bootstrap=100, seed=0)
    holder = model.model.decoder if family == "opt" else model
    x = stream_by_hand(model if family != "opt" else _Opt(model, holder), tokens)
    assert list(zip(found.table["n"], found.table["start"], strict=True)) == pairs(6)
    for row in found.table.itertuples():
        u, v = x[row.start], x[row.start + row.n]
        cosine = (u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
        by_hand = np.arccos(np.clip(cosine, -1, 1)) / np.pi
        assert abs(row.distance - by_hand.mean()) < 1e-6
        assert abs(row.stderr - by_hand.std(ddof=1) / np.sqrt(7)) < 1e-6


class _Opt:
    """OPT keeps its final norm one module further in than the others."""

    def __init__(self, model: torch.nn.Module, decoder: torch.nn.Module) -> None:
        self.model, self.decoder = model, decoder

    def double(self) -> "_Opt":
        self.model.double()
        return self

    def get_decoder(self) -> torch.nn.Module:
        return self.decoder


def test_small_angles_are_exact():
    angle = 1e-7
    u = torch.tensor([1.0, 0.0], dtype=torch.float64)
    v = torch.tensor([np.cos(angle), np.sin(angle)], dtype=torch.float64)
    assert float(angular_distance(u, v)) == pytest.approx(angle / np.pi, rel=1e-6)
    assert float(angular_distance(u, -u)) == 1
    assert float(angular_distance(u, u)) == 0


def test_the_minimum_is_the_optimal_block_and_support_is_a_share():
    found = measure(random_model("llama"), random_tokens(9, 8), batch=4, bootstrap=100, seed=1)
    best = optimal_blocks(found)
    assert list(best["n"]) == [1, 2, 3, 4, 5]
    for row in best.itertuples():
        of_n = found.table[found.table["n"] == row.n]
        assert row.distance == of_n["distance"].min()
        assert row.stop == row.start + row.n
        assert sum(v for (n, _), v in found.support.items() if n == row.n) == pytest.approx(1)


def test_results_do_not_depend_on_the_batch():
    model, tokens = random_model("llama"), random_tokens(8, 8)
    one = measure(model, tokens, batch=8, bootstrap=100, seed=0).table
    two = measure(model, tokens, batch=3, bootstrap=100, seed=0).table
    assert np.abs(one["distance"] - two["distance"]).max() < 1e-7


def test_activations_that_are_not_finite_are_named():
    model = random_model("llama")
    with torch.no_grad():
        layers(model)[2].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"entering layer 3 .* sequence 0"):
        measure(model, random_tokens(2, 5), batch=2, bootstrap=100, seed=0)
