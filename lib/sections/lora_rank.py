"""Healing with adapters of several ranks (Fig. 9 of Gromov et al.)."""

from lib.experiments.conditions import rank_conditions
from lib.sections import ablations, tables
from lib.sections.comparisons import DIFFERENCE
from lib.sections.section import Section, Table

SECTION = Section(
    conditions=lambda opened: {"": rank_conditions(opened)},
    tables=(
        Table(
            "lora_rank",
            lambda opened: tables.rank_table(opened, rank_conditions(opened)),
            "a rank, a metric and a model",
            {"rank": "rank of the adapters", **tables.METRIC},
        ),
        Table(
            "ranks_compared",
            ablations.ranks_compared,
            "a task and a rank, against the lowest rank",
            {**tables.TASK, **DIFFERENCE},
        ),
    ),
    claims=("gromov-12",),
)
