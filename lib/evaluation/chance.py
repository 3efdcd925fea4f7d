"""What can be scored without knowing anything: by guessing, and by always giving one answer.

Both follow from a question's choices and from which of them are right, as the task itself says of
each document. The requests that the harness makes of a question are something else: a metric may
add more.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Levels(NamedTuple):
    """guess: the mean share of the choices that are right, 0 for generation. constant: the score of
    always giving the commonest answer. None where they are not known: a task with a score of its
    own may give points for anything."""

    guess: float | None
    constant: float | None


def known(task: Any) -> bool:
    """Whether lm-eval's own code scores a task's answers: right or wrong, by its choices or words.

    The chance levels of a task that does so itself (`process_results`) are not known."""
    from lm_eval.api.task import ConfigurableTask

    own = type(task).process_results is not ConfigurableTask.process_results
    return not own and not callable(task.config.process_results)


def from_requests(task: Any) -> bool:
    """Whether requests, and positions of one right answer each, give the same levels as choices."""
    choices = task.OUTPUT_TYPE == "multiple_choice"
    return (
        known(task)
        and not task.multiple_target
        and not task.multiple_input
        and "acc_mutual_info" not in task.aggregation()
        and choices == (task.config.doc_to_choice is not None)
    )


def levels(tasks: Mapping[str, Any], documents: Mapping[str, Sequence[Any]]) -> Levels:
    """Of the questions of several tasks together: lm-eval's tasks and their documents, by name."""
    if not all(known(tasks[name]) for name in documents):
        return Levels(None, None)
    guess: list[float] = []
    answers: Counter[str] = Counter()
    for name, of_task in documents.items():
        for document in of_task:
            share, right = _right_answers(tasks[name], document)
            guess.append(share)
            answers.update(right)
    return Levels(sum(guess) / len(guess), max(answers.values(), default=0) / len(guess))


def _right_answers(task: Any, document: Any) -> tuple[float, set[str]]:
    """The share of a question's choices that are right, and the texts of the right answers: the
    position of one may be the same in all questions of a task."""
    where = task.doc_to_text if task.multiple_input else task.doc_to_target
    target = where(document)
    targets = target if isinstance(target, list) else [target]
    if task.config.doc_to_choice is None:
        return 0.0, set(map(str, targets))
    choices = task.doc_to_choice(document)
    places = {choices.index(t) if isinstance(t, str) and t in choices else t for t in targets}
    places = {i for i in places if isinstance(i, int) and 0 <= i < len(choices)}
    share = len(places) / len(choices) if task.OUTPUT_TYPE == "multiple_choice" else 0.0
    return share, {choices[i] for i in places}
