"""QMSum: questions on meetings from a local file, answered in writing and scored by ROUGE."""

from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from conftest import Checkpoints, Studies, sentences, write_jsonl
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks.truthfulqa.utils import rouge
from transformers import AutoModelForCausalLM

from lib import labels, paths
from lib import study as studies
from lib.book.check import check
from lib.errors import UserError
from lib.evaluation import evaluate, harness, per_question
from lib.experiments.conditions import unpruned
from lib.experiments.further_conditions import breaking_conditions
from lib.experiments.measure import measure
from lib.experiments.opened import OpenStudy
from lib.pruning.dropped import UNPRUNED, span
from lib.pruning.surgery import pruned
from lib.schema import Study, Task
from lib.sections import tables, what_breaks

FOLDER = str(paths.ROOT / "abilities" / "summaries")
TASK = Task(name="qmsum", role="generation")
ROUGE = ("rougeL", "rouge1", "rouge2")
FORMS = [UNPRUNED, span(1, 3)]
CONTEXT = 512  # of the tiny model: room for an answer, and for the shorter one of two meetings


def meeting(number: int, turns: int = 3) -> dict[str, Any]:
    """As it is published. Answers are of words that the tiny model may write."""
    said = sentences(turns, first=10 * number)
    return {
        "topic_list": [{"topic": "bread", "relevant_text_span": [["0", "1"]]}],
        "general_query_list": [
            {
                "query": f"Summarize day {number}.",
                "answer": f"The hare stood near a lamp {number} times.",
            }
        ],
        "specific_query_list": [
            {
                "query": f"What did {who} say on day {number}?",
                "answer": f"{who} has a lamp near shell {number}. It was bad of a hare.",
                "relevant_text_span": [["0", "0"]],
            }
            for who in ("Ada", "Hugo")
        ],
        "meeting_transcripts": [
            {"speaker": f"Speaker {'AB'[i % 2]}", "content": f"{text} {{vocalsound}}"}
            for i, text in enumerate(said)
        ],
    }


MEETINGS = [meeting(1), meeting(2, turns=9), meeting(3)]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "questions"
    write_jsonl(folder / "qmsum/val.jsonl", MEETINGS)
    monkeypatch.setenv("PRUNING_DATA", str(folder))
    return folder


def loaded(task: Task = TASK) -> tuple[Any, Any]:
    """lm-eval's task manager and its task."""
    manager = harness.task_manager(Study(model=".", task_path=FOLDER, tasks=[task]))
    return manager, harness.load(manager, task.name)["tasks"][task.name]


def test_each_query_is_asked_behind_its_transcript(data: Path) -> None:
    _, task = loaded()
    found = {task.doc_to_text(one): task.doc_to_target(one) for one in task.eval_docs}
    expected = {}
    for one in MEETINGS:
        turns = one["meeting_transcripts"]
        text = "\n".join(f"{turn['speaker']}: {turn['content']}" for turn in turns)
        for query in one["general_query_list"] + one["specific_query_list"]:
            expected[f"{text}\n\nQuestion: {query['query']}\nAnswer:"] = query["answer"]
    assert found == expected and len(found) == 9


def test_the_first_queries_are_of_many_meetings_and_always_the_same(data: Path) -> None:
    write_jsonl(data / "qmsum/val.jsonl", [meeting(number) for number in range(20)])
    first, again = ([*loaded()[1].eval_docs] for _ in range(2))
    assert first == again
    assert len({one["transcript"] for one in first[:20]}) >= 10
    kinds = [one["query"].startswith("Summarize") for one in first[:20]]
    assert any(kinds) and not all(kinds)


