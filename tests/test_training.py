"""Healing that is stopped and goes on, against one that is left alone."""

import math
import os
import resource
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import random_tokens, random_variant
from transformers import TrainerControl, TrainerState
from transformers.models.llama.modeling_llama import LlamaMLP

from lib import study as studies
from lib.book.check import check
from lib.errors import UserError
from lib.evidence import sums
from lib.healing import heal as healing
from lib.healing import recipe as recipes
from lib.healing import training
from lib.healing.reading import Read
from lib.models import checkpoints
from lib.open_sets import healing as recipe_settings
from lib.pruning.dropped import span

BLOCK = span(2, 4)


def parts(healed):
    return healed.model, healed.report


@pytest.fixture(scope="module")
def study(write_study, tmp_path_factory):
    recipe = {"rank": 16, "steps": 19, "batch": 4, "micro_batch": 2, "length": 16}
    return studies.load(str(write_study(tmp_path_factory.mktemp("study"), healing=recipe)))


def heal(study, tokenizer, keep: Path | None = None):
    return parts(healing.heal(study, study.healing, BLOCK, tokenizer, keep))


@pytest.fixture(scope="module")
def alone(study, tokenizer):
    return heal(study, tokenizer)


class Stopped(Exception):
    pass


def assert_same(found, expected) -> None:
    assert found[1] == expected[1]
    state = expected[0].state_dict()
    assert all(torch.equal(value, state[name]) for name, value in found[0].state_dict().items())


@pytest.mark.parametrize("every", [0, 10_000])
def test_stopped_anywhere_it_ends_as_if_left_alone(
    every, study, tokenizer, alone, tmp_path, monkeypatch
):
    """Its dropout, the order of the text and the losses logged, too."""
    monkeypatch.setattr(training, "SAVE_EVERY", every)
    monkeypatch.setattr(training, "SAVING", math.inf)
    step_end, steps, stops = training._Watch.on_step_end, [], [1, 4, 5, 12, 19]

    def stopping(self, args, state, control, **given):
        step_end(self, args, state, control, **given)
        steps.append(state.global_step)
        if stops and state.global_step == stops[0]:
            stops.pop(0)
            raise Stopped

    monkeypatch.setattr(training._Watch, "on_step_end", stopping)
    while stops:
        with pytest.raises(Stopped):
            heal(study, tokenizer, tmp_path)
    assert_same(heal(study, tokenizer, tmp_path), alone)
    again = len(steps) - study.healing.steps
    # Saved after every step, the one it stopped at not yet; or not before the end.
    assert again == (5 if every == 0 else 1 + 4 + 5 + 12 + 19)
    steps.clear()
    assert_same(heal(study, tokenizer, tmp_path), alone)  # for a kill while it was evaluated
    assert steps == []


@pytest.mark.parametrize("form", ["llama tied", "gpt2", "mixtral"])
@pytest.mark.parametrize("recipe", ["partial", "full"])
def test_weights_that_are_trained_go_on_where_they_stopped(form, recipe, tmp_path, monkeypatch):
    """Whatever names transformers writes a family's weights by."""
    texts = random_tokens(8, 12)
    one = recipe_settings(recipe=recipe, steps=4, batch=2, length=12, learning_rate=1e-2)
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    monkeypatch.setattr(training, "SAVING", math.inf)

    def trained(keep=None):
        healing.reproducible(0)
        model = recipes.of(one).prepare(random_variant(form), one, [])
        losses = training.train(model, Read(list(texts.int())), 0, one, torch.float32, keep)
        return losses, {name: value.clone() for name, value in model.named_parameters()}

    expected, step_end = trained(), training._Watch.on_step_end

    def stopping(self, args, state, control, **given):
        step_end(self, args, state, control, **given)
        if state.global_step == 3:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(training._Watch, "on_step_end", stopping)
        with pytest.raises(Stopped):
            trained(tmp_path)
    assert training.saved_steps(tmp_path) == [2, 1]
    losses, found = trained(tmp_path)
    assert losses == expected[0]
    assert all(torch.equal(value, expected[1][name]) for name, value in found.items())


@pytest.fixture(scope="module")
def two_states(study, tokenizer, tmp_path_factory):
    """What a training has saved after its last two steps."""
    folder = tmp_path_factory.mktemp("states")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "SAVE_EVERY", 0)
        patch.setattr(training, "SAVING", math.inf)
        heal(study, tokenizer, folder)
    assert training.saved_steps(folder) == [19, 18]
    return folder


@pytest.fixture
def states(two_states, tmp_path):
    return shutil.copytree(two_states, tmp_path / "states")


def _half_written(state):
    """Killed before its end."""
    (state / sums.NAME).unlink()
    weights = state / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


def _empty(state):
    """A crash of the machine, with a disk that had only parts of it."""
    (state / "adapter_model.safetensors").write_bytes(b"")


def _changed(state):
    file = state / "trainer_state.json"
    file.write_text(file.read_text().replace('"loss": ', '"loss": 1'))


def _gone(state):
    (state / "optimizer.pt").unlink()


@pytest.mark.parametrize("change", [_half_written, _empty, _changed, _gone])
def test_a_damaged_state_is_thrown_away(
    change, study, tokenizer, alone, states, capsys, monkeypatch
):
    change(states / "checkpoint-19")
    steps, step_end = [], training._Watch.on_step_end

    def counting(self, args, state, control, **given):
        step_end(self, args, state, control, **given)
        steps.append(state.global_step)

    monkeypatch.setattr(training._Watch, "on_step_end", counting)
    assert_same(heal(study, tokenizer, states), alone)
    assert steps == [19]  # goes on from the last good one
    said = [line for line in capsys.readouterr().err.splitlines() if "thrown away" in line]
    if change is not _half_written:
        assert len(said) == 1 and str(states / "checkpoint-19") in said[0]
    assert training.last_step(states) == 19
    assert capsys.readouterr().err == ""


