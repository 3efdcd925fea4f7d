"""Accuracy against the harness's own command line, loss against a loop over single sequences."""

import json
import math
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import torch
from commands import command, environment
from conftest import write_jsonl
from torch.nn import functional

from lib import paths
from lib import study as studies
from lib.errors import UserError
from lib.evaluation import evaluate, harness, lm_eval_insides
from lib.experiments.opened import OpenStudy
from lib.models import checkpoints
from lib.pruning.dropped import UNPRUNED, simple, span
from lib.pruning.surgery import pruned, save_pruned
from lib.schema import Task
from lib.sections import tables


@pytest.fixture(scope="module")
def opened():
    return OpenStudy(studies.load("smoke"))


def test_accuracy_of_a_pruned_model_equals_the_harness_alone(opened, tmp_path):
    block, limit = simple(5, opened.n_layers), 40
    tasks = [Task(name=f"almanac_{name}", limit=limit) for name in ("one_hop", "reading", "sums")]
    save_pruned(opened.model, block, opened.tokenizer, tmp_path / "model")
    with pruned(opened.model, block) as model:
        ours = [
            evaluate.accuracy(model, opened.tokenizer, task, opened.task_manager, batch=16)
            for task in tasks
        ]
    subprocess.run(
        [
            *command("harness_alone", "--model", "hf", "--device", "cpu"),
            *("--model_args", f"pretrained={tmp_path / 'model'},dtype=float32"),
            *("--tasks", ",".join(task.name for task in tasks), "--limit", str(limit)),
            *("--include_path", opened.study.task_path[0], "--batch_size", "16"),
            *("--output_path", str(tmp_path / "out.json"), "--log_samples"),
        ],
        check=True,
        capture_output=True,
        cwd=paths.ROOT,
        env=environment(),
    )
    for task, value in zip(tasks, ours, strict=True):
        (file,) = tmp_path.rglob(f"samples_{task.name}_*.jsonl")
        rows = sorted(map(json.loads, file.read_text().splitlines()), key=lambda r: r["doc_id"])
        key = "exact_match" if task.name == "almanac_sums" else "acc"
        assert "".join(str(int(row[key])) for row in rows) == value["correct"][task.name]
        assert value["n_questions"] == limit
        share = value["accuracy"]
        assert value["stderr"] == pytest.approx(math.sqrt(share * (1 - share) / (limit - 1)))


def test_chance_levels_are_guessing_and_the_commonest_answer(opened):
    task = Task(name="almanac_reading", limit=30)
    value = evaluate.accuracy(opened.model, opened.tokenizer, task, opened.task_manager, batch=16)
    file = Path(opened.study.task_path[0]) / "reading_test.jsonl"
    rows = file.read_text(encoding="utf-8").splitlines()[:30]
    yes = sum(json.loads(row)["answer"] for row in rows)
    assert value["guess"] == 0.5
    assert value["constant"] == max(yes, 30 - yes) / 30


def test_nothing_is_guessed_where_answers_are_generated(opened):
    task = Task(name="almanac_sums", limit=20)
    value = evaluate.accuracy(opened.model, opened.tokenizer, task, opened.task_manager, batch=16)
    rows = (
        Path(opened.study.task_path[0], "sums_test.jsonl").read_text(encoding="utf-8").splitlines()
    )
    answers = Counter(json.loads(row)["answer"] for row in rows[:20])
    assert value["guess"] == 0
    assert value["constant"] == answers.most_common(1)[0][1] / 20


def test_without_the_question_only_the_choices_decide(opened):
    """Against a loop over choices after the bare last line of the prompt."""
    task = Task(name="almanac_one_hop", limit=12)
    options = {"batch": 16, "question_free": True}
    value = evaluate.accuracy(opened.model, opened.tokenizer, task, opened.task_manager, **options)
    rows = Path(opened.study.task_path[0], "one_hop_test.jsonl").read_text("utf-8").splitlines()
    right = ""
    for row in map(json.loads, rows[:12]):
        scores = []
        for choice in row["choices"]:
            ids = opened.tokenizer(f"Answer: {choice}", return_tensors="pt")["input_ids"]
            known = len(opened.tokenizer("Answer:")["input_ids"])
            with torch.inference_mode():
                logs = opened.model(ids).logits[0, :-1].log_softmax(-1)
            picked = logs.gather(1, ids[0, 1:, None])[known - 1 :]
            scores.append(float(picked.sum()))
        right += str(int(scores.index(max(scores)) == row["answer"]))
    assert value["correct"]["almanac_one_hop"] == right


def test_every_pruning_is_asked_without_the_question(opened):
    """The task's own prompts stay as they are: cut short twice, nothing would be left of them."""
    task = opened.study.tasks[0]
    blocks = [UNPRUNED, span(1, 2), UNPRUNED]
    found = list(
        evaluate.accuracies(
            opened.model, opened.tokenizer, task, opened.task_manager, blocks, 8, question_free=True
        )
    )
    assert found[0]["correct"] == found[2]["correct"] != found[1]["correct"]


def test_an_answer_longer_than_the_context_is_one_line(write_study, tmp_path):
    path = tmp_path / "tasks" / "quiz_test.jsonl"
    opened = OpenStudy(studies.load(str(write_study(tmp_path))))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3]["choices"][1] = "market " * 150
    write_jsonl(path, rows)
    task = opened.study.tasks[0]
    with pytest.raises(UserError, match=r"'quiz': an answer of \d+ tokens .* context of 128"):
        evaluate.accuracy(opened.model, opened.tokenizer, task, opened.task_manager, 8)


