"""Made-up runs with all their tables, for tests of studies side by side."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lib.sections.other_runs import Run

NAMES = ("angular_distances", "qa", "loss", "transitions", "verdicts")
HEALED = (0.25, 0.5, 0.75)
Write = Callable[..., Path]


def distances(layers: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"n": n, "start": start, "distance": rng.uniform(0.01, 0.5), "stderr": 0.001,
         "n_sequences": 16}
        for n in range(1, layers)
        for start in range(layers - n + 1)
    )  # fmt: skip


def evaluated(layers: int) -> list[dict]:
    """What the rows of qa and loss say of the model that they are about."""
    some = [round(fraction * layers) for fraction in HEALED]
    rows = []
    for state, weights, healing, ns in (
        ("unhealed", "bf16", "none", range(1, layers)),
        ("control", "nf4", "none", some),
        ("healed", "nf4", "qlora-r8", some),
    ):
        of = {
            "state": state,
            "healing": healing,
            "weights": weights,
            "seed": None if healing == "none" else 0,
        }
        rows.append({"strategy": "none", "n": 0, "fraction": 0.0, **of})
        rows += [
            {"strategy": strategy, "n": n, "fraction": n / layers, **of}
            for strategy in ("similarity", "simple")
            for n in ns
        ]
    return rows


def tables(
    layers: int = 8,
    critical: float = 0.4,
    tasks: tuple[tuple[str, int], ...] = (("know", 0), ("read", 0)),
    corpus: str = "text",
    vocabulary: int = 1000,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:
    models = evaluated(layers)
    qa = pd.DataFrame(
        {"task": task, "shots": shots, **model, "stderr": 0.02, "n_questions": 400, "guess": 0.25,
         "constant": 0.3, "chance": 0.3, "role": "knowledge",
         "accuracy": 0.3 + 0.6 / (1 + np.exp((model["fraction"] - critical) / 0.03))}
        for task, shots in tasks
        for model in models
    )  # fmt: skip
    loss = pd.DataFrame(
        {"corpus": corpus, **model, "normalized_loss": 0.3 + model["fraction"] / 2,
         "loss": (0.3 + model["fraction"] / 2) * np.log(vocabulary), "stderr": 0.05}
        for model in models
    )  # fmt: skip
    keys = ["task", "shots", "strategy", "state", "healing", "weights"]
    transitions = qa[qa["strategy"] != "none"][keys].drop_duplicates().assign(
        fraction=critical, low=critical - 0.05, high=critical + 0.05, width=0.1
    )  # fmt: skip
    verdicts = pd.DataFrame(
        {"paper": "gromov", "claim": [1, 2], "statement": ["Flat.", "Sharp."]}
        | {"verdict": ["reproduced", "partly"]}
    )
    return {
        "angular_distances": distances(layers, seed),
        "qa": qa,
        "loss": loss,
        "transitions": transitions,
        "verdicts": verdicts,
    }


def run_of(name: str, sign: str = "a made-up world", **world: object) -> Run:
    made = tables(**world)
    layers = int(made["angular_distances"]["n"].max()) + 1
    return Run(name, name.title(), sign, layers, None, Path("results", name, "tables"), made)
