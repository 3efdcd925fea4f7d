"""Two ways to choose the layers, side by side (Fig. 5 of Gromov et al.)."""

from lib.experiments.conditions import main_conditions
from lib.sections import ablations
from lib.sections.comparisons import DIFFERENCE
from lib.sections.section import Section, Table
from lib.sections.tables import TASK

SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    tables=(
        Table(
            "strategies_compared",
            ablations.strategies_compared,
            "a task and two strategies, unhealed or healed",
            {**TASK, **DIFFERENCE, "models": "`unhealed` or `healed`"},
        ),
    ),
    claims=("gromov-8", "gromov-9"),
)
