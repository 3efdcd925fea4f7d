"""Answers that the unpruned model writes for healing, against greedy generation row by row."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Studies, sentences, write_jsonl
from tiny import random_model
from transformers import GenerationConfig, PreTrainedModel

from lib import study as studies
from lib.book import jobs, plan
from lib.book.check import check
from lib.errors import UserError
from lib.evaluation import answering
from lib.experiments import own_answers
from lib.experiments.conditions import Condition
from lib.experiments.measure import measure
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import condition_inputs, healing_inputs, healing_record
from lib.healing.reading import read
from lib.models import corpora, instructions
from lib.models.prompts import prompt_ids
from lib.pruning.dropped import Dropped, span

PROMPTS = ["Ada walked", "Nobody", "Bruno bought some fish", "It rained", "Ada walked", "The key"]


def alone(model: PreTrainedModel, tokenizer: Any, prompt: str, tokens: int) -> list[int]:
    row = torch.tensor([prompt_ids(tokenizer, prompt)])
    plan = GenerationConfig(
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.inference_mode():
        out = model.generate(row, attention_mask=torch.ones_like(row), generation_config=plan)
    return out[0, row.shape[1] :].tolist()


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_answers_are_those_of_each_prompt_alone(batch: int, tokenizer: Any) -> None:
    """Those too that end before others of their batch."""
    model = random_model("llama", vocab_size=len(tokenizer))
    ended = copy.deepcopy(tokenizer)
    written = [alone(model, tokenizer, prompt, 8) for prompt in PROMPTS]
    ended.eos_token = tokenizer.convert_ids_to_tokens(written[0][3])
    expected = []
    for prompt in PROMPTS:
        ids = alone(model, ended, prompt, 8)
        stop = ids.index(ended.eos_token_id) if ended.eos_token_id in ids else len(ids)
        expected.append(ended.decode(ids[:stop], skip_special_tokens=True))
    found = answering.answers(model, ended, PROMPTS, 8, batch)
    assert found == expected
    assert found[0] == found[4] and len({*map(len, written)}) == 1
    assert len(ended(found[0], add_special_tokens=False)["input_ids"]) <= 3


def test_a_prompt_that_leaves_no_room_is_not_answered(tokenizer: Any) -> None:
    model = random_model("llama", vocab_size=len(tokenizer))
    longest = model.config.max_position_embeddings
    room = longest - len(prompt_ids(tokenizer, PROMPTS[2]))
    assert answering.answers(model, tokenizer, PROMPTS[2:3], room, 1) != [""]
    assert answering.answers(model, tokenizer, PROMPTS[2:3], room + 1, 1) == [""]


OWN = {"name": "own", "path": "./taught.jsonl", "rows": "instructions", "own_answers": 7}
OWN |= {"template": "{instruction}", "answer_tokens": 5}


def opened_on(write_study: Studies, folder: Path, **changes: Any) -> OpenStudy:
    rows = [
        {"instruction": text[: 9 + i % 4], "response": f"answer {i}"}
        for i, text in enumerate(sentences(10))
    ]
    write_jsonl(folder / "taught.jsonl", rows)
    recipes = [{"recipe": "lora"}, {"recipe": "lora", "data": "own"}]
    what = {"recipes": recipes, "fractions": [0.5], "seeds": [0]}
    given = {"healing_data": [OWN], "what_heals": what, "strategies": ["simple"]} | changes
    return OpenStudy(studies.load(str(write_study(folder, **given))))


@pytest.fixture
def opened(write_study: Studies, tmp_path: Path, results_dir: Path) -> OpenStudy:
    return opened_on(write_study, tmp_path)


def healing_on_own(opened: OpenStudy) -> Any:
    return opened.study.what_heals.recipes[1]


def test_healing_reads_what_the_model_wrote(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    healing, (data,) = healing_on_own(opened), opened.study.healing_data
    expected = [
        answering.answers(opened.model, opened.tokenizer, [row.instruction], 5, 1)[0]
        for row in corpora.rows(data)[:7]
    ]
    answers = answering.answers
    monkeypatch.setattr(
        answering, "answers", lambda *given: [*answers(*given)[:2], " \n", *answers(*given)[3:]]
    )
    study = own_answers.with_answers(opened, opened.study, healing)
    monkeypatch.setattr(answering, "answers", None)  # they are recorded now
    assert own_answers.with_answers(opened, opened.study, healing) == study
    (source,) = study.healing_data
    assert source.own_answers == 0 and source.template == data.template
    rows = corpora.rows(source)
    assert [row.response for row in rows] == [*expected[:2], *expected[3:]]
    instruction = [row.instruction for row in corpora.rows(data)[:7]]
    assert [row.instruction for row in rows] == [*instruction[:2], *instruction[3:]]
    value = own_answers.answers_record(opened, data)
    assert value == {"answers": [*expected[:2], " \n", *expected[3:]], "empty": 1}
    given = read(study, healing, opened.tokenizer, 6, 0)
    assert given.report["rows"] == 6
    assert {tuple(one.tolist()) for one in given.texts} == {
        tuple(instructions.tokens(row, source, opened.tokenizer, 32).ids) for row in rows
    }


def test_a_plain_recipe_reads_what_it_always_did(opened: OpenStudy) -> None:
    plain = opened.study.what_heals.recipes[0]
    assert own_answers.with_answers(opened, opened.study, plain) is opened.study
    assert not opened.store.folder.exists()


def test_a_model_is_healed_on_them(opened: OpenStudy) -> None:
    healing = healing_on_own(opened)
    one = Condition("simple", span(2, 5), opened.weights_of(healing), healing)
    measure(opened, [one])
    report = healing_record(opened, one)
    assert report["rows"] == 7 and 0 < report["scored_tokens"] < report["tokens"]
    written = condition_inputs(opened, one)["healing"]["answered"]
    assert (written["answers"], written["tokens"], written["method"]) == (7, 5, answering.METHOD)
    (file,) = (opened.store.folder.parent / "answers").glob("*.jsonl")
    assert {*json.loads(file.read_text().splitlines()[0])} == {"instruction", "input", "response"}


def test_what_decides_the_answers_decides_the_record(
    write_study: Studies, tmp_path: Path, results_dir: Path
) -> None:
    def of(**changes: Any) -> tuple[Any, Any]:
        opened = opened_on(write_study, tmp_path, healing_data=[OWN | changes])
        (data,) = opened.study.healing_data
        return own_answers.answer_inputs(opened, data), healing_inputs(
            opened, healing_on_own(opened)
        )

    answers, healed = of()
    for change in ({"own_answers": 6}, {"answer_tokens": 6}, {"template": "say {instruction}"}):
        other, trained = of(**change)
        assert other != answers and trained != healed, change
    other, trained = of(scored="all")
    assert other == answers and trained != healed
    plain = of(own_answers=0, answer_tokens=5)[1]
    assert "answered" not in plain and plain["text"] == healed["text"]


def test_they_are_planned_and_written_before_what_reads_them(opened: OpenStudy) -> None:
    text = plan.plan(opened.study)
    assert "answers of the unpruned model, own" in text
    planned = plan.Planned(opened.study, opened.config)
    found = {job.name: job for job in jobs.listed(planned, plan.Speed(1e-6, 3e-6), "models", 2)}
    assert found["answers-own"].seconds > 0
    waiting = {name for name, job in found.items() if "answers-own" in job.needs}
    assert waiting == {"simple-3-lora-r4-on-own-seed0", "section-what_heals"}
    (one,) = [job for job in found.values() if job.name == "answers-own"]
    jobs.run(opened.study, one)
    assert own_answers.answers_record(opened, opened.study.healing_data[0])["empty"] == 0


def test_a_study_with_them_passes_its_check(opened: OpenStudy) -> None:
    check(opened.study)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rows": "text", "template": None}, "own_answers and answer_tokens: only with rows"),
        ({"own_answers": -1}, "healing_data.0.own_answers"),
        ({"answer_tokens": 0}, "healing_data.0.answer_tokens"),
    ],
)
def test_what_cannot_be_answered_is_one_line(
    change: dict, says: str, write_study: Studies, tmp_path: Path
) -> None:
    data = {key: value for key, value in (OWN | change).items() if value is not None}
    with pytest.raises(UserError) as error:
        opened_on(write_study, tmp_path, healing_data=[data])
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_model_that_says_nothing_is_one_line(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "answers", lambda _, __, prompts, *___: [""] * len(prompts))
    healing = healing_on_own(opened)
    one = Condition("simple", Dropped([3]), opened.weights_of(healing), healing)
    with pytest.raises(UserError, match="no row in it"):
        measure(opened, [one])
