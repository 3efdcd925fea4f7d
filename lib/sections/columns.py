"""What the columns of tables hold: those that several tables share, and a page of all."""

from tabulate import tabulate

from lib.sections import section

TASK = {"task": "name of the task", "shots": "number of examples in its prompt"}
DROPPED = {
    "n": "number of layers dropped",
    "fraction": "n over the number of layers of the model",
}
MODEL = {
    "strategy": "how the layers were chosen; `none`: the unpruned model",
    **DROPPED,
    "dropped": "the layers dropped, counted from 0; empty: none",
    "start": "first layer of the block; empty where the layers are no block",
    "stop": "first layer behind the block; empty where the layers are no block",
    "state": "`unhealed`; `healed`; `control`: unhealed, in a number format that only healing uses",
    "healing": "recipe, with the rank of its adapters where it has some; `none`: not healed",
    "weights": "number format: `float32`, `bf16`, `fp16` or `nf4`",
    "seed": "seed of healing; empty: not healed",
}
QA = {
    **TASK,
    **MODEL,
    "accuracy": "share of the questions answered rightly; of scores between 0 and 1 their mean",
    "stderr": "standard error of the accuracy",
    "n_questions": "number of questions",
    "by_subject": "mean of the accuracies of a group's tasks",
    "by_subject_stderr": "its standard error",
    "chance": "the larger one of `guess` and `constant`; empty: not known",
    "guess": "mean share of the choices that are right",
    "constant": "score of always giving the commonest answer",
    "truncated_prompts": "number of prompts cut to the model's window",
    "role": "what the task asks for: `knowledge`, `reading` or `generation`",
}
METRIC = {
    "metric": "`accuracy` or `normalized_loss` (loss over ln V)",
    "task": "name of the task; of a loss, of its text",
    "shots": "number of examples in the prompt; empty for a loss",
    **MODEL,
    "value": "of the metric",
    "stderr": "standard error of the value",
}
DISTANCE = {
    "n": "number of layers of the block",
    "start": "its first layer, counted from 0",
    "distance": "angular distance across the block, in units of π",
    "stderr": "standard error of the distance",
    "n_sequences": "number of windows of text",
}
BLOCK = {
    "n": "number of layers of the block",
    "start": "its first layer, ℓ*(n)",
    "stop": "first layer behind it",
    "distance": "angular distance across it, in units of π",
    "support": "share of the resamples that choose the same start",
}
CURVE_MODEL = ("strategy", "state", "healing", "weights", "seed")
CURVE = {
    **TASK,
    **{key: MODEL[key] for key in CURVE_MODEL},
    "fraction": "critical fraction, where the fitted step has lost half of its height; "
    "empty where no step can be fitted, or chance is not known",
    "low": "lower end of its 95% interval",
    "high": "upper end of its 95% interval",
    "width": "stretch over which the step falls from 90% to 10% of its height",
    "width_low": "lower end of its 95% interval",
    "width_high": "upper end of its 95% interval",
}


def columns_markdown() -> str:
    """What book/method.md includes: every table of every section with its columns, as Markdown."""
    parts = []
    for table in section.tables().values():
        if not table.written:
            where = "in reference runs"
        else:
            where = "" if table.published else "not in reference runs"
        rows = [(f"`{name}`", meaning) for name, meaning in table.columns.items()]
        about = ", ".join(filter(None, [f"one row is {table.row}", where]))
        heading = f"**`{table.name}.csv`**: {about}."
        parts.append(f"{heading}\n\n{tabulate(rows, ('column', 'holds'), tablefmt='github')}\n")
    return "\n".join(parts)
