"""What recipes share that train weights of the model itself, in float32: in 16 bits small steps
would vanish. Imports torch and safetensors inside functions."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from lib.errors import UserError
from lib.healing import recipe
from lib.open_sets import Healing
from lib.schema import Study

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

FILE = "model.safetensors"


class Weights(recipe.Recipe):
    """Keeps what was trained as tensors by their names in the pruned model."""

    def keep(self, trained: "nn.Module", folder: Path) -> None:
        write(trained, folder)

    def restore(
        self, base: "PreTrainedModel", healing: Healing, dropped: Collection[int], folder: Path
    ) -> "nn.Module":
        model = self.prepare(base, healing, dropped)
        read(model, folder)
        return model

    def evaluable(
        self, trained: "nn.Module", study: Study, dropped: Collection[int], plain: bool = False
    ) -> "PreTrainedModel":
        from accelerate.utils import extract_model_from_parallel

        # In 16 bits the Trainer leaves its autocast around the model, which a restored one lacks.
        plain_model = extract_model_from_parallel(trained, keep_fp32_wrapper=False)
        return plain_model.eval().requires_grad_(False).float()

    def check(self, study: Study, skeleton: "PreTrainedModel", healing: Healing) -> None:
        if getattr(skeleton.config, "quantization_config", None):
            raise UserError(
                f"study {study.name}: healing.recipe {healing.recipe} trains weights, and those "
                f"of {study.model} are quantised; take a recipe with adapters"
            )


def write(model: "nn.Module", folder: Path) -> None:
    """The weights that are trained, by their names."""
    from safetensors.torch import save_file

    found = {
        name: weight.detach().contiguous()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    save_file(found, folder / FILE)


def read(model: "nn.Module", folder: Path) -> None:
    """What `write` wrote, into the model. A weight may go by any of its names, and buffers may
    stand beside it, as in folders that were kept earlier.

    Raises Damaged unless it is all that is trained of this model, and nothing else."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(folder / FILE)
    except (FileNotFoundError, SafetensorError) as error:
        raise recipe.Damaged(f"{folder / FILE}: {error}") from None
    named = dict(model.named_parameters(remove_duplicate=False))
    trained = {id(weight) for weight in model.parameters() if weight.requires_grad}
    given = {name: found[name] for name in found.keys() - dict(model.named_buffers()).keys()}
    fits = all(name in named and named[name].shape == value.shape for name, value in given.items())
    if not fits or {id(named[name]) for name in given} != trained:
        raise recipe.Damaged(f"{folder / FILE}: its tensors are not those that were trained")
    with torch.no_grad():
        for name, value in given.items():
            named[name].copy_(value)
