"""Choosing layers: what a strategy may ask of a study, and what that takes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel

from lib.errors import UserError
from lib.evaluation import evaluate
from lib.evaluation.sweep import Seen, layer_passes
from lib.fields import Calibration, Text
from lib.pruning import strategy as strategies
from lib.pruning.dropped import Dropped, kept_layers
from lib.schema import Study

if TYPE_CHECKING:
    from lib.experiments.opened import OpenStudy


@dataclass(frozen=True)
class Sample:
    """What strategies score layers on in place of the study's own calibration text: the windows of
    `calibration` from number `skip` on."""

    calibration: Calibration
    skip: int = 0

    def read(self) -> int:
        """Tokens."""
        return (self.calibration.n_sequences - self.skip) * self.calibration.length


def samples(study: Study) -> list[tuple[str, Sample]]:
    """All samples beside its calibration text on which a study has layers scored: by strategy,
    parts of that text, then other texts."""
    asked, text = study.on_what, study.calibration
    if text is None:
        return []
    found = [
        (strategy, part(text, size, draw))
        for strategy in asked.strategies
        for size in asked.samples
        for draw in range(asked.draws)
    ]
    return found + [
        (strategy, sample) for strategy in asked.searches for sample in elsewhere(study).values()
    ]


def part(text: Calibration, size: int, draw: int) -> Sample:
    """So many windows of a text, apart from those of other draws."""
    return Sample(text.model_copy(update={"n_sequences": (draw + 1) * size}), draw * size)


def elsewhere(study: Study) -> dict[str, Sample]:
    """As many windows of each further calibration text, by its name."""
    if study.calibration is None:
        return {}
    sources = {
        text.name: {key: getattr(text, key) for key in Text.model_fields}
        for text in study.other_texts
        if text.name in study.on_what.texts
    }
    like = study.calibration
    return {name: Sample(like.model_copy(update=source)) for name, source in sources.items()}


class Asked:
    """What strategies may ask of a study (`lib.pruning.strategy.Asked`). draw: of its calibration
    text, each with a seed of its own; or a sample in place of it."""

    def __init__(self, opened: "OpenStudy", draw: int = 0, sample: Sample | None = None) -> None:
        self.opened = opened
        found = sample.calibration if sample else opened.study.calibration
        self.calibration = found and found.model_copy(update={"seed": found.seed + draw})
        self.skip = sample.skip if sample else 0
        self._seen: Seen | None = None

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
        return self.opened.windows(self.calibration, self.calibration)[self.skip :]

    def losses(self, sets: Sequence[Iterable[int]]) -> np.ndarray:
        rows = self.windows.tolist()
        dropped = [Dropped(one) for one in sets]
        pad = self.tokenizer.pad_token_id
        found = evaluate.losses(self.model, dropped, rows, self.batch, pad, seen=self._seen)
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
        inputs |= {"skip": self.skip} if self.skip else {}

        def apart() -> dict[str, Any]:
            """A user's code may leave hooks, gradients or another mode on the model."""
            # A search asks for sets that share most of their way with those before.
            self._seen = Seen() if len(strategy.sets(opened.n_layers)) > 1 else None
            found = measure()
            self._seen = None
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
    kept = [[kept_layers(one, n_layers) for one in sets] for sets in asked]
    return layer_passes(*kept) + head * sum(map(len, asked))
