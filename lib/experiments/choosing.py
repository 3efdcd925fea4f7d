"""Choosing layers: what a strategy may ask of a study, and what that takes."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel

from lib.errors import UserError
from lib.evaluation import evaluate
from lib.evaluation.sweep import layer_passes
from lib.pruning import strategy as strategies
from lib.pruning.dropped import Dropped, kept_layers
from lib.schema import Study

if TYPE_CHECKING:
    from lib.experiments.opened import OpenStudy


class Asked:
    """What strategies may ask of a study (`lib.pruning.strategy.Asked`). draw: of its calibration
    text, each with a seed of its own."""

    def __init__(self, opened: "OpenStudy", draw: int = 0) -> None:
        self.opened = opened
        found = opened.study.calibration
        self.calibration = found and found.model_copy(update={"seed": found.seed + draw})

    @property
    def model(self) -> PreTrainedModel:
        return self.opened.model

    @property
    def tokenizer(self) -> Any:
        return self.opened.tokenizer

    @property
    def batch(self) -> int:
        return self.opened.study.batch

    @cached_property
    def windows(self) -> torch.Tensor:
        return self.opened.windows(self.calibration, self.calibration)

    def losses(self, sets: Sequence[Iterable[int]]) -> np.ndarray:
        rows = self.windows.tolist()
        dropped = [Dropped(one) for one in sets]
        pad = self.tokenizer.pad_token_id
        found = evaluate.losses(self.model, dropped, rows, self.batch, pad)
        return np.array([one["loss"] for one in found])

    def distances(self) -> dict[str, Any]:
        return self.opened.measure_distances()

    def record(
        self, strategy: strategies.Strategy, measure: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        opened = self.opened
        check_calibrated(opened.study, strategy)
        inputs = {"checkpoint": opened.checkpoint, "weights": opened.weights}
        inputs |= opened.windows_inputs(self.calibration)

        def apart() -> dict[str, Any]:
            """A user's code may leave hooks, gradients or another mode on the model."""
            found = measure()
            if isinstance(strategy, strategies.Own):
                opened.release()
            return found

        inputs |= by_losses(strategy) | strategy.inputs()
        return opened.store.get_or_measure(
            "scores", strategy.kind, inputs, apart, batch=opened.study.batch
        )


def check_calibrated(study: Study, strategy: strategies.Strategy) -> None:
    """Raises UserError for a strategy that needs calibration text where the study has none."""
    if strategy.calibrated and study.calibration is None:
        raise UserError(
            f"strategy {strategy.name}: chooses layers on text of its own; give the study "
            "`calibration: {path: …}`, apart from all that is evaluated or healed on"
        )


def by_losses(strategy: strategies.Strategy) -> dict[str, int]:
    """The number of the method behind losses, where they decide what a strategy finds."""
    return {"losses": evaluate.METHOD} if strategy.by_loss else {}


def passes(strategy: strategies.Strategy, n_layers: int, head: float) -> float:
    """How often a layer sees a token of the calibration text for a strategy's scores. head: how
    many layers take as long for a token as the head does."""
    if strategy.by_rule:
        return 0.0
    asked = strategy.sets(n_layers)
    if not asked:
        return strategy.PASSES * n_layers
    return sum(
        layer_passes([kept_layers(one, n_layers) for one in sets]) + len(sets) * head
        for sets in asked
    )
