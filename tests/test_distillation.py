"""Healing with the unpruned model's probabilities as targets, against gradients by hand."""

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Studies, sentences, write_jsonl
from tiny import logits_of, random_model, random_tokens
from transformers import PreTrainedModel

from lib import study as studies
from lib.book import memory
from lib.errors import UserError
from lib.healing import heal, training
from lib.healing import recipe as recipes
from lib.healing.reading import read
from lib.healing.unpruned import Shared
from lib.models import checkpoints
from lib.models.anatomy import layers
from lib.models.shapes import shape_of
from lib.open_sets import healing
from lib.pruning.dropped import Dropped
from lib.pruning.surgery import drop, pruned, save_pruned
from lib.schema import Study

SCATTERED = Dropped([1, 3])
RECIPES = ["lora", "partial", "full"]


def study_of(write_study: Studies, folder: Path, recipe: str, **changes: Any) -> Study:
    rows = [{"instruction": text[:9], "response": text[:40]} for text in sentences(20, 4000)]
    write_jsonl(folder / "taught.jsonl", rows)
    data = [{"name": "taught", "path": "./taught.jsonl", "rows": "instructions"}]
    given = {"recipe": recipe, "batch": 4, "length": 32, "distillation": 1.0} | changes
    given |= {"dropout": 0.0} if "lora" in recipe else {}
    path = write_study(folder, healing_data=data)
    base = studies.load(str(path))
    return base.model_copy(update={"healing": healing(**given)})


def healed(study: Study, tokenizer: Any, dropped: Dropped = SCATTERED, **how: Any) -> heal.Healed:
    return heal.heal(study, study.healing, dropped, tokenizer, **how)


@pytest.fixture
def one_step(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> Callable[..., dict[str, Any]]:
    """Runs a healing of one step without its update; what was trained, on what, its gradients and
    the loss that was logged."""

    def run(study: Study, dropped: Dropped = SCATTERED) -> dict[str, Any]:
        caught: dict[str, Any] = {}
        train = training.train

        def catching(model: Any, read: Any, *given: Any) -> list[float]:
            def remember(*_: Any, **__: Any) -> None:
                named = model.named_parameters()
                caught["gradients"] = {k: v.grad.clone() for k, v in named if v.grad is not None}

            with monkeypatch.context() as patch:
                patch.setattr(torch.optim.AdamW, "step", remember)
                # Afterwards it is one to evaluate.
                caught.update(model=copy.deepcopy(model), read=read)
                caught["losses"] = train(model, read, *given)
            return caught["losses"]

        with monkeypatch.context() as patch:
            patch.setattr(heal, "train", catching)
            healed(study, tokenizer, dropped)
        return caught

    return run


def by_hand(model: PreTrainedModel, whole: PreTrainedModel, rows: list, share: float) -> Any:
    """The loss in float64, row by row and without padding. rows: of labels, ignored ones −100."""
    losses, divergences = [], []
    for row in rows:
        ids, labels = row["input_ids"].long()[None], row["labels"].tolist()
        with torch.no_grad():
            p = whole(ids).logits[0].double().softmax(-1)
        q = model(input_ids=ids).logits[0].double().log_softmax(-1)
        for place in range(1, len(labels)):
            if labels[place] != -100:
                losses.append(-q[place - 1, labels[place]])
                target = p[place - 1]
                divergences.append((target * (target.log() - q[place - 1])).sum())
    count = len(losses)
    return (1 - share) * sum(losses) / count + share * sum(divergences) / count, sum(losses) / count


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("micro", "data"), [(4, None), (2, "taught")])
def test_one_step_follows_the_gradient_of_both_losses(
    recipe: str,
    micro: int,
    data: str | None,
    write_study: Studies,
    tmp_path: Path,
    one_step: Callable[..., dict[str, Any]],
) -> None:
    """Whole rows, or such of which the response alone is scored, in two parts."""
    changes = {"steps": 1, "distillation": 0.75, "micro_batch": micro, "data": data}
    study = study_of(write_study, tmp_path, recipe, **changes)
    caught = one_step(study)
    model = caught["model"].double().train()
    whole = checkpoints.load_model(study).double()
    rows = training._rows(caught["read"])
    loss, next_token = by_hand(model, whole, rows, 0.75)
    loss.backward()
    assert caught["losses"] == [pytest.approx(next_token.item(), rel=1e-5)]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    expected = {k: v.grad for k, v in model.named_parameters() if v.grad is not None}
    assert caught["gradients"].keys() == expected.keys()
    for name, gradient in expected.items():
        off = (gradient - caught["gradients"][name]).abs().max()
        assert off <= 1e-4 * gradient.abs().max() + 1e-9, name


