"""Dropping layers of a model in memory, and writing what is left as a checkpoint.

with pruned(model, simple(n=8, n_layers=32)):
    ...                     # model runs without layers 23–30; afterwards it is whole again

A layer keeps its weights wherever it stands, but what it computes also follows from the
configuration: which attention it uses, whether its positions are rotated, how wide it is. Every
drop is therefore proven first (`slice_config`): the whole model and the pruned one are built from
their configurations, without weights, and each kept layer has to be the same in both.
"""

import copy
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lib.errors import UserError
from lib.files import free_place, whole_or_not_at_all
from lib.models.anatomy import layers_and_name, skeleton
from lib.pruning.dropped import Dropped, in_words

Facts = dict[str, Any]  # "mlp.class" → "LlamaMLP", "self_attn.is_sliding" → True, …
# Attributes outside the layers that only list which kinds of attention the layers use.
SUMMARIES = {"has_sliding_layers", "layer_types"}


def without(layers: nn.ModuleList, dropped: Collection[int]) -> nn.ModuleList:
    """The layers that stay, in order, each told its new number."""
    kept = [layer for old, layer in enumerate(layers) if old not in dropped]
    for new, layer in enumerate(kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = new  # the key-value cache is indexed by it
    return nn.ModuleList(kept)


class Cut:
    """A model from which layers have been taken, in place, and what it takes to put them back.

    Renumbers the layers that stay (`without`) and slices the config.

    Raises UserError, the model untouched, for layers that cannot be dropped or a family that
    cannot be pruned correctly (see `slice_config`)."""

    def __init__(self, model: PreTrainedModel, dropped: Collection[int]) -> None:
        whole, name = layers_and_name(model)
        kept = Dropped(dropped).check(len(whole)).kept(len(whole))
        parent, _, self._attribute = name.rpartition(".")
        self._parent = model.get_submodule(parent)
        self._config = model.config.get_text_config()
        self._layers, self._settings = whole, dict(vars(self._config))
        slice_config(model.config, kept)  # replaces values, and changes none of them
        self._numbers = [
            (module, module.layer_idx)
            for layer in whole
            for module in layer.modules()
            if hasattr(module, "layer_idx")
        ]
        setattr(self._parent, self._attribute, without(whole, dropped))

    def turn(self) -> None:
        """Make the pruned model whole again, or the whole one pruned."""
        layers = getattr(self._parent, self._attribute)
        setattr(self._parent, self._attribute, self._layers)
        numbers = [(module, module.layer_idx) for module, _ in self._numbers]
        for module, number in self._numbers:
            module.layer_idx = number
        settings = dict(vars(self._config))
        vars(self._config).clear()
        vars(self._config).update(self._settings)
        self._layers, self._numbers, self._settings = layers, numbers, settings


def drop(model: PreTrainedModel, dropped: Collection[int]) -> Callable[[], None]:
    """Take layers out of the model, in place; returns what puts them back. Raises as `Cut`."""
    return Cut(model, dropped).turn


@contextmanager
def pruned(model: PreTrainedModel, dropped: Collection[int]) -> Iterator[PreTrainedModel]:
    """The model without some of its layers, inside `with`; exactly as before afterwards."""
    restore = drop(model, dropped)
    try:
        yield model
    finally:
        restore()


def save_pruned(
    model: PreTrainedModel,
    dropped: Collection[int],
    tokenizer: PreTrainedTokenizerBase | None,
    folder: Path,
) -> None:
    """Write the pruned model as an ordinary checkpoint that `from_pretrained` loads, with the
    tokenizer if there is one; killed, this leaves nothing that loads.

    Raises UserError when the folder is not empty, and for a quantised model, whose settings name
    modules by layer."""
    from lib.models.checkpoints import save_tokenizer  # taking layers out in memory needs no study

    if getattr(model.config, "quantization_config", None):
        raise UserError(
            "a quantised model: prune its checkpoint on disk, with python -m lib.pruning"
        )
    with whole_or_not_at_all(free_place(folder)) as unfinished:
        with pruned(model, dropped):
            model.save_pretrained(unfinished)
        if tokenizer is not None:
            save_tokenizer(tokenizer, unfinished)


def slice_config(config: PretrainedConfig, kept: list[int]) -> None:
    """Make the config that of the model with only the kept layers, in place: num_hidden_layers,
    and every list with one entry per layer by kept index, also inside `text_config`.

    Raises UserError, the config untouched, when that does not describe the pruned model: then
    some layer is of another kind, shape or number at its new place (kinds listed by layer number,
    boundaries such as `first_k_dense_replace`, attention scaled by depth), layers share weights or
    key-value states, or something outside the layers depends on their count."""
    sliced = copy.deepcopy(config)
    _slice_lists(sliced.get_text_config(), kept)
    if kept != list(range(config.get_text_config().num_hidden_layers)):
        _prove(config, sliced, kept)
    _slice_lists(config.get_text_config(), kept)


def _slice_lists(config: PretrainedConfig, kept: list[int]) -> None:
    n_layers = config.num_hidden_layers
    for key, value in list(vars(config).items()):
        per_layer = isinstance(value, list | tuple) and len(value) == n_layers
        if not per_layer or "token" in key or key == "architectures":
            continue
        # A list of all layers by their numbers says the same of all that stay.
        listed = list(value) == list(range(n_layers))
        new = range(len(kept)) if listed else (value[old] for old in kept)
        setattr(config, key, type(value)(new))
    config.num_hidden_layers = len(kept)
    if getattr(config, "num_nextn_predict_layers", None):
        config.num_nextn_predict_layers = 0  # those behind the last layer are not loaded, or saved


def _prove(whole: PretrainedConfig, sliced: PretrainedConfig, kept: list[int]) -> None:
    """Raises UserError unless a model built from the sliced config has the kept layers."""
    n_layers = whole.get_text_config().num_hidden_layers
    dropped = set(range(n_layers)) - set(kept)
    refusal = f"model {whole.model_type}: cannot {in_words(dropped, n_layers)}"
    if whole.is_encoder_decoder:
        raise UserError(f"{refusal}: it is an encoder-decoder")
    if whole.get_text_config().is_heterogeneous:
        raise UserError(f"{refusal}: its config overrides settings by layer number")
    try:
        whole_outside, whole_layers = _built(type(whole), _written(whole))
        written = _written(sliced)
        reread = _written(_read(type(sliced), written))
        outside, layers = _built(type(sliced), written)
    except UserError:
        raise
    except Exception as error:  # validators and constructors raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{refusal}: its config does not allow it: {reason}") from None
    if difference := _difference(json.loads(written), json.loads(reread)):
        raise UserError(f"{refusal}: loaded again, the config's {difference}")
    if difference := _difference(*_outside(whole_outside, outside)):
        raise UserError(f"{refusal}: it depends on the number of layers: {difference}")
    for new, old in enumerate(kept):
        if difference := _difference(
            _renumbered(whole_layers[old], old), _renumbered(layers[new], new)
        ):
            raise UserError(f"{refusal}: layer {old} would differ: {difference}")


def _written(config: PretrainedConfig) -> str:
    """The config as `config.json` holds it."""
    settings = json.loads(config.to_json_string(use_diff=False))
    settings.pop("quantization_config", None)  # of the weights, not of the layers
    return json.dumps(settings, sort_keys=True)


def _read(config_class: type[PretrainedConfig], written: str) -> PretrainedConfig:
    """A config from what `_written` made of it: infinity, say, has a spelling of its own there."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(written, encoding="utf-8")
        return config_class.from_json_file(path)


@lru_cache(maxsize=32)
def _built(config_class: type[PretrainedConfig], written: str) -> tuple[Facts, list[Facts]]:
    """What a model built from a config consists of: outside its layers, and layer by layer.

    Raises UserError when layers share weights."""
    model = skeleton(_read(config_class, written))
    stack, name = layers_and_name(model)
    owner: dict[int, int] = {}
    for number, layer in enumerate(stack):
        for parameter in layer.parameters():
            if owner.setdefault(id(parameter), number) != number:
                raise UserError(
                    f"model {model.config.model_type}: layers {owner[id(parameter)]} and {number} "
                    "share weights; layers of such a model cannot be dropped"
                )
    outside = {key: value for key, value in _facts(model).items() if not key.startswith(name + ".")}
    return outside, [_facts(layer) for layer in stack]


def _facts(module: nn.Module) -> Facts:
    """Classes of all modules, shapes of their tensors (no values: there are none on the meta
    device), and their plain attributes, by full name."""
    found: Facts = {}
    for name, part in module.named_modules():
        prefix = f"{name}." if name else ""
        found[f"{prefix}class"] = type(part).__name__
        stored = part.state_dict().keys()
        tensors = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        found |= {
            f"{prefix}{key}": f"{'weight' if key in stored else 'buffer'} {list(tensor.shape)}"
            for key, tensor in tensors
        }
        found |= {
            f"{prefix}{key}": value
            for key, value in vars(part).items()
            if not key.startswith("_") and _is_plain(value)
        }
    return found


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _outside(whole: Facts, pruned: Facts) -> tuple[Facts, Facts]:
    """The facts outside the layers that have to be equal. Where a kind of attention is gone with
    its last layer, its rotary frequencies may be gone too, but nothing that is stored."""

    def needed(key: str, value: object) -> bool:
        last = key.rpartition(".")[2]
        stored = last == "class" or str(value).startswith("weight ")
        return last not in SUMMARIES and (key in pruned or stored)

    return tuple({k: v for k, v in facts.items() if needed(k, v)} for facts in (whole, pruned))


def _renumbered(facts: Facts, number: int) -> Facts:
    """The facts of a layer without its own number, which surgery sets anew."""
    return {
        key: "its own" if key.rpartition(".")[2] == "layer_idx" and value == number else value
        for key, value in facts.items()
    }


def _difference(whole: Facts, pruned: Facts) -> str | None:
    """The first thing in which two sets of facts differ, in words."""
    for key in sorted(whole.keys() | pruned.keys()):
        if whole.get(key) != pruned.get(key):
            return f"{key} is {whole.get(key)}, and {pruned.get(key)} without those layers"
    return None
