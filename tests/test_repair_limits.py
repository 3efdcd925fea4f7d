"""What repairs take, and what cannot be repaired."""

import weakref
from typing import Any

import pytest
import torch
from mending import BLOCK, REPAIRS, TOKENS, repaired, replaced, silence
from tiny import logits_of, random_model, random_tokens
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lib.errors import UserError
from lib.models.anatomy import layers
from lib.pruning.dropped import span
from lib.pruning.repair import load, repair
from lib.pruning.surgery import pruned


class Peak(TorchDispatchMode):
    """The most bytes that tensors made within it have taken at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else [found]:
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr():
                self._take(one.untyped_storage())
        return found

    def _take(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self._known:
            return
        self._known.add(place)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._let_go, place, size)

    def _let_go(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size


@pytest.mark.parametrize("name", REPAIRS)
def test_more_text_takes_no_more_room(name: str) -> None:
    windows, most = random_tokens(300, 20), []
    for rows in (30, 300):
        model = random_model("llama")
        with Peak() as peak:
            repair(model, BLOCK, windows[:rows], 5, load(name))
        most.append(peak.most)
    assert 0 < most[1] < 1.02 * most[0]


def test_in_16_bits_sums_and_the_fold_are_taken_in_64() -> None:
    exact, rounded = random_model("llama").bfloat16().float(), random_model("llama").bfloat16()
    reports = [repaired(model, "linear-map") for model in (exact, rounded)]
    assert reports[1]["left"] == pytest.approx(reports[0]["left"], rel=0.02)
    assert rounded.model.layers[1].mlp.down_proj.weight.dtype == torch.bfloat16
    found, expected = (one.model.layers[1].mlp.down_proj.weight.float() for one in (rounded, exact))
    difference = (found - expected).detach().norm()
    assert float(difference) < 0.05 * float(expected.detach().norm())


def test_before_the_head_alone_a_factor_changes_nothing() -> None:
    model = random_model("gpt_neox")
    with pruned(model, span(4, 6)):
        expected = logits_of(model, TOKENS)
    assert repaired(model, "rescale", span(4, 6))["factor"] > 0
    assert torch.equal(logits_of(model, TOKENS), expected)


def test_a_factor_needs_no_layer_before_the_cut() -> None:
    model = random_model("llama", rms_norm_eps=1e-12)
    repaired(model, "rescale", span(0, 2))
    assert len(layers(model)) == 4


@pytest.mark.parametrize(
    ("name", "dropped", "says"),
    [
        ("linear-map", span(0, 2), "repair linear-map: .* there is none before layers 0:2"),
        (
            "linear-map",
            (1, 3),
            "repair linear-map: is of one block of layers, as 21:29, not of 1,3",
        ),
        ("rescale", (), "repair rescale: is of one block .* not of none"),
        ("rescale", range(6), "drops all 6 layers"),
    ],
)
def test_what_cannot_be_repaired_is_one_line(name: str, dropped: Any, says: str) -> None:
    model = random_model("llama")
    before = logits_of(model, TOKENS)
    with pytest.raises(UserError, match=says) as caught:
        repaired(model, name, dropped)
    assert "\n" not in str(caught.value)
    assert torch.equal(logits_of(model, TOKENS), before)


def test_a_model_that_cannot_be_pruned_is_found_out_before_it_is_changed() -> None:
    model = random_model("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.config.is_encoder_decoder = True
    with pytest.raises(UserError, match="encoder-decoder"):
        repaired(model, "linear-map")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", REPAIRS)
def test_activations_that_are_no_numbers_are_said(name: str) -> None:
    model = random_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(UserError, match="around layers 2:4 are zero or not finite"):
        repaired(model, name)


def test_a_sign_cannot_be_folded_in() -> None:
    model = random_model("llama")
    silence(model)
    with (
        replaced(model.model.layers[3], lambda stream: -stream),
        pytest.raises(UserError, match="the best factor is -1; norms see its sign"),
    ):
        repaired(model, "rescale")


def test_a_model_that_sees_how_large_its_stream_is_has_no_factor() -> None:
    model = random_model("llama")
    model.model.norm = nn.Identity()
    with pytest.raises(UserError, match="model llama sees the size of its residual stream"):
        repaired(model, "rescale")


def test_an_unknown_repair_is_named() -> None:
    with pytest.raises(UserError, match="unknown repair 'glue'; known are linear-map, rescale"):
        load("glue")