def test_of_a_prompt_without_its_question_the_last_line_is_left():
    assert lm_eval_insides.last_line("A passage.\nQuestion: Why?\nAnswer:") == "Answer:"
    assert lm_eval_insides.last_line("All on one line") == ""


@pytest.mark.parametrize("name", ["almanac_reading", "almanac_sums"])
def test_prompts_that_do_not_fit_are_counted(opened, name):
    task = Task(name=name, limit=5)
    narrow = opened.model.config.max_position_embeddings
    try:
        opened.model.config.max_position_embeddings = 16 if name == "almanac_reading" else 56
        value = evaluate.accuracy(opened.model, opened.tokenizer, task, opened.task_manager, 8)
    finally:
        opened.model.config.max_position_embeddings = narrow
    assert value["truncated_prompts"] == 5


def test_no_room_to_write_an_answer_is_one_line(opened):
    task = Task(name="almanac_sums", limit=2)
    wide = opened.model.config.max_position_embeddings
    try:
        opened.model.config.max_position_embeddings = 40
        with pytest.raises(UserError, match=r"almanac_sums.*cannot be run"):
            evaluate.accuracy(opened.model, opened.tokenizer, task, opened.task_manager, 8)
    finally:
        opened.model.config.max_position_embeddings = wide


def test_of_several_filters_the_first_counts():
    rows = [
        {"doc_id": i, "filter": name, "exact_match": float(hit), "target": "7", "arguments": []}
        for name, hits in {"strict": (1, 0, 0), "flexible": (1, 1, 1)}.items()
        for i, hit in enumerate(hits)
    ]
    value = evaluate._scores({"t": rows})
    assert (value["correct"]["t"], value["n_questions"], value["accuracy"]) == ("100", 3, 1 / 3)


def test_the_questions_themselves_decide_the_evidence(tmp_path, write_study):
    study = studies.load(str(write_study(tmp_path)))
    (task,) = study.tasks
    before = harness.task_source(study, task, harness.task_manager(study))
    same = harness.task_source(study, task, harness.task_manager(study))
    data = tmp_path / "tasks" / "quiz_test.jsonl"
    rows = data.read_text().splitlines()
    data.write_text("\n".join(rows[::-1]) + "\n")
    after = harness.task_source(study, task, harness.task_manager(study))
    assert before == same
    assert before["documents"] != after["documents"]


def test_loss_equals_a_loop_over_single_sequences(opened):
    generator = torch.Generator().manual_seed(0)
    sequences = [
        torch.randint(5, 300, (n,), generator=generator).tolist() for n in (2, 9, 31, 5, 17)
    ]
    sums, counts = [], []
    for sequence in sequences:
        tokens = torch.tensor([sequence])
        with torch.no_grad():
            logits = opened.model(tokens).logits.double()
        sums.append(float(functional.cross_entropy(logits[0, :-1], tokens[0, 1:], reduction="sum")))
        counts.append(len(sequence) - 1)
    mean = sum(sums) / sum(counts)
    spread = sum((s - mean * c) ** 2 for s, c in zip(sums, counts, strict=True))
    for batch in (1, 2, 8):
        found = evaluate.next_token_loss(opened.model, sequences, batch, pad_id=0)
        assert found["loss"] == pytest.approx(mean, abs=1e-5)
        assert found["stderr"] == pytest.approx(math.sqrt(5 / 4 * spread) / sum(counts), rel=1e-3)
        assert found["n_tokens"] == sum(counts)


def test_an_unknown_task_is_one_line_that_lists_the_local_ones(opened):
    wrong = opened.study.model_copy(update={"tasks": [Task(name="almanac_one_hopp")]})
    with pytest.raises(
        UserError, match=r"unknown lm-eval task 'almanac_one_hopp'.*almanac_one_hop,"
    ):
        harness.task_manager(wrong)


def test_names_of_the_harness_are_known_without_reading_its_tasks():
    shipped = {"arc_easy", "mmlu_anatomy", "acp_bench_hard"}
    assert harness._shipped(shipped | {"almanac_one_hopp"}) == shipped


def test_an_empty_block_is_the_whole_model(opened):
    tokens = torch.arange(5, 25)[None]
    with torch.inference_mode():
        whole = opened.model(tokens).logits
        with pruned(opened.model, span(0, 0)):
            assert torch.equal(opened.model(tokens).logits, whole)
    assert len(checkpoints.layers(opened.model)) == opened.n_layers


def test_each_number_of_shots_has_its_own_source(opened):
    tasks = [Task(name="almanac_reading", shots=2, limit=4), Task(name="almanac_reading", limit=4)]
    two = OpenStudy(opened.study.model_copy(update={"tasks": tasks}))
    shots, none = (
        two.task_source(Task(name="almanac_reading", shots=n))["documents"] for n in (2, 0)
    )
    assert shots != none


def test_in_a_group_each_subject_counts_alike():
    found = tables.by_subject({"small": "1100", "large": "1" * 90 + "0" * 10})
    assert found["by_subject"] == pytest.approx((0.5 + 0.9) / 2)
    variance = 0.5 * 0.5 / 3 + 0.9 * 0.1 / 99
    assert found["by_subject_stderr"] == pytest.approx(math.sqrt(variance) / 2)
    alone = tables.by_subject({"one": "110"})
    assert alone["by_subject"] == pytest.approx(2 / 3)
    assert alone["by_subject_stderr"] == pytest.approx(math.sqrt(2 / 9 / 2))
