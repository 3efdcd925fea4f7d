"""Questions, asked through lm-eval: which tasks there are, what decides their questions, and one
pass that answers for many prunings.

Documents, prompts, filters and metrics are lm-eval's own.
"""

import copy
import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lib.errors import UserError
from lib.evaluation import chance, sweep, task_files
from lib.evaluation.batches import Row
from lib.evaluation.lm_eval_insides import ask_again, ask_in_order, harness
from lib.evidence.journal import Journal
from lib.evidence.records import file_digest
from lib.files import files_below
from lib.models.trial import trial
from lib.pruning.dropped import Dropped
from lib.schema import Study, Task
from lib.words import some

SEEDS = {"docs": 0, "examples": 1234}  # as lm-eval's own command seeds them
METRICS = {
    "multiple_choice": ("acc",),
    "loglikelihood": ("acc",),
    "generate_until": ("exact_match", "rougeL"),
}
# Recorded beside a score, of tasks that have them.
BESIDE = {"acc": ("acc_norm",), "rougeL": ("rouge1", "rouge2")}
PROMPT = ("doc_to_text", "doc_to_choice", "doc_to_target")


class SharedPass:
    """What prunings of one model answer to the requests of one task.

    answers: (log-likelihood, greedy) per pruning, by request; truncated: prompts cut to fit."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        blocks: Sequence[Dropped],
        batch: int,
        name: str,
        question_free: bool = False,
        journal: Journal | None = None,
        chat_template: bool = False,
    ) -> None:
        self.journal = journal
        self.model, self.blocks, self.batch = model, blocks, batch
        self.name, self.question_free, self.chat_template = name, question_free, chat_template
        self.pad = tokenizer.pad_token_id
        self.answers: dict[Any, list[tuple[float, bool]]] = {}
        self.truncated: set[tuple[int, ...]] = set()
        window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        known = {tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
        self._lm = harness().PrunedLM(
            self,
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch,
            max_length=window,
            # What an answer without a prompt follows.
            prefix_token_id=None if known else self.pad,
        )

    def lm(self, number: int) -> Any:
        """lm-eval's model for one of the prunings."""
        lm = copy.copy(self._lm)
        lm.number = number
        return lm

    def answer(self, rows: dict[Any, Row]) -> None:
        """Run all prunings over those rows that have not been answered yet."""
        new = {key: row for key, row in rows.items() if key not in self.answers}
        if not new:
            return
        found = sweep.log_likelihoods(
            self.model,
            self.blocks,
            list(new.values()),
            self.batch,
            self.pad,
            self.name,
            self.journal,
        )
        self.answers |= {key: found.of_row(i) for i, key in enumerate(new)}


class Questions:
    """A task's documents and prompts, put together once and asked of many models.

    levels: what is scored by chance, once they have been asked. chosen_from: whether prompts are
    what is chosen from, as in WinoGrande, and the same answer follows each. written: whether any
    answer is."""

    levels: chance.Levels

    def __init__(self, task: Task, manager: Any, chat_template: bool = False) -> None:
        self.task, self.chat_template = task, chat_template
        self._loaded = load(manager, task.name)
        self._built = False
        self.chosen_from = chosen_from(self._loaded["tasks"].values())
        kinds = {one.OUTPUT_TYPE for one in self._loaded["tasks"].values()}
        self.written = "generate_until" in kinds
        for one in self._loaded["tasks"].values():
            _check_shots(one, task)
            one.set_config(key="num_fewshot", value=task.shots)
            one.set_fewshot_seed(seed=SEEDS["examples"])
            if task.order:
                ask_in_order(one, task.order)

    def ask(self, lm: Any) -> dict[str, list[dict[str, Any]]]:
        """lm-eval's samples by sub-task: one row per question and filter."""
        random.seed(SEEDS["docs"])
        np.random.seed(SEEDS["examples"])
        torch.manual_seed(SEEDS["examples"])
        try:
            found = harness().evaluate(
                lm,
                task_dict=self._loaded,
                limit=self.task.limit,
                bootstrap_iters=0,
                log_samples=True,
                verbosity="ERROR",
                # As lm-eval's own command does it: each example is a turn.
                apply_chat_template=self.chat_template,
                fewshot_as_multiturn=self.chat_template,
            )
        except (OSError, ValueError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"lm-eval task '{self.task.name}': cannot be run: {reason}") from None
        if not self._built:
            self._built = True
            tasks = self._loaded["tasks"]
            documents = {
                name: [one for _, one in task.doc_iterator(limit=self.task.limit)]
                for name, task in sorted(tasks.items())
            }
            self.levels = chance.levels(tasks, documents)
            for name, task in tasks.items():
                ask_again(task, documents[name])
        return found["samples"]