def test_where_all_states_are_damaged_training_starts_anew(study, tokenizer, alone, states):
    for step in (18, 19):
        _empty(states / f"checkpoint-{step}")
    assert training.last_step(states) == 0
    assert list(states.iterdir()) == []
    assert_same(heal(study, tokenizer, states), alone)


def test_all_of_a_state_is_on_the_disk_before_it_counts(study, tmp_path, monkeypatch):
    """In the order in which a machine may crash: every file, then the sums, then their name."""
    state, done = tmp_path / "checkpoint-1", []
    (state / "inner").mkdir(parents=True)
    for name in ("weights", "optimizer", "inner/more"):
        (state / name).write_text(name)
    fsync, replace = os.fsync, os.replace
    named = lambda handle: os.path.relpath(os.readlink(f"/proc/self/fd/{handle}"), state)  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(named(handle)), fsync(handle)))
    monkeypatch.setattr(
        os, "replace", lambda old, new: (done.append(Path(new).name), replace(old, new))
    )
    sums.write(state)
    end = done.index(sums.NAME)
    assert {"weights", "optimizer", "inner/more", "inner", "."} <= set(done[: end - 1])
    assert done[end - 1].endswith(".partial")


def test_saving_takes_a_twentieth_of_the_time_at_most(study, tmp_path, monkeypatch):
    """A step takes a minute here, and saving a state an hour."""
    clock, saved = [0.0], []
    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])
    watch = training._Watch(study.healing, 0, save=True)
    arguments = SimpleNamespace(output_dir=str(tmp_path))
    for step in range(1, 3001):
        clock[0] += 60
        state = TrainerState(global_step=step, max_steps=3000)
        control = TrainerControl()
        watch.on_step_end(arguments, state, control)
        if control.should_save:
            saved.append(step)
            clock[0] += 3600
            training._checkpoint(tmp_path, step).mkdir()
            watch.on_save(arguments, state, control)
    watch.bar.close()
    assert saved == [10, 1210, 2410, 3000]


def test_the_losses_reported_are_means_over_the_steps_since(study, alone):
    """Of 43 steps every second one, and the first; the 43rd is in none."""
    recipe = study.healing.model_copy(update={"steps": 43})
    each = list(range(1, 44))
    means = [1.0, 2.0, *(step - 0.5 for step in range(4, 43, 2))]
    assert training._reported(each, recipe) == means
    assert len(means) == len(recipes.logged_steps(recipe))
    assert len(alone[1]["train_loss"]) == len(recipes.logged_steps(study.healing))
    broken = [*each[:4], math.nan]
    assert training._reported(broken, recipe) == pytest.approx([1, 2, 3.5, math.nan], nan_ok=True)


@pytest.mark.parametrize("size", [100_000, 200_000])
def test_a_state_that_cannot_be_written_is_one_line(size, study, tokenizer, alone, tmp_path):
    """Adapters or the optimizer's part of it: libraries say that in their own words."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(UserError, match=r"^cannot write .*: File too large$"):
            heal(study, tokenizer, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert training.last_step(tmp_path) == 0
    assert_same(heal(study, tokenizer, tmp_path), alone)


def test_nothing_is_kept_unless_asked_for(study, tokenizer, alone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    monkeypatch.setattr(training, "SAVING", math.inf)
    assert_same(heal(study, tokenizer), alone)
    assert list(tmp_path.iterdir()) == []


def test_padding_changes_nothing(study, tokenizer):
    """Documents of different lengths side by side, or one at a time."""
    losses, tokens = [], []
    for micro in (4, 1):
        recipe = study.healing.model_copy(
            update={"packing": False, "dropout": 0.0, "length": 64}
            | {"steps": 6, "micro_batch": micro}
        )
        report = healing.heal(study, recipe, BLOCK, tokenizer).report
        losses.append(report["train_loss"])
        tokens.append(report["tokens"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert tokens[0] == tokens[1] < 6 * 4 * recipe.length


def test_rows_are_padded_on_the_right_and_padding_is_not_predicted():
    texts = [torch.tensor(row, dtype=torch.int32) for row in ([5, 6, 7], [8, 9])]
    rows = training._rows(Read(texts))
    found = training._collate(rows, pad=3)
    assert found["input_ids"].tolist() == [[5, 6, 7], [8, 9, 3]]
    assert found["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert found["labels"].tolist() == [[5, 6, 7], [8, 9, -100]]
    assert "attention_mask" not in training._collate(rows[:1], pad=3)


def test_checkpointed_gradients_are_the_same(study, tokenizer, alone, monkeypatch):
    """Also where dropout draws its masks again."""
    forward, calls = LlamaMLP.forward, Counter[bool]()

    def counting(self, hidden):
        calls.update([torch.is_grad_enabled()])
        return forward(self, hidden)

    monkeypatch.setattr(LlamaMLP, "forward", counting)
    recipe = study.healing.model_copy(update={"gradient_checkpointing": True})
    assert recipe.dropout > 0
    assert_same(parts(healing.heal(study, recipe, BLOCK, tokenizer)), alone)
    rows = 2 * study.healing.steps  # micro-batches
    n_layers = checkpoints.load_config(study).num_hidden_layers
    assert calls.total() == 2 * rows * (n_layers - BLOCK.n)


def test_logs_for_tensorboard_need_its_package(study, monkeypatch, tmp_path):
    monkeypatch.setenv("TENSORBOARD_DIR", str(tmp_path))
    monkeypatch.setattr(recipes, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs `pip install tensorboard`"):
        check(study)
    monkeypatch.delenv("TENSORBOARD_DIR")
    assert training._tensorboard("any") == []
