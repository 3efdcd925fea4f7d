"""The same questions with examples in other orders, and with other numbers of them (Fig. 7 of
Gromov et al.)."""

from lib.experiments.conditions import main_conditions
from lib.sections import ablations
from lib.sections.comparisons import DIFFERENCE
from lib.sections.section import Section, Table
from lib.sections.tables import QA

PROMPT = {
    "varied": "what is compared: `order`, or `shots`, the number of examples",
    "order": "0: the harness's own; else the seed of a permutation",
}
SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    tables=(
        Table("prompts", ablations.prompts_table, "a prompt and a model", {**PROMPT, **QA}),
        Table(
            "prompts_compared",
            ablations.prompts_compared,
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
)
