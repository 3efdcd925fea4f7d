"""Figures of the almanac's published tables, as their pages draw them: each as an SVG."""

import io
from collections.abc import Callable
from functools import cache

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from lib import paths
from lib.claims.rules.reading import read
from lib.sections import (
    ability_figures,
    angular_distances,
    at_a_glance,
    difference_figures,
    figures,
    healing_seeds,
    last_layer,
    layer_figures,
    lora_rank,
    loss,
    other_texts,
    prompts,
    qa_transitions,
    repair,
    stacks,
    step_figures,
    strategies,
    strips,
    teacher,
    what_heals,
    what_it_saves,
    what_it_writes,
    what_to_train,
)

LAYERS = 16


@cache
def table(name: str) -> pd.DataFrame:
    found = read(paths.published("almanac") / "tables" / f"{name}.csv")
    words = {name: "" for name in ("models", "way") if name in found}
    return found.fillna(words)  # of the unpruned model


def levels() -> figures.Levels:
    whole = table("qa").query("strategy == 'none' and state == 'unhealed'")
    found = {("accuracy", r.task, r.shots): (r.accuracy, r.chance) for r in whole.itertuples()}
    row = table("loss").query("strategy == 'none' and state == 'unhealed'").iloc[0]
    return found | {("normalized_loss", row["corpus"], None): (row["normalized_loss"], 1.0)}


def sizes(name: str) -> list[int]:
    return sorted({*table(name)["n"]} - {0})


FIGURES: dict[str, Callable[[], Figure]] = {
    "distance-curves": lambda: angular_distances.distance_curves(
        table("angular_distances"), table("optimal_blocks"), table("untrained_distances")
    ),
    "distance-map": lambda: angular_distances.distance_map(
        table("angular_distances"), table("optimal_blocks"), table("untrained_distances")
    ),
    "last-layer": lambda: angular_distances.last_layer(
        table("angular_distances"), table("distances_after_norm")
    ),
    "glance": lambda: at_a_glance.picture(table("qa"), table("loss"), LAYERS),
    "qa": lambda: qa_transitions.accuracy_panels(table("qa"), table("transitions")),
    "critical": lambda: qa_transitions.transition_forest(table("transitions")),
    "blocks": lambda: stacks.blocks(table("optimal_blocks"), LAYERS),
    "chosen": lambda: stacks.by_strategy(table("chosen_layers"), LAYERS),
    "loss": lambda: loss.loss_panel(table("loss"), table("transitions")),
    "strategies": lambda: strategies.strategy_panels(table("qa"), table("loss")),
    "rank": lambda: lora_rank.rank_panels(table("lora_rank"), levels()),
    "ranks-compared": lambda: difference_figures.forest(table("ranks_compared")),
    "prompts-compared": lambda: difference_figures.forest(table("prompts_compared")),
    "prompts": lambda: prompts.prompt_panels(table("prompts")),
    "seeds": lambda: healing_seeds.seed_panels(table("healing_seeds"), levels()),
    "text-blocks": lambda: other_texts.block_panels(table("text_blocks")),
    "text-distances": lambda: other_texts.distance_lines(
        table("text_distances"), other_texts.text_differences(table("text_distances"))
    ),
    "cost": lambda: what_it_saves.cost_panels(table("cost")),
    "fates": lambda: what_it_writes.question_panels(table("questions")),
    "teacher": lambda: teacher.teacher_panels(teacher.teacher_summary(table("teacher")), levels()),
    "strips": lambda: strips.strips(table("choices_made"), LAYERS, sizes("choices_made")),
    "which-layers": lambda: strips.forest(table("which_layers"), sizes("which_layers")),
    "agreement": lambda: strips.shared(table("agreement")),
    "ranks": lambda: strips.ranks(table("layer_scores")),
    "rates": lambda: what_to_train.rate_panels(table("learning_rates")),
    "what-to-train": lambda: what_to_train.panels(table("what_to_train")),
    "healing-data": lambda: what_to_train.panels(table("healed_on"), by="data"),
    "steps-gain": lambda: step_figures.panels(table("steps_compared")),
    "steps-alignment": lambda: step_figures.alignment_panels(table("steps_aligned")),
    "samples": lambda: strips.sample_panels(table("calibration_sizes"), table("calibration_sets")),
    "last-layer-kept": lambda: last_layer.panels(table("last_layer")),
    "layer-measures": lambda: layer_figures.panels(table("layer_measures")),
    "logit-lens": lambda: layer_figures.lens_panel(table("logit_lens")),
    "layer-costs": lambda: layer_figures.cost_panels(table("layer_costs")),
    "layer-predictors": lambda: layer_figures.forest(table("layer_predictors")),
    "layer-blocks": lambda: layer_figures.block_strips(table("layer_blocks"), LAYERS),
    "abilities": lambda: ability_figures.curves(table("abilities")),
    "half-lost": lambda: ability_figures.forest(table("half_lost")),
    "fluency": lambda: ability_figures.fluency_panels(table("fluency")),
    "repair": lambda: repair.panels(table("repair")),
    "what-heals": lambda: what_heals.forest(table("ways_compared")),
}


@cache
def svg(name: str) -> str:
    with plt.rc_context():
        figures.style()
        plt.rcParams["figure.constrained_layout.use"] = False  # it takes most of the time
        figure, file = FIGURES[name](), io.StringIO()
        figure.savefig(file, format="svg")
        plt.close("all")
    return file.getvalue()
