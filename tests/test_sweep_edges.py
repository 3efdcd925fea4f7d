"""The sweep at the edge of what models allow: contexts, blocks, and numbers that are none."""

import random

import pytest
import torch
from test_sweep import DROPS, LONGER, by_hand, equal, questions
from tiny import looped, random_model

from lib.errors import UserError
from lib.evaluation import sweep
from lib.evaluation.batches import Row, make_batches
from lib.models.anatomy import layers
from lib.pruning.dropped import UNPRUNED, span
from lib.pruning.surgery import pruned

CONTEXT = 64


def group(prefix: int, rests: list[int], seed: int) -> list[Row]:
    draw = random.Random(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, 199) for _ in range(count))

    shared = tokens(prefix)
    return [Row(shared + tokens(count), prefix) for count in rests]


@pytest.mark.parametrize("family", ["gpt2", "opt", "gpt_neox", *LONGER])
def test_a_long_prefix_beside_long_rests_stays_within_the_context(family):
    """Together they are longer than any text, and positions beyond the context may not exist, or
    turn those of all others."""
    rows = group(56, [3, 4, 5, 6], 1) + group(30, [30, 31, 32, 33], 2)
    assert max(len(row.tokens) for row in rows) <= CONTEXT
    assert any(len(batch.groups) == 2 for batch in make_batches(rows, 9))
    changes = {"max_position_embeddings": CONTEXT}
    if family in LONGER:
        changes = LONGER[family] | changes
        if "seq_length" in changes:
            changes["seq_length"] = CONTEXT
        if "original_max_position_embeddings" in changes:
            changes["original_max_position_embeddings"] = CONTEXT
            rope = changes["rope_parameters"] | {"original_max_position_embeddings": CONTEXT}
            changes |= {"rope_parameters": rope, "max_position_embeddings": 2 * CONTEXT}
    model = random_model(family, **changes)
    blocks = [UNPRUNED, span(3, 4)]
    found = sweep.log_likelihoods(model, blocks, rows, 9, 0, "rows")
    assert sweep._ways[model] == "shared"
    assert equal(found, by_hand(model, blocks, rows))


@pytest.mark.parametrize("context", [4, 12])
def test_a_context_shorter_than_the_trial(context):
    model = random_model("gpt2", max_position_embeddings=context)
    rows = [Row((5, 6, 7, 8), 2), Row((5, 6, 9), 1)]
    found = sweep.log_likelihoods(model, DROPS, rows, 8, 0, "rows")
    assert equal(found, by_hand(model, DROPS, rows))


@pytest.mark.parametrize("block", [(7,), (-2, 1), (1, 1), range(6), span(4, 9)], ids=str)
def test_blocks_that_the_model_does_not_have_are_refused(block):
    model = random_model("llama")
    with pytest.raises(UserError, match="layer"):
        sweep.log_likelihoods(model, [UNPRUNED, block], questions(), 8, 0, "rows")


def test_what_a_configuration_cannot_say_can_still_be_measured():
    """GPT-2 that scales attention by a layer's number: without layer 2, the third would be off."""
    model = random_model("gpt2", scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(UserError, match="cannot drop"), pruned(model, (2,)):
        pass
    rows = questions()
    found = sweep.log_likelihoods(model, [UNPRUNED, (2,)], rows, 8, 0, "rows")
    whole = by_hand(model, [UNPRUNED], rows)
    assert (found.log_likelihood[:1] - whole.log_likelihood).abs().max() < 1e-4
    for i, row in enumerate(rows):
        logits = looped(model, "transformer.h", [0, 1, 3, 4, 5], torch.tensor([row.tokens[:-1]]))
        at = logits[0].double().log_softmax(-1)[row.start - 1 :]
        expected = at.gather(1, torch.tensor(row.tokens[row.start :])[:, None]).sum()
        assert abs(found.log_likelihood[1, i] - expected) < 1e-4
    assert sweep._ways[model] == "shared"


def test_a_pruning_is_tried_whatever_is_asked_first(monkeypatch):
    """What the trial finds is remembered for prunings that are asked for later."""
    model, tried = random_model("llama"), []
    replayed = sweep._replayed

    def noting(replay, blocks, *given, **more):
        tried.append(blocks)
        return replayed(replay, blocks, *given, **more)

    monkeypatch.setattr(sweep, "_replayed", noting)
    sweep.log_likelihoods(model, [UNPRUNED], questions(), 8, 0, "rows")
    assert [len(block) for block in tried[0]] == [0, 1]


@pytest.mark.parametrize("block", [UNPRUNED, span(1, 3)], ids=str)
def test_activations_that_are_no_numbers_are_reported_with_their_layer(block):
    model, rows = random_model("llama"), questions()
    with torch.no_grad():
        layers(model)[4].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(UserError, match=r"rows, drop .*not finite leaving layer 4, .* tokens"):
        sweep.log_likelihoods(model, [block], rows, 8, 0, "rows")
    assert sweep._ways[model] == "shared"
    without = sweep.log_likelihoods(model, [(4,)], rows, 8, 0, "rows")
    assert equal(without, by_hand(model, [(4,)], rows))


@pytest.mark.parametrize(("tokens", "start"), [((5,), 0), ((5,), 1), ((5, 6), 2), ((5, 6), 0)])
def test_rows_with_nothing_to_score_are_refused(tokens, start):
    with pytest.raises(ValueError, match="start"):
        Row(tokens, start)
