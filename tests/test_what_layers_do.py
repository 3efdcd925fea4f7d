"""The section on what layers do, of a small study: tables, jobs, and what is planned and asked."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Studies

from lib import study
from lib.errors import UserError
from lib.evidence.records import records
from lib.experiments import layer_measures
from lib.experiments.further_conditions import single_layers
from lib.experiments.measure import measure
from lib.experiments.opened import OpenStudy
from lib.sections import layer_figures, what_layers_do
from lib.statistics.ranks import FEWEST, correlated


@pytest.fixture
def opened(tmp_path: Path, results_dir: Path, write_study: Studies) -> OpenStudy:
    asked = {"further": 3, "gradients": 4, "fractions": [0.34, 0.5], "leave_one_out": True}
    path = write_study(tmp_path, what_layers_do=asked, distances={"n_sequences": 40, "length": 16})
    return OpenStudy(study.load(str(path)))


def test_tables_hold_every_layer_and_are_not_measured_twice(opened: OpenStudy) -> None:
    measure(opened, single_layers(opened))
    made = {table.name: table.make(opened) for table in what_layers_do.SECTION.tables}
    for table in what_layers_do.SECTION.tables:
        assert list(made[table.name].columns) == list(table.columns), table.name
    layers = made["layer_measures"]
    assert {*layers["model"]} == {layer_figures.OWN, layer_figures.TWIN}
    # So few tokens tell no directions of the state apart.
    assert {*layers["measure"]} | {"svcca"} == {*layer_figures.NAMES}
    assert (layers.groupby(["model", "measure"]).size() == 6).all()
    assert made["layer_costs"]["layer"].tolist() == [*range(6)]
    assert {*made["layer_blocks"]["n"]} == {2, 3}
    eq_7 = made["layer_blocks"].query("measure == 'angular'").set_index("n")
    optimal = {n: opened.measure_distances()["optimal"]["start"][n - 1] for n in (2, 3)}
    assert eq_7["start"].to_dict() == optimal and (eq_7["jaccard"] == 1).all()
    assert made["layer_predictors"]["rho"].isna().all()  # six layers say nothing of an order
    lens = made["logit_lens"]
    assert lens["after"].tolist() == [*range(7)] and lens["ahead"].iloc[-1] == 1
    assert lens["settled"].is_monotonic_increasing and (lens["settled"] <= lens["ahead"]).all()
    before = sorted(path for path, *_ in records("mine"))
    opened.model = None  # is not looked at again
    again = {table.name: table.make(opened) for table in what_layers_do.SECTION.tables}
    assert all(again[name].equals(one) for name, one in made.items())
    assert sorted(path for path, *_ in records("mine")) == before
    for figure in (
        layer_figures.panels(layers),
        layer_figures.lens_panel(lens),
        layer_figures.cost_panels(made["layer_costs"]),
        layer_figures.block_strips(made["layer_blocks"], 6),
    ):
        assert figure.axes[0].has_data()
    assert layer_figures.forest(made["layer_predictors"]).axes[0].texts


def test_what_is_lost_without_a_layer_is_that_of_the_pruned_model(opened: OpenStudy) -> None:
    from lib.evaluation.evaluate import next_token_loss
    from lib.pruning.surgery import pruned

    measure(opened, single_layers(opened))
    table = what_layers_do.costs(opened)
    rows, pad = opened.loss_sequences, opened.tokenizer.pad_token_id
    whole = next_token_loss(opened.model, rows, 8, pad)["loss"]
    for layer in (0, 3, 5):
        with pruned(opened.model, [layer]):
            without = next_token_loss(opened.model, rows, 8, pad)["loss"]
        added = (without - whole) / np.log(opened.vocab_size)
        assert table["loss"][layer] == pytest.approx(added, abs=1e-5)


def test_layers_go_one_by_one_only_where_the_study_says_so(
    tmp_path: Path, results_dir: Path, write_study: Studies
) -> None:
    opened = OpenStudy(study.load(str(write_study(tmp_path))))
    assert len(single_layers(opened)) == 1
    measure(opened, single_layers(opened))
    assert what_layers_do.costs(opened).empty and what_layers_do.predictors(opened).empty
    assert layer_figures.cost_panels(what_layers_do.costs(opened)).axes[0].texts


def test_a_record_holds_no_number_that_json_does_not_have(opened: OpenStudy) -> None:
    value = layer_measures.measures(opened)
    json.dumps(value, allow_nan=False)
    assert value["tokens"] == 160 and value["windows"] == 40


@pytest.mark.parametrize("slope", [1, -1])
def test_an_order_that_two_measures_share_is_found(slope: int) -> None:
    x = np.arange(20.0)
    found = correlated(x, slope * np.exp(x))
    assert (found.rho, found.low, found.high) == pytest.approx((slope,) * 3)
    assert found.count == 20


def test_of_no_order_the_interval_holds_zero_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(60):
        found = correlated(random.standard_normal(24), random.standard_normal(24))
        held += found.low <= 0 <= found.high
    assert held >= 50  # 95% of 60 are 57


def test_of_few_layers_nothing_is_said() -> None:
    few = np.arange(FEWEST - 1.0)
    assert np.isnan(correlated(few, few).rho)
    gaps = np.array([np.nan, *range(FEWEST - 1)])
    assert np.isnan(correlated(gaps, gaps).rho) and correlated(gaps, gaps).count == FEWEST - 1
    assert np.isnan(correlated(np.ones(20), np.arange(20.0)).rho)


@pytest.mark.parametrize("task", ["nowhere", "sums"])
def test_the_lens_wants_a_task_whose_answers_are_chosen(
    task: str, tmp_path: Path, write_study: Studies
) -> None:
    tasks = [{"name": "quiz", "role": "knowledge"}, {"name": "sums", "role": "generation"}]
    path = write_study(tmp_path, tasks=tasks, what_layers_do={"task": task})
    with pytest.raises(UserError, match=r"what_layers_do\.task is none of .* are chosen, quiz"):
        study.load(str(path))
