"""Everything of lm-eval that is no public interface, in one place: what is replaced in it, and the
model that answers for many prunings. Each is the reason why the version is pinned, and checked."""

import copy
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lib.errors import UserError
from lib.evaluation.batches import Row, padded
from lib.evidence import imports
from lib.evidence.records import file_digest
from lib.models.prompts import endings
from lib.models.vocabulary import check_ids
from lib.pruning.surgery import pruned
from lib.study import permuted

if TYPE_CHECKING:
    from lib.evaluation.harness import SharedPass

VERSION = "0.4.13"  # whose insides these are
QUICK = 5000  # requests


@cache
def harness() -> Any:
    """lm-eval, imported late: it is slow and not needed to check a study of local tasks.

    Raises UserError for another version than the one whose insides are replaced here."""
    found = metadata.version("lm_eval")
    if found != VERSION:
        raise UserError(
            f"lm-eval {found} is installed, but its insides are known of {VERSION} alone; "
            f"`pip install lm-eval=={VERSION}`"
        )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    import lm_eval
    import lm_eval.api.task
    import lm_eval.tasks._yaml_loader
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # lm-eval compiles a task's templates again for every question of every pruning.
    templates = lm_eval.utils.env
    templates.from_string = lru_cache(templates.from_string)
    # A bar per task and model while prompts are put together, for milliseconds of work.
    lm_eval.api.task.tqdm = partial(tqdm, disable=True)
    datasets.disable_progress_bars()
    # It keeps what it has read of a local file for any of the same place and time.
    files = datasets.data_files
    files._get_single_origin_metadata = partial(_origin, files._get_single_origin_metadata)
    # And lm-eval a compiled helper for any source of the same place and time.
    yaml_loader = lm_eval.tasks._yaml_loader
    yaml_loader._load_module_with_cache = partial(_helper, yaml_loader._load_module_with_cache)

    class PrunedLM(HFLM):
        """lm-eval's Hugging Face model for one pruning, answering from a pass shared by all."""

        def __init__(self, shared: "SharedPass", **options: Any) -> None:
            with _weights_left_alone(options["pretrained"]):
                super().__init__(softmax_dtype="float32", **options)
            self.shared = shared
            self.number = 0
            self.ending = endings(self.tokenizer)

        def tok_encode(
            self, string: str, add_special_tokens: bool | None = None, **options: Any
        ) -> list[int]:
            found = super().tok_encode(string, add_special_tokens, **options)
            # Where special tokens were added, none of them stays behind a prompt or an answer.
            if self.ending and found == self.tokenizer.encode(string):
                found = found[: -self.ending]
            return found

        def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> str | None:
            """None of what a tokenizer without an end of text has in its place."""
            return None if tokens is None else super().tok_decode(tokens, skip_special_tokens)

        def apply_chat_template(self, chat_history: list, *given: Any, **named: Any) -> str:
            if self.shared.question_free:
                chat_history = _turns_without_question(chat_history)
            return super().apply_chat_template(chat_history, *given, **named)

        def loglikelihood(self, requests: list, disable_tqdm: bool = False) -> list:
            if self.shared.question_free and not self.shared.chat_template:
                requests = [_without_question(request) for request in requests]
            known = self.shared.answers
            if all(request.args in known for request in requests):  # do not tokenise again
                return [known[request.args][self.number] for request in requests]
            return super().loglikelihood(requests, disable_tqdm=len(requests) < QUICK)

        def _loglikelihood_tokens(self, requests: list, **_: Any) -> list:
            room = self.max_length + 1
            keys, rows = [], {}
            for text, context, answer in requests:
                tokens = (*context, *answer)
                if not 0 < len(answer) < room:
                    raise UserError(
                        f"lm-eval task '{self.shared.name}': an answer of {len(answer)} tokens "
                        f"cannot be scored in a context of {room - 1}"
                    )
                # A prompt is asked once per choice and counted once.
                if len(tokens) > room:
                    self.shared.truncated.add(tuple(context))
                tokens = tokens[-room:]
                keys.append(text or (*context, None, *answer))
                rows[keys[-1]] = Row(tokens, len(tokens) - len(answer))
            self.shared.answer(rows)
            return [self.shared.answers[key][self.number] for key in keys]

        def generate_until(self, requests: list, disable_tqdm: bool = False) -> list:
            with pruned(self.model, self.shared.blocks[self.number]):
                return super().generate_until(requests, disable_tqdm=len(requests) < QUICK)

        def tok_batch_encode(self, strings: list, left_truncate_len: int, **_: Any) -> Any:
            """Prompts of generation, cut on the left to leave room for the answer."""
            rows = [self.tok_encode(string) for string in strings]
            check_ids(rows, self.model.config, f"lm-eval task '{self.shared.name}'")
            self.shared.truncated |= {tuple(row) for row in rows if len(row) > left_truncate_len}
            return padded([row[-left_truncate_len:] for row in rows], self.shared.pad, left=True)

    lm_eval.PrunedLM = PrunedLM
    return lm_eval


