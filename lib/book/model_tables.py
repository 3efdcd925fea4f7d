"""Tables of the models that studies are shipped for, made from the studies' own files."""

from collections.abc import Sequence
from dataclasses import replace

from lib import paths
from lib import study as studies
from lib.book.took import Rows
from lib.healing import recipe
from lib.models import checkpoints, shapes
from lib.pruning.dropped import layers_to_drop
from lib.schema import Study
from lib.words import percent, unbroken

# Whose settings others share, by `like`.
PAPER, SECOND, SMALL = "llama-2-7b", "llama-3.1-8b-it", "smollm2-135m"


def family(base: str) -> list[Study]:
    """The study and those that are like it, the smallest model first."""
    found = [studies.load(path.stem) for path in sorted(paths.STUDIES.glob("*.yaml"))]
    found = [one for one in found if base in (one.name, one.like)]
    return sorted(found, key=lambda one: parameters(one).total)


def parameters(study: Study) -> shapes.Shape:
    return shapes.shape_of(checkpoints.config_of_shape(study), study.adapted)


def models_table(found: Sequence[Study]) -> Rows:
    """Where each model is, and how large."""
    rows: Rows = []
    for one in found:
        shape = parameters(one)
        rows.append(
            {
                "model": unbroken(one.title),
                "study": f"`{one.name}`",
                "repository": f"`{one.model}`",
                "parameters": f"{shape.total / 1e9:.2f} billion",
                "of these in layers": percent(sum(shape.by_layer) / shape.total),
            }
        )
    return rows


def recipes_table(found: Sequence[Study]) -> Rows:
    """What healing needs to know of each model, and its recipe where it is the model's own."""
    rows: Rows = []
    for one in found:
        shape, healing = parameters(one), one.healing
        tokens = healing.steps * healing.batch * healing.length
        rows.append(
            {
                "model": unbroken(one.title),
                "layers": shape.n_layers,
                "vocabulary": f"{shape.config.get_text_config().vocab_size:,}",
                "tokens per row": f"{healing.length:,}",
                "tokens, at most": f"{tokens / 1e6:,.0f} M",
                "peak learning rate": f"{healing.learning_rate:.0e}".replace("e-0", "e-"),
                "rank": healing.rank,
                "trained, no layer dropped": f"{shape.trainable(healing.rank) / 1e6:,.1f} M",
            }
        )
    return rows


def trained_table(found: Sequence[Study]) -> Rows:
    """What each recipe trains, by model, with the deepest layers dropped at its first fraction."""
    shapes_of = {unbroken(one.title): (one, parameters(one)) for one in found}
    dropped = {
        name: layers_to_drop(one.what_to_train.fractions[0], shape.n_layers)
        for name, (one, shape) in shapes_of.items()
    }
    left = {name: shape.n_layers - dropped[name] for name, (_, shape) in shapes_of.items()}
    rows: Rows = [{"trained": "layers left"} | {name: str(left[name]) for name in left}]
    for healing in found[0].recipes:
        row = {"trained": f"`{healing.recipe}`: {recipe.of(healing).words(healing)}"}
        for name, (_, shape) in shapes_of.items():
            own = replace(shape, targets=healing.adapted)
            gone = range(left[name], shape.n_layers)
            trained = recipe.of(healing).trainable(own, healing, gone)
            row[name] = f"{trained / 1e6:,.1f} M"
        rows.append(row)
    return rows


def settings_table(base: Study) -> Rows:
    """What all studies like this one share."""
    healing = base.healing
    rows = {
        "text for healing": f"{base.text_name}, {base.healing_text.split} split",
        "text for distances and loss": f"{base.text_name}, {base.validation_text.split} split",
        "sequences for distances": f"{base.distances.n_sequences:,}",
        "sequences for loss": f"{base.loss.n_sequences:,}",
        "questions": ", ".join(
            f"{task.name} {task.shots}-shot"
            + (f" (the first {task.limit} of each)" if task.limit else "")
            for task in base.tasks
        ),
        "healing steps × rows": f"{healing.steps:,} × {healing.batch}",
        "warm-up": f"{round(healing.steps * healing.warmup):,} steps, then cosine",
        "LoRA": f"α = rank, dropout {healing.dropout:g}, on the FFN",
        "base": "4-bit NF4, frozen",
        "seed": healing.seed,
    }
    return [{"setting": key, "value": value} for key, value in rows.items()]


def tables() -> dict[str, Rows]:
    """What book/models.md includes. Cells are Markdown."""
    paper, second, small = family(PAPER), family(SECOND), family(SMALL)
    return {
        "paper_models": models_table(paper),
        "paper_recipes": recipes_table(paper),
        "paper_settings": settings_table(studies.load(PAPER)),
        "second_models": models_table(second),
        "second_trained": trained_table(second),
        "small_models": models_table(small),
        "small_recipes": recipes_table(small),
        "small_settings": settings_table(studies.load(SMALL)),
    }
