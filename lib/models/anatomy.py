"""Where the parts of a causal language model are: its decoder layers, and the FFN's weights."""

import copy
from collections.abc import Iterator

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lib.errors import UserError
from lib.models.qwen import register
from lib.open_sets import ALL_LINEAR, Targets

register()  # transformers has no Qwen of version 1
GATED = ("gate_proj", "up_proj", "down_proj")
# The FFN's weights by model type, as the paper adapts them (App. A.1): a new family needs one line.
FFN = {
    "llama": GATED,
    "mistral": GATED,
    "mixtral": ("gate_up_proj", "down_proj"),  # of every expert; the router is left alone
    "phi": ("fc1", "fc2"),
    "phi3": ("gate_up_proj", "down_proj"),
    "qwen": GATED,
    "qwen2": GATED,
    "qwen3": GATED,
    "gemma2": GATED,
    "gemma3_text": GATED,
    "olmo2": GATED,
    "smollm3": GATED,
    "gpt_neox": ("dense_h_to_4h", "dense_4h_to_h"),
    "gpt2": ("c_fc", "c_proj"),
    "opt": ("fc1", "fc2"),
    "falcon": ("dense_h_to_4h", "dense_4h_to_h"),
}


# A skeleton takes a while to make, and plans ask for sizes hundreds of times.
_SIZES: dict[tuple[type, str], tuple[int, tuple[int, ...]]] = {}


def skeleton(config: PretrainedConfig) -> PreTrainedModel:
    """The model without weights, on the meta device."""
    own = copy.deepcopy(config)  # into which a number format is written
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(own, trust_remote_code=False)


def sizes(config: PretrainedConfig) -> tuple[int, tuple[int, ...]]:
    """Parameters of the whole model, and of each layer, counted without weights."""
    key = (type(config), config.to_json_string(use_diff=False))
    if key not in _SIZES:
        model = skeleton(config)
        by_layer = (sum(p.numel() for p in layer.parameters()) for layer in layers(model))
        _SIZES[key] = sum(p.numel() for p in model.parameters()), tuple(by_layer)
    return _SIZES[key]


def layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers: the one ModuleList of length `num_hidden_layers` in the text decoder.

    Raises UserError when there is none or more than one."""
    return layers_and_name(model)[0]


def layers_and_name(model: nn.Module) -> tuple[nn.ModuleList, str]:
    """`layers`, and the list's full name in the model."""
    count = model.config.get_text_config().num_hidden_layers
    # An image tower beside the text decoder may have as many layers.
    within = model.get_decoder()
    prefix = next(name for name, module in model.named_modules() if module is within)
    found = [
        (module, f"{prefix}.{name}" if prefix else name)
        for name, module in within.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    # A list inside another's layers (experts, say) is not the stack itself.
    outer = [
        (module, name)
        for module, name in found
        if not any(name.startswith(other + ".") for _, other in found)
    ]
    if len(outer) != 1:
        names = ", ".join(name for _, name in outer) or "none"
        raise UserError(
            f"model {model.config.model_type}: its {count} decoder layers cannot be found "
            f"(lists of that length: {names})"
        )
    return outer[0]


def decoder(model: PreTrainedModel) -> PreTrainedModel:
    """The text decoder, which ends with the final norm: the whole model is none, though that is
    what transformers calls it in some families."""
    found = model.get_decoder()
    if found is not model:
        return found
    return model.get_submodule(layers_and_name(model)[1].rpartition(".")[0])


def final_norm(model: PreTrainedModel) -> nn.Module | None:
    """The norm between the last layer and the head; None in the few families without one."""
    found = [
        child
        for child in decoder(model).children()
        if (own := list(child.parameters())) and all(weight.ndim == 1 for weight in own)
    ]
    return found[-1] if found else None


def is_fused(module: nn.Module) -> bool:
    """Whether the module holds the weights of all its experts in two tensors,
    gate_up_proj [expert, 2 · intermediate, hidden] and down_proj [expert, hidden, intermediate],
    and computes down(act(gate) · up) with them.

    Transformers has other layouts (transposed, with biases or clamps); those are not adapted."""
    weights = [getattr(module, name, None) for name in FFN["mixtral"]]
    if not all(isinstance(weight, nn.Parameter) and weight.ndim == 3 for weight in weights):
        return False
    plain = {"has_gate": True, "is_concatenated": True} | dict.fromkeys(
        ("is_transposed", "has_bias", "has_post_expert_norm"), False
    )
    gate = getattr(module, "_apply_gate", None)
    return (
        all(getattr(module, flag, None) == value for flag, value in plain.items())
        and getattr(gate, "__module__", None) == "transformers.integrations.moe"
    )


def adapter_modules(model: PreTrainedModel, targets: Targets = None) -> list[str]:
    """Full names of the linear maps that adapters go on, in every layer: those of the FFN as the
    family calls them, or as `targets` names them; or all linear maps, those of attention too.
    Fused experts' have the expert's number behind them, as if they were lists of modules.

    In full, because peft matches a bare suffix anywhere: `c_proj`, say, is also the name of an
    attention projection.

    Raises UserError for a family without an entry and for targets that match nothing."""
    family = model.config.get_text_config().model_type
    stack, prefix = layers_and_name(model)
    if targets is None and family not in FFN:
        raise UserError(
            f"model family '{family}': its FFN modules are not known; {_possible(stack)}"
        )
    if targets == ALL_LINEAR:
        return _all_linear(stack, prefix)
    wanted = targets if targets is not None else FFN[family]
    found: dict[str, list[str]] = {target: [] for target in wanted}
    for name, module in _outside_attention(stack, prefix):
        own = name.rpartition(".")[2]
        if own in found and isinstance(module, nn.Linear | Conv1D):
            found[own].append(name)
        elif own in found and isinstance(module, nn.ModuleList):  # experts, one by one
            found[own] += [f"{name}.{expert}" for expert in range(len(module))]
        elif is_fused(module):
            for target in found.keys() & set(FFN["mixtral"]):
                experts = range(len(getattr(module, target)))
                found[target] += [f"{name}.{target}.{expert}" for expert in experts]
    for target, names in found.items():
        if not names:
            raise UserError(
                f"healing.targets: '{target}' matches no FFN module of '{family}'; "
                f"{_possible(stack)}"
            )
    return [name for names in found.values() for name in names]


def _all_linear(stack: nn.ModuleList, prefix: str) -> list[str]:
    found: list[str] = []
    for name, module in stack.named_modules(prefix=prefix):
        if isinstance(module, nn.Linear | Conv1D):
            found.append(name)
        elif is_fused(module):
            found += [
                f"{name}.{target}.{expert}"
                for target in FFN["mixtral"]
                for expert in range(len(getattr(module, target)))
            ]
    return found


def _outside_attention(stack: nn.ModuleList, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, module in stack.named_modules(prefix=prefix):
        if "attn" not in name and "attention" not in name:
            yield name, module


def _possible(stack: nn.ModuleList) -> str:
    """How such a model can be healed, or not: which modules may be named as those of its FFN."""
    found: list[str] = []
    for name, module in _outside_attention(stack, ""):
        if isinstance(module, nn.Linear | Conv1D):
            found.append(name.rpartition(".")[2])
        elif is_fused(module):
            found += FFN["mixtral"]
    names = [name for name in dict.fromkeys(found) if not name.isdigit()]
    other = "a recipe without adapters, or healing: none"
    if not names:
        return (
            "outside attention it has no linear modules, which adapters go on, but tensors of its "
            f"own layout; take {other}"
        )
    return (
        "name them in the study's healing.targets (outside attention its linear modules are "
        f"{', '.join(names)}), or take {other}"
    )


def linear_weight(model: nn.Module, name: str) -> torch.Tensor:
    """The weight [out, in] of a linear map named as in `adapter_modules`: a view, whatever form the
    family keeps it in, so that copying into it changes the model."""
    parent, _, own = name.rpartition(".")
    if own.isdigit():
        module, _, attribute = parent.rpartition(".")
        experts = getattr(model.get_submodule(module), attribute)
        if isinstance(experts, nn.Parameter):
            return experts[int(own)]
    module = model.get_submodule(name)
    return module.weight.T if isinstance(module, Conv1D) else module.weight


def longest_alike(config: PretrainedConfig) -> int | None:
    """Up to how many tokens a text's positions are turned alike whatever its length, so that it may
    be batched with others and continue from a shared prefix; None: always.

    Beyond it "dynamic" and "longrope" rotary embeddings, and Qwen's of version 1, depend on the
    longest text of a batch."""
    config = config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        return rope.get("original_max_position_embeddings") or config.max_position_embeddings
    if getattr(config, "use_dynamic_ntk", False):
        return config.seq_length
    return None