def local_tasks(study: Study) -> dict[str, Path]:
    """Names of tasks, groups and tags in the study's `task_path` → the YAML that defines them.

    Raises UserError for a folder that is not there or cannot be read, and for a name that two
    folders have."""
    found: dict[str, Path] = {}
    for folder in study.task_path:
        if not Path(folder).is_dir():
            raise UserError(f"study {study.name}: task_path {folder}: there is no such folder")
        from lm_eval.tasks._index import TaskIndex

        try:
            index = TaskIndex.build([Path(folder)])
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"study {study.name}: task_path {folder}: {reason}") from None
        if twice := sorted(found.keys() & index.keys()):
            raise UserError(
                f"study {study.name}: task_path {folder}: '{twice[0]}' is in "
                f"{found[twice[0]].parent}, too"
            )
        found |= {name: entry.yaml_path for name, entry in index.items()}
    return found


def try_local_tasks(study: Study) -> None:
    """The YAML files of the study's `task_path` can be read, soon and in little memory.

    Raises UserError otherwise."""
    folders = ", ".join(study.task_path)
    for path in sorted(path for one in study.task_path for path in Path(one).rglob("*.yaml")):
        if not path.is_file():
            raise UserError(f"task_path {path}: is no file: a pipe, a device, a folder, or no link")
    trial(f"study {study.name}: task_path {folders}", lambda: local_tasks(study))


def task_manager(study: Study) -> Any:
    """lm-eval's task manager; its thousands of own tasks only where the study names one."""
    own = local_tasks(study)
    from lm_eval.tasks import TaskManager

    asked = [*study.every_task, *study.perplexity]
    elsewhere = _shipped({task.name for task in asked} - own.keys())
    manager = TaskManager(include_path=study.task_path or None, include_defaults=bool(elsewhere))
    nowhere = f"none readable in {', '.join(study.task_path)}" if study.task_path else "none"
    unknown = [
        f"study {study.name}: unknown lm-eval task '{task.name}'; local tasks: "
        f"{some(sorted(own)) or nowhere}; all others: `lm-eval ls tasks`"
        for task in asked
        if task.name not in manager.all_tasks
    ]
    if unknown:
        raise UserError(*unknown)
    return manager


def _shipped(names: set[str]) -> set[str]:
    """Those of some names that stand in any of lm-eval's own files: to look for words takes a tenth
    of the time that reading thousands of files as YAML does."""
    from lm_eval import tasks

    found: set[str] = set()
    for path in Path(tasks.__path__[0]).rglob("*") if names else ():
        # Some stand in files that others include, under any name.
        text = path.read_bytes() if path.is_file() else b""
        found |= {name for name in names - found if name.encode() in text}
        if found == names:
            break
    return found


def metric(task: Any) -> str | None:
    """Name of the metric that is read of an lm-eval task: `acc` of multiple choice, and of a given
    answer, which is right where the model would write it itself; `exact_match` of generated
    answers, or else `rougeL`; None for tasks that have none of these."""
    wanted = METRICS.get(task.OUTPUT_TYPE, ())
    return next((one for one in wanted if one in task.aggregation()), None)


def chosen_from(tasks: Iterable[Any]) -> bool:
    """Whether prompts of any of these lm-eval tasks are what is chosen from."""
    return any(one.multiple_input for one in tasks)


def normed(tasks: Iterable[Any]) -> bool:
    """Whether all of these lm-eval tasks have `acc_norm` beside `acc`."""
    return all("acc_norm" in one.aggregation() for one in tasks)


def _check_metric(task: Task, one: Any) -> None:
    """Raises UserError for an lm-eval task of another kind than those that are read, and for one
    without the score that is to be shown."""
    name = task.name
    if (key := metric(one)) is None:
        kinds = ", ".join(f"{kind} with {' or '.join(keys)}" for kind, keys in METRICS.items())
        raise UserError(
            f"lm-eval task '{name}': is {one.OUTPUT_TYPE} with {', '.join(one.aggregation())}; "
            f"read are {kinds}"
        )
    how = getattr(one.aggregation()[key], "__name__", "")
    if how != "mean":
        raise UserError(
            f"lm-eval task '{name}': its {key} is aggregated by '{how}'; only means over the "
            "questions are read"
        )
    beside = {other for other in BESIDE.get(key, ()) if other in one.aggregation()}
    if task.metric not in {"acc", *beside}:
        raise UserError(
            f"lm-eval task '{name}': has no {task.metric}; its metric_list names "
            f"{', '.join(one.aggregation())}; leave metric out"
        )


