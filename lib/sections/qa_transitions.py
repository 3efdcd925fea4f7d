"""Accuracy on questions against the fraction of layers dropped, and where it falls (Fig. 2 and 6 of
Gromov et al.)."""

from lib.experiments.conditions import main_conditions, rank_conditions
from lib.sections import tables
from lib.sections.section import Section, Table

SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    tables=(
        Table(
            "qa",
            lambda opened: tables.qa_table(opened, main_conditions(opened)),
            "a task and a model",
            tables.QA,
        ),
        Table(
            "transitions",
            lambda opened: tables.transition_table(opened, main_conditions(opened)),
            "a task and a curve",
            tables.CURVE,
        ),
        Table(
            "healing",
            lambda opened: tables.healing_table(
                opened, main_conditions(opened) + rank_conditions(opened)
            ),
            "a healed model, those of other ranks among them",
            {
                **tables.MODEL,
                "linear4bit": "number of modules in 4-bit",
                "trainable_parameters": "number of parameters trained",
                "tokens": "number of tokens trained on",
                "first_loss": "training loss of the first step, in nats per token",
                "last_loss": "training loss of the last step, in nats per token",
                "diverged": "what went wrong, if anything did",
            },
            written=False,  # models of other ranks may not have been healed yet
        ),
    ),
    claims=("gromov-1", "gromov-2", "gromov-17"),
)
