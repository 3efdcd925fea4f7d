"""What models write, against decoding by hand without a cache; which models are asked to; and that
no text that a model is healed on is one that its loss is measured on."""

import copy
import random

import pytest
import torch
from conftest import sentences, write_jsonl
from transformers import AutoModelForCausalLM

from lib import study as studies
from lib.book import check
from lib.errors import UserError
from lib.evaluation import writing
from lib.experiments import measure, probes
from lib.experiments.conditions import Condition, main_conditions, rank_conditions, writes
from lib.experiments.opened import OpenStudy
from lib.fields import Text
from lib.healing import heal
from lib.models import checkpoints, corpora
from lib.pruning.dropped import UNPRUNED, span
from lib.pruning.surgery import drop
from lib.schema import Loss

PROMPTS = ["On day 3 Ada walked to the", "Greta kept", "It rained for 5 hours. Nobody"]


@pytest.fixture(params=["llama", "gemma2", "gpt_neox", "opt"])
def model(request, tiny_checkpoint):
    return AutoModelForCausalLM.from_pretrained(tiny_checkpoint(request.param)).eval()


@pytest.fixture
def llama(tiny_checkpoint):
    return AutoModelForCausalLM.from_pretrained(tiny_checkpoint("llama")).eval()


def likeliest(model, tokenizer, prompt: str, tokens: int) -> list[int]:
    """What the whole text so far makes likeliest, a token at a time."""
    ids = tokenizer(prompt)["input_ids"]
    found = []
    for _ in range(tokens):
        with torch.no_grad():
            logits = model(torch.tensor([ids + found]), use_cache=False).logits[0, -1]
        found.append(int(logits.argmax()))
    return found


def texts(model, tokenizer, block, tokens=6, prompts=PROMPTS):
    (found,) = writing.continuations(model, tokenizer, [block], prompts, tokens)
    assert found["prompts"] == list(prompts)
    return found["texts"]


@pytest.mark.parametrize("block", [UNPRUNED, span(2, 4)], ids=str)
def test_a_continuation_is_the_likeliest_token_each_time(model, tokenizer, block):
    found = texts(model, tokenizer, block)
    drop(model, block)
    expected = [likeliest(model, tokenizer, prompt, 6) for prompt in PROMPTS]
    assert found == [tokenizer.decode(ids) for ids in expected]
    assert len(set(found)) > 1


def test_each_block_writes_what_it_writes_alone(llama, tokenizer):
    blocks = [span(1, 3), UNPRUNED, span(3, 6), span(1, 3)]
    found = [one["texts"] for one in writing.continuations(llama, tokenizer, blocks, PROMPTS, 6)]
    assert found[0] == found[3]
    assert len({tuple(one) for one in found}) == 3
    assert found[:3] == [texts(llama, tokenizer, block) for block in blocks[:3]]


def test_more_tokens_go_on_from_fewer(llama, tokenizer):
    few, more = (texts(llama, tokenizer, span(1, 2), tokens) for tokens in (3, 9))
    assert all(
        long.startswith(short) and long != short for short, long in zip(few, more, strict=True)
    )


def test_the_end_of_a_text_ends_it(llama, tokenizer):
    """The third token that the model writes is declared to be the one that ends texts."""
    written = likeliest(llama, tokenizer, PROMPTS[0], 6)
    assert written.index(written[2]) == 2
    ending = copy.deepcopy(tokenizer)
    ending.eos_token = tokenizer.convert_ids_to_tokens(written[2])
    assert ending.eos_token_id == written[2]
    (short,) = texts(llama, ending, UNPRUNED, prompts=PROMPTS[:1])
    assert short == tokenizer.decode(written[:3])


def test_a_model_is_the_same_afterwards(llama, tokenizer):
    def state():
        with torch.no_grad():
            logits = llama(torch.arange(5, 25)[None]).logits
        settings = llama.config.to_dict(), llama.generation_config.to_dict()
        return logits, settings, [layer.self_attn.layer_idx for layer in checkpoints.layers(llama)]

    before = state()
    found = list(writing.continuations(llama, tokenizer, [span(2, 4), span(0, 1)], PROMPTS, 4))
    after = state()
    assert len(found) == 2
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_what_a_tokenizer_says_besides_tokens_is_no_input(llama, tokenizer):
    talkative = copy.deepcopy(tokenizer)
    talkative.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    assert "token_type_ids" in talkative(PROMPTS[0])
    assert texts(llama, talkative, UNPRUNED) == texts(llama, tokenizer, UNPRUNED)


