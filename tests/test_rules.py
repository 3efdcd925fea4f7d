"""Every claim's rule, on a made-up study in which the paper is right and on ones in which it is
not: 16 layers, a knowledge and a reading task, float32, 4-bit and healed models, three ranks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib import claims
from lib.claims import ANSWERS, VERDICTS, Tables
from lib.claims.gromov import CLAIMS

World = dict[str, pd.DataFrame]
LAYERS = 16
HEALED = (0, 2, 4, 6, 8, 10, 12)
CHANCE = {"know": 0.25, "read": 0.5}
# Critical fractions: the paper's picture. Healing repairs reading most.
CRITICAL = {
    ("know", "similarity", "none"): 0.42, ("know", "simple", "none"): 0.30,
    ("read", "similarity", "none"): 0.30, ("read", "simple", "none"): 0.05,
    ("know", "similarity", "qlora-r8"): 0.50, ("know", "simple", "qlora-r8"): 0.48,
    ("read", "similarity", "qlora-r8"): 0.52, ("read", "simple", "qlora-r8"): 0.50,
}  # fmt: skip
FURTHER = (10, 11, 13, 14, 15, 16)  # in test_further_rules
TABLE_RULES = [claim.number for claim in CLAIMS if claim.number not in FURTHER]


def fall(fraction: float, critical: float) -> float:
    """1 before the critical fraction, 0 after it, with a width of 0.09."""
    return 1 / (1 + np.exp((fraction - critical) / 0.02))


def models() -> list[dict]:
    """One row per evaluated model, with the columns that qa and loss share."""
    curves = [
        ("unhealed", "float32", "none", range(LAYERS)),
        ("control", "nf4", "none", HEALED),
        ("healed", "nf4", "qlora-r8", HEALED),
    ]
    rows = []
    for state, weights, healing, ns in curves:
        for strategy in ("similarity", "simple"):
            for n in ns:
                if n == 0 and strategy == "simple":
                    continue
                start = 0 if n == 0 else LAYERS - 1 - n if strategy == "simple" else 3
                rows.append(
                    {"strategy": strategy if n else "none", "n": n, "fraction": n / LAYERS,
                     "start": start if n else 0, "stop": start + n if n else 0,
                     "state": state, "healing": healing, "weights": weights,
                     "seed": 0 if healing != "none" else None}
                )  # fmt: skip
    return rows


def qa() -> pd.DataFrame:
    rows = []
    for task, role in {"know": "knowledge", "read": "reading"}.items():
        for model in models():
            strategy = model["strategy"] if model["n"] else "similarity"
            kept = fall(model["fraction"], CRITICAL[task, strategy, model["healing"]])
            accuracy = CHANCE[task] + (0.95 - CHANCE[task]) * kept
            rows.append(
                {"task": task, "shots": 0, **model, "accuracy": accuracy, "stderr": 0.004,
                 "n_questions": 1000, "chance": CHANCE[task], "guess": CHANCE[task],
                 "constant": CHANCE[task], "truncated_prompts": 0, "role": role}
            )  # fmt: skip
    return pd.DataFrame(rows)


def loss() -> pd.DataFrame:
    rows = []
    for model in models():
        healed = 0.30 + 0.30 * model["fraction"]
        early = 0.3 if model["strategy"] == "simple" else 0.0
        broken = 0.30 + 1.0 * (1 - fall(model["fraction"] + early * (model["n"] > 0), 0.41))
        value = healed if model["healing"] != "none" else max(broken, healed + 0.05)
        rows.append(
            {"corpus": "text", **model, "loss": 6 * value, "normalized_loss": value,
             "stderr": 0.02, "n_tokens": 9999, "n_sequences": 100}
        )  # fmt: skip
    return pd.DataFrame(rows)


def transitions() -> pd.DataFrame:
    rows = []
    for (task, strategy, healing), critical in CRITICAL.items():
        for state in ("healed",) if healing != "none" else ("unhealed", "control"):
            rows.append(
                {"task": task, "shots": 0, "strategy": strategy, "state": state, "healing": healing,
                 "weights": "float32" if state == "unhealed" else "nf4",
                 "seed": 0 if healing != "none" else None,
                 "fraction": critical, "low": critical - 0.01, "high": critical + 0.01,
                 "width": 0.09, "width_low": 0.07, "width_high": 0.11}
            )  # fmt: skip
    return pd.DataFrame(rows)


def angular_distances() -> pd.DataFrame:
    rows = []
    for n in range(1, LAYERS):
        for start in range(LAYERS - n + 1):
            last = 0.3 if start + n == LAYERS else 0.0
            distance = 0.01 * n + 0.2 * (1 - start / LAYERS) + last
            rows.append(
                {"n": n, "start": start, "distance": distance, "stderr": 0.001, "n_sequences": 64}
            )
    return pd.DataFrame(rows)


def untrained_distances() -> pd.DataFrame:
    """An untrained model: only the size of a block matters."""
    return angular_distances().assign(distance=lambda table: 0.01 * table["n"])


def lora_rank() -> pd.DataFrame:
    rows = []
    for rank in (2, 8, 32):
        for strategy in ("similarity", "simple"):
            for n in (4, 8, 12):
                of = {"rank": rank, "strategy": strategy, "n": n, "fraction": n / LAYERS,
                      "start": 3, "stop": 3 + n, "healing": f"qlora-r{rank}", "weights": "nf4",
                      "seed": 0}  # fmt: skip
                rows += [
                    of | {"metric": "accuracy", "task": task, "shots": 0, "stderr": 0.01,
                          "value": 0.8 - 0.002 * rank}
                    for task in CHANCE
                ]  # fmt: skip
                rows.append(
                    of | {"metric": "normalized_loss", "task": "text", "shots": None,
                          "stderr": 0.003, "value": 0.5 - 0.001 * rank}
                )  # fmt: skip
    return pd.DataFrame(rows)


def paper_is_right() -> World:
    tables = (qa, loss, transitions, angular_distances, untrained_distances, lora_rank)
    return {table.__name__: table() for table in tables}


def verdict(number: int, world: World, folder: Path) -> str:
    for name, table in world.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.10g")
    outcome, reason, margins, asked = claims.find(f"gromov-{number}").verdict(Tables(folder))
    assert outcome in VERDICTS
    assert (outcome == "undecided") == ("within the error of its edge" in reason)
    said = reason + margins + asked
    assert reason and "nan" not in said and "\n" not in said
    if outcome in ("reproduced", "not reproduced") and margins:
        # Of a verdict that follows from all conditions alike, none tells another story.
        kinds = {part.rpartition(" ")[2] for part in margins.split("; ")}
        assert outcome != "reproduced" or kinds == {"spare"}, margins
    return outcome


@pytest.mark.parametrize("number", TABLE_RULES)
def test_where_the_paper_is_right_its_claims_are_reproduced(number: int, tmp_path: Path) -> None:
    assert verdict(number, paper_is_right(), tmp_path) == "reproduced"


@pytest.mark.parametrize("number", [claim.number for claim in CLAIMS])
def test_without_tables_nothing_can_be_tested(number: int, tmp_path: Path) -> None:
    assert verdict(number, {}, tmp_path) == "not testable here"


def change(table: str, where: str, **columns: object) -> Callable[[World], None]:
    """Set columns (or apply functions to them) in the rows that fit a query."""

    def apply(world: World) -> None:
        frame = world[table]
        rows = frame.query(where).index
        assert len(rows) > 0, where
        for column, value in columns.items():
            frame[column] = frame[column].astype(object)
            new = value(frame.loc[rows]) if callable(value) else value
            frame.loc[rows, column] = new
            frame[column] = frame[column].infer_objects()

    return apply


def curves(where: str, fraction: float = 0.5, width: float = 0.09) -> Callable[[World], None]:
    """Other transitions, as certain as before."""
    ends = {"low": fraction - 0.01, "high": fraction + 0.01}
    ends |= {"width_low": width - 0.02, "width_high": width + 0.02}
    return change("transitions", where, fraction=fraction, width=width, **ends)


def twin_like_the_model(share: float) -> Callable[[World], None]:
    """An untrained twin that has this share of what the trained model's distances show."""

    def mutate(world: World) -> None:
        trained, flat = angular_distances(), untrained_distances()
        mixed = share * trained["distance"] + (1 - share) * (flat["distance"] + 0.1)
        world["untrained_distances"] = flat.assign(distance=mixed)

    return mutate


