"""The output head, the final norm and some whole layers are trained, in float32; all else is frozen
(§4.2 of Lu et al., whose code trains the norm with the head)."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from lib.errors import UserError
from lib.healing.recipe import Backward
from lib.healing.weights import Weights
from lib.open_sets import Healing
from lib.pruning.dropped import kept_layers
from lib.schema import Study

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from lib.models.shapes import Shape


class Settings(Healing):
    """layers: how many of the pruned model's are trained; at: its last, its first, or those nearest
    to where layers were dropped. A head that is the embeddings becomes a copy of its own."""

    TEACHABLE = False

    recipe: Literal["partial"] = "partial"
    head: bool = True
    norm: bool = True
    layers: int = Field(default=3, ge=0)
    at: Literal["last", "first", "cut"] = "last"

    @model_validator(mode="after")
    def something(self) -> "Settings":
        if not (self.head or self.norm or self.layers):
            raise ValueError("nothing is trained: no head, no norm and no layers")
        return self

    @property
    def label(self) -> str:
        parts = ["head"] * self.head + ["norm"] * self.norm
        return "-".join(["partial", *parts, *([f"{self.at}{self.layers}"] if self.layers else [])])


class Recipe(Weights):
    def base(self, study: Study) -> "PreTrainedModel":
        from lib.models.checkpoints import load_model

        return load_model(study)

    def prepare(
        self, model: "PreTrainedModel", healing: Settings, dropped: Collection[int]
    ) -> "nn.Module":
        from lib.healing.adapters import checkpoint_gradients
        from lib.models import anatomy, tied

        stack = anatomy.layers(model)
        places = trained_layers(healing, dropped, len(stack) + len(dropped))
        if healing.head:
            tied.give_own_head(model)
        if healing.gradient_checkpointing:
            checkpoint_gradients(model)
        model.train().requires_grad_(False)
        parts = [stack[place] for place in places]
        parts += [model.get_output_embeddings()] if healing.head else []
        norm = anatomy.final_norm(model) if healing.norm else None
        for part in (*parts, *([norm] if norm else [])):
            part.float().requires_grad_(True)
        return model

    def check(self, study: Study, skeleton: "PreTrainedModel", healing: Settings) -> None:
        from lib.models.anatomy import final_norm, layers
        from lib.pruning.dropped import layers_to_drop

        super().check(study, skeleton, healing)
        if not (healing.head or healing.layers) and final_norm(skeleton) is None:
            raise UserError(
                f"study {study.name}: healing.norm: {study.model} has no final norm, so nothing "
                "would be trained"
            )
        n_layers = len(layers(skeleton))
        own = healing == study.healing and study.healing_seeds.seeds
        for fraction in (*healing.fractions, *(study.healing_seeds.fractions if own else ())):
            kept = n_layers - layers_to_drop(fraction, n_layers)
            if healing.layers > kept:
                raise UserError(
                    f"study {study.name}: healing.layers {healing.layers}: of {n_layers} layers "
                    f"only {kept} stay where {fraction:g} are dropped"
                )

    def plainly(self, healing: Settings, dropped: Collection[int], n_layers: int) -> Settings:
        last = healing.model_copy(update={"at": "last"})
        found = (trained_layers(one, dropped, n_layers) for one in (healing, last))
        return last if next(found) == next(found) else healing

    def trainable(self, shape: "Shape", healing: Settings, dropped: Collection[int] = ()) -> int:
        ends = healing.head * shape.head + healing.norm * shape.final_norm
        trained = self.reached(healing, dropped, shape.n_layers)
        return ends + sum(shape.by_layer[layer] for layer in trained)

    def reached(self, healing: Settings, dropped: Collection[int], n_layers: int) -> list[int]:
        kept = kept_layers(dropped, n_layers)
        return [kept[place] for place in trained_layers(healing, dropped, n_layers)]

    def added(self, shape: "Shape", healing: Settings) -> int:
        return shape.head if healing.head and shape.tied else 0

    def backward(self, healing: Settings, dropped: Collection[int], n_layers: int) -> Backward:
        """Below the lowest layer that is trained nothing goes back."""
        places = trained_layers(healing, dropped, n_layers)
        reached = n_layers - len(dropped) - min(places) if places else 0
        return Backward(reached, len(places), healing.head + bool(healing.norm or places))

    def bytes(
        self, shape: "Shape", healing: Settings, dtype: "torch.dtype", in_4bit: bool
    ) -> tuple[float, float]:
        trained = self.trainable(shape, healing)
        whole = shape.total + self.added(shape, healing)
        return dtype.itemsize * (whole - trained) + 16 * trained, 4 * whole

    def words(self, healing: Settings) -> str:
        where = {"last": "the last {}", "first": "the first {}", "cut": "the {} nearest the cut"}
        parts = ["the head"] * healing.head + ["the final norm"] * healing.norm
        if healing.layers:
            layers = f"{healing.layers} layers" if healing.layers > 1 else "layer"
            parts.append(where[healing.at].format(layers))
        return ", ".join(parts)


def trained_layers(healing: Settings, dropped: Collection[int], n_layers: int) -> list[int]:
    """Which layers of the pruned model are trained, by their numbers in it. n_layers: of the whole
    one. Of layers equally near a cut those behind one come first, then the deeper. A model that
    lacks none has no cut; there they are the last.

    Raises UserError where fewer stay."""
    kept = kept_layers(dropped, n_layers)
    if healing.layers > len(kept):
        raise UserError(f"healing.layers {healing.layers}: only {len(kept)} layers stay")
    places = range(len(kept))
    if healing.at == "first":
        return [*places[: healing.layers]]
    # A cut lies before the layer of this number in the pruned model.
    ends = [-1, *kept, n_layers]
    cuts = [i for i in range(len(kept) + 1) if ends[i + 1] - ends[i] > 1]
    if healing.at == "last" or not cuts:
        return [*places[len(kept) - healing.layers :]]

    def order(place: int) -> tuple[int, bool, int]:
        apart = ((place - cut, False) if place >= cut else (cut - 1 - place, True) for cut in cuts)
        return (*min(apart), -place)

    return sorted(sorted(places, key=order)[: healing.layers])
