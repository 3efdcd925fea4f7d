"""Output heads that a configuration calls the embeddings, while the checkpoint has both.

transformers loads such tensors as they are, each for itself. But whatever library calls
`tie_weights()` later makes one of the two, because the configuration says so, and every number
depends on what was called before. So the configuration is put right as soon as tensors are read.

And heads that are the embeddings, but are to be trained without them.
"""

import os

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from lib.models.anatomy import skeleton
from lib.models.shards import BUFFER, Shard, Tensor


def keep_apart(model: PreTrainedModel) -> None:
    """Have a loaded model's configuration say that its head is no copy, where it is none."""
    pairs = model.get_expanded_tied_weights_keys(all_submodels=True).items()
    found = [map(model.get_parameter_or_buffer, pair) for pair in pairs]
    if any(head is not source for head, source in found):
        untie(model.config)
        for part in model.modules():
            if isinstance(part, PreTrainedModel):
                untie(part.config)


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output head is the embeddings."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def give_own_head(model: PreTrainedModel) -> None:
    """A copy of the embeddings in their place as head, in place. The configuration says so, and a
    checkpoint that is written now has both."""
    if is_tied(model):
        head = model.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.detach().clone())
        keep_apart(model)


def untie(config: PretrainedConfig) -> None:
    config.tie_word_embeddings = False
    config.get_text_config().tie_word_embeddings = False


def own_head(config: PretrainedConfig, shards: list[Shard]) -> str | None:
    """The name of a tensor that the configuration says is another one, in a checkpoint that has
    both, with other values; None: there is none."""
    for pair in skeleton(config).get_expanded_tied_weights_keys(all_submodels=True).items():
        head, source = (_named_like(name, shards) for name in pair)
        if head and source and _differ(head, source):
            return head[1].name
    return None


def _named_like(name: str, shards: list[Shard]) -> tuple[Shard, Tensor] | None:
    """The one tensor whose name ends alike: what stands before is not the same in all files."""
    end = name.split(".")[-2:]
    found = [(one, t) for one in shards for t in one.tensors if t.name.split(".")[-2:] == end]
    return found[0] if len(found) == 1 else None


def _differ(*both: tuple[Shard, Tensor]) -> bool:
    (_, one), (_, other) = both
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False  # another number format says nothing about the values
    with open(both[0][0].path, "rb") as first, open(both[1][0].path, "rb") as second:
        for done in range(0, one.size, BUFFER):
            count = min(BUFFER, one.size - done)
            parts = [
                os.pread(file.fileno(), count, tensor.start + done)
                for file, tensor in ((first, one), (second, other))
            ]
            if parts[0] != parts[1]:
                return True
    return False
