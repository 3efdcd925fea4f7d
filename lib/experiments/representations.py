"""How alike two models of a study represent the same text, layer by layer."""

from math import isnan
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from lib.evaluation.cka import linear_cka
from lib.experiments.conditions import Condition
from lib.experiments.models import materialised
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import condition_inputs
from lib.models.anatomy import decoder
from lib.models.untouched import untouched
from lib.pruning.geometry import residual_stream

METHOD = 1


def alignment(
    opened: OpenStudy, name: str, pairs: list[tuple[Condition, Condition]]
) -> list[dict[str, Any]]:
    """By pair the linear CKA of what enters each layer, and of what leaves the last, at the last
    token of every window on which the study's distances are measured: `cka` and `stderr`
    [layers + 1]. From evidence, or measured now; a model is read once. name: of the records.

    Both of a pair have as many layers, and are healed."""
    found = [_recorded(opened, name, pair) for pair in pairs]
    missing = [pair for pair, value in zip(pairs, found, strict=True) if value is None]
    states: dict[str, np.ndarray] = {}
    for one in (one for pair in missing for one in pair):
        if repr(one) not in states:
            states[repr(one)] = _states(opened, one)
    for first, second in missing:
        both = zip(states[repr(first)], states[repr(second)], strict=True)
        # Where nothing varies there is no likeness.
        values = [[None if isnan(one) else one for one in linear_cka(*layer)] for layer in both]
        cka, stderr = map(list, zip(*values, strict=True))
        found = {"cka": cka, "stderr": stderr}
        opened.store.put("alignment", name, _inputs(opened, (first, second)), found)
    return [_recorded(opened, name, pair) or {} for pair in pairs]


def _recorded(
    opened: OpenStudy, name: str, pair: tuple[Condition, Condition]
) -> dict[str, Any] | None:
    return opened.store.get("alignment", name, _inputs(opened, pair))


def _inputs(opened: OpenStudy, pair: tuple[Condition, Condition]) -> dict[str, Any]:
    return {
        "method": METHOD,
        "models": [condition_inputs(opened, one) for one in pair],
        "text": opened.texts["validation"],
        "sample": opened.study.distances.model_dump(include={"n_sequences", "length", "seed"}),
    }


@torch.inference_mode()
def _states(opened: OpenStudy, one: Condition) -> np.ndarray:
    """[layers + 1, windows, width]"""
    windows, rows = opened.windows(), []
    with materialised(opened, one) as model, untouched(model, "a pass over text"):
        stack = decoder(model)
        with residual_stream(model, lambda hidden: hidden[:, -1].float().cpu()) as stream:
            for batch in tqdm(windows.split(opened.study.batch), one.name, leave=False):
                stream.clear()
                stack(input_ids=batch.to(stack.device), use_cache=False)
                rows.append(torch.stack(stream))
    return torch.cat(rows, dim=1).numpy()
