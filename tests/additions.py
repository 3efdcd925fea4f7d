"""What someone might add to the house, as files; tests/test_book.py puts them into a copy of it."""

import gzip
import json
import re
from pathlib import Path

import yaml
from bs4 import BeautifulSoup

# A section: a notebook, its module, and a line of _toc.yml.
NOTEBOOK = [
    ("markdown", "(sec-norms)=\n# How large are the layers?\n\nThe norm of each layer's weights."),
    ("parameters", 'study: str = "almanac"  # a study\'s name, or the path of its YAML file'),
    (
        "code",
        "from lib.sections import layer_norms, pages\n\nopened = pages.open_study(study)\n"
        'pages.settings(opened, "model")',
    ),
    ("code", "made = pages.measured(opened, layer_norms.SECTION)\npages.show(made['layer_norms'])"),
    ("code", 'pages.verdicts(opened, ["somebody-1"])'),
]
SECTION = '''
"""The norm of each layer's weights."""

import pandas as pd

from lib.experiments.opened import OpenStudy
from lib.sections.section import Extra, Section, Table


def measure_norms(opened: OpenStudy) -> dict:
    def run() -> dict:
        layers = opened.model.model.layers
        norms = [sum(float(w.norm()) for w in layer.parameters()) for layer in layers]
        return {"norms": norms}

    inputs = {"checkpoint": opened.checkpoint, "method": 1}
    return opened.store.get_or_measure("norms", "of all layers", inputs, run)


def layer_norms(opened: OpenStudy) -> pd.DataFrame:
    norms = measure_norms(opened)["norms"]
    return pd.DataFrame({"layer": range(len(norms)), "norm": norms})


SECTION = Section(
    extras=lambda opened: [Extra("layer-norms", "norms of the layers", measure_norms)],
    tables=(
        Table(
            "layer_norms",
            layer_norms,
            "a layer",
            {"layer": "counted from 0", "norm": "sum of the norms of its weights"},
        ),
    ),
    claims=("somebody-1",),
)
'''
PAPER = '''
"""Claims of a paper that somebody else might write."""

from lib.claims.rules.judging import Claim, Outcome, Paper, at_least, graded, measured
from lib.claims.rules.reading import Tables


def largest(tables: Tables) -> Outcome:
    norms = tables.layer_norms["norm"]
    ratio = measured(norms.max() / norms.min())
    return graded("read from the table", at_least("largest over smallest", ratio, 1))


PAPER = Paper(
    "Layers have norms",
    "Somebody, 2026",
    (
        Claim(
            number=1,
            statement="The largest layer is at least as large as the smallest.",
            where="everywhere",
            tables=("layer_norms",),
            rule="The largest norm over the smallest is at least 1.",
            undecided="Never: norms have no error.",
            fails="The largest is smaller than the smallest.",
            check=largest,
        ),
    ),
)
'''
# A strategy that drops scattered layers.
STRATEGY = '''
"""Every other layer from the end, the last one kept; then those between them."""

from lib.pruning.strategy import ByRule


class Strategy(ByRule):
    def choose(self, scores: None, n: int, n_layers: int) -> list[int]:
        order = [*range(n_layers - 2, -1, -2), *range(n_layers - 3, -1, -2)]
        return order[:n]
'''
# A user's own, outside of the repository.
MINE = '''
def scores(model, windows):
    """The last window's loss of each layer's output against its input, as one number."""
    import torch

    found = []
    hooks = [
        layer.register_forward_hook(
            lambda _, given, out: found.append(
                float(((out[0] if isinstance(out, tuple) else out) - given[0]).norm())
            )
        )
        for layer in model.model.layers
    ]
    with torch.no_grad():
        model(windows[-1:])
    for hook in hooks:
        hook.remove()
    return found
'''
# A recipe that trains the norms alone.
RECIPE = '''
"""Only the weights of norms are trained, in float32."""

from typing import Literal

from lib.healing import recipe
from lib.open_sets import (Healing)

FILE = "norms.safetensors"


class Settings(Healing):
    TEACHABLE = False
    recipe: Literal["norms"] = "norms"


class Recipe(recipe.Recipe):
    def base(self, study):
        import torch

        from lib.models.checkpoints import load_model

        return load_model(study, weights=torch.float32)

    def prepare(self, model, healing, dropped):
        for weight in model.parameters():
            weight.requires_grad_(weight.ndim == 1)
        return model.train()

    def keep(self, trained, folder):
        from safetensors.torch import save_file

        found = {k: w.detach() for k, w in trained.named_parameters() if w.requires_grad}
        save_file(found, folder / FILE)

    def restore(self, base, healing, dropped, folder):
        from safetensors.torch import load_file

        base.load_state_dict(load_file(folder / FILE), strict=False)
        return base

    def evaluable(self, trained, study, dropped, plain=False):
        return trained.eval().requires_grad_(False)

    def trainable(self, shape, healing, dropped=()):
        width = shape.config.get_text_config().hidden_size
        return width * (2 * (shape.n_layers - len(dropped)) + 1)

    def bytes(self, shape, healing, dtype, in_4bit):
        return 4 * shape.total + 12 * self.trainable(shape, healing), 4 * shape.total

    def words(self, healing):
        return "the norms"
'''
# Heals with it, restores, plans and estimates.
USE_RECIPE = """
import sys
from pathlib import Path
import torch
from lib import export, study
from lib.book.memory import memory
from lib.book.plan import plan
from lib.experiments import models, probes
from lib.experiments.conditions import healed
from lib.experiments.opened import OpenStudy
from lib.healing import heal, recipe
from lib.models.shapes import shape_of

opened = OpenStudy(study.load(sys.argv[1]))
one = healed(opened, opened.study.healing, [0.5], ["simple"])[1]
assert one.recipe == "norms" and one.weights == "float32", one
with models.materialised(opened, one) as model:
    found = {name: value.clone() for name, value in model.state_dict().items()}
heal.heal = None  # not a second time
with models.materialised(opened, one) as model:
    assert all(torch.equal(value, found[name]) for name, value in model.state_dict().items())
report = probes.healing_record(opened, one)
shape = shape_of(opened.config)
kind = recipe.of(opened.study.healing)
assert report["trainable_parameters"] == kind.trainable(shape, opened.study.healing, one.dropped)
needs = memory(opened.study, shape)
assert needs["healing"] > needs["unhealed"] and needs["healed"] == 4 * shape.total
print(plan(opened.study))
sys.exit(export.main(["--study", sys.argv[1], "--simple", "8", sys.argv[2]]))
"""


