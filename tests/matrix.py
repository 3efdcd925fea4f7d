"""The matrix: every family that is known here × what is promised of any model, healing aside.

    .venv/bin/python tests/matrix.py               # all of them, as a table; minutes
    .venv/bin/python tests/matrix.py lfm2 gpt_oss  # these

The reference is independent of the project: the whole model, in which the dropped layers pass on
what enters them. A cell says "right", or the one line that a user gets instead. A row is wrong
where a number differs or anything but such a line is raised. `test_matrix.py` runs some of it.
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tiny import FAMILIES, VARIANTS, random_model, random_tokens, random_variant
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging
from zoo import BEHIND, MORE, STACK, STACKS

from lib.errors import UserError
from lib.evaluation import evaluate, sweep
from lib.evaluation.batches import Row
from lib.healing import recipe as recipes
from lib.models.anatomy import skeleton
from lib.pruning import geometry, on_disk
from lib.schema import Study

L = 6
# A block, scattered layers, and one whole period of families in which kinds of layers alternate.
DROPS = ((2, 3), (1, 2, 4), (1, 2, 3))
CLOSE = 1e-3  # nats in a row's log-likelihood, as sums of float32
FORMS = [*FAMILIES, *VARIANTS, *MORE, *BEHIND]
CLAIMED = {  # stacks of the families in tiny.py
    "gpt_neox": "gpt_neox.layers",
    "gpt2": "transformer.h",
    "opt": "model.decoder.layers",
    "falcon": "transformer.h",
    "gemma3": "model.language_model.layers",
}


def made(form: str) -> tuple[PreTrainedModel, str]:
    """A random model of a form, and the name of its list of layers."""
    if form in BEHIND:
        family, changes = BEHIND[form]
        return random_model(family, settings=MORE[family] | changes), STACK
    if form in MORE:
        return random_model(form, settings=MORE[form]), STACKS.get(form, STACK)
    family = VARIANTS[form][0] if form in VARIANTS else form
    return random_variant(form), CLAIMED.get(family, STACK)


@contextmanager
def identity(model: PreTrainedModel, stack: str, dropped: tuple[int, ...]) -> Iterator[None]:
    """The whole model, in which some layers pass on what enters them."""
    layers, tuples = model.get_submodule(stack), []
    hook = layers[0].register_forward_hook(
        lambda _module, _inputs, output: tuples.append(
            len(output) if isinstance(output, tuple) else 0
        )
    )
    logits(model, (1,))
    hook.remove()

    def forward(hidden_states: torch.Tensor, *_: object, **__: object) -> object:
        return (hidden_states, *[None] * (tuples[0] - 1)) if tuples[0] else hidden_states

    for number in dropped:
        layers[number].forward = forward
    try:
        yield
    finally:
        for number in dropped:
            del layers[number].forward


@torch.inference_mode()
def logits(model: PreTrainedModel, tokens: tuple[int, ...]) -> torch.Tensor:
    return model(torch.tensor([tokens]), use_cache=False).logits[0]


def by_hand(model: PreTrainedModel, stack: str, rows: list[Row]) -> torch.Tensor:
    """Log-likelihoods [prunings, rows], each row alone; of the whole model first."""
    found = torch.zeros(1 + len(DROPS), len(rows), dtype=torch.float64)
    for i, dropped in enumerate(((), *DROPS)):
        with identity(model, stack, dropped):
            for j, row in enumerate(rows):
                at = logits(model, row.tokens[:-1]).double().log_softmax(-1)[row.start - 1 :]
                found[i, j] = at.gather(1, torch.tensor(row.tokens[row.start :])[:, None]).sum()
    return found


def questions() -> list[Row]:
    """Two questions that share examples, with four answers each, and a text of its own."""
    drawn = random_tokens(10, 16, seed=1).tolist()
    examples = tuple(drawn[0])
    rows = []
    for question in drawn[1:3]:
        prompt = examples + tuple(question[:6])
        rows += [
            Row(prompt + tuple(answer[: 1 + k % 3]), 22) for k, answer in enumerate(drawn[4:8])
        ]
    return [*rows, Row(tuple(drawn[9]), 1)]


def swept(model: PreTrainedModel, stack: str) -> str:
    rows, drops = questions(), [(), *DROPS]
    expected = by_hand(model, stack, rows)
    for count in range(len(drops), 0, -1):  # less those that are refused
        try:
            found = sweep.log_likelihoods(model, drops[:count], rows, 4, 0, "rows")
        except UserError as error:
            line, refused = str(error), True
            continue
        worst = (found.log_likelihood - expected[:count]).abs().max().item()
        if not worst < CLOSE:
            return f"WRONG by {worst:.2g} nats"
        way = sweep._ways[model] or "one by one"
        return f"right, {way}" + (f"; {line}" if count < len(drops) and refused else "")
    return f"WRONG: {line}"


def losses(model: PreTrainedModel, stack: str) -> str:
    texts = random_tokens(4, 12, seed=2).tolist()
    expected = by_hand(model, stack, [Row(tuple(text), 1) for text in texts]).sum(1) / (4 * 11)
    worst, lines = 0.0, []
    for i, dropped in enumerate(((), *DROPS)):
        try:
            (found,) = evaluate.losses(model, [dropped], texts, 2, 0)
        except UserError as error:
            lines.append(str(error))
            continue
        worst = max(worst, abs(found["loss"] + expected[i].item()))
    return "; ".join([f"WRONG by {worst:.2g}" if worst > 1e-4 else "right", *lines[:1]])


def distances(model: PreTrainedModel, stack: str) -> str:
    """Against arccos of what enters and leaves layers, in numpy."""
    tokens, entered = random_tokens(3, 12, seed=3), []
    layers = model.get_submodule(stack)

    def enters(_module: object, args: tuple, kwargs: dict) -> None:
        entered.append((args[0] if args else kwargs["hidden_states"])[:, -1])

    def leaves(_module: object, _args: object, output: object) -> None:
        entered.append((output[0] if isinstance(output, tuple) else output)[:, -1])

    hooks = [layer.register_forward_pre_hook(enters, with_kwargs=True) for layer in layers]
    hooks.append(layers[-1].register_forward_hook(leaves))
    with torch.inference_mode():
        model(tokens, use_cache=False)
    for hook in hooks:
        hook.remove()
    unit = [
        x.double().numpy() / np.linalg.norm(x.double(), axis=-1, keepdims=True) for x in entered
    ]
    found = geometry.measure(model, tokens, 2, 100, 0).table
    worst = max(
        abs(
            np.arccos((unit[r.start] * unit[r.start + r.n]).sum(-1).clip(-1, 1)).mean() / np.pi
            - r.distance
        )
        for r in found.itertuples()
    )
    count = len(layers)
    complete = len(unit) == count + 1 and len(found) == sum(count + 1 - n for n in range(1, count))
    return "right" if complete and worst < 1e-5 else f"WRONG by {worst:.2g}"


def add_behind(folder: Path) -> None:
    """Put a copy of the last layer's tensors behind it."""
    tensors = load_file(folder / "model.safetensors")
    last = max(int(name.split(".")[2]) for name in tensors if name.startswith(f"{STACK}."))
    for name in [name for name in tensors if name.startswith(f"{STACK}.{last}.")]:
        tensors[name.replace(f".{last}.", f".{last + 1}.", 1)] = tensors[name].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def on_disk_and_back(model: PreTrainedModel, stack: str) -> str:
    """`lib.pruning` writes what transformers loads as the model that the reference computes."""
    tokens, lines, done = tuple(random_tokens(1, 12, seed=4)[0].tolist()), [], 0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        model.save_pretrained(whole)
        if model.config.get_text_config().num_hidden_layers > L:
            add_behind(whole)
        for number, dropped in enumerate(DROPS):
            out = Path(folder) / f"out{number}"
            try:
                on_disk.prune(whole, out, dropped)
            except UserError as error:
                lines.append(str(error))
                continue
            again, info = AutoModelForCausalLM.from_pretrained(
                out, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
            )
            with identity(model, stack, dropped):
                expected = logits(model, tokens)
            worst = (logits(again.eval(), tokens) - expected).abs().max().item()
            if any(info.values()) or not worst < 1e-4:
                return f"WRONG without layers {dropped}: by {worst:.2g}, {info}"
            done += 1
    return "; ".join((["right"] if done else []) + lines[:1])


