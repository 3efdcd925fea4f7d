"""What pruning saves, against counts by hand, a clock driven by the layers, and published sizes."""

import itertools
import time

import bitsandbytes as bnb
import numpy as np
import pandas as pd
import pytest
import torch
from tiny import random_tokens, random_variant
from transformers import GenerationConfig

from lib import study as studies
from lib.errors import UserError
from lib.experiments import costs
from lib.experiments.opened import OpenStudy
from lib.healing import adapters
from lib.models import four_bit
from lib.models.anatomy import layers
from lib.pruning.dropped import span
from lib.pruning.surgery import pruned
from lib.sections import what_it_saves

SETTINGS = {"fractions": [0, 0.34, 0.5, 0.84], "length": 8, "batch": 2, "tokens": 3, "repeats": 3}
COLUMNS = (
    "weights n fraction start stop parameters bytes flops_per_token flops_by_parameters "
    "read_seconds read_stderr write_seconds write_stderr repeats device threads"
)
# The conftest's Llama: width, FFN, key-value width, layers; its vocabulary is the almanac's.
WIDTH, FFN, KV, LAYERS = 64, 128, 32, 6
MATRICES = 2 * WIDTH * WIDTH + 2 * WIDTH * KV + 3 * WIDTH * FFN  # of one layer


@pytest.fixture
def opened(write_study, tmp_path, results_dir) -> OpenStudy:
    return OpenStudy(studies.load(str(write_study(tmp_path, cost=SETTINGS))))


@pytest.fixture
def table(opened) -> pd.DataFrame:
    return costs.cost_table(opened)


def test_the_table_has_every_model_and_its_columns(opened, table):
    assert set(COLUMNS.split()) <= set(table.columns)
    assert table["weights"].tolist() == ["float32"] * 4 + ["nf4"] * 4
    assert table["n"].tolist() == [0, 2, 3, 5] * 2
    assert table["start"].tolist() == [0, 3, 2, 0] * 2
    assert table["stop"].tolist() == [0, 5, 5, 5] * 2
    assert table["fraction"].tolist() == [n / LAYERS for n in table["n"]]
    assert (table[["read_seconds", "write_seconds"]] > 0).all(axis=None)
    assert (table[["read_stderr", "write_stderr"]] > 0).all(axis=None)
    assert set(table["repeats"]) == {3} and set(table["threads"]) == {1}
    assert len(layers(opened.model)) == LAYERS


def test_sizes_and_operations_are_those_counted_by_hand(opened, table):
    vocabulary, kept = opened.vocab_size, LAYERS - table["n"][:4]
    outside = 2 * vocabulary * WIDTH + WIDTH  # two tables, the final norm
    parameters = kept * (MATRICES + 2 * WIDTH) + outside
    matrices = kept * MATRICES + vocabulary * WIDTH
    attention = kept * 4 * SETTINGS["length"] * WIDTH
    plain, four_bit = table[:4], table[4:].reset_index()
    for rows in (plain, four_bit):
        assert rows["parameters"].tolist() == parameters.tolist()
        assert rows["flops_by_parameters"].tolist() == (2 * matrices).tolist()
        assert rows["flops_per_token"].tolist() == (2 * matrices + attention).tolist()
    assert plain["bytes"].tolist() == (4 * parameters).tolist()
    # Half a byte each, a float for every 64, and a code book of 16 floats for each of 7 modules.
    packed = MATRICES // 2 + 4 * MATRICES // 64 + 7 * 16 * 4
    stored = kept * (packed + 4 * 2 * WIDTH) + 4 * outside
    assert four_bit["bytes"].tolist() == stored.tolist()


def test_measured_once(opened, table, monkeypatch):
    monkeypatch.setattr(costs, "read_and_write", None)
    monkeypatch.setattr(costs.four_bit, "load_4bit", None)
    pd.testing.assert_frame_equal(costs.cost_table(OpenStudy(opened.study)), table)


@pytest.mark.parametrize("change", ["threads", "device", "length"])
def test_times_of_other_surroundings_are_measured_anew(opened, table, monkeypatch, change):
    study = opened.study
    if change == "threads":
        monkeypatch.setattr(costs, "ON_CPU", costs.ON_CPU | {"threads": 2})
    elif change == "device":
        monkeypatch.setattr(costs, "device_name", lambda opened: "another")
    else:
        study = studies.override(study, cost={"length": 9})
    monkeypatch.setattr(costs, "read_and_write", lambda *_: (1.0, 1.0, None))
    found = costs.cost_table(OpenStudy(study))
    rows = 2 * (9 if change == "length" else 8)
    assert found["read_seconds"].tolist() == pytest.approx([1 / rows] * 8)
    if change in ("threads", "device"):
        assert set(found[change]) == {2 if change == "threads" else "another"}


