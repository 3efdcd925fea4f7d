"""Partial tuning: which weights are trained, how many these are, and what becomes of tied heads."""

import copy
import json

import pytest
import torch
from safetensors.torch import save_model
from tiny import FAMILIES, FORMS, random_tokens, random_variant, save
from transformers import AutoModelForCausalLM, LlamaConfig

from lib import study as studies
from lib.errors import UserError
from lib.experiments.costs import multiplied
from lib.healing import recipe as recipes
from lib.healing.recipe import Damaged
from lib.healing.recipes.partial import trained_layers
from lib.models import anatomy
from lib.models.shapes import shape_of
from lib.models.tied import is_tied
from lib.open_sets import Healing, healing
from lib.pruning.dropped import Dropped, span
from lib.pruning.surgery import drop

# Llama-3.1-8B, of which the second paper drops the deepest 8 layers.
LLAMA = LlamaConfig(
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=128_256,
    tie_word_embeddings=False,
)


def partial(**settings: object) -> Healing:
    return healing(recipe="partial", **settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"recipe": "lora", "rank": 8, "alpha": 16, "targets": "all-linear"}, 15_728_640),
        ({"recipe": "partial", "layers": 0}, 525_340_672),
        ({"recipe": "partial", "layers": 1}, 743_452_672),
        ({"recipe": "partial", "layers": 2}, 961_564_672),
        ({"recipe": "partial", "layers": 3}, 1_179_676_672),
    ],
)
def test_trained_parameters_of_the_second_papers_recipes(settings, expected):
    """Table 4 of Lu et al."""
    one = healing(**settings)
    shape = shape_of(LLAMA, one.adapted)
    assert recipes.of(one).trainable(shape, one, span(24, 32)) == expected


def test_multiplications_of_the_second_papers_pruned_model():
    """Table 9 of Lu et al.: 368.65 G for 64 tokens, with two for each of a norm's numbers, without
    those of attention itself."""
    model = anatomy.skeleton(LLAMA)
    drop(model, range(24, 32))
    norms = sum(weight.numel() for weight in model.parameters() if weight.ndim == 1)
    assert round(64 * (multiplied(model) + 2 * norms) / 1e9, 2) == 368.65


NORMS = {
    "norm",
    "final_layernorm",
    "final_layer_norm",
    "ln_f",
}  # as the families call the final one


