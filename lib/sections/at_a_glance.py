"""At a glance: accuracy, loss and verdicts on one page (Fig. 1 of Gromov et al.)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.experiments.conditions import main_conditions
from lib.sections.figures import by_task, curves, evaluation_panels, normalised
from lib.sections.section import Section, every_claim


def glance(qa: pd.DataFrame, loss: pd.DataFrame) -> Figure:
    """Fig. 1(d): every accuracy, and the loss, against fraction; the study's main strategy."""
    tasks, normal = by_task(qa), normalised(loss)

    def draw(axes: Axes, column: str, task: tuple | None) -> None:
        rows = normal if task is None else tasks[task]
        curves(axes, rows, column, states=("unhealed", "healed"))

    return evaluation_panels(qa, loss, draw)


SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    claims=every_claim(),
)
