"""Healing with other seeds (Fig. 8 of Gromov et al.)."""

from lib.experiments.conditions import seed_conditions
from lib.sections import ablations, tables
from lib.sections.comparisons import DIFFERENCE
from lib.sections.section import Section, Table

SECTION = Section(
    conditions=lambda opened: {"": seed_conditions(opened)},
    tables=(
        Table(
            "healing_seeds", ablations.seeds_table, "a seed, a metric and a model", tables.METRIC
        ),
        Table(
            "healing_seeds_compared",
            ablations.seeds_compared,
            "a task and a seed, against the study's own seed",
            {**tables.TASK, **DIFFERENCE},
        ),
    ),
    claims=("gromov-11",),
)
