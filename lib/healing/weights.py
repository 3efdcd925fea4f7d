"""What recipes share that train weights of the model itself, in float32: in 16 bits small steps
would vanish. Imports torch and safetensors inside functions."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from lib.healing import recipe
from lib.schema import Healing, Study

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

FILE = "model.safetensors"


class Weights(recipe.Recipe):
    """Keeps what was trained as tensors by their names in the pruned model."""

    def keep(self, trained: "nn.Module", folder: Path) -> None:
        from safetensors.torch import save_file

        found = {name: weight.contiguous() for name, weight in _trained(trained).items()}
        save_file(found, folder / FILE)

    def restore(
        self, base: "PreTrainedModel", healing: Healing, dropped: Collection[int], folder: Path
    ) -> "nn.Module":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        model = self.prepare(base, healing, dropped)
        try:
            found = load_file(folder / FILE)
        except (FileNotFoundError, SafetensorError) as error:
            raise recipe.Damaged(f"{folder / FILE}: {error}") from None
        expected = _trained(model)
        if {name: weight.shape for name, weight in found.items()} != {
            name: weight.shape for name, weight in expected.items()
        }:
            raise recipe.Damaged(f"{folder / FILE}: its tensors are not those that were trained")
        for name, weight in expected.items():
            weight.data.copy_(found[name])
        return model

    def evaluable(
        self, trained: "nn.Module", study: Study, dropped: Collection[int], plain: bool = False
    ) -> "PreTrainedModel":
        from accelerate.utils import extract_model_from_parallel

        # In 16 bits the Trainer leaves its autocast around the model, which a restored one lacks.
        plain_model = extract_model_from_parallel(trained, keep_fp32_wrapper=False)
        return plain_model.eval().requires_grad_(False).float()


def _trained(model: "nn.Module") -> dict[str, "nn.Parameter"]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
