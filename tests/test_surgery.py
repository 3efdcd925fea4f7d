"""Surgery against a hand-written loop over the kept layers, for every family."""

import copy

import pytest
import torch
from tiny import FAMILIES, random_model, random_tokens
from torch import nn
from transformers import AutoModelForCausalLM

from lib.blocks import Block, layers_to_drop, most_similar, simple
from lib.errors import UserError
from lib.models import layers
from lib.surgery import pruned, save_pruned

BLOCK = Block(1, 4)


class Skip(nn.Module):
    """Stands in a dropped layer's place and hands the residual stream on."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        for name in ("attention_type", "is_sliding"):
            if hasattr(layer, name):
                setattr(self, name, getattr(layer, name))

    def forward(self, hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return hidden_states


def skipping(model: nn.Module, block: Block, tokens: torch.Tensor) -> torch.Tensor:
    """Logits with the dropped layers bypassed, everything else of the whole model untouched."""
    reference = copy.deepcopy(model)
    stack = layers(reference)
    for i in range(block.start, block.stop):
        stack[i] = Skip(stack[i])
    with torch.inference_mode():
        return reference(tokens, use_cache=False).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_logits_equal_a_pass_around_the_dropped_layers(family, tmp_path):
    model, tokens = random_model(family), random_tokens(2, 12)
    with torch.inference_mode():
        whole = model(tokens, use_cache=False).logits
        before = copy.deepcopy(model.config.to_dict())
        with pruned(model, BLOCK):
            dropped = model(tokens, use_cache=False).logits
            cached = model.generate(tokens, max_new_tokens=5, do_sample=False, use_cache=True)
            plain = model.generate(tokens, max_new_tokens=5, do_sample=False, use_cache=False)
        again = model(tokens, use_cache=False).logits
    assert torch.equal(dropped, skipping(model, BLOCK, tokens))
    assert not torch.allclose(dropped, whole)
    assert torch.equal(cached, plain)
    assert torch.equal(again, whole)
    assert model.config.to_dict() == before

    class NoTokenizer:
        def save_pretrained(self, folder: object) -> None:
            pass

    save_pruned(model, BLOCK, NoTokenizer(), tmp_path / "out")
    reloaded = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", attn_implementation="eager"
    ).eval()
    assert reloaded.config.num_hidden_layers == 3
    with torch.inference_mode():
        assert torch.equal(reloaded(tokens, use_cache=False).logits, dropped)


def test_the_model_is_whole_again_after_an_error():
    model, tokens = random_model("gemma2"), random_tokens(1, 8)
    with torch.inference_mode():
        whole = model(tokens).logits
        with pytest.raises(KeyError), pruned(model, BLOCK):
            raise KeyError
        assert torch.equal(model(tokens).logits, whole)


def test_simple_keeps_the_last_layer():
    assert simple(8, 32) == Block(23, 31)
    assert simple(31, 32) == Block(0, 31)
    assert simple(8, 32).in_words(32) == "drop layers 23–30, keep 0–22 and 31"
    assert Block(21, 29).in_words(32) == "drop layers 21–28, keep 0–20 and 29–31"
    assert Block(3, 4).in_words(5) == "drop layer 3, keep 0–2 and 4"


@pytest.mark.parametrize("n", [-1, 0, 6, 7])
def test_simple_refuses_n_outside_the_model(n):
    with pytest.raises(UserError, match="allowed are 1 to 5"):
        simple(n, 6)


@pytest.mark.parametrize("block", [Block(-1, 2), Block(4, 7), Block(0, 6), Block(3, 2)])
def test_impossible_blocks_are_refused(block):
    model = random_model("llama")
    with pytest.raises(UserError), pruned(model, block):
        pass
    assert len(layers(model)) == 6


def test_a_folder_with_content_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        save_pruned(random_model("llama"), BLOCK, None, tmp_path)


def test_ties_go_to_the_deepest_start():
    import numpy as np

    assert most_similar(np.array([0.2, 0.1, 0.3, 0.1])) == 3


def test_fractions_become_whole_layers():
    assert [layers_to_drop(f, 16) for f in (0, 0.03, 0.04, 0.5, 0.99)] == [0, 0, 1, 8, 15]