def healing(model: PreTrainedModel, stack: str) -> str:
    """What `check` says of healing with adapters."""
    study = Study(model="/nowhere", name="mine")
    try:
        recipes.of(study.healing).check(study, skeleton(model.config), study.healing)
    except UserError as error:
        return str(error)
    return "modules known"


COLUMNS: dict[str, Callable[[PreTrainedModel, str], str]] = {
    "loss": losses,
    "questions in one pass": swept,
    "on disk and back": on_disk_and_back,
    "distances": distances,
    "healing with adapters": healing,
}


def row(form: str) -> dict[str, str]:
    """What came out for a form, by column."""
    try:
        model, stack = made(form)
    except Exception as error:
        return dict.fromkeys(COLUMNS, f"WRONG: not made: {type(error).__name__}: {error}")
    found = {}
    for name, column in COLUMNS.items():
        try:
            found[name] = column(model, stack)
        except UserError as error:
            found[name] = str(error)
        except Exception as error:
            found[name] = f"WRONG: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return found


def main(forms: list[str]) -> int:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    began, wrong = time.monotonic(), 0
    print(f"| family | {' | '.join(COLUMNS)} |\n|---{'|---' * len(COLUMNS)}|")
    for form in forms or FORMS:
        cells = row(form)
        wrong += any("WRONG" in cell for cell in cells.values())
        print(f"| {form} | {' | '.join(cells.values())} |", flush=True)
    minutes = (time.monotonic() - began) / 60
    print(
        f"\n{len(forms or FORMS)} families and forms, {wrong} of them wrong; {minutes:.1f} minutes"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
