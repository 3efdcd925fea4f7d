"""What a strategy is: it says which n layers go. Each is one file in lib/pruning/strategies/, or a
user's own beside a study.

A shipped one is a class `Strategy`, derived from `Strategy` or `ByRule` here. A user's own has
either `scores(model, windows)`, a number per layer of which the n lowest go, or
`choose(n, n_layers)`, the layers themselves.
"""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel

from lib import open_sets
from lib.errors import UserError
from lib.evidence import imports
from lib.evidence.records import file_digest
from lib.fields import Group
from lib.open_sets import Chosen
from lib.pruning.dropped import Dropped, check_n, span

AT_ONCE = 2**24  # numbers of a weight that are looked at in float64 at once


def weights(layer: Any, name: str) -> list[Any]:
    """All parameters of a layer but biases. Raises UserError for numbers that are packed."""
    found = [one for key, one in layer.named_parameters() if not key.endswith("bias")]
    if not all(one.is_floating_point() for one in found):
        raise UserError(f"strategy {name}: the checkpoint is quantised, and its weights are packed")
    return found


class Asked(Protocol):
    """What a strategy may ask of an opened study: the model that is to be pruned, and more."""

    @property
    def model(self) -> Any: ...  # a PreTrainedModel, whole
    @property
    def tokenizer(self) -> Any: ...
    @property
    def windows(self) -> Any:
        """Calibration text: token ids [n_sequences, length]; where a study has none, the windows
        on which its distances are measured."""

    @property
    def batch(self) -> int:
        """Windows that the model reads at once."""

    def losses(self, sets: Sequence[Iterable[int]]) -> np.ndarray:
        """Mean loss on the calibration text [nats per token] without each set of layers [sets]."""

    def distances(self) -> dict[str, Any]:
        """Angular distances of all blocks (`lib.pruning.geometry`): `table`, `optimal`."""

    def record(self, strategy: "Strategy", measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a strategy found on this model, from evidence or else measured now."""


class Strategy:
    """Scores the layers of a model, then chooses by the scores: the n lowest go, ties to the
    deepest. METHOD: raised when the code that decides the scores changes them."""

    METHOD = 1
    Settings: type[BaseModel] = Group  # without settings
    by_rule = False
    by_chance = False  # whether it draws; `drawn` has every draw
    calibrated = True  # whether it needs calibration text, apart from what is evaluated
    gradients = False  # whether it takes those of all layers, beside the model
    by_loss = False  # whether scores come from `Asked.losses`
    PASSES = 1.0  # forward passes over the windows that measuring counts for, but for `sets`

    def __init__(self, name: str, settings: BaseModel, kind: str | None = None) -> None:
        """kind: the name of its file, where a study gives it another one."""
        self.name, self.settings, self.kind = name, settings, kind or name

    def measure(self, asked: Asked) -> dict[str, Any]:
        """What is recorded: `scores`, a number for each layer, and whatever else; plain values."""
        raise NotImplementedError

    def scores(self, asked: Asked) -> dict[str, Any] | None:
        """From evidence, or measured now; None where no model is looked at.

        Raises UserError for a score that is no finite number, naming its layer."""
        return asked.record(self, lambda: self._finite(self.measure(asked)))

    def _finite(self, found: dict[str, Any]) -> dict[str, Any]:
        for layer, score in enumerate(found["scores"]):
            if not math.isfinite(score):
                raise UserError(f"strategy {self.name}: the score of layer {layer} is {score}")
        return found

    def sets(self, n_layers: int) -> list[list[tuple[int, ...]]]:
        """For plans: the sets of layers whose losses it asks for, call by call."""
        return []

    def choose(self, scores: dict[str, Any] | None, n: int, n_layers: int) -> Iterable[int]:
        """The n layers that go."""
        ranked = sorted(range(n_layers), key=lambda layer: (scores["scores"][layer], -layer))
        return ranked[:n]

    def inputs(self) -> dict[str, Any]:
        """What decides the scores beside the model and the text."""
        found = {"strategy": self.kind, "method": self.METHOD}
        settings = self.settings.model_dump()
        return found | ({"settings": settings} if settings else {})

    def most(self, n_layers: int) -> int:
        """How many layers it can drop at most."""
        return n_layers - 1

    def chosen(self, asked: Asked, n: int, n_layers: int) -> Dropped:
        """The layers that go, checked.

        Raises UserError for a number of layers that the model has not or that the strategy does
        not drop, and for a choice that is not of n layers of the model."""
        self.check_n(n, n_layers)
        return self._checked(self.choose(self.scores(asked), n, n_layers), n, n_layers)

    def drawn(self, n: int, n_layers: int) -> list[Dropped]:
        """[draws] of a strategy `by_chance`."""
        raise NotImplementedError

    def check_n(self, n: int, n_layers: int) -> None:
        """Raises UserError for a number of layers that cannot be chosen."""
        check_n(n, n_layers)
        if n > self.most(n_layers):
            raise UserError(
                f"strategy {self.name}: n = {n} layers to drop: of {n_layers} it leaves in place "
                f"those that it guards, and drops at most {self.most(n_layers)}"
            )

    def expected(self, n: int, n_layers: int) -> Dropped:
        """Before anything is measured: a block in the middle stands for the choice."""
        self.check_n(n, n_layers)
        middle = (n_layers - n) // 2
        return span(middle, middle + n)

    def _checked(self, found: Iterable[int], n: int, n_layers: int) -> Dropped:
        try:
            layers = Dropped(operator.index(layer) for layer in found)
        except TypeError:
            raise UserError(
                f"strategy {self.name}: chose {found!r} for n = {n}; expected layer numbers"
            ) from None
        if layers.n != n:
            raise UserError(
                f"strategy {self.name}: chose {layers.n} layers ({layers}) where n = {n}"
            )
        try:
            return layers.check(n_layers)
        except UserError as error:
            raise UserError(f"strategy {self.name}: n = {n}: {error}") from None


class ByRule(Strategy):
    """Chooses by the number of layers alone."""

    by_rule = True
    calibrated = False

    def scores(self, asked: Asked) -> None:
        return None

    def expected(self, n: int, n_layers: int) -> Dropped:
        self.check_n(n, n_layers)
        return self._checked(self.choose(None, n, n_layers), n, n_layers)


class Own(Strategy):
    """A user's own, from a file that the study names; its content decides its scores, and that of
    files of the user's that it imports. Whether it looks at the windows is not known."""

    calibrated = False

    def __init__(self, name: str, file: Path) -> None:
        super().__init__(name, Group())
        self.file = file
        self.by_rule = callable(getattr(self.code, "choose", None))

    @cached_property
    def code(self) -> ModuleType:
        """Raises UserError for a file that cannot be imported or has neither function, or both."""
        what = f"strategy {self.name} ({self.file})"
        if not self.file.is_file():
            raise UserError(f"{what}: there is no such file")
        if self.file.suffix != ".py":
            raise UserError(f"{what}: its name has to end in .py")
        try:
            module = imports.run(f"strategy_{self.name}", self.file)
        except (Exception, SystemExit) as error:  # whatever a user's code raises
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"{what}: cannot be imported: {reason}") from None
        has = [key for key in ("scores", "choose") if callable(getattr(module, key, None))]
        if len(has) != 1:
            raise UserError(
                f"{what}: has {' and '.join(has) or 'neither'}; give it either "
                "scores(model, windows) or choose(n, n_layers)"
            )
        return module

    def _call(self, function: str, *given: Any) -> Any:
        try:
            found = getattr(self.code, function)(*given)
            return list(found) if function == "choose" else found  # a generator fails here
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(
                f"strategy {self.name} ({self.file}): {function} failed: {reason}"
            ) from None

    def inputs(self) -> dict[str, Any]:
        found = super().inputs() | {"code": file_digest(self.file)}
        more = imports.imported([self.file])
        if more:
            found["imports"] = {name: file_digest(path) for name, path in more.items()}
        return found

    def scores(self, asked: Asked) -> dict[str, Any] | None:
        return None if self.by_rule else super().scores(asked)

    def measure(self, asked: Asked) -> dict[str, Any]:
        count = asked.model.config.get_text_config().num_hidden_layers
        try:
            windows = asked.windows.to(asked.model.device)
            found = np.asarray(_plain(self._call("scores", asked.model, windows)), dtype=float)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"strategy {self.name}: scores gave no numbers: {error}") from None
        if found.shape != (count,):
            raise UserError(
                f"strategy {self.name}: scores gave {list(found.shape)} numbers; expected one for "
                f"each of the {count} layers"
            )
        return {"scores": found.tolist()}

    def choose(self, scores: dict[str, Any] | None, n: int, n_layers: int) -> Iterable[int]:
        if not self.by_rule:
            return super().choose(scores, n, n_layers)
        return self._call("choose", n, n_layers)

    def expected(self, n: int, n_layers: int) -> Dropped:
        if self.by_rule:
            return ByRule.expected(self, n, n_layers)
        return super().expected(n, n_layers)


def _plain(found: Any) -> Any:
    """Tensors, of any number format and with gradients, as numbers."""
    if hasattr(found, "detach"):
        return found.detach().float().cpu().numpy()
    return [_plain(one) for one in found] if isinstance(found, list | tuple) else found


def load(chosen: Chosen) -> Strategy:
    """The strategy that a study names.

    Raises UserError for a name that is not known and for a user's file that does not do."""
    if chosen.file is not None:
        own = Own(chosen.name, Path(chosen.file))
        _ = own.code
        return own
    return shipped(chosen.shipped, chosen.name, **chosen.settings)


def shipped(kind: str, name: str | None = None, **settings: Any) -> Strategy:
    """A strategy of lib/pruning/strategies/, under another name if one is given.

    Raises UserError for a kind that is not known."""
    found = open_sets.module("strategy", kind).Strategy
    return found(name or kind, found.Settings(**settings), kind)
