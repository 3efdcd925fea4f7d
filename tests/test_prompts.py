"""Prompts are what the task says, whatever a tokenizer adds to texts: against loops by hand."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Checkpoints, Studies, sentences
from tokenizers import Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lib import study as studies
from lib.book.check import check
from lib.errors import UserError
from lib.evaluation import evaluate, writing
from lib.experiments import measure, probes
from lib.experiments.conditions import unpruned
from lib.experiments.opened import OpenStudy
from lib.pruning.dropped import UNPRUNED
from lib.pruning.surgery import save_pruned
from lib.schema import Task

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def ends_texts(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )


def no_special_tokens(tokenizer: Any) -> Any:
    """As the tokenizers library makes them: no token has a role, and none is added."""
    backend = tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def cuts_on_the_left(tokenizer: Any) -> None:
    tokenizer.truncation_side = "left"


def two_before(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> </s> $A", special_tokens=[("<s>", 1), ("</s>", 2)]
    )


# What each makes of tokenizers, and the ids that a prompt then begins with.
KINDS: dict[str, tuple[Callable[[Any], Any], list[int]]] = {
    "ordinary": (lambda tokenizer: None, [1]),
    "ends texts": (ends_texts, [1]),
    "no special tokens": (no_special_tokens, []),
    "cuts on the left": (cuts_on_the_left, [1]),
    "two before": (two_before, [1, 2]),
}


@pytest.fixture(params=KINDS)
def asked(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tiny_checkpoint: Checkpoints,
    tokenizer_folder: Path,
    write_study: Studies,
) -> tuple[OpenStudy, Callable[[str], list[int]]]:
    """A study whose tokenizer is of one kind, and what its prompts are as tokens, by hand."""
    change, begin = KINDS[request.param]
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer = change(tokenizer) or tokenizer
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_checkpoint("llama").iterdir():
        if not file.name.startswith("tokenizer"):
            (folder / file.name).write_bytes(file.read_bytes())
    tokenizer.save_pretrained(folder)
    opened = OpenStudy(studies.load(str(write_study(tmp_path, model=str(folder)))))
    plain = AutoTokenizer.from_pretrained(tokenizer_folder)
    return opened, lambda text: begin + plain.encode(text, add_special_tokens=False)


def rows_of(opened: OpenStudy) -> list[dict[str, Any]]:
    text = Path(*opened.study.task_path, "quiz_test.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


@torch.inference_mode()
def likelihood(opened: OpenStudy, context: list[int], whole: list[int]) -> float:
    logs = opened.model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return sum(float(logs[i - 1, whole[i]]) for i in range(len(context), len(whole)))


@torch.inference_mode()
def written(opened: OpenStudy, ids: list[int], count: int) -> list[int]:
    whole = list(ids)
    for _ in range(count):
        whole.append(int(opened.model(torch.tensor([whole])).logits[0, -1].argmax()))
    return whole[len(ids) :]


def changed_task(opened: OpenStudy, **changes: Any) -> Task:
    """The study's task with other keys, as a task of its own name."""
    folder = Path(*opened.study.task_path)
    settings = yaml.safe_load((folder / "quiz.yaml").read_text("utf-8"))
    settings |= changes | {"task": "other"}
    (folder / "other.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    return Task(name="other", role="generation")


def test_choices_follow_the_prompt_and_nothing_else(asked) -> None:
    opened, ids = asked
    right = ""
    for row in rows_of(opened):
        scores = [
            likelihood(opened, ids(row["question"]), ids(f"{row['question']} {choice}"))
            for choice in row["choices"]
        ]
        right += str(int(scores.index(max(scores)) == row["answer"]))
    (task,) = opened.study.tasks
    value = evaluate.accuracy(opened.model, opened.tokenizer, task, opened.task_manager, batch=8)
    assert value["correct"]["quiz"] == right


def test_an_answer_is_written_behind_the_prompt(asked) -> None:
    """Every second question is given the right answer: what a loop by hand writes."""
    opened, ids = asked
    plain = AutoTokenizer.from_pretrained(opened.study.model)
    rows = rows_of(opened)
    for i, row in enumerate(rows):
        text = plain.decode(written(opened, ids(row["question"]), 3), skip_special_tokens=True)
        row["answer"] = "another" if i % 2 else text.partition("\n")[0]
    file = Path(*opened.study.task_path, "quiz_test.jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    generation = {"until": ["\n"], "max_gen_toks": 3, "do_sample": False}
    settings = {"output_type": "generate_until", "generation_kwargs": generation}
    metric = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
    task = changed_task(opened, **settings, doc_to_choice=None, metric_list=metric)
    opened = OpenStudy(opened.study.model_copy(update={"tasks": [task]}))
    value = evaluate.accuracy(opened.model, opened.tokenizer, task, opened.task_manager, batch=8)
    assert value["correct"]["other"] == "10" * (len(rows) // 2)


def test_a_text_is_continued_behind_the_prompt(asked) -> None:
    opened, ids = asked
    prompts = sentences(3, 500)
    (found,) = writing.continuations(opened.model, opened.tokenizer, [UNPRUNED], prompts, 4)
    for prompt, text in zip(prompts, found["texts"], strict=True):
        expected = written(opened, ids(prompt), 4)
        if 2 in expected:  # it ends there
            expected = expected[: expected.index(2)]
        assert text == opened.tokenizer.decode(expected, skip_special_tokens=True)


def test_the_check_accepts_them(asked) -> None:
    opened, _ = asked
    check(opened.study)


def test_what_was_asked_behind_an_end_is_asked_again(asked, request) -> None:
    """Records of tokenizers that end texts are others than before; all others keep their names."""
    opened, _ = asked
    inputs = [
        probes.probe_inputs(opened, unpruned(opened), probe)
        for probe in (opened.study.tasks[0], opened.study.writing, opened.study.loss)
    ]
    marked = ["prompt_end" in one for one in inputs]
    assert marked == ([True, True, False] if "ends texts" in request.node.name else [False] * 3)


def test_a_letter_that_stands_for_padding_stays_a_letter(
    tmp_path: Path, tiny_checkpoint: Checkpoints, write_study: Studies
) -> None:
    """The first token of a tokenizer without special ones, in what is written and in its copies."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = BpeTrainer(vocab_size=256, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    backend.train_from_iterator([], letters)
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint("llama"), folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    opened = OpenStudy(studies.load(str(write_study(tmp_path, model=str(folder)))))
    assert opened.tokenizer.decode(opened.tokenizer.pad_token_id) == "!"
    save_pruned(opened.model, [2], opened.tokenizer, tmp_path / "copy")
    for tokenizer in (opened.tokenizer, AutoTokenizer.from_pretrained(tmp_path / "copy")):
        assert tokenizer.decode(tokenizer.encode("a! b"), skip_special_tokens=True) == "a! b"


@pytest.fixture
def templated(tmp_path: Path, tiny_checkpoint: Checkpoints, write_study: Studies):
    """`templated(template, chat_template=True)`: a study whose tokenizer has a chat template."""

    def make(template: str | None, **keys: Any) -> OpenStudy:
        folder = tmp_path / "model"
        folder.mkdir()
        for file in tiny_checkpoint("llama").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
        return OpenStudy(studies.load(str(write_study(tmp_path, model=str(folder), **keys))))

    return make


def first_score(opened: OpenStudy, prompt: str, row: dict[str, Any]) -> str:
    plain = AutoTokenizer.from_pretrained(opened.study.model)
    context = plain.encode(prompt, add_special_tokens=False)
    scores = [
        likelihood(opened, context, plain.encode(prompt + choice, add_special_tokens=False))
        for choice in row["choices"]
    ]
    return str(int(scores.index(max(scores)) == row["answer"]))


@pytest.mark.parametrize("question_free", [False, True])
def test_prompts_are_put_into_the_chat_template(templated, question_free: bool) -> None:
    opened = templated(TEMPLATE, chat_template=True)
    (task,) = opened.study.tasks
    right = ""
    for row in rows_of(opened):
        question = "" if question_free else row["question"]  # on one line
        right += first_score(opened, f"<s>[user]{question}\n[assistant]", row)
    how = {"question_free": question_free, "chat_template": True}
    value = evaluate.accuracy(
        opened.model, opened.tokenizer, task, opened.task_manager, batch=8, **how
    )
    assert value["correct"]["quiz"] == right


def test_with_examples_it_is_what_the_harness_alone_gives(templated) -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    opened = templated(TEMPLATE, chat_template=True)
    task = opened.study.tasks[0].model_copy(update={"shots": 2})
    value = evaluate.accuracy(
        opened.model, opened.tokenizer, task, opened.task_manager, batch=8, chat_template=True
    )
    alone = lm_eval.simple_evaluate(
        HFLM(pretrained=opened.model, tokenizer=opened.tokenizer, batch_size=8),
        tasks=["quiz"],
        num_fewshot=2,
        task_manager=opened.task_manager,
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    rows = sorted(alone["samples"]["quiz"], key=lambda row: row["doc_id"])
    assert rows[0]["arguments"][0][0].count("[user]") == 3
    assert value["correct"]["quiz"] == "".join(str(int(row["acc"])) for row in rows)
    plain = evaluate.accuracy(opened.model, opened.tokenizer, task, opened.task_manager, batch=8)
    assert plain["correct"] != value["correct"]


def test_a_study_asks_with_the_template_and_records_it(templated, results_dir: Path) -> None:
    opened = templated(TEMPLATE, chat_template=True)
    task, whole = opened.study.tasks[0], unpruned(opened)
    inputs = probes.probe_inputs(opened, whole, task)
    plain = OpenStudy(opened.study.model_copy(update={"chat_template": False}))
    assert inputs == probes.probe_inputs(plain, whole, task) | {"chat_template": True}
    for probe in (opened.study.loss, opened.study.writing):
        assert "chat_template" not in probes.probe_inputs(opened, whole, probe)
    measure.measure(opened, [whole])
    measure.measure(plain, [whole])
    values = [probes.recorded(one, whole, task)["correct"]["quiz"] for one in (opened, plain)]
    prompts = {f"<s>[user]{row['question']}\n[assistant]": row for row in rows_of(opened)}
    right = "".join(first_score(opened, prompt, row) for prompt, row in prompts.items())
    assert values[0] == right != values[1]


@pytest.mark.parametrize(
    ("template", "says"),
    [(None, "has none"), ("{{ raise_exception('no turns') }}", "fails: no turns")],
)
def test_a_template_that_is_not_there_is_one_line(templated, template, says: str) -> None:
    opened = templated(template, chat_template=True)
    with pytest.raises(UserError, match=f"study mine: chat_template: .*{says}"):
        check(opened.study)
    check(opened.study.model_copy(update={"chat_template": False}))