def rank_gain(table: str, by: float) -> Callable[[World], None]:
    metric = "accuracy" if table == "accuracy" else "normalized_loss"
    return change("lora_rank", f"metric == '{metric}'", value=lambda r: 0.5 + by * r["rank"])


def higher(rows: pd.DataFrame, by: float) -> pd.Series:
    return rows["normalized_loss"] + by


UP = "healing != 'none' and strategy == 'similarity'"
LAST = f"start + n == {LAYERS}"
BEFORE = "state == 'unhealed' and strategy == 'similarity'"
SUNK = {"accuracy": lambda r: r["chance"]}
NO, OPEN = "not testable here", "undecided"
# Numbers that leave a rule both ways, and numbers just as far from its edge that do not.
STRADDLING = [
    (1, OPEN, change("qa", UP, stderr=0.1)),
    (1, OPEN, change("qa", f"{UP} and n == 2 and task == 'know'", accuracy=0.9, stderr=0.02)),
    (1, "partly", change("qa", f"{UP} and n == 2 and task == 'know'", accuracy=0.8, stderr=0.02)),
    (2, OPEN, change("transitions", f"{UP} and task == 'know'", width_high=0.9)),
    (2, OPEN, change("transitions", f"{UP} and task == 'know'", low=0.05)),
    (2, "reproduced", change("transitions", f"{UP} and task == 'know'", width_high=0.3)),
    (3, OPEN, change("transitions", "healing != 'none'", low=0.0, high=1.0)),
    (3, OPEN, change("loss", "healing != 'none' and n == 8", stderr=4.0)),
    (3, "partly", change("loss", "healing != 'none' and n == 8", loss=9.0, stderr=0.4)),
    (4, OPEN, change("transitions", f"{BEFORE} and task == 'read'", low=0.1)),
    (4, OPEN, change("loss", BEFORE, normalized_loss=0.6, stderr=1.0)),
    (5, OPEN, change("loss", UP, stderr=0.3)),
    (6, OPEN, change("angular_distances", "n > 0", stderr=0.1)),
    (6, OPEN, twin_like_the_model(1.0)),
    (7, OPEN, change("angular_distances", "n > 0", stderr=0.2)),
    (7, OPEN, change("angular_distances", f"{LAST} and n == 5", stderr=0.2)),
    (8, OPEN, change("qa", "healing == 'none'", stderr=0.2)),
    (8, OPEN, change("loss", "healing == 'none'", stderr=3.0)),
    (9, OPEN, change("qa", "healing != 'none'", stderr=0.03)),
    (9, OPEN, change("loss", "healing != 'none'", stderr=0.2)),
    (12, OPEN, change("lora_rank", "metric == 'accuracy'", stderr=0.1)),
    (12, OPEN, change("lora_rank", "metric != 'accuracy'", stderr=0.03)),
    # Not shown, but as large a difference as matters is excluded: no.
    (12, "partly", rank_gain("accuracy", 0.0)),
    (17, OPEN, change("qa", "weights == 'nf4'", stderr=0.3)),
]
CASES = [
    *STRADDLING,
    # 1: flat regions of the healed model
    (1, "partly", change("qa", f"{UP} and task == 'know'", **SUNK)),
    (1, "not reproduced", change("qa", UP, **SUNK)),
    (1, "reproduced", change("qa", f"{UP} and fraction > 0.26", **SUNK)),
    (1, "not reproduced", change("qa", f"{UP} and fraction > 0.13", **SUNK)),
    (1, NO, change("qa", "n == 0", accuracy=lambda r: r["chance"] + 0.01)),
    # 2: width against the flat stretch before it
    (2, "partly", curves(f"{UP} and task == 'know'", width=0.4)),
    (2, "not reproduced", curves(UP, width=0.4)),
    (2, "reproduced", curves("strategy == 'simple'", width=0.9)),
    (2, NO, change("transitions", UP, fraction=None, width=None)),
    # 3: the transition moves up and loss goes down
    (3, "partly", curves("healing != 'none'", 0.1)),
    (3, "partly", change("loss", "healing != 'none' and n == 8", loss=9.0)),
    (3, "reproduced", change("loss", "healing != 'none' and n == 2", loss=9.0)),
    (3, NO, change("transitions", "state == 'control'", fraction=None)),
    (3, NO, change("loss", "n > 0", fraction=0.2)),
    # 4: unhealed loss rises where accuracy falls
    (4, "partly", curves(f"{BEFORE} and task == 'read'", 0.8)),
    (4, "not reproduced", curves(BEFORE, 0.9)),
    (4, "not reproduced", change("loss", BEFORE, normalized_loss=0.4)),
    (4, NO, change("transitions", BEFORE, fraction=None)),
    # 5: healed loss is straight and without a jump
    (5, "partly", change("loss", f"{UP} and n > 6", normalized_loss=lambda r: higher(r, 0.1))),
    (5, "partly", change("loss", UP, normalized_loss=lambda r: 0.3 + r["n"].clip(0, 6.4))),
    (5, "not reproduced", change("loss", f"{UP} and n > 6", normalized_loss=2.0)),
    (5, NO, change("loss", f"{UP} and n > 4", healing="none", state="control")),
    (5, NO, change("transitions", "healing != 'none'", fraction=None)),
    # 6: deep blocks against shallow ones
    (6, "reproduced", change("angular_distances", LAST, distance=0.9)),
    (6, "not reproduced", change("angular_distances", "n > 0", distance=lambda r: 0.01 * r["n"])),
    (6, "not reproduced", twin_like_the_model(1.1)),
    (6, "partly", twin_like_the_model(0.6)),
    # 7: the last layer
    (7, "not reproduced", change("angular_distances", LAST, distance=0.001)),
    (7, "partly", change("angular_distances", f"{LAST} and n == 5", distance=0.001)),
    (7, "partly", change("angular_distances", "start == 0", distance=5.0)),
    # 8: simple against similarity, unhealed
    (8, "partly", change("loss", "healing == 'none' and n > 0", normalized_loss=0.6)),
    (8, "partly", change("qa", "healing == 'none' and n > 0", accuracy=0.7)),
    (8, "reproduced", change("qa", "n > 0 and task == 'know'", accuracy=0.7)),
    # 9: and healed
    (9, "partly", change("qa", "healing != 'none' and strategy == 'simple'", **SUNK)),
    (9, "partly", change("loss", UP, normalized_loss=lambda r: higher(r, -0.06))),
    (9, "partly", change("loss", UP, normalized_loss=lambda r: higher(r, 0.06))),
    (9, "reproduced", change("qa", "healing == 'none' and n > 0", **SUNK)),
    # 12: low against high rank
    (12, "partly", rank_gain("accuracy", 0.001)),
    (12, "partly", rank_gain("accuracy", -0.0004)),
    (12, "partly", rank_gain("loss", 0.001)),
    (
        12,
        "partly",
        change(
            "lora_rank", "metric != 'accuracy' and n < 9", value=lambda r: 0.4 + 0.001 * r["rank"]
        ),
    ),
    (12, "reproduced", change("lora_rank", "rank == 8", value=0.0)),
    (12, NO, change("lora_rank", "rank > 0", rank=8)),
    # 17: reading gains more than knowledge
    (17, "not reproduced", change("qa", "task == 'read' and weights == 'nf4'", accuracy=0.9)),
    (17, NO, change("qa", "task == 'read'", role="knowledge")),
    (17, NO, change("qa", "task == 'read' and n == 0", accuracy=0.5)),
]