def add_section(repository: Path) -> None:
    cells = []
    for number, (kind, source) in enumerate(NOTEBOOK):
        cell = {"cell_type": "markdown" if kind == "markdown" else "code", "id": f"norms-{number}"}
        cell |= {"metadata": {"tags": ["parameters"]} if kind == "parameters" else {}}
        if kind != "markdown":
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell | {"source": source})
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (repository / "notebooks/15_layer_norms.ipynb").write_text(json.dumps(notebook))
    (repository / "lib/sections/layer_norms.py").write_text(SECTION)
    toc = repository / "_toc.yml"
    line = "      - file: notebooks/13_controls\n"
    text = toc.read_text("utf-8")
    assert line in text
    toc.write_text(text.replace(line, f"{line}      - file: notebooks/15_layer_norms\n"), "utf-8")


def add_paper(repository: Path) -> None:
    (repository / "lib/claims/somebody.py").write_text(PAPER)


def add_strategy(repository: Path) -> None:
    (repository / "lib/pruning/strategies/every_other.py").write_text(STRATEGY)


def add_recipe(repository: Path) -> None:
    (repository / "lib/healing/recipes/norms.py").write_text(RECIPE)


def compare_strategies(study: Path, own: Path) -> None:
    """The study names the added strategy, and one by file from outside the repository."""
    (own / "mine.py").write_text(MINE)
    settings = yaml.safe_load(study.read_text("utf-8"))
    mine = {"name": "mine", "file": str(own / "mine.py")}
    settings["strategies"] = ["similarity", "simple", "every-other", mine]
    study.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), "utf-8")


# Each is something to one of the tools that it passes through, and nothing but a name to readers.
CLONE = "x[2] {y} #1 it's $5, \u6a21\u578b"
TITLE = 'Smoke #1: [x]{y} \\(z\\) & <b>"5"</b>, $5_$'
SIGN = "<b>a #1 \\(y\\) model</b> & [x]{y}, $5_$"
OWN, OTHER = "_own $5_$ {0}", "**tales**: `a`_ | [b](c) 100 $% of $ <i>"


def name_oddly(study: Path, folder: Path) -> None:
    """What the study and its texts are called; the other text lies in a folder, compressed, and the
    loss is measured on it too."""
    text = study.parent.parent / "almanac/text/tales.jsonl"
    (folder / "[texts] *").mkdir()
    (folder / "[texts] *" / "a.jsonl.gz").write_bytes(gzip.compress(text.read_bytes()))
    settings = yaml.safe_load(study.read_text("utf-8"))
    settings |= {"title": TITLE, "sign": SIGN, "text_name": OWN}
    settings["other_texts"] = [{"name": OTHER, "path": str(folder / "[texts] *"), "loss": True}]
    settings["on_what"]["texts"] = []  # nothing is chosen on what is evaluated
    study.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), "utf-8")


def names_misread(pages: Path) -> list[tuple[str, str]]:
    """The page and the name wherever a name is not shown as it is, or is mathematics."""
    shown = {
        "at_a_glance": [TITLE, SIGN],
        "03_loss": [OWN, OTHER, SIGN],
        "08_other_texts": [OWN, OTHER],
        "12_families": [TITLE, SIGN],
        "13_controls": [TITLE],
    }
    misread = []
    for page, names in shown.items():
        text = (pages / f"{page}.html").read_text("utf-8")
        for name in names:
            found = BeautifulSoup(text, "html.parser").find_all(string=re.compile(re.escape(name)))
            plain = [one.find_parent(class_="mathjax_ignore") for one in found]
            misread += [] if plain and all(plain) else [(page, name)]
    return misread
