"""What a recipe of healing is: what the base is, what of it is trained, and how that is kept. Each
is one file in lib/healing/recipes/, a class `Recipe` derived from the one here and its `Settings`.

Such a file imports torch and peft inside functions: a study is read without them.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lib import open_sets
from lib.errors import UserError
from lib.open_sets import Healing
from lib.pruning.dropped import kept_layers
from lib.schema import Study

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from lib.models.shapes import Shape


class Damaged(Exception):
    """What healing kept cannot be used; the model has to be healed again."""


def check_tensorboard() -> None:
    """Raises UserError when its logs are asked for and the package is not installed."""
    if os.environ.get("TENSORBOARD_DIR") and not find_spec("tensorboard"):
        raise UserError("TENSORBOARD_DIR: needs `pip install tensorboard`")


def logged_steps(healing: Healing) -> list[int]:
    """The steps at which the training loss is reported: about twenty."""
    every = max(1, healing.steps // 20)
    return sorted({1, *range(every, healing.steps + 1, every)})


class Backward(NamedTuple):
    """What a token passes on the way back. layers: through which a gradient goes to what entered;
    own: of which the weights have gradients too; head: products of it, one for each of these."""

    layers: int
    own: int
    head: int


class Passes(NamedTuple):
    """Of a layer over a token of training: forward, and back to what entered. The head counts as so
    many layers. Its way back, and the gradients of a layer's own weights, are products of matrices
    like the way there, and count as forward."""

    forward: float
    back: float


class Recipe(ABC):
    """METHOD: raised when the code that computes healed weights changes them, that which all
    recipes share included. needs_4bit: whether the base is put in 4-bit NF4."""

    METHOD = 1
    needs_4bit = False

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def base(self, study: Study) -> "PreTrainedModel":
        """The unpruned model as it is trained, in this recipe's number format."""

    @abstractmethod
    def prepare(
        self, model: "PreTrainedModel", healing: Healing, dropped: Collection[int]
    ) -> "nn.Module":
        """The pruned model ready to train: what requires gradients is trained. dropped: the layers
        that it lacks.

        Raises UserError for settings that do not fit the model."""

    @abstractmethod
    def keep(self, trained: "nn.Module", folder: Path) -> None:
        """Write what was trained into an empty folder."""

    @abstractmethod
    def restore(
        self, base: "PreTrainedModel", healing: Healing, dropped: Collection[int], folder: Path
    ) -> "nn.Module":
        """What `keep` wrote, laid over a base that is pruned; as it was after training.

        Raises Damaged where a part of it is not there, or not of these settings."""

    @abstractmethod
    def evaluable(
        self, trained: "nn.Module", study: Study, dropped: Collection[int], plain: bool = False
    ) -> "PreTrainedModel":
        """A trained model ready to evaluate; plain: in float32 with everything merged, to be
        written as an ordinary checkpoint."""

    def check(  # noqa: B027  (most recipes have nothing to check)
        self, study: Study, skeleton: "PreTrainedModel", healing: Healing
    ) -> None:
        """Raises UserError where the settings do not fit a model, given without weights."""

    def inputs(self, healing: Healing) -> dict[str, Any]:
        """The settings that decide what is trained, as records of healing hold them."""
        # Fractions only say which blocks are healed, and checkpointing trades time for memory.
        # What data are called says nothing about what they hold.
        found = healing.model_dump(exclude={"fractions", "gradient_checkpointing", "data"})
        found["micro_batch"] = found["micro_batch"] or found["batch"]
        # What is recorded without these keys was trained so.
        defaults = {"packing": True, "teacher": 0.0, "distillation": 0.0, "epochs": 1}
        for key, value in defaults.items():
            if found[key] == value:
                del found[key]
        return found | {"method": self.METHOD}

    def plainly(self, healing: Healing, dropped: Collection[int], n_layers: int) -> Healing:
        """The same training, said in the one way that all settings share that train the same."""
        return healing

    @abstractmethod
    def trainable(self, shape: "Shape", healing: Healing, dropped: Collection[int] = ()) -> int:
        """Parameters that are trained."""

    def reached(self, healing: Healing, dropped: Collection[int], n_layers: int) -> list[int]:
        """The layers that training changes, by their numbers in the unpruned model; unless said,
        all that stay."""
        return kept_layers(dropped, n_layers)

    def added(self, shape: "Shape", healing: Healing) -> int:
        """Parameters that the healed model, everything merged, has beyond the pruned one."""
        return 0

    def backward(self, healing: Healing, dropped: Collection[int], n_layers: int) -> Backward:
        """What the way back costs, for plans: of a frozen model with adapters, unless said."""
        return Backward(n_layers - len(dropped), 0, 1)

    def passes(
        self, healing: Healing, dropped: Collection[int], n_layers: int, head: float
    ) -> Passes:
        """What training takes for each token, passes of a teacher and of the unpruned model
        included. head: how many layers take as long for a token as the head does."""
        way = self.backward(healing, dropped, n_layers)
        taught = max(dropped, default=-1) + 1 if healing.teacher else 0
        taught += n_layers + head if healing.distillation else 0
        kept = n_layers - len(dropped)
        return Passes(kept + way.own + taught + head * (1 + way.head), way.layers)

    @abstractmethod
    def bytes(
        self, shape: "Shape", healing: Healing, dtype: "torch.dtype", in_4bit: bool
    ) -> tuple[float, float]:
        """Bytes of the weights while they are trained, with gradients and both moments of what is;
        and of the healed model while it is evaluated, which a GPU (in_4bit) does in 4-bit."""

    @abstractmethod
    def words(self, healing: Healing) -> str:
        """What is trained, for people."""


def load(name: str) -> Recipe:
    """Raises UserError for a name that is not known."""
    return open_sets.module("recipe", name).Recipe(name)


def of(healing: Healing) -> Recipe:
    """The recipe that some settings are of."""
    return load(healing.recipe)
