"""A study, opened: its model, tokenizer, texts and evidence, and the models that it evaluates."""

import gc
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from lib import paths
from lib import study as studies
from lib.errors import UserError
from lib.evaluation import harness
from lib.evidence.store import Store
from lib.experiments.choosing import Asked, Sample
from lib.fields import Calibration, NamedText, Text
from lib.healing import recipe as recipes
from lib.models import checkpoints, corpora, prompts
from lib.models.untouched import untouched
from lib.models.vocabulary import check_ids
from lib.open_sets import Healing
from lib.pruning import geometry
from lib.pruning.dropped import Dropped, layers_to_drop
from lib.pruning.strategy import Strategy, load, shipped
from lib.schema import Distances, Loss, Study, Task
from lib.section_settings import Writing

WEIGHTS = {torch.float32: "float32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class OpenStudy:
    """One study, opened: its model, tokenizer and evidence, each loaded when first needed.

    planned: nothing is measured or trained, and what would have to be is expected instead.
    published: nor is it where evidence that somebody published is all that there is."""

    planned = False
    published = False

    def __init__(self, study: Study) -> None:
        self.study = study
        self.store = Store(paths.results(study.name))
        self._task_sources: dict[tuple[str, bool], dict[str, Any]] = {}
        self._strategies: dict[str, Strategy] = {}
        self._chosen: dict[tuple[str, int, int, Sample | None], Dropped] = {}
        self._documents: dict[tuple[Text, Loss], list[list[int]]] = {}

    @property
    def tables(self) -> Path:
        """Where its tables lie."""
        return paths.tables(self.study.name)

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
    def ends_texts(self) -> bool:
        """Whether the tokenizer puts something behind every text. Where there is none at hand,
        nothing can be asked, only found again: what an ordinary one was asked."""
        with suppress(UserError):
            return bool(prompts.endings(self.tokenizer))
        return False

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
    def texts(self) -> "Sources":
        return Sources(self.study)

    def cut_text(self, which: str | Text) -> dict[str, Any]:
        """What identifies one of `texts` of which documents are cut."""
        return self.texts[which] | self._cut

    @cached_property
    def _cut(self) -> dict[str, str]:
        # Records from when the tokenizer cut documents are of other tokens where it cuts otherwise.
        # Without a tokenizer nothing is measured, and what is recorded is found as it stands.
        with suppress(UserError):
            return {"cut": "here"} if corpora.cuts_otherwise(self.tokenizer) else {}
        return {}

    @property
    def loss_sequences(self) -> list[list[int]]:
        return self.documents(self.study.validation_text, self.study.loss)

    def documents(self, text: Text, sample: Loss) -> list[list[int]]:
        """A sample of a text's documents as token ids, read once."""
        if (text, sample) not in self._documents:
            seed = sample.seed if sample.sample == "random" else None
            self._documents[text, sample] = corpora.document_sequences(
                text, self.tokenizer, sample.n_sequences, sample.length, seed
            )
        return self._documents[text, sample]

    def writing_prompts(self, writing: Writing) -> list[str]:
        """Beginnings of documents of the validation text, then prompts of one's own."""
        found: list[str] = []
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

    def fraction(self, n: int) -> float:
        return n / self.n_layers

    def healed_ns(self, fractions: Iterable[float]) -> list[int]:
        """The n ≥ 1 that these fractions stand for on this model, each once."""
        found = {layers_to_drop(fraction, self.n_layers) for fraction in fractions}
        return sorted(found - {0})

    @property
    def strategies(self) -> list[str]:
        """Names of the strategies that the study compares, its main one first."""
        return [strategy.name for strategy in self.study.strategies]

    @property
    def every_strategy(self) -> list[str]:
        """Names of these and of the strategies beside them, those that draw by chance included."""
        return [strategy.name for strategy in self.study.every_strategy]

    def strategy(self, name: str) -> Strategy:
        """Raises UserError for one that the study does not name and that is not shipped."""
        if name not in self._strategies:
            named = {one.name: one for one in self.study.every_strategy}
            one = named.get(name)
            self._strategies[name] = load(one) if one else shipped(name)
        return self._strategies[name]

    def chosen(self, strategy: str, n: int, draw: int = 0, sample: Sample | None = None) -> Dropped:
        """The n layers that a strategy drops. Its scores are measured if they are not recorded.
        draw: of the calibration text, or by chance. sample: in place of that text.

        Raises UserError for a choice that is not of n layers of the model."""
        if (strategy, n, draw, sample) not in self._chosen:
            one = self.strategy(strategy)
            if one.by_chance:
                found = one.drawn(n, self.n_layers)[draw]
            else:
                found = one.chosen(Asked(self, draw, sample), n, self.n_layers)
            self._chosen[strategy, n, draw, sample] = found
        return self._chosen[strategy, n, draw, sample]

    def scores(self, strategy: str, draw: int = 0) -> dict[str, Any] | None:
        """What a strategy recorded of the layers, on a draw of the calibration text; None where it
        looks at no model."""
        return self.strategy(strategy).scores(Asked(self, draw))

    def sizes(self, strategy: str) -> list[int]:
        """The numbers of layers that a strategy's unhealed prunings lack: those that the study
        lists, or all that it can drop."""
        most = self.strategy(strategy).most(self.n_layers)
        return self.study.pruned_layers or [*range(1, most + 1)]

    def weights_of(self, healing: Healing) -> str:
        """The number format in which a recipe trains, and evaluates its control."""
        return "nf4" if recipes.of(healing).needs_4bit else self.weights

    def windows(
        self, text: Text | None = None, settings: Calibration | Distances | None = None
    ) -> torch.Tensor:
        """Token ids [n_sequences, length], cut from a text as these settings say; None: the
        study's validation text, and as distances are measured."""
        of, settings = text or self.study.validation_text, settings or self.study.distances
        count, length = settings.n_sequences, settings.length
        found = corpora.windows(of, self.tokenizer, count, length, settings.seed)
        check_ids(found.tolist(), self.config, f"text {corpora.describe(of)}")
        return found

    def windows_inputs(self, calibration: Calibration | None) -> dict[str, Any]:
        """What decides calibration text; where there is none, the windows of distances."""
        sample = calibration or self.study.distances
        return {
            "text": self.texts[calibration or "validation"],
            "sample": sample.model_dump(include={"n_sequences", "length", "seed"}),
        }

    def measure_distances(self) -> dict[str, Any]:
        """Angular distances: `table`, `after_norm` and `optimal` by column, and the
        share of the commonest final token; from evidence, or measured now."""
        return self._distances({"checkpoint": self.checkpoint}, lambda: self.model)

    def measure_distances_on(self, text: NamedText) -> dict[str, Any]:
        """The same of as many windows of another text."""
        inputs = {"checkpoint": self.checkpoint}
        return self._distances(inputs, lambda: self.model, f"{text.name} ", text)

    def measure_untrained_distances(self) -> dict[str, Any]:
        """The same of the untrained twin, on the same windows."""

        def twin() -> PreTrainedModel:
            self.release()  # the two need not be in memory together
            return checkpoints.untrained_twin(self.study)

        return self._distances(self.twin_inputs, twin, "untrained ")

    @property
    def twin_inputs(self) -> dict[str, Any]:
        """What decides the untrained twin, and the tokens that it reads."""
        # As config.json has it, where infinity is spelt in a way that a record can hold.
        config = json.loads(self.config.to_json_string(use_diff=False))
        for key in ("transformers_version", "_name_or_path"):  # say nothing about the weights
            config.pop(key, None)
        seed = self.study.controls.seed
        return {"untrained": config, "seed": seed, "tokenizer": self.checkpoint}

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
            sequences, measured = self.windows(text), model()
            with untouched(measured, "a pass over text"):
                found = geometry.measure(
                    measured,
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
                "text": self.texts[text or "validation"],
                "sample": settings.model_dump(),
            },
            run,
            batch=self.study.batch,
        )


class Sources(dict[str | Text, dict[str, Any]]):
    """What decides the texts of a study, `validation`, `healing` and others by themselves, each
    looked at when it is first asked for: a study that heals nothing may not have the other."""

    def __init__(self, study: Study) -> None:
        super().__init__()
        self.study = study

    def __missing__(self, which: str | Text) -> dict[str, Any]:
        text = which if isinstance(which, Text) else getattr(self.study, f"{which}_text")
        self[which] = corpora.source(text)
        return self[which]