def test_from_the_unpruned_model_itself_there_is_nothing_to_learn(
    write_study: Studies, tmp_path: Path, one_step: Callable[..., dict[str, Any]]
) -> None:
    caught = one_step(study_of(write_study, tmp_path, "lora", steps=1), Dropped())
    assert caught["gradients"]
    assert max(float(one.abs().max()) for one in caught["gradients"].values()) < 1e-7


def test_the_unpruned_model_shares_its_weights_and_leaves_them_as_they_are() -> None:
    model, tokens = random_model("llama"), random_tokens(2, 9)
    before = copy.deepcopy(model.state_dict())
    expected = logits_of(model, tokens)
    with pruned(copy.deepcopy(model), SCATTERED) as other:
        without = logits_of(other, tokens)
    stack = list(layers(model))
    shared = Shared(model, SCATTERED)
    for _ in range(2):
        assert torch.equal(logits_of(model.eval(), tokens), without)
        with shared.whole(model) as whole:
            assert list(layers(whole)) == stack and not torch.is_grad_enabled()
            assert torch.equal(whole(tokens, use_cache=False).logits, expected)
    assert model.training
    drop(model, [])
    for layer, one in enumerate(stack):
        for name, value in one.state_dict().items():
            assert torch.equal(value, before[f"model.layers.{layer}.{name}"])


def text(study: Study, tokenizer: Any) -> torch.Tensor:
    """Rows of what is healed on [8, length]."""
    return torch.stack(read(study, study.healing, tokenizer, 8, 0).texts).long()


def divergence(model: PreTrainedModel, whole: PreTrainedModel, tokens: torch.Tensor) -> float:
    p, q = logits_of(whole, tokens).log_softmax(-1), logits_of(model, tokens).log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize("recipe", [*RECIPES, "qlora"])
def test_what_is_healed_so_comes_closer_to_the_unpruned_model(
    recipe: str, write_study: Studies, tmp_path: Path, tokenizer: Any
) -> None:
    rate = 2e-2 if "lora" in recipe else 2e-3
    study = study_of(write_study, tmp_path, recipe, steps=10, learning_rate=rate)
    tokens = text(study, tokenizer)
    found = healed(study, tokenizer)
    assert found.report["diverged"] is None or found.report["train_loss"][-1] > math.log(50)
    whole = checkpoints.load_model(study)
    plain = heal.unhealed(study, SCATTERED, in_4bit=recipe == "qlora")
    assert divergence(found.model, whole, tokens) < 0.97 * divergence(plain, whole, tokens)


def test_what_lacks_layers_already_learns_from_the_unpruned_model_too(
    write_study: Studies, tmp_path: Path, tokenizer: Any
) -> None:
    """As a repaired model does, or one that is pruned in steps."""
    study = study_of(write_study, tmp_path, "lora", steps=10, learning_rate=2e-2)
    whole = checkpoints.load_model(study)
    save_pruned(whole, SCATTERED, tokenizer, tmp_path / "less")
    less = study.model_copy(update={"model": str(tmp_path / "less")})
    tokens = text(study, tokenizer)
    plain = checkpoints.load_model(less)
    found = healed(less, tokenizer, Dropped(), whole=study)
    assert divergence(found.model, whole, tokens) < 0.97 * divergence(plain, whole, tokens)