def _origin(elsewhere: Callable[..., tuple], file: str, **options: Any) -> tuple:
    """By what `datasets` tells a data file from others: of a local one, its content."""
    return (file_digest(Path(file)),) if Path(file).is_file() else elsewhere(file, **options)


def _helper(shipped: Callable[[Path], ModuleType], path: Path) -> ModuleType:
    """A task's Python file, run as it stands; once for each content."""
    return shipped(path) if "/lm_eval/tasks/" in str(path) else _run(path, file_digest(path))


@cache
def _run(path: Path, content: str) -> ModuleType:
    name = str(path.with_suffix(""))  # as lm-eval calls it
    sys.modules[name] = imports.run(name, path)
    return sys.modules[name]


def ask_in_order(task: Any, order: int) -> None:
    """Have an lm-eval task show its examples in an order of their own."""
    task.sampler.sample = partial(_permuted, task.sampler.sample, order)


def ask_again(task: Any, documents: Sequence[Any]) -> None:
    """Have an lm-eval task that was asked once keep its prompts and documents for the next."""
    task.build_all_requests = partial(_forget_answers, task)
    # Reading a question from `datasets` again costs more than judging an answer to it.
    task.doc_iterator = partial(_again, list(enumerate(documents)))


def _permuted(sample: Callable[..., Sequence], order: int, *args: Any, **given: Any) -> list:
    """The sampler's examples in another order, the same one for every question."""
    return permuted(sample(*args, **given), order)


def _forget_answers(task: Any, **_: Any) -> None:
    """In place of putting the same prompts together again."""
    for instance in task.instances:
        instance.resps, instance.filtered_resps = [], {}


def _again(documents: list[tuple[int, Any]], **_: Any) -> Iterator[tuple[int, Any]]:
    return iter(documents)


def _without_question(request: Any) -> Any:
    """A copy: the task's own request is asked again of the next pruning."""
    shortened = copy.copy(request)
    prompt, answer = request.arguments
    shortened.arguments = (last_line(prompt), answer)
    return shortened


def _turns_without_question(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """The user's last turn, cut short, and the beginning of the answer, if there is one."""
    last = max(i for i, turn in enumerate(turns) if turn["role"] == "user")
    return [turns[last] | {"content": last_line(turns[last]["content"])}, *turns[last + 1 :]]


@contextmanager
def _weights_left_alone(model: Any) -> Iterator[None]:
    """lm-eval ties the head of any model that it is given to the embeddings, if its configuration
    says so."""
    model.tie_weights = lambda *_, **__: None
    try:
        yield
    finally:
        del model.tie_weights


def last_line(prompt: str) -> str:
    """What is left of a prompt without its question: the last line, such as "Answer:", or nothing
    where the whole prompt is one line."""
    return prompt.rpartition("\n")[2] if "\n" in prompt else ""
