"""Shipped strategies against an independent computation: a forward pass by hand, plain sums over
weights, and models that are really pruned."""

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import Checkpoints, Studies
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from lib import open_sets, paths, study
from lib.book.check import check
from lib.errors import UserError
from lib.evidence.records import records
from lib.experiments.choosing import Asked
from lib.experiments.opened import OpenStudy
from lib.experiments.schedules import Step, resolve
from lib.models import corpora
from lib.models.anatomy import decoder
from lib.open_sets import Chosen
from lib.pruning import strategy
from lib.pruning.dropped import Dropped, span
from lib.pruning.surgery import save_pruned

FAMILIES = ["llama", "qwen2", "phi", "gpt_neox", "gemma2", "opt"]
NORMS = ("norm", "final_layer_norm", "final_layernorm")
SINK = 300.0


@pytest.fixture
def asked(
    tmp_path: Path,
    results_dir: Path,
    write_study: Studies,
    tiny_checkpoint: Checkpoints,
    request: pytest.FixtureRequest,
) -> Asked:
    """A study of six layers, of a family."""
    family = getattr(request, "param", "llama")
    calibration = {"path": str(calibration_text(tmp_path)), "n_sequences": 6, "length": 16}
    checkpoint = str(tiny_checkpoint(family))
    path = write_study(tmp_path, model=checkpoint, calibration=calibration)
    return Asked(OpenStudy(study.load(str(path))))


def calibration_text(folder: Path) -> Path:
    words = "tea", "rain", "a hill", "the sea", "her letter", "no one", "two boats", "an old map"
    rows = [{"text": f"{a} and {b}, {b} or {a}."} for a in words for b in words if a != b]
    path = folder / "calibration.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scores(asked: Asked, name: str, **settings: object) -> list[float]:
    return strategy.shipped(name, **settings).scores(asked)["scores"]


def residual_stream(model: PreTrainedModel, windows: torch.Tensor) -> torch.Tensor:
    """[L+1, windows, length, width]: what transformers returns where there is no final norm, with
    which the last of its states is otherwise."""
    stack = decoder(model)
    name = next(one for one in NORMS if getattr(stack, one, None) is not None)
    kept = getattr(stack, name)
    setattr(stack, name, nn.Identity())
    with torch.inference_mode():
        found = model(input_ids=windows, output_hidden_states=True).hidden_states
    setattr(stack, name, kept)
    return torch.stack(found).double()


def by_hand(asked: Asked, flattened: bool) -> list[float]:
    states = residual_stream(asked.model, asked.windows)
    found = []
    for before, after in pairwise(states):
        if flattened:
            found.append(1 - float(torch.cosine_similarity(before.flatten(), after.flatten(), 0)))
        else:
            found.append(1 - float(torch.cosine_similarity(before, after, -1).mean()))
    return found


@pytest.mark.parametrize("asked", FAMILIES, indirect=True)
@pytest.mark.parametrize("flattened", [False, True])
def test_block_influence_is_that_of_a_forward_pass_by_hand(asked: Asked, flattened: bool) -> None:
    found = scores(asked, "block-influence", flattened=flattened)
    assert found == pytest.approx(by_hand(asked, flattened), rel=1e-6)


def test_a_sink_decides_the_flattened_form_alone(asked: Asked) -> None:
    """One token with a massive activation, which layers leave as it is."""
    plain = {flat: scores(asked, "block-influence", flattened=flat) for flat in (False, True)}

    def plant(_module: nn.Module, _given: tuple, output: torch.Tensor) -> torch.Tensor:
        planted = output.clone()
        planted[:, 0, 0] += SINK
        return planted

    handle = asked.model.get_input_embeddings().register_forward_hook(plant)
    asked.opened.store.folder.rename(asked.opened.store.folder.with_name("before"))
    sunk = {flat: scores(asked, "block-influence", flattened=flat) for flat in (False, True)}
    handle.remove()

    def order(found: list[float]) -> list[int]:
        return sorted(range(6), key=found.__getitem__)

    assert order(sunk[False]) == order(plain[False])
    assert order(sunk[True]) != order(plain[True])
    assert max(sunk[True]) < 0.1 * max(sunk[False])  # it hardly sees the other tokens


