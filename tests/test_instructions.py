"""Rows of instructions: what of them is read, what is scored, and how often."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Studies

from lib import study as studies
from lib.book.check import check
from lib.errors import UserError
from lib.experiments import probes
from lib.experiments.opened import OpenStudy
from lib.fields import Data
from lib.healing import heal, training
from lib.healing.reading import Read, read
from lib.models import checkpoints, corpora, instructions
from lib.models.prompts import prompt_ids
from lib.open_sets import Healing, healing
from lib.pruning.dropped import span
from lib.schema import Study

ROWS = [
    {"instruction": "Name a colour.", "input": "", "output": "Red."},
    {"instruction": "Add them.", "input": "2 and 3", "output": "5"},
    {"instruction": "Say {input} twice.", "context": None, "response": "Word, word."},
    {"prompt": "Who fed the cat?", "answer": "Ada."},
]


INSTRUCTIONS = {"name": "taught", "path": "a", "rows": "instructions"}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def data(path: Path, **settings: Any) -> Data:
    return Data(name="taught", path=str(path), rows="instructions", **settings)


def test_rows_are_read_whatever_their_parts_are_called(tmp_path: Path) -> None:
    found = corpora.rows(data(write(tmp_path / "a.jsonl", ROWS)))
    assert found == [
        ("Name a colour.", "", "Red."),
        ("Add them.", "2 and 3", "5"),
        ("Say {input} twice.", "", "Word, word."),
        ("Who fed the cat?", "", "Ada."),
    ]
    (tmp_path / "b.json").write_text(json.dumps(ROWS))
    assert corpora.rows(data(tmp_path / "b.json")) == found


def test_a_parquet_file_is_read_as_well(tmp_path: Path) -> None:
    from pyarrow import Table, parquet

    rows = [{"instruction": "a", "input": "", "output": "b", "source": 3}] * 2
    parquet.write_table(Table.from_pylist(rows), tmp_path / "a.parquet")
    assert corpora.rows(data(tmp_path / "a.parquet")) == [("a", "", "b")] * 2


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([ROWS[0], {"instruction": "a"}], "'response' or 'output' or 'answer'; line 2 has none"),
        ([{"output": "a"}], "lines need a field 'instruction' or 'prompt' or 'question'; line 1"),
        ([{"instruction": "a", "output": " "}], "line 1 has no response"),
        ([{"instruction": 3, "output": "b"}], "'instruction' must be text in every line; line 1"),
        ([{"instruction": "a", "input": 3, "output": "b"}], "'input' must be text"),
        ([3], "line 1 has none"),
    ],
)
def test_rows_without_their_parts_are_one_line(rows: list[Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says) as caught:
        corpora.rows(data(write(tmp_path / "a.jsonl", rows)))
    assert len(caught.value.lines) == 1 and str(tmp_path / "a.jsonl") in caught.value.lines[0]


def test_of_columns_for_one_part_the_one_with_text_is_read(tmp_path: Path) -> None:
    row = {"instruction": None, "prompt": "a", "input": "", "context": "b", "answer": "c"}
    assert corpora.rows(data(write(tmp_path / "a.jsonl", [row]))) == [("a", "b", "c")]


@pytest.mark.parametrize("read", [corpora.rows, lambda text: [*corpora.documents(text, None)]])
def test_of_a_folder_the_file_is_named(read: Any, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a.jsonl", [{"text": "x", "instruction": "a", "output": "b"}])
    write(folder / "b.jsonl", [{"text": "x", "instruction": "a", "output": "b"}, {"odd": 1}])
    text = data(folder) if read is corpora.rows else Data(name="a", path=str(folder))
    with pytest.raises(UserError, match=r"folder/b\.jsonl: .*line 2 has none"):
        read(text)


def test_the_template_leaves_out_what_a_row_has_not() -> None:
    template = Data(name="a", path="a", rows="instructions").template
    one, two = instructions.Row("Do.", "", "r"), instructions.Row("Do {input}.", "this", "r")
    assert instructions.prompt(one, template) == "### Instruction:\nDo.\n\n### Response:\n"
    expected = "### Instruction:\nDo {input}.\n\n### Input:\nthis\n\n### Response:\n"
    assert instructions.prompt(two, template) == expected
    assert instructions.prompt(one, "Q: {instruction}\nA:") == "Q: Do.\nA:"


@pytest.mark.parametrize("scored", ["response", "all"])
def test_a_row_is_its_prompt_its_response_and_an_end(
    scored: str, tokenizer: Any, tmp_path: Path
) -> None:
    one = data(write(tmp_path / "a.jsonl", ROWS[:1]), scored=scored)
    (row,) = corpora.rows(one)
    found = instructions.tokens(row, one, tokenizer, 1000)
    before = prompt_ids(tokenizer, "### Instruction:\nName a colour.\n\n### Response:\n")
    after = tokenizer("Red.", add_special_tokens=False)["input_ids"]
    assert found.ids == [*before, *after, tokenizer.eos_token_id]
    assert found.unscored == (len(before) if scored == "response" else 0)
    (labels,) = (
        entry["labels"].tolist()
        for entry in training._rows(Read([torch.tensor(found.ids)], [found.unscored]))
    )
    masked = [token for token in labels if token == training.IGNORED]
    assert len(masked) == found.unscored and labels[found.unscored :] == found.ids[found.unscored :]


def test_all_rows_are_read_before_any_comes_again(tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {i}.", "output": str(i)} for i in range(10)]
    one = data(write(tmp_path / "a.jsonl", rows))
    known = corpora.rows(one)
    found = instructions.drawn(known, one, tokenizer, 25, 64, seed=0)
    passes = [[tuple(s.ids) for s in found.sequences[i : i + 10]] for i in (0, 10, 20)]
    assert [len(set(each)) for each in passes] == [10, 10, 5]
    assert passes[0] != passes[1] and sorted(passes[0]) == sorted(passes[1])
    assert (found.rows, found.passed_over, found.epochs) == (10, 0, 2.5)
    again = instructions.drawn(known, one, tokenizer, 25, 64, seed=0)
    assert again == found != instructions.drawn(known, one, tokenizer, 25, 64, seed=1)


def test_rows_of_which_nothing_would_be_scored_are_passed_over(
    tokenizer: Any, tmp_path: Path
) -> None:
    rows = [*ROWS[:2], {"instruction": "word " * 200, "output": "a"}]
    one = data(write(tmp_path / "a.jsonl", rows))
    known = corpora.rows(one)
    found = instructions.drawn(known, one, tokenizer, 4, 64, seed=0)
    assert found.passed_over in (1, 2) and all(len(s.ids) <= 64 for s in found.sequences)
    with pytest.raises(UserError, match="nothing of its 1 rows is scored") as caught:
        instructions.drawn(known[2:], one, tokenizer, 4, 64, seed=0)
    assert "healing_data taught" in caught.value.lines[0]


def study_on(
    write_study: Studies, folder: Path, rows: list[Any], scored: str = "response", **more: Any
) -> Study:
    write(folder / "taught.jsonl", rows)
    sets = [{"name": "taught", "path": "./taught.jsonl", "rows": "instructions", "scored": scored}]
    recipe = {"recipe": "lora", "data": "taught", "learning_rate": 1e-2}
    return studies.load(str(write_study(folder, healing_data=sets, healing=recipe, **more)))


def test_a_model_is_healed_on_them_and_the_record_counts(
    write_study: Studies, tmp_path: Path
) -> None:
    rows = [{"instruction": f"Say {i}.", "output": f"It is {i}."} for i in range(6)]
    study = study_on(write_study, tmp_path, rows)
    assert study.healing.name == "lora-r4-on-taught"
    check(study)
    opened = OpenStudy(study)
    found = heal.heal(study, study.healing, span(2, 4), opened.tokenizer).report
    assert (found["rows"], found["passed_over"], found["epochs"]) == (6, 0, round(8 / 6, 3))
    assert 0 < found["scored_tokens"] < found["tokens"]
    inputs = probes.healing_inputs(opened, study.healing)
    assert inputs["text"].keys() == {"sha256", "rows", "scored", "template"}
    assert "data" not in inputs


def test_the_loss_is_that_of_the_responses(write_study: Studies, tmp_path: Path) -> None:
    """The first loss that training reports, against a mean by hand over the tokens that count."""
    rows = [{"instruction": f"Say {i}.", "output": f"It is {i}."} for i in range(4)]
    study = study_on(write_study, tmp_path, rows)
    settings = study.healing.model_copy(update={"steps": 1, "batch": 4, "dropout": 0.0})
    opened = OpenStudy(study)
    model = checkpoints.load_model(study)
    given = read(study, settings, opened.tokenizer, 4, settings.seed)
    losses: list[float] = []
    with torch.no_grad():
        for ids, unscored in zip(given.texts, given.unscored, strict=True):
            logits = model(ids[None].long()).logits[0].log_softmax(-1)
            losses += [-float(logits[i - 1, ids[i]]) for i in range(unscored, len(ids))]
    assert len(losses) == given.report["scored_tokens"]
    found = heal.heal(study, settings, [], opened.tokenizer).report["train_loss"]
    assert found == [pytest.approx(sum(losses) / len(losses), rel=1e-5)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"healing": {"recipe": "lora", "data": "none"}}, "'none' is none of healing_data: taught"),
        ({"healing_data": [{"name": "a", "path": "a.jsonl"}] * 2}, "lists the same value twice"),
        ({"healing_data": [{"name": "a b", "path": "a.jsonl"}]}, "healing_data"),
        (
            {"healing_data": [{"name": "taught", "path": "a.jsonl", "scored": "all"}]},
            "scored: only with rows: instructions",
        ),
        (
            {"healing_data": [INSTRUCTIONS | {"template": "?"}]},
            "template has no {instruction} in it",
        ),
        (
            {"healing_data": [INSTRUCTIONS | {"template": "Q: {instruction}\n{input}\nA:"}]},
            "template has {input} in one paragraph with {instruction}",
        ),
    ],
)
def test_settings_of_data_that_cannot_be_are_one_line(
    change: dict[str, Any], says: str, write_study: Studies, tmp_path: Path
) -> None:
    path = tmp_path / "odd.yaml"
    study_on(write_study, tmp_path, ROWS)
    sets = [{"name": "taught", "path": "./taught.jsonl", "rows": "instructions"}]
    recipe = {"recipe": "lora", "data": "taught"}
    settings = {"like": "almanac", "title": "Odd", "healing_data": sets, "healing": recipe}
    path.write_text(json.dumps(settings | change))
    with pytest.raises(UserError) as caught:
        studies.load(str(path))
    assert says in "\n".join(caught.value.lines)


@pytest.mark.parametrize("rows", ["text", "instructions"])
def test_studies_with_data_can_be_overridden_and_inherited(
    rows: str, write_study: Studies, tmp_path: Path
) -> None:
    study = study_on(write_study, tmp_path, ROWS)
    sets = [{"name": "taught", "path": "./taught.jsonl", "rows": rows}]
    path = write_study(tmp_path, healing_data=sets, healing={"recipe": "lora", "data": "taught"})
    first = studies.load(str(path))
    assert first.healing_data[0].rows == rows
    assert studies.override(first, loss={"n_sequences": 4}).healing_data == first.healing_data
    (tmp_path / "second.yaml").write_text(f"like: {path}\ntitle: Second\n")
    second = studies.load(str(tmp_path / "second.yaml"))
    assert second.healing_data == first.healing_data and second.healing.data == "taught"
    text = f"like: {path}\ntitle: Third\nhealing_text: {{path: ./healing.jsonl}}\n"
    (tmp_path / "third.yaml").write_text(text)
    third = studies.load(str(tmp_path / "third.yaml"))
    assert third.healing.data is None  # a text of its own is what it heals on
    assert study.healing_source(study.healing).name == "taught"


def test_a_check_finds_what_is_wrong_with_a_row(write_study: Studies, tmp_path: Path) -> None:
    study = study_on(write_study, tmp_path, [*ROWS, {"instruction": "a"}])
    with pytest.raises(UserError, match="line 5 has none"):
        check(study)


def test_instructions_may_not_hold_what_loss_is_measured_on(
    write_study: Studies, tmp_path: Path
) -> None:
    study = study_on(write_study, tmp_path, ROWS)
    document = next(corpora.documents(study.validation_text, seed=None))
    write(tmp_path / "taught.jsonl", [*ROWS, {"instruction": "", "output": document}])
    with pytest.raises(UserError, match="1 of its documents are in"):
        check(study)


def test_plain_data_are_read_as_the_healing_text_is(write_study: Studies, tmp_path: Path) -> None:
    """And make no other record where they hold the same."""
    sets = [{"name": "same", "path": "./healing.jsonl"}]
    study = studies.load(str(write_study(tmp_path, healing_data=sets, healing={"recipe": "lora"})))
    other: Healing = healing(**study.healing.model_dump() | {"data": "same"})
    opened = OpenStudy(study)
    inputs = [probes.healing_inputs(opened, one) for one in (study.healing, other)]
    assert inputs[0] == inputs[1]
    rows = [read(study, one, opened.tokenizer, 4, 0).texts for one in (study.healing, other)]
    assert all(map(torch.equal, *rows))
