"""The same questions with examples in other orders, and with other numbers of them (Fig. 7 of
Gromov et al.)."""

import pandas as pd
from matplotlib.figure import Figure

from lib.experiments.conditions import Condition, main_conditions, prompted
from lib.experiments.opened import OpenStudy
from lib.schema import Task
from lib.sections import finding
from lib.sections.columns import QA
from lib.sections.comparisons import COLUMNS, DIFFERENCE, compare
from lib.sections.figures import accuracy_levels, grid, nothing, shaded_lines, shared_legend
from lib.sections.section import Section, Table
from lib.sections.tables import by_state, compared_sizes, qa_table, sound
from lib.study import prompt_tasks

PROMPT = {
    "varied": "what is compared: `order`, or `shots`, the number of examples",
    "order": "0: the harness's own; else the seed of a permutation",
}
FIRST = ["varied", "task", "shots", "order"]  # of the columns


def prompt_models(opened: OpenStudy) -> list[Condition]:
    """The models that are asked with other prompts too."""
    if not opened.prompt_tasks:
        return []
    return [one for one in main_conditions(opened) if prompted(opened, one)]


def prompts_table(opened: OpenStudy) -> pd.DataFrame:
    """Accuracy by order and by number of examples: `varied`, `order`, and the columns of qa."""
    models = prompt_models(opened)
    if not opened.prompt_tasks:
        return pd.DataFrame(columns=[*FIRST, *(name for name in QA if name not in FIRST)])
    parts = [
        qa_table(opened, models, [task]).assign(varied=varied, order=task.order)
        for varied, tasks in prompt_tasks(opened.study).items()
        for task in tasks
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[[*FIRST, *(name for name in table if name not in FIRST)]]


def prompts_compared(opened: OpenStudy) -> pd.DataFrame:
    """Other orders against the harness's own, other numbers against the smallest; means over the
    fractions, unhealed (up to the largest that was healed) and healed, paired over questions."""
    parts = []
    models = by_state(opened, sound(opened, prompt_models(opened)))
    sizes = compared_sizes(opened, models)
    models["unhealed"] = [one for one in models["unhealed"] if one.dropped.n in sizes]
    for varied, tasks in prompt_tasks(opened.study).items():
        names = [_prompt_name(varied, task) for task in tasks]
        for kind, conditions in models.items():
            groups = {
                name: [(one, task) for one in conditions]
                for name, task in zip(names, tasks, strict=True)
            }
            found = compare(opened, groups, names[0])
            others = tasks[1:] if len(found) else []
            found["models"], found["varied"] = kind, varied
            found["shots"] = [task.shots for task in others]
            found["order"] = [task.order for task in others]
            parts.append(found)
    none = pd.DataFrame(columns=[*COLUMNS, "models", "varied", "shots", "order"])
    return pd.concat(parts, ignore_index=True) if parts else none


def _prompt_name(varied: str, task: Task) -> str:
    if varied == "order":
        return f"order {task.order}"
    return f"{task.shots} example{'' if task.shots == 1 else 's'}"


def prompt_panels(prompts: pd.DataFrame) -> Figure:
    """Fig. 7: accuracy for several orders and numbers of examples, unhealed and healed."""
    if prompts.empty:
        return nothing("The prompts of this study have no examples.")
    figure, panels = grid(2, 2, width=4.2, height=3.2)
    for row, state in enumerate(("unhealed", "healed")):
        of_state = prompts[prompts["state"] == state]
        for column, (varied, by, label) in enumerate(
            (("order", "order", "order {}"), ("shots", "shots", "{} in the prompt"))
        ):
            axes = panels[row, column]
            rows = of_state[of_state["varied"] == varied]
            shaded_lines(axes, rows, by, "accuracy", label)
            accuracy_levels(axes, prompts[prompts["varied"] == varied])
            words = "orders of the examples" if column == 0 else "numbers of examples"
            axes.set_title(f"{words}, {state}", fontsize="medium")
    shared_legend(figure, panels)
    return figure


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """By how much other orders and other numbers of examples move accuracy at most."""
    table = finding.rows(made, "prompts_compared", "difference", "stderr")
    start, table = finding.by_state(table)
    parts = []
    for varied, words in (("order", "other orders"), ("shots", "other numbers")):
        rows = table[table["varied"] == varied]
        if len(rows):
            most = rows.loc[rows["difference"].abs().idxmax()]
            size = finding.points(most["difference"], most["stderr"])
            moves = "" if parts else "of the examples move accuracy "
            parts.append(f"{words} {moves}by at most {size}")
    if not parts:
        return ""
    questions = finding.counted(table["n_questions"].max(), "question")
    return f"{start}, {finding.listed(parts)} ({questions}); {finding.told(table)}."


SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    tables=(
        Table("prompts", prompts_table, "a prompt and a model", {**PROMPT, **QA}),
        Table(
            "prompts_compared",
            prompts_compared,
            "a prompt, against the first of its kind, unhealed or healed",
            {
                **DIFFERENCE,
                "models": "`unhealed` or `healed`",
                **PROMPT,
                "shots": "number of examples in the prompt",
            },
        ),
    ),
    claims=("gromov-10",),
    in_short=sentence,
)