@pytest.mark.parametrize(("number", "expected", "mutate"), CASES)
def test_a_rule_sees_what_it_should(
    number: int, expected: str, mutate: Callable[[World], None], tmp_path: Path
) -> None:
    world = paper_is_right()
    mutate(world)
    assert verdict(number, world, tmp_path) == expected


@pytest.mark.parametrize("number", TABLE_RULES)
def test_every_rule_can_be_undecided(number: int) -> None:
    assert OPEN in {expected for case, expected, _ in STRADDLING if case == number}


@pytest.mark.parametrize("number", TABLE_RULES)
def test_every_rule_can_come_out_against_the_paper(number: int) -> None:
    seen = {expected for case, expected, _ in CASES if case == number}
    assert seen & {"partly", "not reproduced"}


def test_both_halves_of_a_rule_can_fail(tmp_path: Path) -> None:
    world = paper_is_right()
    change("qa", "healing == 'none' and n > 0", accuracy=0.7)(world)
    change("loss", "healing == 'none' and n > 0", normalized_loss=0.6)(world)
    assert verdict(8, world, tmp_path) == "not reproduced"
    rank_gain("accuracy", 0.001)(world)
    rank_gain("loss", 0.001)(world)
    assert verdict(12, world, tmp_path) == "not reproduced"
    curves("healing != 'none'", 0.1)(world)
    change("loss", "healing != 'none' and n == 8", loss=9.0)(world)
    assert verdict(3, world, tmp_path) == "not reproduced"
    change("qa", "healing != 'none' and strategy == 'simple'", **SUNK)(world)
    change("loss", UP, normalized_loss=0.9)(world)
    assert verdict(9, world, tmp_path) == "not reproduced"


def test_prunings_outside_a_claims_range_decide_nothing(tmp_path: Path) -> None:
    world = paper_is_right()
    for name in ("qa", "loss"):
        world[name] = world[name].query("fraction == 0 or fraction > 0.7")
    assert verdict(8, world, tmp_path) == NO


def test_the_table_of_verdicts_has_a_row_per_claim(tmp_path: Path) -> None:
    verdict(1, paper_is_right(), tmp_path)
    table = claims.verdicts(Tables(tmp_path))
    for name, paper in claims.papers().items():
        rows = table[table["paper"] == name]
        assert list(rows["claim"]) == [claim.number for claim in paper.claims]
    assert not table.duplicated(["paper", "claim"]).any()
    assert set(table["verdict"]) <= {*VERDICTS, *ANSWERS.values()}
    assert list(table)[:2] == ["paper", "claim"] and set(table["paper"]) == {*claims.papers()}
    assert not table.isna().any().any() and (table != "").all().all()
    some = claims.verdicts(Tables(tmp_path), ["gromov-7", "gromov-6"])
    assert list(some["claim"]) == [7, 6]
