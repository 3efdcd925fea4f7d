"""Dropping layers of a model in memory, and writing what is left as a checkpoint.

with pruned(model, simple(n=8, n_layers=32)):
    ...                     # model runs without layers 23–30; afterwards it is whole again
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lib.blocks import Block
from lib.errors import UserError
from lib.models import layers_and_name


def drop(model: PreTrainedModel, block: Block) -> Callable[[], None]:
    """Take the block's layers out of the model, in place; returns what puts them back.

    Renumbers `layer_idx` (the key-value cache is indexed by it) and slices every per-layer list
    of the config by kept index."""
    stack, name = layers_and_name(model)
    block.check(len(stack))
    kept = block.kept(len(stack))
    parent = model.get_submodule(name.rpartition(".")[0])
    attribute = name.rpartition(".")[2]
    config = model.config.get_text_config()
    whole_config = copy.deepcopy(config.__dict__)
    numbers = [
        (module, module.layer_idx)
        for layer in stack
        for module in layer.modules()
        if hasattr(module, "layer_idx")
    ]
    for new, old in enumerate(kept):
        for module in stack[old].modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = new
    setattr(parent, attribute, nn.ModuleList(stack[old] for old in kept))
    _slice_config(config, kept, len(stack))

    def restore() -> None:
        setattr(parent, attribute, stack)
        for module, number in numbers:
            module.layer_idx = number
        config.__dict__.clear()
        config.__dict__.update(whole_config)

    return restore


@contextmanager
def pruned(model: PreTrainedModel, block: Block) -> Iterator[PreTrainedModel]:
    """The model without the block's layers, inside `with`; exactly as before afterwards."""
    restore = drop(model, block)
    try:
        yield model
    finally:
        restore()


def _slice_config(config: PretrainedConfig, kept: list[int], n_layers: int) -> None:
    """num_hidden_layers, and every list with one entry per layer, by kept index."""
    for key, value in list(config.__dict__.items()):
        if "layer" in key and isinstance(value, list | tuple) and len(value) == n_layers:
            setattr(config, key, type(value)(value[i] for i in kept))
    config.num_hidden_layers = len(kept)


def save_pruned(
    model: PreTrainedModel, block: Block, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Write the pruned model as an ordinary checkpoint that `from_pretrained` loads.

    Raises UserError when the folder is not empty."""
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"folder {folder}: not empty; nothing is overwritten")
    with pruned(model, block):
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