def by_name(model, stack: str, places: list[int], head: bool, norm: bool) -> set[int]:
    """The weights that are to be trained, found by their names."""
    wanted = {id(weight) for weight in model.get_output_embeddings().parameters() if head}
    for name, weight in model.named_parameters(remove_duplicate=False):
        inside = name.startswith(f"{stack}.")
        if inside and int(name.removeprefix(f"{stack}.").split(".")[0]) in places:
            wanted.add(id(weight))
        if norm and not inside and name.split(".")[-2] in NORMS:
            wanted.add(id(weight))
    return wanted


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("head", "norm", "count"), [(True, True, 2), (True, False, 0), (False, False, 1)]
)
def test_exactly_what_is_named_is_trained_kept_and_written(form, head, norm, count, tmp_path):
    """On every family: a tied head gets weights of its own, plain transformers reads what is
    written, and gives the same logits."""
    model, dropped = random_variant(form), Dropped([1, 2])
    whole, tied = shape_of(copy.deepcopy(model.config)), is_tied(model)
    drop(model, dropped)
    base = copy.deepcopy(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one = partial(head=head, norm=norm, layers=count)
    kind = recipes.of(one)
    trained = kind.prepare(model, one, dropped)
    n_layers = len(anatomy.layers(trained))
    stack = anatomy.layers_and_name(trained)[1]
    expected = by_name(trained, stack, [*range(n_layers - count, n_layers)], head, norm)
    found = {id(weight) for weight in trained.parameters() if weight.requires_grad}
    assert found == expected
    count = sum(weight.numel() for weight in trained.parameters() if weight.requires_grad)
    assert kind.trainable(whole, one, dropped) == count
    assert is_tied(trained) == (tied and not head)
    whole_now = sum(weight.numel() for weight in trained.parameters())
    assert kind.added(whole, one) == whole_now - whole.pruned(dropped)

    tokens = random_tokens(2, 9)
    trained(input_ids=tokens, labels=tokens).loss.backward()
    with torch.no_grad():
        for weight in trained.parameters():
            if weight.requires_grad:
                weight -= 0.1 * weight.grad
    named = dict(trained.named_parameters(remove_duplicate=False))
    moved = {name for name, value in named.items() if not torch.equal(value, before[name])}
    assert moved and all(named[name].requires_grad for name in moved)

    (tmp_path / "kept").mkdir()
    kind.keep(trained, tmp_path / "kept")
    again = kind.evaluable(kind.restore(base, one, dropped, tmp_path / "kept"), None, dropped)
    healed = kind.evaluable(trained, None, dropped)
    with torch.inference_mode():
        logits = healed(tokens).logits
        assert torch.equal(again(tokens).logits, logits)
    if form in FAMILIES or form in ("llama tied", "gemma2 untied", "gpt2 untied"):
        folder = save(healed, tmp_path / "written")
        plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
        with torch.inference_mode():
            assert torch.equal(plain(tokens).logits, logits)
        if tied:
            config = json.loads((folder / "config.json").read_text())
            assert config.get("text_config", config).get("tie_word_embeddings", True) is not head


@pytest.mark.parametrize("form", ["llama", "llama tied", "gpt2", "opt", "mixtral"])
@pytest.mark.parametrize("recipe", ["partial", "full"])
def test_what_was_kept_by_other_names_of_the_same_weights_is_used(form, recipe, tmp_path):
    """Of tied weights and with buffers, as folders of `full` were kept at first."""
    one = healing(recipe=recipe)
    kind, model = recipes.of(one), random_variant(form)
    trained = kind.prepare(copy.deepcopy(model), one, [])
    with torch.no_grad():
        for weight in trained.parameters():
            weight += weight.requires_grad
    if recipe == "full":
        save_model(trained, str(tmp_path / "model.safetensors"))
    else:
        kind.keep(trained, tmp_path)
    again = kind.restore(model, one, [], tmp_path)
    named = dict(again.named_parameters())
    assert all(torch.equal(value, named[name]) for name, value in trained.named_parameters())


def test_a_checkpoint_in_4_bit_and_a_missing_norm_are_one_line():
    study = studies.override(studies.load("smoke"), healing={"recipe": "partial"})
    skeleton = random_variant("llama")
    skeleton.config.quantization_config = {"quant_method": "gptq"}
    with pytest.raises(UserError, match=r"healing\.recipe partial trains weights, and those of"):
        recipes.of(study.healing).check(study, skeleton, study.healing)
    one = partial(head=False, layers=0)
    without = random_variant("opt", do_layer_norm_before=False)
    with pytest.raises(UserError, match="has no final norm, so nothing would be trained"):
        recipes.of(one).check(study, without, one)


def test_what_was_kept_of_another_recipe_is_damaged(tmp_path):
    model = random_variant("llama")
    for name, one in (("a", partial(layers=1)), ("b", partial(layers=2))):
        (tmp_path / name).mkdir()
        recipes.of(one).keep(recipes.of(one).prepare(model, one, []), tmp_path / name)
    one = partial(layers=1)
    recipes.of(one).restore(model, one, [], tmp_path / "a")
    with pytest.raises(Damaged, match="not those that were trained"):
        recipes.of(one).restore(model, one, [], tmp_path / "b")


@pytest.mark.parametrize(
    ("at", "layers", "dropped", "expected"),
    [
        ("last", 3, [3, 4], [5, 6, 7]),
        ("last", 0, [3, 4], []),
        ("first", 3, [0, 4], [0, 1, 2]),
        ("cut", 1, [3, 4], [3]),  # what was layer 5
        ("cut", 2, [3, 4], [2, 3]),
        ("cut", 3, [3, 4], [2, 3, 4]),
        ("cut", 4, [3, 4], [1, 2, 3, 4]),
        ("cut", 3, [8, 9], [5, 6, 7]),  # the deepest go: the last are nearest
        ("cut", 3, [7, 8], [5, 6, 7]),  # all but the last: one layer stands behind
        ("cut", 2, [0, 1], [0, 1]),
        ("cut", 2, [2, 6], [2, 5]),  # two cuts: the layer behind each
        ("cut", 8, [2, 6], [0, 1, 2, 3, 4, 5, 6, 7]),
        ("cut", 2, [], [8, 9]),  # no cut
    ],
)
def test_where_layers_are_trained(at, layers, dropped, expected):
    one = partial(layers=layers, at=at)
    assert trained_layers(one, dropped, 10) == expected
    kept = 10 - len(dropped)
    reached = kept - expected[0] if expected else 0
    assert recipes.of(one).backward(one, dropped, 10) == (reached, layers, 2)


def test_of_a_model_in_16_bits_what_is_trained_is_in_32():
    model = random_variant("llama").to(torch.bfloat16)
    one = partial(layers=1)
    trained = recipes.of(one).prepare(model, one, [])
    kinds = {(weight.dtype, weight.requires_grad) for weight in trained.parameters()}
    assert kinds == {(torch.float32, True), (torch.bfloat16, False)}


def test_settings_that_train_nothing_or_too_much_are_one_line(tmp_path, write_study):
    with pytest.raises(UserError, match="nothing is trained: no head, no norm and no layers"):
        studies.override(
            studies.load("smoke"),
            healing={"recipe": "partial", "layers": 0, "head": False, "norm": False},
        )
    with pytest.raises(UserError, match=r"healing\.layers 9: only 8 layers stay"):
        trained_layers(partial(layers=9), [1, 2], 10)
    study = studies.override(
        studies.load("smoke"),
        healing={"recipe": "partial", "layers": 5, "fractions": [0.5, 0.75]},
    )
    skeleton = random_variant("llama", num_hidden_layers=16)
    with pytest.raises(UserError, match=r"healing\.layers 5: of 16 layers only 4 stay where 0.75"):
        recipes.of(study.healing).check(study, skeleton, study.healing)


def test_names_tell_settings_apart():
    every = [
        partial(),
        partial(layers=0),
        partial(layers=2),
        partial(at="cut"),
        partial(at="first"),
        partial(head=False),
        partial(norm=False),
        healing(recipe="lora", alpha=16),
        healing(recipe="lora", targets="all-linear"),
        healing(recipe="lora", targets="all-linear", alpha=16),
        healing(recipe="lora"),
    ]
    assert len({one.name for one in every}) == len(every)
    assert healing(recipe="lora", alpha=8).name == healing(recipe="lora").name
