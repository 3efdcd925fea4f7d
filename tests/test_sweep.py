"""One pass for all prunings against one forward pass per pruning and row."""

import random
from collections import Counter
from weakref import WeakSet

import pytest
import torch
from tiny import FORMS, on_several_devices, random_model, random_tokens, random_variant
from torch import nn

from lib.evaluation import sweep
from lib.evaluation.batches import Row, make_batches
from lib.evaluation.replay import Replay
from lib.evaluation.scoring import Scores
from lib.evidence.journal import Journal
from lib.models.anatomy import layers, longest_alike
from lib.pruning.dropped import UNPRUNED, kept_layers, simple, span
from lib.pruning.surgery import pruned

L = 6
SIMPLE = [UNPRUNED, *(simple(n, L) for n in range(1, L))]
DROPS = [*SIMPLE, span(0, 2), span(1, 3), (0, 2, 5), (1, 4)]


def questions(seed: int = 0, examples: int = 24) -> list[Row]:
    """Rows as tasks make them: answers of one to three tokens to questions that share examples, to
    questions that share nothing, and texts of which every token counts."""
    draw = random.Random(seed)

    def tokens(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, 199) for _ in range(draw.randint(least, most)))

    shared = tokens(examples, examples)
    prompts = [shared + tokens(4, 9) for _ in range(3)] + [tokens(9, 18) for _ in range(3)]
    answers = [(prompt, tokens(1, 3)) for prompt in prompts for _ in range(2)]
    rows = [Row(prompt + answer, len(prompt)) for prompt, answer in answers]
    return rows + [Row(tokens(5, 25), 1) for _ in range(2)]


def by_hand(model: nn.Module, drops: list, rows: list[Row]) -> Scores:
    """Each row alone, through each pruned model's own forward pass."""
    found = Scores.empty(len(drops), len(rows))
    # The shortest first: positions may remember a longer text before them.
    in_order = sorted(enumerate(rows), key=lambda one: len(one[1].tokens))
    for i, drop in enumerate(drops):
        with torch.inference_mode(), pruned(model, drop):
            model(torch.tensor([[1]]), use_cache=False)  # forgets the longest
            for j, row in in_order:
                logits = model(torch.tensor([row.tokens[:-1]]), use_cache=False).logits[0]
                at = logits.double().log_softmax(-1)[row.start - 1 :]
                targets = torch.tensor(row.tokens[row.start :])
                found.log_likelihood[i, j] = at.gather(1, targets[:, None]).sum()
                found.greedy[i, j] = bool((at.argmax(-1) == targets).all())
    return found


def equal(found: Scores, expected: Scores) -> bool:
    assert (found.log_likelihood - expected.log_likelihood).abs().max() < 1e-4
    return torch.equal(found.greedy, expected.greedy)


@pytest.mark.parametrize("form", FORMS)
def test_a_sweep_equals_model_by_model(form):
    model, rows = random_variant(form), questions()
    expected = by_hand(model, DROPS, rows)
    for size in (5, 64):
        assert equal(sweep.log_likelihoods(model, DROPS, rows, size, 0, "rows"), expected)
    assert sweep._ways[model] == "shared"  # not by falling back


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "falcon"])
def test_eager_attention_and_prefixes_longer_than_a_window(family):
    model, rows = random_model(family), questions(1, examples=40)
    model.set_attn_implementation("eager")
    found = sweep.log_likelihoods(model, DROPS, rows, 7, 0, "rows")
    assert equal(found, by_hand(model, DROPS, rows))


LONGER = {
    "llama": {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}},
    "phi3": {
        "original_max_position_embeddings": 16,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "short_factor": [1.0] * 8,
            "long_factor": [4.0] * 8,
            "original_max_position_embeddings": 16,
        },
    },
    "qwen": {"seq_length": 16},
}


@pytest.mark.parametrize("family", LONGER)
def test_positions_that_turn_with_the_length_of_a_text(family):
    """Short and long rows: a long one must not turn the positions of those beside it."""
    model = random_model(family, max_position_embeddings=16, **LONGER[family])
    assert longest_alike(model.config) == 16
    rows = questions() + questions(2, examples=2)
    found = sweep.log_likelihoods(model, DROPS, rows, 64, 0, "rows")
    assert equal(found, by_hand(model, DROPS, rows))
    assert sweep._ways[model] == "shared"


@pytest.fixture
def steps(monkeypatch):
    """Layers that were run, by number, and at most how many of their outputs were alive at once."""
    runs: Counter[int] = Counter()
    alive: WeakSet[torch.Tensor] = WeakSet()
    most = [0]
    step = Replay.step

    def counting(self, i, hidden, entrance, cache=None):
        output, after = step(self, i, hidden, entrance, cache)
        runs.update([i])
        alive.add(output)
        most[0] = max(most[0], len(alive))
        return output, after

    monkeypatch.setattr(Replay, "step", counting)
    return runs, most