def test_times_are_per_token_and_the_models_take_turns(opened, monkeypatch):
    """Each layer takes one second, two in the round that does not count, four in the last."""
    clock, seen = [0.0], []
    calls = 4 * (1 + SETTINGS["tokens"])  # of one round: four models read once and write

    def watched(model):
        model.register_forward_pre_hook(lambda *_: seen.append(len(layers(model))))
        for layer in layers(model):
            layer.register_forward_hook(tick)
        return model

    def tick(*_: object) -> None:
        clock[0] += (2.0, 1.0, 1.0, 4.0)[(len(seen) - 1) // calls % 4]

    monkeypatch.setattr(costs, "counted_flops", lambda *_: 0)  # runs outside the rounds
    monkeypatch.setattr(costs.time, "thread_time", lambda: clock[0])
    load_4bit = costs.four_bit.load_4bit
    monkeypatch.setattr(costs.four_bit, "load_4bit", lambda study: watched(load_4bit(study)))
    watched(opened.model)
    found = costs.cost_table(opened)
    turn = [kept for kept in (6, 4, 3, 1) for _ in range(1 + SETTINGS["tokens"])]
    assert seen == turn * (1 + SETTINGS["repeats"]) * 2
    kept = LAYERS - found["n"]
    assert found["read_seconds"].tolist() == pytest.approx((kept / (2 * 8)).tolist())
    assert found["write_seconds"].tolist() == pytest.approx((kept / 2).tolist())


def test_waiting_for_others_takes_no_time():
    model, prompt = random_variant("mistral"), random_tokens(2, 9)
    layers(model)[0].register_forward_hook(lambda *_: time.sleep(1))
    read, write, _ = costs.read_and_write(model, prompt, tokens=1)
    assert read < 0.5 and write < 0.5


FORMS = ["llama tied", "mistral", "mixtral", "phi", "qwen", "gemma2", "gemma3", "opt", "gpt2"]
FORMS += ["gpt_neox", "falcon", "falcon 40b", "falcon alibi", "smollm3"]


@pytest.mark.parametrize("name", FORMS)
def test_what_is_written_is_what_generate_writes(name):
    model, prompt = random_variant(name), random_tokens(2, 9)
    plan = GenerationConfig(max_new_tokens=6, do_sample=False, pad_token_id=0)
    with pruned(model, span(2, 4)):
        _, _, written = costs.read_and_write(model, prompt, tokens=5)
        mask = torch.ones_like(prompt)
        expected = model.generate(prompt, attention_mask=mask, generation_config=plan)[:, 9:]
    assert torch.equal(written, expected)


@pytest.mark.parametrize("name", FORMS)
def test_counted_operations_are_the_parameters_and_attention(name):
    """Of all families: 2 × parameters multiplied, and 4 · T · width per layer (width 64)."""
    model, prompt = random_variant(name), random_tokens(2, 16)
    whole = costs.counted_flops(model, prompt)
    assert whole == prompt.numel() * (2 * costs.multiplied(model) + 6 * 4 * 16 * 64)
    with pruned(model, span(1, 3)):
        assert costs.counted_flops(model, prompt) < whole


def test_of_a_mixture_two_of_four_experts_are_multiplied():
    """Width 64, FFN 128, key-value width 32, vocabulary 199, and a router over four experts."""
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 4 * 64 + 2 * 3 * 64 * 128
    assert costs.multiplied(random_variant("mixtral")) == 6 * layer + 199 * 64


def test_running_in_4bit_leaves_the_weights_as_they_were(opened):
    """On some CPUs, bitsandbytes would repack them at the first forward pass."""
    model = costs.four_bit.load_4bit(opened.study)
    before = four_bit.base_digest(model)
    size = costs.weight_bytes(model)
    prompt = costs.random_prompt(opened.vocab_size, 2, 8)
    _, _, written = costs.read_and_write(model, prompt, 3)
    assert four_bit.base_digest(model) == before and costs.weight_bytes(model) == size
    plain = adapters.evaluable(model, opened.study, span(0, 0))
    with torch.no_grad():
        logits = plain(prompt).logits[:, -1]
        found = model(prompt).logits[:, -1]
    assert torch.allclose(logits, found, atol=1e-3 * float(logits.abs().max()))
    assert torch.equal(written[:, 0], logits.argmax(-1))
    assert any(isinstance(module, bnb.nn.Linear4bit) for module in model.modules())


def test_prompts_are_the_same_every_time_and_use_the_whole_vocabulary():
    prompt = costs.random_prompt(1000, 20, 500)
    assert torch.equal(prompt, costs.random_prompt(1000, 20, 500))
    assert prompt.shape == (20, 500) and prompt.min() == 0 and prompt.max() == 999


def test_the_median_and_its_error():
    """All 3³ resamples of three values: their medians are known."""
    values = [1.0, 2.0, 9.0]
    every = [np.median(drawn) for drawn in itertools.product(values, repeat=3)]
    value, error = costs.median(values)
    assert value == 2.0
    assert error == pytest.approx(np.std(every), rel=0.1)
    assert costs.median([3.0, 3.0, 3.0]) == (3.0, 0.0)


def test_the_papers_example(opened):
    found = costs.paper_example(opened)
    paper = found[found["model"] == "Llama-2 70B"].set_index(["weights", "fraction"])
    # Width 8192, FFN 28,672, key-value width 1024, vocabulary 32,000.
    layer = 2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28_672 + 2 * 8192
    outside = 2 * 32_000 * 8192 + 8192
    for fraction, kept in ((0.0, 80), (0.5, 40)):
        rows = paper.xs(fraction, level="fraction")
        assert set(rows["parameters"]) == {kept * layer + outside}
        assert set(rows["flops"]) == {2 * (kept * layer + outside)}
        assert rows.loc["16 bits", "bytes"] == 2 * (kept * layer + outside)
        assert rows.loc["4-bit", "bytes"] == kept * layer * 4.5 / 8 + 2 * outside
    assert paper.loc[("16 bits", 0.0), ["printed_bytes", "printed_flops"]].tolist() == [140e9, 3e10]
    assert paper.loc[("4-bit", 0.5), ["printed_bytes", "printed_flops"]].tolist() == [
        17.5e9,
        1.5e10,
    ]
    own = found[found["model"] == opened.study.title]
    assert own["n"].tolist() == [0, 0, 3, 3] and own["printed_bytes"].isna().all()
    assert own["parameters"].iloc[0] == sum(p.numel() for p in opened.model.parameters())
    shown = what_it_saves.example(opened).to_html()
    assert "140.0 GB" in shown and "17.5 GB" in shown and "nan" not in shown.lower()


def test_lines_and_their_errors():
    """Points on a line but for noise: what is fitted again and again spreads as is said."""
    fraction = np.array([0, 0.25, 0.5, 0.75])

    def table(noise: np.ndarray) -> pd.DataFrame:
        exact = 10 - 8 * fraction
        rows = {"weights": "float32", "fraction": fraction, "bytes": exact, "repeats": 5}
        rows |= {"flops_per_token": exact, "read_seconds": exact + noise, "read_stderr": 0.3}
        return pd.DataFrame(rows | {"write_seconds": exact**2, "write_stderr": 0.0})

    found = what_it_saves.lines(table(np.zeros(4))).set_index("what")
    for what in ("memory of the weights", "time to read a token"):
        assert found.loc[what, "saved"] == pytest.approx(0.08)
        assert found.loc[what, "left"] == pytest.approx(0.2)
        assert found.loc[what, "r_squared"] == pytest.approx(1)
    assert found.loc["memory of the weights", "left_stderr"] == pytest.approx(0, abs=1e-12)
    bent = np.corrcoef(fraction, (10 - 8 * fraction) ** 2)[0, 1] ** 2
    assert found.loc["time to write a token", "r_squared"] == pytest.approx(bent)
    noise = np.random.default_rng(1).normal(0, 0.3, (400, 4))
    fits = [what_it_saves.fitted(table(one), "read_seconds") for one in noise]
    spread = np.std([end / start for start, end, _ in fits])
    assert found.loc["time to read a token", "left_stderr"] == pytest.approx(spread, rel=0.15)
    assert (found["saved_stderr"] * 10).tolist() == pytest.approx(found["left_stderr"].tolist())


def test_shares_are_of_the_unpruned_model_in_its_own_format(table):
    found = what_it_saves.shares(table)
    assert found["memory of the weights"].iloc[0] == "1.000"
    assert found["time to read a token"].iloc[0] == "1.000"
    share, error = map(float, found["time to write a token"].iloc[5].split(" ± "))
    ratio = table["write_seconds"].iloc[5] / table["write_seconds"].iloc[0]
    both = (table["write_stderr"] / table["write_seconds"]).iloc[[5, 0]]
    assert share == pytest.approx(ratio, abs=1e-3)
    assert error == pytest.approx(ratio * np.sqrt((both**2).sum()), abs=1e-3)


def test_the_figure_shows_every_point_and_its_error(table):
    figure = what_it_saves.cost_panels(table)
    memory, operations, read, write = figure.axes
    for axes, column in ((memory, "bytes"), (read, "read_seconds"), (write, "write_seconds")):
        drawn = [box.lines[0].get_ydata() for box in axes.containers]
        assert np.concatenate(drawn).tolist() == table[column].tolist()
    assert [box.has_yerr for box in read.containers] == [True, True]
    counted, by_parameters = operations.containers
    assert counted.lines[0].get_ydata().tolist() == table["flops_per_token"][:4].tolist()
    assert by_parameters.lines[0].get_ydata().tolist() == table["flops_by_parameters"][:4].tolist()
    marks = {box.lines[0].get_marker() for box in (*memory.containers, by_parameters)}
    assert len(marks) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fractions": [0, 0.01, 0.5]}, "fewer than two numbers of layers of 6"),
        ({"length": 126}, "cost.length 126 and cost.tokens 3 are together above .* 128"),
    ],
)
def test_settings_that_cannot_be_measured_are_one_line(opened, change, message):
    with pytest.raises(UserError, match=message):
        costs.cost_table(OpenStudy(studies.override(opened.study, cost=change)))
