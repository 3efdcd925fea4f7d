"""What would happen anyway: the study beside its untrained twin and its reference runs."""

from lib.experiments.conditions import main_conditions
from lib.sections import tables
from lib.sections.section import Extra, Section, Table, every_claim

SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    extras=lambda opened: [
        Extra(
            "question-free",
            "choices without their question",
            tables.unpruned_table,
            seconds=5.0,
            needs=("unhealed",),  # what the unpruned model answers is shown beside it
        )
    ],
    tables=(
        Table(
            "unpruned",
            tables.unpruned_table,
            "a run and a task",
            {
                "run": "title of the study",
                **{key: tables.QA[key] for key in ("task", "shots", "accuracy", "stderr")},
                **{key: tables.QA[key] for key in ("n_questions", "guess", "constant")},
                "question_free": "accuracy when the choices follow no question; this study only",
                "question_free_stderr": "its standard error",
            },
            published=False,
        ),
    ),
    claims=every_claim(),
)
