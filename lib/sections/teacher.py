"""Healing with a student–teacher loss at the cut (eq. 8 of Gromov et al.)."""

from lib.experiments.conditions import TEACHING, Condition, teacher_conditions
from lib.experiments.opened import OpenStudy
from lib.sections import ablations
from lib.sections.section import Section, Table
from lib.sections.tables import METRIC


def conditions(opened: OpenStudy) -> dict[str, list[Condition]]:
    """Those healed plainly for longer by themselves: their recipes differ in steps alone."""
    plain, longer, taught = (teacher_conditions(opened)[way] for way in TEACHING)
    return {"": plain + taught, "longer": longer}


SECTION = Section(
    conditions=conditions,
    tables=(
        Table(
            "teacher",
            ablations.teacher_table,
            "a way of healing, a metric and a model",
            {
                "way": "plain or with a teacher, at equal steps or at equal time",
                "steps": "number of training steps",
                "seconds": "training time; empty where it was interrupted",
                **METRIC,
            },
        ),
    ),
    claims=("gromov-14",),
)
