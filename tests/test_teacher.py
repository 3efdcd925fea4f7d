"""What a teacher costs, and what texts have to last for."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lib import study as studies
from lib.book import check, check_texts
from lib.errors import UserError
from lib.experiments import conditions
from lib.healing.teacher import Teacher, relative_cost
from lib.healing.unpruned import Shared
from lib.models import checkpoints
from lib.pruning.dropped import span

# What a teacher costs.


@pytest.mark.parametrize("block", [span(2, 5), span(0, 3), span(3, 6)], ids=str)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_a_step_with_a_teacher_costs_is_counted_by_hand(block, checkpointing):
    d, kv, ff, vocabulary, count = 64, 32, 176, 500, 6
    config = AutoConfig.for_model(
        "llama", hidden_size=d, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=ff, num_hidden_layers=count, vocab_size=vocabulary,
    )  # fmt: skip
    layer = 2 * d * d + 2 * d * kv + 3 * d * ff + 2 * d
    through_layers = (3 if checkpointing else 2) * (count - block.n) * layer
    through_head = 2 * vocabulary * d
    expected = (through_layers + through_head + block.stop * layer) / (
        through_layers + through_head
    )
    assert relative_cost(config, block, checkpointing) == pytest.approx(expected)


@pytest.mark.parametrize("block", [span(2, 5), span(0, 3), span(3, 6)], ids=str)
def test_the_teacher_runs_up_to_the_end_of_the_block_and_no_further(block, tiny_checkpoint):
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint("llama"))
    layers = list(checkpoints.layers(model))
    teacher = Teacher(Shared(model, block))
    ran = []
    for number, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    model.lm_head.register_forward_hook(lambda *_: ran.append("head"))
    teacher.expected(model, {"input_ids": torch.arange(5, 15)[None]})
    assert ran == list(range(block.stop))


def test_no_healing_is_longer_than_what_the_texts_are_checked_for(ablated):
    """Whatever the block, which is not known before distances are measured."""
    most = check_texts.most_steps(ablated)
    n_layers, recipe = ablated.n_layers, ablated.study.healing
    possible = [
        conditions.equal_time_steps(ablated, recipe, span(start, start + 3))
        for start in range(n_layers - 2)
    ]
    assert most == max(possible) > possible[0] > recipe.steps
    assert all(a <= b for a, b in pairwise(possible))


def documents(path: str) -> list[str]:
    return [json.loads(line)["text"] for line in Path(path).read_text("utf-8").splitlines()]


@pytest.mark.parametrize(
    ("changes", "enough"),
    [
        ({}, False),
        ({"teacher": {"seeds": []}}, True),
        ({"healing": {"recipe": "full"}}, True),
        ({"healing": {"batch": 5}}, True),
    ],
    ids=["longer with a teacher", "no seeds", "full", "small batch"],
)
def test_the_healing_text_has_to_last_for_the_longest_healing(
    write_study, tmp_path, tokenizer, changes, enough
):
    plain = {"recipe": "lora", "steps": 10, "length": 32}
    lines = studies.load(str(write_study(tmp_path))).healing_text.path
    rows = tokenizer(documents(lines))["input_ids"]
    batch = sum(map(len, rows)) // 32 // 10  # all windows there are, in ten steps
    settings = {"healing": {**plain, "batch": batch} | changes.get("healing", {})}
    path = write_study(
        tmp_path, **({k: v for k, v in changes.items() if k != "healing"} | settings)
    )
    if enough:
        check.check(studies.load(str(path)))
    else:
        with pytest.raises(UserError, match=r"healing\.jsonl: too short, it gives \d+ windows"):
            check.check(studies.load(str(path)))


@pytest.mark.parametrize(("batch", "enough"), [(60, True), (61, False)])
def test_documents_are_counted_where_they_are_not_packed(write_study, tmp_path, batch, enough):
    """120 of them, though there are many more windows."""
    recipe = {"steps": 2, "batch": batch, "length": 16}
    path = {}
    for packing in (True, False):
        path = write_study(tmp_path, healing=recipe | {"packing": packing}, teacher={"seeds": []})
        study = studies.load(str(path))
        assert len(documents(study.healing_text.path)) == 120
        if packing or enough:
            check.check(study)
        else:
            with pytest.raises(UserError, match="too short, it gives 120 documents"):
                check.check(study)
