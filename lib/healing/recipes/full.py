"""All weights are trained, in float32: small steps would vanish in 16 bits."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lib.healing import recipe
from lib.schema import Healing, Study

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from lib.models.shapes import Shape

WEIGHTS = "model.safetensors"


class Settings(Healing):
    TEACHABLE = False
    recipe: Literal["full"] = "full"


class Recipe(recipe.Recipe):
    METHOD = 3

    def base(self, study: Study) -> "PreTrainedModel":
        import torch

        from lib.models.checkpoints import load_model

        return load_model(study, weights=torch.float32)

    def prepare(self, model: "PreTrainedModel", healing: Healing) -> "nn.Module":
        from lib.healing.adapters import checkpoint_gradients

        if healing.gradient_checkpointing:
            checkpoint_gradients(model)
        return model.train()

    def keep(self, trained: "nn.Module", folder: Path) -> None:
        from safetensors.torch import save_model

        save_model(trained, str(folder / WEIGHTS))

    def restore(self, base: "PreTrainedModel", healing: Healing, folder: Path) -> "nn.Module":
        from safetensors import SafetensorError
        from safetensors.torch import load_model

        try:
            missing, unexpected = load_model(base, folder / WEIGHTS, strict=False)
        except (FileNotFoundError, SafetensorError) as error:
            raise recipe.Damaged(f"{folder / WEIGHTS}: {error}") from None
        if missing or unexpected:
            raise recipe.Damaged(f"{folder / WEIGHTS}: its tensors are not those of the model")
        return base

    def evaluable(
        self, trained: "nn.Module", study: Study, dropped: Collection[int], plain: bool = False
    ) -> "PreTrainedModel":
        from accelerate.utils import extract_model_from_parallel

        # In 16 bits the Trainer leaves its autocast around the model, which a restored one lacks.
        plain_model = extract_model_from_parallel(trained, keep_fp32_wrapper=False)
        return plain_model.eval().requires_grad_(False)

    def trainable(self, shape: "Shape", healing: Healing, dropped: Collection[int] = ()) -> int:
        return shape.pruned(dropped)

    def bytes(
        self, shape: "Shape", healing: Healing, dtype: "torch.dtype", in_4bit: bool
    ) -> tuple[float, float]:
        return 16 * shape.total, 4 * shape.total  # value, gradient, two moments

    def words(self, healing: Healing) -> str:
        return "all weights"
