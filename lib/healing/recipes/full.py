"""All weights are trained, in float32."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from lib.healing.recipe import Backward
from lib.healing.weights import Weights
from lib.open_sets import Healing
from lib.schema import Study

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from lib.models.shapes import Shape


class Settings(Healing):
    TEACHABLE = False
    recipe: Literal["full"] = "full"


class Recipe(Weights):
    METHOD = 3

    def base(self, study: Study) -> "PreTrainedModel":
        import torch

        from lib.models.checkpoints import load_model

        return load_model(study, weights=torch.float32)

    def prepare(
        self, model: "PreTrainedModel", healing: Healing, dropped: Collection[int]
    ) -> "nn.Module":
        from lib.healing.adapters import checkpoint_gradients

        if healing.gradient_checkpointing:
            checkpoint_gradients(model)
        return model.train().requires_grad_(True)

    def trainable(self, shape: "Shape", healing: Healing, dropped: Collection[int] = ()) -> int:
        return shape.pruned(dropped)

    def backward(self, healing: Healing, dropped: Collection[int], n_layers: int) -> Backward:
        kept = n_layers - len(dropped)
        return Backward(kept, kept, 2)

    def bytes(
        self, shape: "Shape", healing: Healing, dtype: "torch.dtype", in_4bit: bool
    ) -> tuple[float, float]:
        return 16 * shape.total, 4 * shape.total  # value, gradient, two moments

    def words(self, healing: Healing) -> str:
        return "all weights"
