"""What recipes with LoRA adapters share. Imports torch and peft inside functions."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.errors import UserError
from lib.healing import recipe
from lib.open_sets import ALL_LINEAR, Adapters
from lib.schema import Study

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from lib.models.shapes import Shape


class Adapted(recipe.Recipe):
    """A frozen base with adapters on linear modules of its layers."""

    def prepare(
        self, model: "PreTrainedModel", healing: Adapters, dropped: Collection[int]
    ) -> "nn.Module":
        from lib.healing.adapters import adapt

        return adapt(model, healing, self.needs_4bit)

    def keep(self, trained: "nn.Module", folder: Path) -> None:
        """The adapters, in peft's format."""
        trained.save_pretrained(folder)

    def restore(
        self, base: "PreTrainedModel", healing: Adapters, dropped: Collection[int], folder: Path
    ) -> "nn.Module":
        from lib.healing.adapters import restored

        return restored(self.prepare(base, healing, dropped), folder)

    def evaluable(
        self, trained: "nn.Module", study: Study, dropped: Collection[int], plain: bool = False
    ) -> "PreTrainedModel":
        from lib.healing.adapters import evaluable, written_out

        model = trained.get_base_model()
        return (written_out if plain else evaluable)(model, study, dropped)

    def check(self, study: Study, skeleton: "PreTrainedModel", healing: Adapters) -> None:
        from lib.models.anatomy import adapter_modules, linear_weight

        names = adapter_modules(skeleton, healing.targets)
        widest = min(min(linear_weight(skeleton, name).shape) for name in names)
        if healing.rank > widest:
            raise UserError(
                f"study {study.name}: rank {healing.rank} is above the narrowest width of an "
                f"adapted module, {widest}"
            )

    def inputs(self, healing: Adapters) -> dict[str, Any]:
        found = super().inputs(healing)
        if found["alpha"] in (None, healing.rank):  # what is recorded without one was trained so
            del found["alpha"]
        return found

    def trainable(self, shape: "Shape", healing: Adapters, dropped: Collection[int] = ()) -> int:
        """rank · (in + out) for every adapted matrix that stays."""
        return shape.trainable(healing.rank, dropped)

    def words(self, healing: Adapters) -> str:
        where = "all linear maps" if healing.targets == ALL_LINEAR else "the FFN"
        return f"adapters of rank {healing.rank}, α = {healing.alpha or healing.rank}, on {where}"