@pytest.mark.parametrize("asked", ["llama", "phi", "opt"], indirect=True)
@pytest.mark.parametrize("p", [1, 2])
def test_magnitude_is_the_sum_over_weights_without_biases(asked: Asked, p: int) -> None:
    expected = [0.0] * 6
    for name, value in asked.model.state_dict().items():
        number = re.search(r"\.layers\.(\d+)\.", name)
        if number and name.endswith("weight"):
            expected[int(number[1])] += float((value.double().abs() ** p).sum())
    assert all(expected)
    assert scores(asked, "magnitude", p=p) == pytest.approx(expected, rel=1e-12)


def test_taylor_is_that_of_gradients_by_hand(asked: Asked) -> None:
    model, windows = asked.model.double(), asked.windows
    found = scores(asked, "taylor")
    assert all(one.grad is None and one.requires_grad for one in model.parameters())
    logits = model(input_ids=windows).logits.log_softmax(-1)
    loss = -logits[:, :-1].gather(2, windows[:, 1:, None]).mean()
    named = {name: one for name, one in model.named_parameters() if name.startswith("model.layers")}
    gradients = torch.autograd.grad(loss, list(named.values()))
    expected = [0.0] * 6
    for (name, weight), gradient in zip(named.items(), gradients, strict=True):
        expected[int(name.split(".")[2])] += float((weight.detach() * gradient).abs().sum())
    assert found == pytest.approx(expected, rel=1e-6)


def test_layers_under_guard_stay(asked: Asked) -> None:
    guarded = strategy.shipped("taylor", guard=True)
    assert set(guarded.chosen(asked, 3, 6)) == {1, 2, 3} and guarded.most(6) == 3
    with pytest.raises(UserError, match=r"n = 4 .* leaves in place .* at most 3"):
        guarded.chosen(asked, 4, 6)


def test_numbers_that_are_packed_are_no_weights(asked: Asked) -> None:
    packed = torch.zeros(4, dtype=torch.uint8)
    module = asked.model.model.layers[3].mlp.down_proj
    module.weight = nn.Parameter(packed, requires_grad=False)
    for name in ("magnitude", "taylor"):
        with pytest.raises(UserError, match=f"{name}: the checkpoint is quantised"):
            strategy.shipped(name).scores(asked)


@pytest.mark.parametrize("asked", ["mixtral"], indirect=True)
def test_gradients_can_be_had_of_a_model_that_was_looked_at_before(asked: Asked) -> None:
    scores(asked, "block-influence")
    assert min(scores(asked, "taylor")) > 0


