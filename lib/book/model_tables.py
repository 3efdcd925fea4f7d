"""Tables of the models that studies are shipped for, made from the studies' own files."""

from collections.abc import Sequence
from pathlib import Path

from lib import paths
from lib import study as studies
from lib.models import checkpoints, shapes
from lib.schema import Study

PAPER, SMALL = "llama-2-7b", "smollm2-135m"  # whose settings the others share, by `like`


def family(base: str) -> list[Study]:
    """The study and those that are like it, the smallest model first."""
    found = [studies.load(path.stem) for path in sorted(paths.STUDIES.glob("*.yaml"))]
    found = [one for one in found if base in (one.name, one.like)]
    return sorted(found, key=lambda one: parameters(one).total)


def parameters(study: Study) -> shapes.Shape:
    return shapes.shape_of(checkpoints.config_of_shape(study), study.healing.ffn)


def unbroken(name: str) -> str:
    """The name, which stays on one line."""
    return name.replace(" ", "\u00a0").replace("-", "\u2011")


def models_table(found: Sequence[Study]) -> str:
    """Where each model is, and how large."""
    rows = []
    for one in found:
        shape = parameters(one)
        rows.append(
            {
                "model": unbroken(one.title),
                "study": f"`{one.name}`",
                "repository": f"`{one.model}`",
                "parameters": f"{shape.total / 1e9:.2f} billion",
                "of these in layers": f"{sum(shape.by_layer) / shape.total:.0%}",
            }
        )
    return markdown(rows)


def recipes_table(found: Sequence[Study]) -> str:
    """What healing needs to know of each model, and its recipe where it is the model's own."""
    rows = []
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
    return markdown(rows)


def settings_table(base: Study) -> str:
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
    return markdown([{"setting": key, "value": value} for key, value in rows.items()])


def markdown(rows: Sequence[dict[str, object]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def write(folder: Path) -> None:
    """What book/models.md includes."""
    folder.mkdir(parents=True, exist_ok=True)
    paper, small = family(PAPER), family(SMALL)
    for name, text in {
        "paper_models": models_table(paper),
        "paper_recipes": recipes_table(paper),
        "paper_settings": settings_table(studies.load(PAPER)),
        "small_models": models_table(small),
        "small_recipes": recipes_table(small),
        "small_settings": settings_table(studies.load(SMALL)),
    }.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