def test_a_file_lies_where_the_authors_have_it(data: Path) -> None:
    place = data / "qmsum/data/ALL/jsonl/val.jsonl"
    write_jsonl(place, MEETINGS[:1])
    assert len(loaded()[1].eval_docs) == 3
    (data / "qmsum/val.jsonl").unlink()
    assert len(loaded()[1].eval_docs) == 3


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        ("The group chose a remote.", "The group chose the small remote!"),
        ("They met at noon. It rained, twice.", "It rained twice and they met"),
        ("Costs were cut", ""),
        ("Costs were cut", "costs were CUT"),
        ("naïve café, 12.5 euros", "a café of 12.5 euros"),
    ],
)
def test_rouge_is_lm_evals(answer: str, written: str, data: Path) -> None:
    """Its helper takes texts of one line, whose summary level is that of the text."""
    found = loaded()[1].process_results({"answer": answer}, [written])
    theirs = rouge([answer], [written])
    named = {"rouge1": "rouge1", "rouge2": "rouge2", "rougeL": "rougeLsum"}
    assert found == pytest.approx({own: theirs[key] / 100 for own, key in named.items()})


def test_rouge_by_hand(data: Path) -> None:
    score = loaded()[1].process_results
    found = score({"answer": "the cat sat on the mat"}, ["The mat: the cat sat!"])
    # Five words of six are shared, two pairs in a row of five and four, three words in order.
    assert found == pytest.approx({"rouge1": 10 / 11, "rouge2": 6 / 9, "rougeL": 6 / 11})


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Checkpoints) -> Any:
    folder = tiny_checkpoint("llama", max_position_embeddings=CONTEXT)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_scores_are_those_of_lm_eval_alone(data: Path, model: Any, tokenizer: Any) -> None:
    manager, task = loaded()
    room = CONTEXT - 256
    lengths = [len(tokenizer.encode(task.doc_to_text(one))) for one in task.eval_docs]
    cut = sum(length > room for length in lengths)
    assert 0 < cut < len(lengths)
    found = evaluate.accuracies(model, tokenizer, TASK, manager, FORMS, 9)
    for form, value in zip(FORMS, found, strict=True):
        with pruned(model, form):
            alone = lm_eval.simple_evaluate(
                HFLM(pretrained=model, tokenizer=tokenizer, batch_size=9, max_length=CONTEXT),
                tasks=[TASK.name],
                task_manager=manager,
                bootstrap_iters=2,
            )
        rows = sorted(alone["samples"][TASK.name], key=lambda row: row["doc_id"])
        for one, key in zip((value, value["rouge1"], value["rouge2"]), ROUGE, strict=True):
            scores = per_question.of_all_tasks(one["correct"])
            assert scores == pytest.approx([row[key] for row in rows])
            assert one["accuracy"] == pytest.approx(alone["results"][TASK.name][f"{key},none"])
            expected = alone["results"][TASK.name][f"{key}_stderr,none"]
            assert one["stderr"] == pytest.approx(expected)
            assert one["n_questions"] == 9
        assert value["accuracy"] > 0
        assert (value["guess"], value["constant"]) == (None, None)
        assert value["truncated_prompts"] == cut


def test_a_prompt_that_is_cut_keeps_its_query(data: Path, model: Any, tokenizer: Any) -> None:
    _, task = loaded()
    shared = harness.SharedPass(model, tokenizer, [UNPRUNED], 4, TASK.name)
    prompts = [task.doc_to_text(one) for one in task.eval_docs]
    rows, _ = shared.lm(0).tok_batch_encode(prompts, left_truncate_len=CONTEXT - 256)
    assert shared.truncated
    for row, one in zip(rows, task.eval_docs, strict=True):
        asked = tokenizer.encode(f"\n\nQuestion: {one['query']}\nAnswer:")[-12:]
        assert row.tolist()[-len(asked) :] == asked


