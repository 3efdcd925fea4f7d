"""Whether models can be made without the layers that a study drops, found out before it runs.

In a sweep unhealed prunings answer without being made. What is healed or writes is made, and so is
what is timed; and not every family's configuration can say what is left.
"""

import copy
from collections.abc import Iterable, Iterator

from transformers import PretrainedConfig

from lib.errors import UserError
from lib.experiments.conditions import Condition, breaking, writes
from lib.experiments.opened import OpenStudy
from lib.pruning.dropped import Dropped, simple, span
from lib.pruning.surgery import slice_config

TRIED = 16  # numbers of layers that a refusal looks through for what is possible


def check_cuts(opened: OpenStudy, evaluated: Iterable[Condition], times: bool) -> None:
    """Raises UserError, with what is possible, where a strategy's choice cannot be made into a
    model: by a rule its own, by scores whatever it is. evaluated: of which those that are healed,
    or write, are made; times: models are timed."""
    study, config, n_layers = opened.study, opened.config, opened.n_layers
    prompts = study.writing.n_prompts or study.writing.prompts
    made = {
        (one.strategy, one.dropped)
        for one in evaluated
        if one.dropped and (one.alone or (prompts and writes(opened, one)) or breaking(opened, one))
    }
    for strategy, dropped in sorted(made):
        by_rule = opened.strategy(strategy).by_rule
        blocks = [dropped] if by_rule else _blocks(dropped.n, n_layers)
        _check(config, blocks, f"study {study.name}: fractions of healing and writing")
    for n in opened.healed_ns(study.cost.fractions) if times else []:
        _check(config, [simple(n, n_layers)], f"study {study.name}: cost.fractions")


def _blocks(n: int, n_layers: int) -> Iterator[Dropped]:
    """All blocks of n layers, those in the middle first."""
    starts = range(n_layers - n + 1)
    for start in sorted(starts, key=lambda start: abs(start - (n_layers - n) // 2)):
        yield span(start, start + n)


def _check(config: PretrainedConfig, blocks: Iterator[Dropped] | list[Dropped], what: str) -> None:
    reasons = []
    for block in blocks:
        reason = _refusal(config, block)
        if reason is None:
            return
        reasons.append(reason)
    n_layers = config.get_text_config().num_hidden_layers
    sizes = range(1, min(TRIED, n_layers - 1) + 1)
    possible = [n for n in sizes if _refusal(config, simple(n, n_layers)) is None]
    words = ", ".join(f"{n / n_layers:.3g} ({n} layers)" for n in possible)
    raise UserError(
        f"{what}: {reasons[0]}; of the deepest layers but the last one, "
        f"{f'these fractions can go: {words}' if possible else 'none can go'}; sections that make "
        "no pruned model can be run by themselves"
    )


def _refusal(config: PretrainedConfig, dropped: Dropped) -> str | None:
    """Why no model can be made without these layers; None: one can."""
    kept = dropped.kept(config.get_text_config().num_hidden_layers)
    try:
        slice_config(copy.deepcopy(config), kept)
    except UserError as error:
        return str(error)
    return None
