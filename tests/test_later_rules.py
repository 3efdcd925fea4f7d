"""Rules of the claims that came after the second paper, on made-up tables in which they hold and on
ones in which they do not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib import claims
from lib.claims import Tables

World = dict[str, pd.DataFrame]
LAYERS = 16


def ways() -> pd.DataFrame:
    about = {"strategy": "similarity", "fraction": 0.25, "ability": "all", "base": "lessons"}
    rows = [
        {"compared": "own", "own": "compared", "difference": 0.06, "tokens": 1010},
        {"compared": "text", "own": "", "difference": -0.2, "tokens": 500},
    ]
    return pd.DataFrame(about | {"base_tokens": 1000, "stderr": 0.01} | row for row in rows)


def questions() -> pd.DataFrame:
    shares = {0: (1, 1), 0.125: (0.9, 0.4), 0.25: (0.7, 0.1)}
    return pd.DataFrame(
        {"task": task, "shots": 0, "role": role, "state": "unhealed", "fraction": fraction}
        | {"strategy": "similarity" if fraction else "none", "chance": chance}
        | {"accuracy": (chance or 0.0) + 0.6 * share[role == "generation"], "stderr": 0.02}
        for fraction, share in shares.items()
        for task, role, chance in (
            ("know", "knowledge", 0.25),
            ("read", "reading", 0.5),
            ("sums", "generation", None),
        )
    )


def layers() -> pd.DataFrame:
    noise = np.random.default_rng(0).normal(size=(2, 2, LAYERS))
    return pd.DataFrame(
        {"model": model, "measure": measure, "layer": layer}
        | {"value": slope * (model == "the model") * layer + noise[i, j, layer]}
        for i, model in enumerate(("the model", "its untrained twin"))
        for j, (measure, slope) in enumerate((("norm", 2.0), ("gradient", -2.0)))
        for layer in range(LAYERS)
    )


def right() -> World:
    costs = {"measure": "gradient", "cost": "loss", "rho": 0.8, "low": 0.6, "high": 0.9}
    return {
        "ways_compared": ways(),
        "qa": questions(),
        "layer_measures": layers(),
        "layer_predictors": pd.DataFrame([costs, costs | {"cost": "accuracy", "rho": 0.0}]),
    }


def put(table: str, where: str, **columns: object) -> Callable[[World], None]:
    def apply(world: World) -> None:
        rows = world[table].query(where).index
        assert len(rows), where
        for column, value in columns.items():
            world[table].loc[rows, column] = value

    return apply


def turned(world: World) -> None:
    table = world["ways_compared"]
    table.loc[0, ["compared", "base", "own"]] = ["lessons", "own", "base"]
    table.loc[0, "difference"] = -0.06


def as_its_twin(world: World) -> None:
    """What grows and falls as in a network that has learnt nothing says nothing."""
    table = world["layer_measures"]
    own = table[table["model"] == "the model"]
    world["layer_measures"] = pd.concat([own, own.assign(model="its untrained twin")])


def nothing(world: World) -> None:
    """With errors as large as those of 16 layers this cannot be told from a little."""
    as_its_twin(world)
    put("layer_predictors", "cost == 'loss'", rho=-0.2, low=-0.4, high=0.1)(world)


def the_other_way(world: World) -> None:
    """The stream shrinks, gradients grow, and these tell nothing."""
    table = world["layer_measures"]
    table.loc[table["model"] == "the model", "value"] *= -1
    put("layer_predictors", "cost == 'loss'", rho=-0.2, low=-0.4, high=0.1)(world)


YES, PARTLY, NO, OPEN = "reproduced", "partly", "not reproduced", "undecided"
UNTESTABLE = "not testable here"
GENERATION = "role == 'generation' and fraction > 0"
CASES = [
    (32, None, YES),
    (32, turned, YES),
    (32, put("ways_compared", "own == 'compared'", difference=-0.06), NO),
    (32, put("ways_compared", "own == 'compared'", difference=0.0), NO),  # a tie that is shown
    (32, put("ways_compared", "own == 'compared'", difference=0.03, stderr=0.03), OPEN),
    (32, put("ways_compared", "own == 'compared'", tokens=1100), UNTESTABLE),
    (32, put("ways_compared", "own == 'compared'", own=""), UNTESTABLE),
    (35, None, YES),
    (35, put("qa", GENERATION, accuracy=0.6), NO),
    (35, put("qa", "role == 'generation' and fraction == 0.25", accuracy=0.6), NO),
    (35, put("qa", GENERATION, stderr=0.4), OPEN),
    (35, put("qa", "role == 'generation'", role="knowledge", chance=0.25), UNTESTABLE),
    (35, put("qa", "role == 'generation' and fraction == 0", accuracy=0.01), UNTESTABLE),
    (35, put("qa", "fraction == 0.125", fraction=0.6), UNTESTABLE),
    (41, None, YES),
    (41, put("layer_predictors", "cost == 'loss'", rho=-0.2, low=-0.4, high=0.1), PARTLY),
    (41, as_its_twin, PARTLY),  # (c) alone
    (41, nothing, OPEN),
    (41, the_other_way, NO),
    (41, put("layer_predictors", "cost == 'loss'", rho=0.6, low=0.3, high=0.8), OPEN),
    (41, put("layer_predictors", "cost == 'loss'", rho=None), UNTESTABLE),
    (41, put("layer_measures", "measure == 'gradient'", measure="angular"), UNTESTABLE),
]


@pytest.mark.parametrize(("number", "change", "expected"), CASES)
def test_verdicts(
    number: int, change: Callable[[World], None] | None, expected: str, tmp_path: Path
) -> None:
    world = right()
    if change:
        change(world)
    for name, frame in world.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    found = claims.find(f"lu-{number}").verdict(Tables(tmp_path))
    assert found.verdict == expected, found
    assert found.reason and "nan" not in found.reason + found.margins
