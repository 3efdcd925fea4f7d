"""What becomes of each question, and of each sentence, as layers go (the reviewers' question)."""

from lib.experiments.conditions import main_conditions
from lib.sections import fates
from lib.sections.section import Section, Table
from lib.sections.tables import DROPPED, TASK

MODELS = {"models": "`unhealed` or `healed`", **DROPPED}
SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    tables=(
        Table(
            "questions",
            fates.question_table,
            "a task and a model",
            {
                **TASK,
                **MODELS,
                "kept": "number of questions that this and the unpruned model answer rightly",
                "lost": "number that only the unpruned model answers rightly",
                "gained": "number that only this model answers rightly",
                "wrong": "number that neither answers rightly",
                "n_questions": "number of all questions",
                "by_chance": "number that would be kept if both were right independently",
            },
        ),
        Table(
            "texts",
            fates.texts_table,
            "a prompt and a model",
            {"prompt": "what the model goes on from", **MODELS, "text": "what it writes"},
        ),
    ),
)
