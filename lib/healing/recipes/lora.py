"""LoRA adapters on the FFN of a base that keeps the study's number format."""

from typing import TYPE_CHECKING, Literal

from lib.healing.adapted import Adapted
from lib.open_sets import Adapters, Healing
from lib.schema import Study

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from lib.models.shapes import Shape


class Settings(Adapters):
    recipe: Literal["lora"] = "lora"


class Recipe(Adapted):
    METHOD = 2

    def base(self, study: Study) -> "PreTrainedModel":
        from lib.healing.adapters import split_experts
        from lib.models.checkpoints import load_model

        return split_experts(load_model(study))

    def bytes(
        self, shape: "Shape", healing: Healing, dtype: "torch.dtype", in_4bit: bool
    ) -> tuple[float, float]:
        base = dtype.itemsize * shape.total
        return base + 16 * self.trainable(shape, healing), 4 * shape.total