def test_what_breaks_first_shows_it(
    data: Path,
    write_study: Studies,
    tiny_checkpoint: Checkpoints,
    tmp_path: Path,
    results_dir: Path,
) -> None:
    shown = {}
    for metric in ("acc", "rouge2"):
        asked = {"name": "qmsum", "role": "generation", "limit": 6, "metric": metric}
        breaks = {"tasks": [asked], "fractions": [0.5], "writing": {"n_prompts": 0}}
        file = write_study(
            tmp_path,
            model=str(tiny_checkpoint("llama", max_position_embeddings=CONTEXT)),
            task_path=["./tasks", FOLDER],
            what_breaks=breaks,
            abilities={"summaries": ["qmsum"]},
            healing="none",
            strategies=["simple"],
        )
        opened = OpenStudy(studies.load(str(file)))
        (task,) = opened.study.what_breaks.tasks
        if metric == "acc":
            measure(opened, breaking_conditions(opened))
        table = what_breaks.abilities(opened)
        table = table.query("ability == 'summaries' and models == 'unhealed'")
        assert table["tasks"].tolist() == ["qmsum"] * 2 and table["n"].tolist() == [0, 3]
        assert table["n_questions"].tolist() == [6] * 2 and table["chance"].tolist() == [0] * 2
        value = tables.record(opened, unpruned(opened), task)
        first = table.iloc[0]
        assert first["accuracy"] == pytest.approx(value["accuracy"])
        assert first["stderr"] == pytest.approx(value["stderr"])
        assert set(what_breaks.halves(table)["ability"]) == {"summaries"}
        shown[metric] = first["accuracy"]
    assert shown["acc"] > shown["rouge2"] == value["rouge2"]["accuracy"]
    assert labels.of("qmsum") == "QMSum"


@pytest.fixture
def own_study(tmp_path: Path, write_study: Studies) -> Any:
    def load(**changes: Any) -> Study:
        task = {"name": "qmsum", "role": "generation"} | changes
        return studies.load(str(write_study(tmp_path, task_path=FOLDER, tasks=[task])))

    return load


def broken(**changes: Any) -> list[dict[str, Any]]:
    return [MEETINGS[0], MEETINGS[2] | changes]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (None, "qmsum: no file data/ALL/jsonl/val.jsonl or val.jsonl or validation.jsonl in"),
        ([], "qmsum/val.jsonl: has no queries"),
        (
            [MEETINGS[0] | {"general_query_list": [], "specific_query_list": []}],
            "qmsum/val.jsonl: has no queries",
        ),
        ("Ada spoke.\n", "qmsum/val.jsonl, line 1: Expecting value"),
        (b"\xff\xfe\n", "qmsum/val.jsonl: 'utf-8' codec can't decode"),
        ([MEETINGS[0], ["a", "list"]], "line 2: list indices must be"),
        ([MEETINGS[0], {"query": "?"}], "line 2: no key 'meeting_transcripts'"),
        (broken(general_query_list=[{"query": "?"}]), "line 2: no key 'answer'"),
        (broken(specific_query_list=[{"query": "?", "answer": " "}]), "2: a query without its ans"),
        (broken(specific_query_list=[{"query": "?", "answer": 3}]), "line 2: "),
        (broken(meeting_transcripts=[]), "line 2: a query without its transcript"),
    ],
)
def test_files_that_will_not_do_are_one_line(
    rows: Any, words: str, data: Path, own_study: Any
) -> None:
    path = data / "qmsum/val.jsonl"
    path.unlink()
    if isinstance(rows, list):
        write_jsonl(path, rows)
    elif rows:
        path.write_bytes(rows if isinstance(rows, bytes) else rows.encode())
    with pytest.raises(UserError) as error:
        loaded()
    assert "lm-eval task 'qmsum': cannot be loaded: " in str(error.value)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_study_is_checked(data: Path, own_study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check(own_study(metric="rouge2"))
    with pytest.raises(UserError, match=r"takes no examples \(num_fewshot: 0\); ask it with"):
        check(own_study(shots=1))
    with pytest.raises(UserError, match="has no acc_norm; its metric_list names rougeL, rouge1"):
        check(own_study(metric="acc_norm"))
    monkeypatch.delenv("PRUNING_DATA")
    with pytest.raises(UserError, match="'qmsum': cannot be loaded: PRUNING_DATA is not set"):
        check(own_study())
