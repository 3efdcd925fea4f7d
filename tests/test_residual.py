"""What writes to the residual stream, found in every family: without it a layer is the identity."""

import pytest
import torch
from tiny import FORMS, random_model, random_tokens, random_variant
from torch import nn
from transformers import PreTrainedModel

from lib.errors import UserError
from lib.models.anatomy import decoder
from lib.models.residual import last_writer, writers
from lib.pruning.geometry import residual_stream

TOKENS = random_tokens(1, 12)
# In these a norm follows attention and FFN before they are added, or experts are mixed.
OTHERWISE = {"mixtral", "gemma2", "gemma3_text", "gemma3", "olmo2", "gemma2 untied"}
FFN = ("down_proj", "fc2", "dense_4h_to_h", "c_proj")


def name_of(model: PreTrainedModel, module: nn.Module) -> str:
    return next(name for name, one in model.named_modules() if one is module)


def silence(*modules: nn.Module) -> None:
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.zero_()


def through(model: PreTrainedModel, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The residual stream before and after a layer."""
    with torch.no_grad(), residual_stream(model, torch.clone) as states:
        decoder(model)(TOKENS, use_cache=False)
    return states[layer], states[layer + 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", [form for form in FORMS if form not in OTHERWISE])
def test_without_them_a_layer_is_the_identity(form: str, dtype: torch.dtype) -> None:
    model = random_variant(form).to(dtype)
    found = writers(model, 2, TOKENS[0])
    assert len(found) == 2  # of attention and of the FFN
    last = name_of(model, last_writer(model, 2, TOKENS[0]))
    assert last.endswith(FFN) and "attn" not in last and "attention" not in last
    silence(found[0])
    assert not torch.equal(*through(model, 2))
    silence(found[1])
    assert torch.equal(*through(model, 2))


@pytest.mark.parametrize("form", sorted(OTHERWISE))
@pytest.mark.parametrize("find", [last_writer, writers])
def test_where_there_are_none_one_line_says_so(form: str, find: object) -> None:
    model = random_variant(form)
    with pytest.raises(UserError, match=rf"^model {form.split()[0]}: .*layer 2 adds[^\n]*$"):
        find(model, 2, TOKENS[0])


def test_it_is_the_ffn_also_where_that_adds_nothing() -> None:
    model = random_model("llama")
    silence(model.model.layers[2].mlp.down_proj)
    assert last_writer(model, 2, TOKENS[0]) is model.model.layers[2].mlp.down_proj


def test_looking_leaves_the_model_as_it_is() -> None:
    model = random_model("gpt_neox")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        writers(model, 2, TOKENS[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(one.grad is None and one.requires_grad for one in model.parameters())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_weights_that_are_packed_or_elsewhere_are_refused() -> None:
    class Packed(nn.Linear):
        """A weight in the form of bytes."""

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return given @ (self.weight.to(given.dtype) / 1000).T

    model = random_model("llama")
    packed = Packed(128, 64, bias=False)
    packed.weight = nn.Parameter(torch.randint(-99, 99, (64, 128)).char(), requires_grad=False)
    model.model.layers[2].mlp.down_proj = packed
    with pytest.raises(UserError, match=r"layers\.2\.mlp\.down_proj is quantised; nothing"):
        last_writer(model, 2, TOKENS[0])
