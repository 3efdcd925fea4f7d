"""LoRA adapters on the FFN of a frozen base in 4-bit NF4: the first paper's own recipe (App. A.1 of
Gromov et al.)."""

from typing import TYPE_CHECKING, Any, Literal

from lib.healing.adapted import Adapted
from lib.open_sets import Adapters, Healing
from lib.schema import Study

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from lib.models.shapes import Shape


class Settings(Adapters):
    recipe: Literal["qlora"] = "qlora"


class Recipe(Adapted):
    METHOD = 2
    needs_4bit = True

    def base(self, study: Study) -> "PreTrainedModel":
        from lib.models.four_bit import load_4bit

        return load_4bit(study)

    def inputs(self, healing: Healing) -> dict[str, Any]:
        found = super().inputs(healing)
        del found["recipe"]  # what is recorded without one was trained so
        return found

    def bytes(
        self, shape: "Shape", healing: Healing, dtype: "torch.dtype", in_4bit: bool
    ) -> tuple[float, float]:
        from lib.models.shapes import NF4

        stacked, trained = sum(shape.by_layer), self.trainable(shape, healing)
        base = NF4 * stacked + dtype.itemsize * (shape.total - stacked)
        return base + 16 * trained, base + 4 * trained if in_4bit else 4 * shape.total
