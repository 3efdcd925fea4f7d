"""At a glance: accuracy, loss and verdicts on one page (Fig. 1 of Gromov et al.)."""

from lib.experiments.conditions import main_conditions
from lib.sections.section import Section, every_claim

SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    claims=every_claim(),
)