@torch.inference_mode()
def test_shared_layers_run_once_and_few_states_are_alive(steps):
    runs, most = steps
    rows = [Row(tuple(tokens), 1) for tokens in random_tokens(3, 9).tolist()]
    peaks = []
    for count in (6, 18):
        blocks = [UNPRUNED, *(simple(n, count) for n in range(1, count))]
        blocks += [span(s, s + 2) for s in range(count - 2)]
        model = random_model("llama", num_hidden_layers=count)
        runs.clear()
        most[0] = 0
        found = Scores.empty(len(blocks), len(rows))
        sweep._replayed(Replay(model), blocks, rows, make_batches(rows, 64), 0, found)
        peaks.append(most[0])
        assert runs.total() == sweep.layer_passes(block.kept(count) for block in blocks)
        # All layers, the last one again for every n, and what follows each block of two.
        twos = sum(count - s - 2 for s in range(count - 2) if s != count - 3)
        assert runs.total() == count + (count - 1) + twos
    assert peaks[0] == peaks[1] <= 5


def test_layers_on_several_devices(tmp_path):
    model, rows = random_model("llama"), questions()
    expected = by_hand(model, DROPS, rows)
    spread = on_several_devices(model, tmp_path)
    assert equal(sweep.log_likelihoods(spread, DROPS, rows, 64, 0, "rows"), expected)
    assert sweep._ways[spread] == "shared"


