"""Loss on text against the fraction of layers dropped (Fig. 3 of Gromov et al.)."""

from lib.experiments.conditions import main_conditions
from lib.sections import tables
from lib.sections.section import Section, Table

SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    tables=(
        Table(
            "loss",
            lambda opened: tables.loss_table(opened, main_conditions(opened)),
            "a model",
            {
                "corpus": "name of the text",
                **tables.MODEL,
                "loss": "mean cross-entropy of the next token, in nats",
                "normalized_loss": "loss over ln V, V being the size of the vocabulary",
                "stderr": "standard error of the loss, in nats",
                "n_tokens": "number of tokens predicted",
                "n_sequences": "number of documents",
            },
        ),
    ),
    claims=("gromov-3", "gromov-4", "gromov-5"),
)
