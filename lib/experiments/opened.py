"""A study, opened: its model, tokenizer, texts and evidence, and the models that it evaluates."""

import gc
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from lib import paths
from lib import study as studies
from lib.evaluation import harness
from lib.evidence.store import Store
from lib.models import checkpoints, corpora
from lib.pruning import geometry
from lib.pruning.dropped import STRATEGIES, Dropped, check_n, layers_to_drop, simple, span
from lib.schema import NamedText, Study, Task, Text

WEIGHTS = {torch.float32: "float32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class OpenStudy:
    """One study, opened: its model, tokenizer and evidence, each loaded when first needed."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.store = Store(paths.results(study.name))
        self._task_sources: dict[tuple[str, bool], dict[str, Any]] = {}

    @cached_property
    def config(self) -> Any:
        return checkpoints.load_config(self.study)

    @property
    def n_layers(self) -> int:
        return self.config.get_text_config().num_hidden_layers

    @property
    def vocab_size(self) -> int:
        return self.config.get_text_config().vocab_size

    @cached_property
    def model(self) -> PreTrainedModel:
        return checkpoints.load_model(self.study)

    def release(self) -> None:
        """Let go of the unpruned model: a 4-bit and a healed copy need its room."""
        self.__dict__.pop("model", None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @cached_property
    def tokenizer(self) -> Any:
        return checkpoints.load_tokenizer(self.study, self.config)

    @cached_property
    def task_manager(self) -> Any:
        return harness.task_manager(self.study)

    def task_source(self, task: Task) -> dict[str, Any]:
        """What decides the questions; the examples of a few-shot prompt count too."""
        key = (task.name, task.shots > 0)
        if key not in self._task_sources:
            self._task_sources[key] = harness.task_source(self.study, task, self.task_manager)
        return self._task_sources[key]

    @cached_property
    def prompt_tasks(self) -> list[Task]:
        """Every task of the ablations of prompts, once."""
        found: list[Task] = []
        for tasks in studies.prompt_tasks(self.study).values():
            found += [task for task in tasks if task not in found]
        return found

    @cached_property
    def checkpoint(self) -> str:
        return checkpoints.checkpoint_digest(self.study)

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

    @cached_property
    def writing_prompts(self) -> list[str]:
        """Beginnings of documents of the validation text, then the study's own prompts."""
        writing, found = self.study.writing, []
        if writing.n_prompts:
            ids = corpora.document_sequences(
                self.study.validation_text,
                self.tokenizer,
                writing.n_prompts,
                writing.prompt_tokens,
                writing.seed,
            )
            found = [self.tokenizer.decode(row, skip_special_tokens=True) for row in ids]
        return list(dict.fromkeys(found + writing.prompts))

    @property
    def weights(self) -> str:
        return WEIGHTS[checkpoints.dtype(self.study)]

    @property
    def strategies(self) -> list[str]:
        """Names of the strategies that the study compares, its main one first."""
        return list(STRATEGIES)

    def fraction(self, n: int) -> float:
        return n / self.n_layers

    def healed_ns(self, fractions: Iterable[float]) -> list[int]:
        """The n ≥ 1 that these fractions stand for on this model, each once."""
        found = {layers_to_drop(fraction, self.n_layers) for fraction in fractions}
        return sorted(found - {0})

    def chosen(self, strategy: str, n: int) -> Dropped:
        check_n(n, self.n_layers)
        if strategy == "simple":
            return simple(n, self.n_layers)
        index = self.distances["optimal"]["n"].index(n)
        start = self.distances["optimal"]["start"][index]
        return span(start, start + n)

    @cached_property
    def distances(self) -> dict[str, Any]:
        """Angular distances (section 01): `table`, `after_norm` and `optimal` by column, and the
        share of the commonest final token; from evidence, or measured now."""
        return self._distances({"checkpoint": self.checkpoint}, lambda: self.model)

    def distances_on(self, text: NamedText) -> dict[str, Any]:
        """The same of as many windows of another text."""
        inputs = {"checkpoint": self.checkpoint}
        return self._distances(inputs, lambda: self.model, f"{text.name} ", text)

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
            return checkpoints.untrained_twin(self.study)

        return self._distances(inputs, twin, "untrained ")

    def _distances(
        self,
        inputs: dict[str, Any],
        model: Callable[[], PreTrainedModel],
        name: str = "",
        text: Text | None = None,
    ) -> dict[str, Any]:
        """`text`: what windows are cut from; None: the study's validation text."""
        settings = self.study.distances

        def run() -> dict[str, Any]:
            sequences = corpora.windows(
                text or self.study.validation_text,
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
                tokens=settings.tokens,
                progress=lambda batches: tqdm(batches, desc=f"{name}distances", leave=False),
            )
            return {
                "table": found.table.to_dict("list"),
                "after_norm": found.after_norm.to_dict("list"),
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
                "text": corpora.source(text) if text else self.texts["validation"],
                "sample": settings.model_dump(),
            },
            run,
            batch=self.study.batch,
        )