class Counting(nn.Module):
    """A layer that is not a function of its inputs: every other call negates its output."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.position = layer, 0

    def forward(self, hidden_states: torch.Tensor, **options: object) -> torch.Tensor:
        return self.layer(hidden_states, **options) * (-1 if options["use_cache"] else 1)


def test_what_cannot_share_prefixes_runs_whole():
    model, rows = random_model("llama"), questions()
    layers(model)[2] = Counting(layers(model)[2])
    found = sweep.log_likelihoods(model, [UNPRUNED, span(3, 4)], rows, 64, 0, "rows")
    assert sweep._ways[model] == "whole"
    assert equal(found, by_hand(model, [UNPRUNED, span(3, 4)], rows))


def test_what_cannot_be_replayed_runs_model_by_model(monkeypatch):
    model, rows = random_model("llama"), questions()
    inside = model.model.forward

    def shifted(*args, **options):  # something that the decoder does after its layers
        output = inside(*args, **options)
        if options["input_ids"].shape[1] > 1:
            output.last_hidden_state = output.last_hidden_state.flip(-1)
        return output

    monkeypatch.setattr(model.model, "forward", shifted)
    found = sweep.log_likelihoods(model, DROPS, rows, 64, 0, "rows")
    assert sweep._ways[model] is None
    assert equal(found, by_hand(model, DROPS, rows))


def test_every_row_is_in_one_batch_and_what_is_shared_runs_once():
    rows = questions()
    for share in (True, False):
        batches = make_batches(rows, 8, share)
        found = Counter(i for batch in batches for one in batch.inputs for i in one.rows)
        assert found == {i: 1 for i in range(len(rows))}
        for batch in batches:
            made = batch.rests(0)[0].numel()
            if batch.groups[0].prefix:
                made += batch.prefixes(0)[0].numel()
            assert made <= 8 * max(len(one.tokens) for one in batch.inputs) and (
                share or len(batch.inputs) <= 8
            )
            for group in batch.groups:
                heads = {one.tokens[: group.prefix] for one in group.inputs}
                assert len(heads) == 1
                assert all(group.prefix <= one.first for one in group.inputs)
    prefixes = [g.prefix for batch in make_batches(rows, 8) for g in batch.groups]
    assert 24 in prefixes  # the examples, for all questions that follow them
    assert sum(prefix > 0 for prefix in prefixes) >= 4  # and each question for its answers


def test_answers_of_one_token_take_one_input():
    rows = [Row((5, 6, 7, answer), 3) for answer in (10, 11, 12)]
    (batch,) = make_batches(rows, 8)
    (one,) = batch.inputs
    assert one.tokens == (5, 6, 7) and one.rows == (0, 1, 2)


@pytest.mark.parametrize("way", ["shared", "whole", None])
def test_a_killed_sweep_goes_on_where_it_was(way, tmp_path, steps, monkeypatch):
    model, rows = random_model("llama"), questions()
    runs, _ = steps
    ordinary = sweep.ordinary
    monkeypatch.setattr(sweep, "ordinary", lambda *given: runs.update([-1]) or ordinary(*given))
    monkeypatch.setattr(sweep, "TOGETHER", 1)
    sweep._ways[model] = way
    whole = sweep.log_likelihoods(model, DROPS, rows, 5, 0, "rows")
    assert runs and (way is None) == (set(runs) == {-1})
    journal = Journal(tmp_path / "a" / "journal.jsonl")
    again = sweep.log_likelihoods(model, DROPS, rows, 5, 0, "rows", journal)
    assert torch.equal(again.log_likelihood, whole.log_likelihood)
    lines = journal.path.read_text().splitlines(keepends=True)
    assert len(lines) == len({(row.tokens, row.start) for row in rows})
    # Killed in the middle of a line.
    journal.path.write_text("".join(lines[:10]) + lines[10][:20])
    resumed = Journal(journal.path)
    assert len(resumed.known) == 10
    found = sweep.log_likelihoods(model, DROPS, rows, 5, 0, "rows", resumed)
    assert torch.equal(found.log_likelihood, whole.log_likelihood)
    assert torch.equal(found.greedy, whole.greedy)
    runs.clear()
    complete = Journal(journal.path)
    found = sweep.log_likelihoods(model, DROPS, rows, 5, 0, "rows", complete)
    assert not runs
    assert torch.equal(found.log_likelihood, whole.log_likelihood)
    complete.finish()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("count", [1, 4, 7])
@pytest.mark.parametrize("way", ["shared", "whole", None])
def test_shares_put_together_are_the_whole_to_the_last_digit(way, count, tmp_path, monkeypatch):
    """Also where one was killed, and where one was never done."""
    model, rows = random_model("llama"), [*questions(), *questions(1)]
    monkeypatch.setattr(sweep, "TOGETHER", 1)
    sweep._ways[model] = way
    whole = sweep.log_likelihoods(model, DROPS, rows, 2, 0, "rows")
    path, seen = tmp_path / "a" / "journal.jsonl", set()
    for number in range(1, count + 1):
        share = (number, count)
        part = sweep.log_likelihoods(model, DROPS, rows, 2, 0, "rows", Journal(path, share))
        own = ~part.log_likelihood.isnan().any(0)
        assert torch.equal(part.log_likelihood[:, own], whole.log_likelihood[:, own])
        # Those that come later know what those before them have found.
        assert own.sum() > len(seen) and {*own.nonzero()[:, 0].tolist()} > seen
        seen = {*own.nonzero()[:, 0].tolist()}
    assert len(seen) == len(rows)
    files = sorted(path.parent.iterdir())
    assert len(files) == count
    lines = files[-1].read_text().splitlines(keepends=True)
    files[-1].write_text("".join(lines[: len(lines) // 2]) + lines[-1][:20])
    if count > 2:
        files[1].unlink()
    found = sweep.log_likelihoods(model, DROPS, rows, 2, 0, "rows", Journal(path))
    assert torch.equal(found.log_likelihood, whole.log_likelihood)
    assert torch.equal(found.greedy, whole.greedy)
    Journal(path).finish()
    assert not path.parent.exists()


@pytest.mark.parametrize("room", [1 << 30, 20_000, 0])
@pytest.mark.parametrize("order", [(2, 0, 4, 1, 5), (5, 4, 3, 2, 1), (0, 1, 2, 3, 4)])
def test_a_search_runs_nothing_twice_and_finds_the_same(order, room, steps):
    """Each sweep leaves out one layer more, and has seen the one before; where states do not fit
    nothing is kept."""
    runs, _ = steps
    model = random_model("llama", num_hidden_layers=L)
    rows = [Row(tuple(tokens), 1) for tokens in random_tokens(10, 9).tolist()]
    searched = [
        [(*order[:gone], layer) for layer in range(L) if layer not in order[:gone]]
        for gone in range(L - 1)
    ]
    alone = [sweep.log_likelihoods(model, sets, rows, 4, 0, "alone") for sets in searched]
    runs.clear()
    seen = sweep.Seen(room)
    found = [
        sweep.log_likelihoods(model, sets, rows, 4, 0, "search", seen=seen) for sets in searched
    ]
    for one, other in zip(found, alone, strict=True):
        assert torch.equal(one.log_likelihood, other.log_likelihood)
        assert torch.equal(one.greedy, other.greedy)
    kept = [[kept_layers(one, L) for one in sets] for sets in searched]
    batches = len(make_batches(rows, 4))
    shared, apart = sweep.layer_passes(*kept), sum(sweep.layer_passes(one) for one in kept)
    ran = runs.total()
    assert shared < apart
    if room == 1 << 30:
        assert ran == batches * shared and seen.taken <= room
    else:
        assert batches * shared <= ran <= batches * apart
    if not room:
        assert ran == batches * apart and not any(seen.states.values())