def test_studies_are_read_without_torch() -> None:
    shipped = open_sets.known("strategy")
    words = "import sys\nfrom lib.schema import Chosen\n"
    words += "".join(f"Chosen(name={name!r})\n" for name in shipped)
    done = subprocess.run(
        [sys.executable, "-c", words + "assert 'torch' not in sys.modules"],
        cwd=paths.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_further_choice_is_made_anew_where_the_guard_changes(
    tmp_path: Path, results_dir: Path, write_study: Studies
) -> None:
    for guard in (False, True):
        guarded = [{"name": "taylor", "guard": guard}, "first"]
        calibration = {"path": str(calibration_text(tmp_path)), "n_sequences": 6, "length": 16}
        path = write_study(tmp_path, strategies=guarded, calibration=calibration)
        opened = OpenStudy(study.load(str(path)))
        resolve(opened, [Step("first", 1, None), Step("taylor", 1, None)])
    assert [record["kind"] for _, record, _ in records("mine")].count("choice") == 2


def test_plans_count_what_strategies_ask(asked: Asked) -> None:
    one, every = (strategy.shipped(name).sets(6) for name in ("perplexity", "greedy"))
    assert [len(sets) for sets in one] == [7]
    assert [len(sets) for sets in every] == [6, 5, 4, 3, 2]
    asks: list[int] = []
    losses = asked.losses
    asked.losses = lambda sets: (asks.append(len(sets)), losses(sets))[1]
    strategy.shipped("greedy").measure(asked)
    assert asks == [6, 5, 4, 3, 2]


class Really:
    """Losses of checkpoints that are pruned, written and read again, window by window."""

    def __init__(self, asked: Asked, folder: Path) -> None:
        self.asked, self.folder = asked, folder

    def loss(self, dropped: tuple[int, ...]) -> float:
        place = self.folder / "-".join(map(str, ["drop", *dropped]))
        save_pruned(self.asked.model, Dropped(dropped), self.asked.tokenizer, place)
        model = AutoModelForCausalLM.from_pretrained(place).double().eval()
        found = []
        with torch.inference_mode():
            for row in self.asked.windows:
                likely = model(row[None]).logits[0, :-1].log_softmax(-1)
                found.append(-float(likely.gather(1, row[1:, None]).mean()))
        return sum(found) / len(found)


@pytest.mark.parametrize("asked", ["llama", "gemma2", "gpt_neox"], indirect=True)
def test_perplexity_is_that_of_really_pruned_models(asked: Asked, tmp_path: Path) -> None:
    asked.model.double()
    really = Really(asked, tmp_path)
    whole = really.loss(())
    expected = [really.loss((layer,)) - whole for layer in range(6)]
    assert scores(asked, "perplexity") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("asked", ["llama", "qwen2", "gpt_neox"], indirect=True)
def test_greedy_goes_as_brute_force_does(asked: Asked, tmp_path: Path) -> None:
    really, gone = Really(asked, tmp_path), ()
    for n in range(1, 6):
        left = [layer for layer in range(6) if layer not in gone]
        gone += (min(left, key=lambda layer, gone=gone: really.loss((*gone, layer))),)
        assert strategy.shipped("greedy").chosen(asked, n, 6) == Dropped(gone)


@pytest.mark.parametrize("name", ["block-influence", "perplexity", "greedy", "taylor"])
def test_strategies_that_read_text_want_one_of_their_own(
    name: str, tmp_path: Path, results_dir: Path, write_study: Studies
) -> None:
    without = study.load(str(write_study(tmp_path, strategies=[name])))
    says = f"strategy {name}: chooses layers on text of its own; give the study `calibration"
    for ask in (lambda: check(without), lambda: OpenStudy(without).chosen(name, 1)):
        with pytest.raises(UserError, match=says):
            ask()


@pytest.mark.parametrize("taken", ["validation_text", "healing_text"])
def test_layers_are_not_chosen_on_what_is_evaluated_or_healed_on(
    taken: str, asked: Asked, tmp_path: Path
) -> None:
    one = asked.opened.study
    check(one.model_copy(update={"strategies": [Chosen(name="perplexity")]}))
    same = one.calibration.model_copy(update={"path": getattr(one, taken).path})
    with pytest.raises(UserError, match=r"is both .*calibration") as caught:
        check(one.model_copy(update={"calibration": same}))
    assert taken in str(caught.value)
    document = next(corpora.documents(getattr(one, taken), seed=None))
    with open(one.calibration.path, "a") as file:
        file.write(json.dumps({"text": document}) + "\n")
    with pytest.raises(UserError, match=r"1 of its documents are in .* layers are chosen on text"):
        check(one)


def test_a_users_own_strategy_reads_the_calibration_text(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def scores(model, windows):\n    return windows[0, :6] * 1.0\n"
    )
    own = strategy.load(Chosen(name="mine", file=str(tmp_path / "mine.py")))
    assert own.scores(asked)["scores"] == asked.windows[0, :6].tolist()
    assert asked.windows.shape == (6, 16)


@pytest.mark.parametrize(("name", "block"), [("first", span(0, 2)), ("reverse-order", span(4, 6))])
def test_rules_need_no_model(name: str, block: Dropped) -> None:
    chosen = strategy.shipped(name)
    assert chosen.by_rule and chosen.expected(2, 6) == block
    assert chosen.chosen(None, 2, 6) == block


@pytest.mark.parametrize("name", ["block-influence", "magnitude", "perplexity", "greedy", "taylor"])
def test_scores_are_measured_once(asked: Asked, name: str) -> None:
    kind = strategy.shipped(name)
    found = kind.scores(asked)
    assert len(found["scores"]) == 6
    asked.opened.model = None  # is not looked at
    assert kind.scores(asked) == found


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("block-influence", "block-influence: the score of layer 4 is nan"),
        ("magnitude", "magnitude: the score of layer 4 is nan"),
        ("taylor", "taylor: the score of layer 0 is nan"),
        ("perplexity", "not finite"),
        ("greedy", "not finite"),
    ],
)
def test_what_is_no_number_is_named_with_its_layer(asked: Asked, name: str, says: str) -> None:
    with torch.no_grad():
        asked.model.model.layers[4].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(UserError, match=says):
        strategy.shipped(name).scores(asked)
