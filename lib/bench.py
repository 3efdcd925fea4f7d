"""A study, opened: its model, tokenizer, texts and evidence, and the models that it evaluates."""

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from lib import corpora, geometry, harness, models, paths
from lib.blocks import STRATEGIES, UNPRUNED, Block, check_n, layers_to_drop, simple
from lib.evidence import Store
from lib.schema import Healing, Study

WEIGHTS = {torch.float32: "float32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class Condition:
    """One model to evaluate: which block is dropped and why, in which weights, healed or not."""

    strategy: str
    block: Block
    weights: str
    healing: Healing | None = None

    @property
    def recipe(self) -> str:
        return self.healing.recipe if self.healing else "none"

    @property
    def name(self) -> str:
        return f"drop {self.block} {self.weights} {self.recipe}"


class Bench:
    """One study, opened: its model, tokenizer and evidence, each loaded when first needed."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.store = Store(paths.results(study.name))

    @cached_property
    def config(self) -> Any:
        return models.load_config(self.study)

    @property
    def n_layers(self) -> int:
        return self.config.get_text_config().num_hidden_layers

    @property
    def vocab_size(self) -> int:
        return self.config.get_text_config().vocab_size

    @cached_property
    def model(self) -> PreTrainedModel:
        return models.load_model(self.study)

    def release(self) -> None:
        """Let go of the unpruned model: a 4-bit and a healed copy need its room."""
        self.__dict__.pop("model", None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @cached_property
    def tokenizer(self) -> Any:
        return models.load_tokenizer(self.study, self.config)

    @cached_property
    def task_manager(self) -> Any:
        return harness.task_manager(self.study)

    @cached_property
    def task_sources(self) -> dict[tuple[str, int], dict[str, Any]]:
        """By name and number of shots: the examples of a few-shot prompt count too."""
        return {
            (task.name, task.shots): harness.task_source(self.study, task, self.task_manager)
            for task in self.study.tasks
        }

    @cached_property
    def checkpoint(self) -> str:
        return models.checkpoint_digest(self.study)

    @cached_property
    def texts(self) -> dict[str, dict[str, Any]]:
        study = self.study
        return {
            "validation": corpora.source(study.validation_text),
            "healing": corpora.source(study.healing_text),
        }

    @cached_property
    def loss_sequences(self) -> list[list[int]]:
        loss = self.study.loss
        return corpora.document_sequences(
            self.study.validation_text,
            self.tokenizer,
            loss.n_sequences,
            loss.length,
            loss.seed if loss.sample == "random" else None,
        )

    @property
    def weights(self) -> str:
        return WEIGHTS[models.dtype(self.study)]

    def fraction(self, n: int) -> float:
        return n / self.n_layers

    def healed_ns(self, fractions: Iterable[float]) -> list[int]:
        """The n ≥ 1 that these fractions stand for on this model, each once."""
        found = {layers_to_drop(fraction, self.n_layers) for fraction in fractions}
        return sorted(found - {0})

    def block(self, strategy: str, n: int) -> Block:
        check_n(n, self.n_layers)
        if strategy == "simple":
            return simple(n, self.n_layers)
        index = self.distances["optimal"]["n"].index(n)
        start = self.distances["optimal"]["start"][index]
        return Block(start, start + n)

    @cached_property
    def distances(self) -> dict[str, Any]:
        """Angular distances (section 01): `table` and `optimal` by column, and the share of the
        commonest final token; from evidence, or measured now."""
        return self._distances({"checkpoint": self.checkpoint}, lambda: self.model)

    @cached_property
    def untrained_distances(self) -> dict[str, Any]:
        """The same of the untrained twin, on the same windows."""
        config = self.config.to_dict()
        for key in ("transformers_version", "_name_or_path"):  # say nothing about the weights
            config.pop(key, None)
        inputs = {"untrained": config, "seed": self.study.controls.seed}
        inputs["tokenizer"] = self.checkpoint

        def twin() -> PreTrainedModel:
            self.release()  # the two need not be in memory together
            return models.untrained_twin(self.study)

        return self._distances(inputs, twin, "untrained ")

    def _distances(
        self, inputs: dict[str, Any], model: Callable[[], PreTrainedModel], name: str = ""
    ) -> dict[str, Any]:
        settings = self.study.distances

        def run() -> dict[str, Any]:
            sequences = corpora.windows(
                self.study.validation_text,
                self.tokenizer,
                settings.n_sequences,
                settings.length,
                settings.seed,
            )
            found = geometry.measure(
                model(),
                sequences,
                self.study.batch,
                settings.bootstrap,
                settings.seed,
                progress=lambda batches: tqdm(batches, desc=f"{name}distances", leave=False),
            )
            return {
                "table": found.table.to_dict("list"),
                "optimal": geometry.optimal_blocks(found).to_dict("list"),
                "commonest_final_token": corpora.commonest_share(sequences[:, -1]),
            }

        return self.store.get_or_measure(
            "distances",
            f"{name}{settings.n_sequences}x{settings.length}",
            inputs
            | {
                "method": geometry.METHOD,
                "weights": self.weights,
                "text": self.texts["validation"],
                "sample": settings.model_dump(),
            },
            run,
            batch=self.study.batch,
        )


def unhealed(bench: Bench) -> list[Condition]:
    """The unpruned model and, per strategy, every n (or those that the study lists)."""
    wanted = bench.study.pruned_layers or range(1, bench.n_layers)
    return [Condition("none", UNPRUNED, bench.weights)] + [
        Condition(strategy, bench.block(strategy, n), bench.weights)
        for strategy in STRATEGIES
        for n in wanted
    ]


def healed(bench: Bench, recipe: Healing, fractions: Iterable[float]) -> list[Condition]:
    """The unpruned model and, per strategy, the healed fractions, all trained with one recipe."""
    return [Condition("none", UNPRUNED, "nf4", recipe)] + [
        Condition(strategy, bench.block(strategy, n), "nf4", recipe)
        for strategy in STRATEGIES
        for n in bench.healed_ns(fractions)
    ]


def in_4bit(conditions: list[Condition]) -> list[Condition]:
    """The controls of healed models: the same 4-bit weights, not trained."""
    return [replace(condition, healing=None) for condition in conditions]


def main_conditions(bench: Bench) -> list[Condition]:
    """All models of sections 02 to 04: unhealed, in 4-bit, and healed with the study's recipe."""
    study = bench.study
    trained = healed(bench, study.healing, study.healing.fractions)
    return unhealed(bench) + in_4bit(trained) + trained


def rank_conditions(bench: Bench) -> list[Condition]:
    """Section 05: the study's own rank at the fractions of the rank comparison, and the others.

    The unpruned, unhealed model, with which they are compared, comes first."""
    study = bench.study
    ranks = sorted({*study.lora_rank.ranks, study.healing.rank})
    return [Condition("none", UNPRUNED, bench.weights)] + [
        condition
        for rank in ranks
        for condition in healed(
            bench, study.healing.model_copy(update={"rank": rank}), study.lora_rank.fractions
        )
        if condition.strategy != "none"
    ]


def chosen_blocks(bench: Bench) -> pd.DataFrame:
    """What each strategy drops, in words, for every n that is evaluated."""
    rows = []
    for n in bench.study.pruned_layers or range(1, bench.n_layers):
        found = {strategy: bench.block(strategy, n) for strategy in STRATEGIES}
        words = {key: block.in_words(bench.n_layers) for key, block in found.items()}
        rows.append({"n": n, **words, "same": "yes" if len(set(found.values())) == 1 else ""})
    return pd.DataFrame(rows)