class Stopped(Exception):
    pass


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The steps after which a training is stopped once; a state is saved after every step."""
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    monkeypatch.setattr(training, "SAVING", math.inf)
    step_end, stops = training._Watch.on_step_end, []

    def ends(self: Any, args: Any, state: Any, control: Any, **given: Any) -> None:
        step_end(self, args, state, control, **given)
        if stops and state.global_step == stops[0]:
            stops.pop()
            raise Stopped

    monkeypatch.setattr(training._Watch, "on_step_end", ends)
    return stops


@pytest.mark.parametrize("recipe", ["lora", "partial"])
def test_killed_on_the_way_it_ends_as_if_left_alone(
    recipe: str, write_study: Studies, tmp_path: Path, tokenizer: Any, stopping: list[int]
) -> None:
    study = study_of(write_study, tmp_path, recipe, steps=4, distillation=0.5)
    alone = healed(study, tokenizer)
    stopping.append(3)
    with pytest.raises(Stopped):
        healed(study, tokenizer, keep=tmp_path / "kept")
    again = healed(study, tokenizer, keep=tmp_path / "kept")
    assert again.report == alone.report
    state = alone.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.model.state_dict().items())


def test_the_loss_that_is_logged_is_that_of_the_next_token(
    write_study: Studies, tmp_path: Path, tokenizer: Any
) -> None:
    losses = [
        healed(study_of(write_study, tmp_path, "lora", steps=1, distillation=share), tokenizer)
        for share in (0.0, 0.5, 1.0)
    ]
    assert len({one.report["train_loss"][0] for one in losses}) == 1


def test_with_a_teacher_beside_it_both_are_learnt_from(
    write_study: Studies, tmp_path: Path, one_step: Callable[..., dict[str, Any]]
) -> None:
    """The gradients add up, before they are clipped together."""
    block, found = Dropped([2, 3]), {}
    for key, more in {
        "both": {"teacher": 0.01},
        "distilled": {},
        "taught": {"teacher": 0.01, "distillation": 0.0},
        "plain": {"distillation": 0.0},
    }.items():
        given = {"distillation": 0.5} | more
        study = study_of(write_study, tmp_path, "lora", steps=1, **given)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_, **__: torch.ones(()))
            found[key] = one_step(study, block)["gradients"]
    for name, plain in found["plain"].items():
        sums = found["distilled"][name] + found["taught"][name] - plain
        assert torch.allclose(found["both"][name], sums, rtol=1e-3, atol=1e-6)


def test_names_and_records_say_so() -> None:
    plain, whole, part = (healing(recipe="lora", distillation=x) for x in (0.0, 1.0, 0.125))
    assert [one.name for one in (plain, whole, part)] == [
        "lora-r8",
        "lora-r8-distilled",
        "lora-r8-distilled12-5",
    ]
    assert healing(recipe="lora", distillation=1, teacher=1, data="a").name == (
        "lora-r8-on-a-distilled-teacher"
    )
    inputs = [recipes.of(one).inputs(one) for one in (plain, whole)]
    assert "distillation" not in inputs[0]
    assert inputs[1] == inputs[0] | {"distillation": 1.0}


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_it_takes_is_planned(recipe: str, write_study: Studies, tmp_path: Path) -> None:
    """A pass of the unpruned model for each token; a second model, where none is frozen."""
    study = study_of(write_study, tmp_path, recipe)
    plain = study.healing.model_copy(update={"distillation": 0.0})
    shape = shape_of(checkpoints.load_config(study))
    found, before = (
        recipes.of(one).passes(one, SCATTERED, shape.n_layers, 2.5)
        for one in (study.healing, plain)
    )
    assert found.forward - before.forward == pytest.approx(shape.n_layers + 2.5)
    assert found.back == before.back
    more = memory.memory(study, shape)["healing"]
    more -= memory.memory(study.model_copy(update={"healing": plain}), shape)["healing"]
    assert more == (0 if recipe == "lora" else 4 * shape.total)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_nothing_and_all(
    share: float, write_study: Studies, tmp_path: Path
) -> None:
    path = write_study(tmp_path, healing={"recipe": "lora", "distillation": share})
    with pytest.raises(UserError, match=r"healing.distillation") as error:
        studies.load(str(path))
    assert str(error.value).count("\n") == 0
