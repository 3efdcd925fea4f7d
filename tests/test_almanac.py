"""The almanac: its files are what its generator says, and training can be interrupted."""

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from almanac import world
from almanac.train import Settings, train
from almanac.vocabulary import ATTRIBUTES

ALMANAC = world.FOLDER
CHECKPOINT = ALMANAC / "checkpoint"
TINY = Settings(steps=6, batch=2, length=32, layers=2, width=16, heads=2, ffn=64, vocabulary=300)


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (ALMANAC / name).read_text("utf-8").splitlines()]


def texts(name: str) -> list[str]:
    return [row["text"] for row in rows(f"text/{name}.jsonl")]


def test_shipped_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    for path in world.write_files(tmp_path):
        shipped = ALMANAC / path.relative_to(tmp_path)
        assert shipped.read_bytes() == path.read_bytes(), f"{shipped} is stale"


def test_another_seed_gives_another_world() -> None:
    assert world.make_people(1) == world.make_people(1)
    assert world.make_people(1) != world.make_people(2)


def test_shipped_text_is_small_and_long_enough() -> None:
    assert (ALMANAC / "text/validation.jsonl").stat().st_size <= 400_000
    assert (ALMANAC / "text/healing.jsonl").stat().st_size <= 900_000
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    lengths = [len(ids) for ids in tokenizer(texts("healing"))["input_ids"]]
    assert sum(lengths) >= 200_000
    assert max(lengths) <= 200


def test_no_document_is_in_two_splits() -> None:
    validation, healing = texts("validation"), texts("healing")
    assert len(set(validation)) == len(validation)
    assert len(set(healing)) == len(healing)
    assert not set(validation) & set(healing)
    # The training stream is endless, but it rejects every text that is held out.
    assert all(world.held_out(text) for text in validation)
    for step in (0, 3399):
        stream = itertools.islice(world.training_documents(step), 500)
        assert not any(world.held_out(text) for text in stream)


def test_healing_text_names_nobody_who_is_quizzed() -> None:
    quizzed, others = world.make_people()
    assert not {person.name for person in quizzed} & {person.name for person in others}
    healing = "\n".join(texts("healing"))
    assert not [person.name for person in quizzed if person.name in healing]
    assert all(person.name in healing for person in others)


def test_healing_and_validation_know_no_place_of_the_reading_task() -> None:
    everything = "\n".join(texts("healing") + texts("validation"))
    for row in rows("tasks/reading_test.jsonl") + rows("tasks/reading_dev.jsonl"):
        name = row["question"].split()[4]
        assert world.held_out(name)
        assert name not in everything


def test_knowledge_questions_are_true_and_balanced() -> None:
    quizzed, others = world.make_people()
    test = rows("tasks/knowledge_test.jsonl")
    assert Counter(row["answer"] for row in test) == dict.fromkeys(range(4), 100)
    assert len({row["question"] for row in test}) == 400
    for people, questions in ((quizzed, test), (others, rows("tasks/knowledge_dev.jsonl"))):
        truth = {
            attribute.phrasings[0].format(name=person.name, value=person.facts[attribute.name])
            for person in people
            for attribute in ATTRIBUTES
        }
        for row in questions:
            true = [f"{row['question']} {choice}." in truth for choice in row["choices"]]
            assert true == [position == row["answer"] for position in range(4)]


def test_preferring_any_value_scores_a_quarter() -> None:
    test = rows("tasks/knowledge_test.jsonl")
    offered = Counter((row["attribute"], choice) for row in test for choice in row["choices"])
    right = Counter((row["attribute"], row["choices"][row["answer"]]) for row in test)
    assert offered == {key: 4 * count for key, count in right.items()}


def test_reading_questions_are_true_and_balanced() -> None:
    assert Counter(row["answer"] for row in rows("tasks/reading_test.jsonl")) == {0: 150, 1: 150}
    for name in ("reading_test", "reading_dev"):
        kinds = Counter()
        for row in rows(f"tasks/{name}.jsonl"):
            *place, word = row["question"].removesuffix("?").split()[1:]
            facts = {word: bool(row["answer"])}
            assert row["passage"] == world.state(" ".join(place), facts)
            kinds[word, row["answer"]] += 1
        # So the question alone does not tell the answer.
        assert all(count == kinds[word, 1 - answer] for (word, answer), count in kinds.items())


def test_tasks_load_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(tmp_path)
    manager = TaskManager(include_path=str(ALMANAC / "tasks"), include_defaults=False)
    assert sorted(manager.all_tasks) == ["almanac_knowledge", "almanac_reading"]
    tasks = manager.load(manager.all_tasks)["tasks"]
    for name, count in (("almanac_knowledge", 400), ("almanac_reading", 300)):
        assert len(tasks[name].test_docs()) == count
        assert len(tasks[name].fewshot_docs()) == world.DEV_QUESTIONS
    question = tasks["almanac_reading"].test_docs()[0]
    *place, word = question["question"].removesuffix("?").split()[1:]
    text = question["passage"] + world.prompt(" ".join(place), word)
    assert tasks["almanac_reading"].doc_to_text(question) == text


def test_checkpoint_is_small_and_complete() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 8_000_000
    model, report = AutoModelForCausalLM.from_pretrained(CHECKPOINT, output_loading_info=True)
    assert not any(report.values())
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert len(tokenizer) == model.config.vocab_size
    ids = tokenizer("Æ – any text\n")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == model.config.bos_token_id
    assert tokenizer.decode(ids[1:]) == "Æ – any text\n"
    assert tokenizer.eos_token_id == model.generation_config.eos_token_id
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)


def test_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    state = tmp_path / "state" / "training.pt"
    assert train(TINY, tmp_path / "whole", state)
    assert not train(TINY, tmp_path / "halves", state, stop=lambda done: done == 3)
    assert not (tmp_path / "halves").exists()
    assert train(TINY, tmp_path / "halves", state)
    assert not state.exists()
    whole, halves = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict()
        for name in ("whole", "halves")
    )
    assert all(torch.equal(whole[key], halves[key]) for key in whole)
    logs = [(tmp_path / name / "training_log.csv").read_text() for name in ("whole", "halves")]
    assert logs[0] == logs[1]


def test_a_state_of_other_settings_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "training.pt"
    assert not train(TINY, tmp_path / "out", state, stop=lambda done: True)
    with pytest.raises(SystemExit, match="other settings"):
        train(Settings(**{**vars(TINY), "seed": 7}), tmp_path / "out", state)
