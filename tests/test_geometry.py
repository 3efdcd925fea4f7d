"""Distances against an independent float64 computation in NumPy."""

import copy

import numpy as np
import pytest
import torch
from tiny import FAMILIES, on_several_devices, random_model, random_tokens

from lib.errors import UserError
from lib.models.anatomy import layers
from lib.pruning.geometry import Distances, angular_distance, measure, optimal_blocks, pairs


def stream_by_hand(model: torch.nn.Module, row: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The residual stream [L+1, length, width] of one sequence run alone in float64, and the last
    layer's output after the final norm [length, width].

    The input of every layer from `output_hidden_states`, whose last entry is after that norm; the
    last layer's own output, from that layer alone on the input before it."""
    model = copy.deepcopy(model).double()
    model.config._experts_implementation = "eager"  # the grouped product has no float64
    last = []
    layers(model)[-1].register_forward_hook(
        lambda _module, _inputs, output: last.append(
            output[0] if isinstance(output, tuple) else output
        )
    )
    with torch.no_grad():
        states = model(row[None], output_hidden_states=True, use_cache=False).hidden_states
    stream = [*states[:-1], last[0]]
    return np.stack([state[0].numpy() for state in stream]), states[-1][0].numpy()


def angle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    cosine = (u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
    return np.arccos(np.clip(cosine, -1, 1)) / np.pi


def check(found: Distances, streams: list[tuple[np.ndarray, np.ndarray]], at: slice) -> None:
    """Every cell is the mean over sequences of the mean over the tokens `at`."""
    assert list(zip(found.table["n"], found.table["start"], strict=True)) == pairs(6)
    assert list(found.after_norm["start"]) == [5, 4, 3, 2, 1]
    for table, after in ((found.table, False), (found.after_norm, True)):
        for row in table.itertuples():
            each = []
            for x, normed in streams:
                end = normed if after else x[row.start + row.n]
                each.append(angle(x[row.start][at], end[at]).mean())
            assert abs(row.distance - np.mean(each)) < 1e-6
            assert abs(row.stderr - np.std(each, ddof=1) / np.sqrt(len(each))) < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_every_cell_equals_float64_by_hand(family):
    model, tokens = random_model(family), random_tokens(7, 10)
    streams = [stream_by_hand(model, row) for row in tokens]
    check(measure(model, tokens, batch=3, bootstrap=100, seed=0), streams, slice(-1, None))
    found = measure(model, tokens, batch=3, bootstrap=100, seed=0, tokens="all")
    check(found, streams, slice(None))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_is_no_text(family, side):
    model, tokens = random_model(family), random_tokens(5, 12)
    lengths = [12, 7, 9, 1, 12]
    streams = [stream_by_hand(model, row[:n]) for row, n in zip(tokens, lengths, strict=True)]
    padded, mask = torch.zeros_like(tokens), torch.zeros_like(tokens)
    for i, n in enumerate(lengths):
        place = slice(12 - n, 12) if side == "left" else slice(n)
        padded[i, place], mask[i, place] = tokens[i, :n], 1
    options = {"batch": 3, "bootstrap": 100, "seed": 0, "mask": mask}
    check(measure(model, padded, **options), streams, slice(-1, None))
    check(measure(model, padded, **options, tokens="all"), streams, slice(None))


def test_angles_of_16_bit_states_are_taken_in_64_bit():
    """Where 16-bit arithmetic knows no angle below about 0.03."""
    model, tokens = random_model("llama").bfloat16(), random_tokens(3, 8)
    stream: list[torch.Tensor] = []
    for layer in layers(model):
        layer.register_forward_pre_hook(
            lambda _module, args: stream.append(args[0][:, -1].double())
        )
    found = measure(model, tokens, batch=3, bootstrap=100, seed=0).table
    for row in found[found["start"] + found["n"] < 6].itertuples():
        u, v = stream[row.start].numpy(), stream[row.start + row.n].numpy()
        assert abs(row.distance - angle(u, v).mean()) < 1e-7


def test_layers_on_several_devices(tmp_path):
    model, tokens = random_model("llama"), random_tokens(5, 8)
    expected = measure(model, tokens, batch=2, bootstrap=100, seed=0)
    spread = on_several_devices(model, tmp_path)
    found = measure(spread, tokens, batch=2, bootstrap=100, seed=0)
    assert np.abs(found.table["distance"] - expected.table["distance"]).max() < 1e-9


def test_a_sequence_of_padding_alone_is_refused():
    mask = torch.tensor([[1, 1], [0, 0]])
    with pytest.raises(UserError, match="sequence 1 holds no token of text"):
        measure(random_model("llama"), random_tokens(2, 2), 2, 100, 0, mask=mask)


def test_small_angles_are_exact():
    turn = 1e-7
    u = torch.tensor([1.0, 0.0], dtype=torch.float64)
    v = torch.tensor([np.cos(turn), np.sin(turn)], dtype=torch.float64)
    assert float(angular_distance(u, v)) == pytest.approx(turn / np.pi, rel=1e-6)
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


def test_an_output_projected_to_another_width_has_no_distance_after_the_norm():
    model = random_model("opt", word_embed_proj_dim=32)
    found = measure(model, random_tokens(4, 9), 2, 100, 0)
    assert found.after_norm.empty and len(found.table) == len(pairs(6))
    assert found.table["distance"].between(0, 1).all()


@pytest.mark.parametrize(
    ("value", "says"),
    [(torch.nan, "leaving the last layer .* not finite"), (0.0, "entering layer 0 .* zero")],
)
def test_states_without_a_direction_are_reported(value, says):
    model, tokens = random_model("llama"), random_tokens(3, 9)
    with torch.no_grad():
        if value:
            layers(model)[-1].mlp.down_proj.weight[0, 0] = value
        else:
            model.model.embed_tokens.weight[tokens[1, -1]] = 0
    with pytest.raises(UserError, match=says):
        measure(model, tokens, 2, 100, 0)


def test_lengths_that_turn_each_others_positions_are_refused():
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    model = random_model("llama", max_position_embeddings=8, rope_parameters=rope)
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, 6:] = 0
    with pytest.raises(UserError, match="6 to 12 tokens: beyond 8"):
        measure(model, random_tokens(2, 12), 2, 100, 0, mask=mask)


def test_all_tokens_a_few_at_a_time(monkeypatch):
    model, tokens = random_model("llama"), random_tokens(3, 9)
    whole = measure(model, tokens, 2, 100, 0, tokens="all")
    monkeypatch.setattr("lib.pruning.geometry.TOKENS", 4)
    parts = measure(model, tokens, 2, 100, 0, tokens="all")
    assert np.allclose(parts.table["distance"], whole.table["distance"], rtol=1e-12)
    assert np.allclose(parts.after_norm["distance"], whole.after_norm["distance"], rtol=1e-12)
