"""What a study's model does to the residual stream, layer by layer, and its untrained twin beside
it: one forward pass for all that needs no head, and one backward for the gradients."""

from collections import deque
from itertools import pairwise
from math import isnan
from typing import Any

import torch
from tqdm import tqdm

from lib.evaluation import gradient_norms, layer_states, logit_lens
from lib.evaluation.intrinsic import two_nearest_neighbours
from lib.evaluation.likeness import GROUPS, MEASURES, Side, likeness
from lib.experiments.conditions import choices
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import prompt_inputs
from lib.models import checkpoints
from lib.models.untouched import untouched
from lib.pruning.dropped import layers_to_drop
from lib.schema import Task

METHOD = 1
NEIGHBOURS = 1024  # tokens at most among which nearest ones are looked for
ALIKE = ("cosine", "cka", "svcca", "procrustes")  # by which blocks could be chosen as well

Measures = dict[str, dict[str, list[float | None]]]


def measures(opened: OpenStudy, untrained: bool = False) -> dict[str, Any]:
    """`measures`: by name `value` and `stderr` of every layer; `blocks`: by number of layers and
    measure the likeness of what enters and what leaves each block; how many `tokens` and `windows`
    they are of. From evidence, or measured now."""
    name = "untrained" if untrained else "own"
    return opened.store.get_or_measure(
        "layers", name, _inputs(opened, untrained), lambda: _measured(opened, untrained),
        batch=opened.study.batch,
    )  # fmt: skip


def lens_task(opened: OpenStudy) -> Task | None:
    """The task whose questions the logit lens looks at: the one that is named, else the first of
    the role `knowledge` that is asked without examples."""
    named = opened.study.what_layers_do.task
    for task in choices(opened.study):
        if task.name == named or (not named and task.role == "knowledge" and not task.shots):
            return task
    return None


def lens(opened: OpenStudy) -> dict[str, Any] | None:
    """`lib.evaluation.logit_lens` of the study's task; None where there is none."""
    if (task := lens_task(opened)) is None:
        return None

    def run() -> dict[str, Any]:
        with untouched(opened.model, "the logit lens"):
            return logit_lens.of_task(
                opened.model,
                opened.tokenizer,
                task,
                opened.task_manager,
                opened.study.batch,
                opened.study.chat_template,
            )

    inputs = {
        "method": METHOD,
        "checkpoint": opened.checkpoint,
        "weights": opened.weights,
        "task": task.model_dump(exclude={"role", "metric", "label"}),
        "source": opened.task_source(task),
        **prompt_inputs(opened),
        **({"chat_template": True} if opened.study.chat_template else {}),
    }
    return opened.store.get_or_measure("lens", task.name, inputs, run, batch=opened.study.batch)


def _inputs(opened: OpenStudy, untrained: bool) -> dict[str, Any]:
    model = opened.twin_inputs if untrained else {"checkpoint": opened.checkpoint}
    settings = opened.study.what_layers_do
    # Of the mean loss of a batch: other batches have other gradients.
    back = {"windows": settings.gradients, "batch": opened.study.batch}
    return model | {
        "method": METHOD,
        "weights": opened.weights,
        "text": opened.texts["validation"],
        "sample": opened.study.distances.model_dump(include={"n_sequences", "length", "seed"}),
        "further": settings.further,
        "blocks": _sizes(opened),
        "gradients": back if settings.gradients else None,
    }


def _sizes(opened: OpenStudy) -> list[int]:
    """Numbers of layers whose blocks are compared."""
    fractions = opened.study.what_layers_do.fractions
    found = {layers_to_drop(fraction, opened.n_layers) for fraction in fractions}
    return sorted(found - {0, 1, opened.n_layers})


def _measured(opened: OpenStudy, untrained: bool) -> dict[str, Any]:
    windows, batch = opened.windows(), opened.study.batch
    settings = opened.study.what_layers_do
    if untrained:
        opened.release()  # the two need not be in memory together
    model = checkpoints.untrained_twin(opened.study) if untrained else opened.model

    def bar(what: str) -> Any:
        return lambda batches: tqdm(batches, desc=what, leave=False)

    with untouched(model, "a pass over text"):
        found = layer_states.read(model, windows, batch, settings.further, bar("layers"))
        value = of_states(found, _sizes(opened))
        if settings.gradients:
            some = windows[: settings.gradients]
            value["measures"]["gradient"] = gradient_norms.of_layers(
                model, some, batch, bar("gradients")
            )
    return value | {"measures": {name: _plain(one) for name, one in value["measures"].items()}}


@torch.inference_mode()
def of_states(found: layer_states.LayerStates, sizes: list[int]) -> dict[str, Any]:
    """All that is derived of the states of one pass."""
    count = len(found.window)
    group = found.window * GROUPS // (int(found.window[-1]) + 1)
    # Two sides at a time: each takes many times the room of its states.
    pairs = pairwise(Side(states, group) for states in found.states)
    layers = [likeness(*pair) for pair in pairs]
    few = torch.linspace(0, count - 1, min(count, NEIGHBOURS)).long()
    dimensions = [two_nearest_neighbours(states[few]) for states in found.states[:-1]]
    measured = {name: _columns([layer[name] for layer in layers]) for name in MEASURES}
    return {
        "measures": found.means | measured | {"dimension": _columns(dimensions)},
        "blocks": {str(n): _of_blocks(found.states, n) for n in sizes},
        "tokens": count,
        "windows": found.n_windows,
        "width": found.states.shape[-1],
    }


def _of_blocks(states: torch.Tensor, n: int) -> dict[str, list[float | None]]:
    found: dict[str, list[float | None]] = {name: [] for name in ALIKE}
    sides: deque[Side] = deque(maxlen=n + 1)
    for stop, leaving in enumerate(states):
        sides.append(Side(leaving))
        if stop < n:
            continue
        entering = states[stop - n].double()
        cosine = torch.cosine_similarity(entering, leaving.double(), -1).mean()
        pair = likeness(sides[0], sides[-1]) | {"cosine": (float(cosine), 0.0)}
        for name in ALIKE:
            value = pair[name][0]
            found[name].append(None if isnan(value) else value)
    return found


def _columns(pairs: list[tuple[float, float]]) -> dict[str, list[float]]:
    value, stderr = map(list, zip(*pairs, strict=True))
    return {"value": value, "stderr": stderr}


def _plain(one: dict[str, list[float]]) -> dict[str, list[float | None]]:
    """A record has no NaN."""
    return {key: [None if isnan(x) else x for x in values] for key, values in one.items()}