def _check_shots(one: Any, task: Task) -> None:
    """Raises UserError for examples that the harness would leave out of the prompt in silence."""
    if task.shots and one.get_config("num_fewshot") == 0:
        raise UserError(
            f"lm-eval task '{one.config.task}': takes no examples (num_fewshot: 0); ask it with "
            "shots: 0"
        )


def check_tasks(study: Study, manager: Any, asked: Sequence[Task]) -> None:
    """The questions can be read, and scored, and there are as many examples as their prompts show;
    of local tasks and of lm-eval's own, whose data is fetched."""
    # The same questions may be asked with many prompts.
    loaded = {name: load(manager, name)["tasks"] for name in dict.fromkeys(t.name for t in asked)}
    for task in asked:
        for one in loaded[task.name].values():
            _check_metric(task, one)
            _check_shots(one, task)
            if task.shots:
                examples = len(list(one.fewshot_docs() or []))
                # Where they are taken from the questions, each leaves itself out.
                shared = one.fewshot_cfg.split == one.config.test_split
                if task.shots + shared > examples:
                    raise UserError(
                        f"lm-eval task '{one.config.task}': {task.shots} examples are asked for, "
                        f"it has {examples}; lower shots (of tasks, or of prompts)"
                    )


def task_source(study: Study, task: Task, manager: Any) -> dict[str, Any]:
    """What decides a task's questions and prompts: the documents themselves, the files of its
    folder in `task_path` for a local task and what they pull in from elsewhere, prompts that Python
    puts together, and the harness version.

    Raises UserError when the questions cannot be loaded."""
    source: dict[str, Any] = {"harness": metadata.version("lm_eval")}
    random.seed(SEEDS["docs"])  # some tasks shuffle as they load
    np.random.seed(SEEDS["examples"])
    loaded, own = load(manager, task.name), local_tasks(study)
    if task.name in own:
        (folder,) = (one for one in map(Path, study.task_path) if one in own[task.name].parents)
        files = files_below(folder)
        source["files"] = {name: file_digest(path) for name, path in files.items()}
        named = {task.name, *loaded["tasks"], *loaded["groups"]} & own.keys()
        outside = task_files.pulled_in(folder, filter(None, map(own.get, sorted(named))))
        if outside:
            source["outside"] = {name: file_digest(path) for name, path in outside.items()}
    documents, prompts = hashlib.sha256(), hashlib.sha256()
    tasks = loaded["tasks"]
    if len(tasks) > 1:  # of groups the commonest answer was once counted task by task
        source["commonest"] = "of all tasks"
    # Of others chance was once counted by requests, and a score between 0 and 1 was cut to 0.
    if not all(map(chance.from_requests, tasks.values())):
        source["scored"] = "by choices, from 0 to 1"
    if normed(tasks.values()):
        source["metrics"] = ["acc", "acc_norm"]
    if chosen_from(tasks.values()):  # once asked without their prompts, too
        source["choices"] = "prompts"
    for name, one in sorted(tasks.items()):
        examples = list(one.fewshot_docs()) if task.shots else []
        asked = list(one.eval_docs)
        text = json.dumps([name, asked, examples], sort_keys=True, default=str)
        documents.update(text.encode())
        # Code may read anything, so what it says counts. Templates stand in the files.
        if task.name in own and _by_code(one):
            said = [_prompt(one, document) for document in asked]
            said += [_prompt(one, document, one.fewshot_cfg) for document in examples]
            prompts.update(json.dumps([name, said], default=str).encode())
            source["prompts"] = prompts.hexdigest()
    return source | {"documents": documents.hexdigest()}


def _by_code(one: Any) -> bool:
    """Whether Python of a task's own puts its prompts together."""
    from lm_eval.api.task import ConfigurableTask

    return type(one) is not ConfigurableTask or any(
        callable(getattr(of, key)) for of in (one.config, one.fewshot_cfg) for key in PROMPT
    )


def _prompt(one: Any, document: Any, shown: Any = None) -> list[Any]:
    """What a task says of a document: prompt, choices where it has some, and answer. shown: the
    settings of examples.

    Raises UserError where its code fails."""
    keys = [key for key in PROMPT if key != "doc_to_choice" or one.OUTPUT_TYPE == "multiple_choice"]
    try:
        return [
            getattr(one, key)(document, *([getattr(shown, key)] if shown else [])) for key in keys
        ]
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"lm-eval task '{one.config.task}': cannot be asked: {reason}") from None


def load(manager: Any, name: str) -> dict[str, dict[str, Any]]:
    """lm-eval's `tasks` and `groups`, by name, that a task's or group's name stands for."""
    harness()
    try:
        return manager.load([name])
    except Exception as error:  # data files, templates and Python helpers fail in many ways
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"lm-eval task '{name}': cannot be loaded: {reason}") from None