@pytest.mark.parametrize(
    "likes", [{"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 1}, {"num_beams": 3}], ids=str
)
def test_what_a_checkpoint_likes_to_generate_with_does_not_matter(llama, tokenizer, likes):
    """Many a generation_config.json penalises repetition, which is not the likeliest token."""
    expected = texts(llama, tokenizer, span(2, 4), 12)
    for key, value in likes.items():
        setattr(llama.generation_config, key, value)
    assert texts(llama, tokenizer, span(2, 4), 12) == expected
    assert all(getattr(llama.generation_config, key) == value for key, value in likes.items())


@pytest.fixture(scope="module")
def opened(write_study, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULTS_DIR", str(tmp_path_factory.mktemp("results")))
        path = write_study(
            tmp_path_factory.mktemp("writes"),
            pruned_layers=[1, 3],
            healing={"recipe": "lora", "fractions": [0.5]},
            writing={"n_prompts": 3, "prompt_tokens": 7, "tokens": 5, "prompts": ["Farid said"]},
            prompts={"shots": 2, "orders": 2, "numbers": [0, 2], "limit": 4},
        )
        yield OpenStudy(studies.load(str(path)))


def test_prompts_are_beginnings_of_documents_and_the_studys_own(opened):
    *drawn, own = opened.writing_prompts(opened.study.writing)
    assert own == "Farid said" and len(set(drawn)) == 3
    for prompt in drawn:
        assert len(opened.tokenizer(prompt)["input_ids"]) == 7
        assert sum(document.startswith(prompt) for document in sentences(40)) == 1
    other = opened.study.writing.model_copy(update={"seed": 1})
    assert opened.writing_prompts(other)[:3] != drawn
    none = other.model_copy(update={"n_prompts": 0})
    assert opened.writing_prompts(none) == [own]


def test_the_same_prompt_is_written_after_once(opened):
    twice = opened.study.writing.model_copy(update={"n_prompts": 0, "prompts": ["So", "Ada", "So"]})
    assert opened.writing_prompts(twice) == ["So", "Ada"]


@pytest.mark.parametrize(
    ("writing", "fits"),
    [
        ({"prompt_tokens": 24, "tokens": 104}, True),
        ({"prompt_tokens": 24, "tokens": 105}, False),
        ({"prompt_tokens": 2, "tokens": 50, "prompts": ["Ada bought a loaf. " * 30]}, False),
    ],
)
def test_what_is_written_has_to_fit_the_context(write_study, tmp_path, writing, fits):
    """Of 128 tokens; families that learn their positions cannot go on after it."""
    study = studies.load(str(write_study(tmp_path, writing=writing)))
    if fits:
        check.check(study)
    else:
        with pytest.raises(UserError, match=r"writing.* above the model's context of 128"):
            check.check(study)


def test_models_of_one_strategy_and_recipe_write_side_by_side(opened):
    """The whole model and prunings of the healed size, healed with the study's own recipe or not;
    not the simple strategy, other sizes, or other recipes."""
    writing_ones = {
        (one.strategy, one.dropped.n, one.recipe)
        for one in [*main_conditions(opened), *rank_conditions(opened)]
        if writes(opened, one)
    }
    assert writing_ones == {
        (strategy, n, recipe)
        for strategy, n in (("none", 0), ("similarity", 3))
        for recipe in ("none", "lora-r4")
    }


def test_four_bit_controls_do_not_write(opened):
    control = Condition("similarity", opened.chosen("similarity", 3), "nf4")
    assert not writes(opened, control)


def test_what_is_written_is_recorded(opened):
    unhealed = [one for one in main_conditions(opened) if not one.healing]
    measure.measure(opened, unhealed)
    asked = 0
    for one in unhealed:
        found = probes.recorded(opened, one, opened.study.writing)
        assert (found is not None) == writes(opened, one)
        if found:
            asked += 1
            assert found["prompts"] == opened.writing_prompts(opened.study.writing)
            model = checkpoints.load_model(opened.study)
            drop(model, one.dropped)
            expected = [likeliest(model, opened.tokenizer, p, 5) for p in found["prompts"]]
            assert found["texts"] == [opened.tokenizer.decode(ids) for ids in expected]
    assert asked == 2


@pytest.mark.parametrize("changed", ["tokens", "n_prompts", "prompt_tokens", "seed", "prompts"])
def test_other_settings_of_writing_are_other_evidence(opened, changed):
    before = opened.study.writing
    after = before.model_copy(update={changed: ["So"] if changed == "prompts" else 2})
    one = Condition("none", UNPRUNED, opened.weights)
    inputs = [probes.probe_inputs(opened, one, probe) for probe in (before, after)]
    assert inputs[0] != inputs[1]


def test_the_text_that_prompts_come_from_is_part_of_the_evidence(opened):
    one = Condition("none", UNPRUNED, opened.weights)
    inputs = probes.probe_inputs(opened, one, opened.study.writing)
    assert inputs["text"] == corpora.source(opened.study.validation_text)


class Streamed(list):
    """Rows of a dataset on the hub."""

    def shuffle(self, seed: int, buffer_size: int) -> "Streamed":
        rows = Streamed(self)
        random.Random(seed + buffer_size).shuffle(rows)
        return rows


@pytest.fixture
def hub(monkeypatch):
    """Datasets by name, each a list of documents, served as the hub does; files as always."""
    known: dict[str, list[str]] = {}
    real = corpora._load_dataset

    def load(name, *arguments, **options):
        if name not in known:
            return real(name, *arguments, **options)
        return Streamed({"text": document} for document in known[name])

    monkeypatch.setattr(corpora, "_load_dataset", load)
    corpora.measured_on.cache_clear()
    yield known
    corpora.measured_on.cache_clear()


@pytest.mark.parametrize("sample", ["first", "random"])
def test_the_documents_measured_on_are_those_of_the_loss(hub, tokenizer, sample):
    hub["text"] = sentences(40)
    loss = Loss(n_sequences=12, length=400, sample=sample, seed=3)
    text = Text(dataset="text")
    seed = 3 if sample == "random" else None
    rows = corpora.document_sequences(text, tokenizer, 12, 400, seed)
    used = {tokenizer.decode(row, skip_special_tokens=True) for row in rows}
    assert used == set(sentences(12)) or sample == "random"
    known = corpora.measured_on(text, loss, tokenizer)
    assert known == {corpora.fingerprint(document) for document in used}
    assert len(known) == 12


def test_documents_with_nothing_to_predict_are_passed_over_here_too(tmp_path):
    """With a tokenizer that puts no token before a text. A heading is measured on, but two texts
    may have the same."""
    long = [" ".join(f"{word}{i}" for i in range(40)) for word in ("a", "b", "c")]
    texts = ["one", long[0], "A heading", *long[1:]]
    text = Text(path=str(write_jsonl(tmp_path / "a.jsonl", [{"text": one} for one in texts])))

    def tokenizer(document, **_):
        return {"input_ids": document.split()}

    corpora.measured_on.cache_clear()
    known = corpora.measured_on(text, Loss(n_sequences=3, length=99, sample="first"), tokenizer)
    used = corpora.document_sequences(text, tokenizer, 3, 99, None)
    assert [" ".join(row) for row in used] == texts[1:4]
    assert known == {corpora.fingerprint(one) for one in long[:2]}


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("streamed", ["validation_text", "healing_text", "both"])
def test_a_streamed_text_to_heal_on_holds_nothing_that_is_measured(
    hub, write_study, tmp_path, tokenizer, monkeypatch, streamed, packing
):
    """Neither where both are streamed nor where one of them is a file; before anything is trained.
    What the loss is not measured on does not matter."""
    hub["measured"], hub["read"] = sentences(40), sentences(120, 1000)
    keys = ("validation_text", "healing_text") if streamed == "both" else (streamed,)
    names = {"validation_text": "measured", "healing_text": "read"}
    path = write_study(
        tmp_path,
        **{key: {"dataset": names[key]} for key in keys},
        loss={"n_sequences": 8, "length": 400, "sample": "first"},
        healing={"recipe": "lora", "steps": 1, "length": 8, "packing": packing},
    )
    study = studies.load(str(path))

    def heal_on(documents: list[str]) -> None:
        """All of them are read."""
        hub["read"] = documents
        write_jsonl(tmp_path / "healing.jsonl", [{"text": document} for document in documents])
        corpora.measured_on.cache_clear()
        tokens = sum(map(len, tokenizer(documents)["input_ids"]))
        batch = tokens // 8 if packing else len(documents)
        one = studies.override(study, healing={"batch": batch})
        heal.heal(one, one.healing, [2], tokenizer)

    others = sentences(20, 1000)
    with monkeypatch.context() as patch:
        patch.setattr(heal.recipes, "of", None)
        with pytest.raises(UserError, match="a document of it is in the validation text") as raised:
            heal_on([*others, f"  {sentences(1, 7)[0]}\n"])
    assert "On day 7" in str(raised.value) and "\n" not in str(raised.value)
    heal_on([*others, sentences(1, 8)[0]])  # the ninth document, which the loss does not see
