"""What a model's configuration says of its size, without its weights."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from torch import nn
from transformers import PretrainedConfig

from lib.errors import UserError
from lib.models import anatomy, checkpoints
from lib.models.tied import is_tied
from lib.open_sets import Targets
from lib.schema import Study

NF4 = 0.5 + 4 / 64  # bytes per weight: four bits, and a float32 scale for every 64


@dataclass(frozen=True)
class Shape:
    """Parameters of a model, counted without weights. targets: as of `anatomy.adapter_modules`."""

    config: PretrainedConfig
    total: int
    by_layer: tuple[int, ...]
    targets: Targets = None

    @cached_property
    def head(self) -> int:
        """Of the output head; where it is the embeddings these."""
        return _count(anatomy.skeleton(self.config).get_output_embeddings())

    @property
    def head_in_layers(self) -> float:
        """How many layers take as long for a token as the head does."""
        return self.head * self.n_layers / sum(self.by_layer)

    @cached_property
    def final_norm(self) -> int:
        """Of the norm between the last layer and the head; 0: there is none."""
        return _count(anatomy.final_norm(anatomy.skeleton(self.config)))

    @cached_property
    def tied(self) -> bool:
        """Whether the output head is the embeddings."""
        return is_tied(anatomy.skeleton(self.config))

    @cached_property
    def adapted(self) -> list[list[tuple[int, int]]]:
        """By layer (out, in) of each matrix that adapters go on.

        Raises UserError for a family of which these are not known, and for targets that match
        nothing: only healing with adapters has to ask."""
        model = anatomy.skeleton(self.config)
        stack, prefix = anatomy.layers_and_name(model)
        found: list[list[tuple[int, int]]] = [[] for _ in stack]
        for name in anatomy.adapter_modules(model, self.targets):
            number = int(name.removeprefix(f"{prefix}.").partition(".")[0])
            rows, columns = anatomy.linear_weight(model, name).shape
            found[number].append((rows, columns))
        return found

    @property
    def n_layers(self) -> int:
        return len(self.by_layer)

    def pruned(self, dropped: Collection[int]) -> int:
        """Parameters without some layers."""
        return self.total - sum(self.by_layer[i] for i in dropped)

    def trainable(self, rank: int, dropped: Collection[int] = ()) -> int:
        """Parameters of LoRA adapters: rank · (in + out) for every adapted matrix that stays."""
        kept = [sizes for i, sizes in enumerate(self.adapted) if i not in dropped]
        return sum(rank * (a + b) for sizes in kept for a, b in sizes)


def planned_config(study: Study) -> tuple[PretrainedConfig, bool]:
    """The model's configuration, and whether it is the checkpoint's own; else what the study's
    `shape` says.

    Raises UserError when neither is there, when the two contradict each other, and for a damaged
    local checkpoint."""
    try:
        config = checkpoints.load_config(study.model_copy(update={"shape": None}))
    except UserError:
        if study.shape is None or study.model_is_local:
            raise
        return checkpoints.config_of_shape(study), False
    checkpoints.check_shape(study, config)
    return config, True


def shape_of(config: PretrainedConfig, targets: Targets = None) -> Shape:
    return Shape(config, *anatomy.sizes(config), targets)


def _count(module: nn.Module | None) -> int:
    return sum(weight.numel() for weight in module.parameters()) if module else 0
