"""Perplexity on whole texts, of all prunings in one pass, against lm-eval alone."""

from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Checkpoints, Studies, sentences, write_jsonl
from lm_eval.models.huggingface import HFLM
from offline_data import write_parquet
from transformers import AutoModelForCausalLM

from lib import paths
from lib import study as studies
from lib.book.check import check
from lib.errors import UserError
from lib.evaluation import harness, whole_texts
from lib.experiments import measure
from lib.experiments.conditions import main_conditions
from lib.experiments.opened import OpenStudy
from lib.pruning.dropped import UNPRUNED, span
from lib.pruning.surgery import pruned
from lib.schema import Perplexity, Study
from lib.sections import loss

TASKS = str(paths.ROOT / "tasks")
FORMS = [UNPRUNED, span(2, 1), span(1, 3)]
PAGES = [  # of fewer and of more tokens than the model's context of 128 has
    f"\n = Page {i} = \n \n {' '.join(sentences(2 + 8 * i, 50 * i))} \n = = Part = = \n It is . \n"
    for i in range(4)
]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRUNING_DATA", str(tmp_path))
    write_jsonl(tmp_path / "wikitext/test.jsonl", [{"page": page} for page in PAGES])
    return tmp_path


def asked(limit: int | None = None) -> tuple[Perplexity, Any]:
    probe = Perplexity(name="wikitext", limit=limit)
    return probe, harness.task_manager(Study(model=".", task_path=TASKS, perplexity=[probe]))


def test_all_prunings_have_the_perplexity_of_lm_eval_alone(
    data: Path, tiny_checkpoint: Checkpoints, tokenizer: Any
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint("llama"), dtype=torch.float32)
    probe, manager = asked()
    found = whole_texts.perplexities(model, tokenizer, probe, manager, FORMS, 4)
    for form, value in zip(FORMS, found, strict=True):
        with pruned(model, form):
            alone = lm_eval.simple_evaluate(
                HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4),
                tasks=["wikitext"],
                task_manager=manager,
                bootstrap_iters=0,
            )
        expected = alone["results"]["wikitext"]
        assert np.exp(value["words"]["loss"]) == pytest.approx(expected["word_perplexity,none"])
        assert np.exp(value["bytes"]["loss"]) == pytest.approx(expected["byte_perplexity,none"])
        bits = value["bytes"]["loss"] / np.log(2)
        assert bits == pytest.approx(expected["bits_per_byte,none"])
        rows = alone["samples"]["wikitext"]
        of_documents = [-row["word_perplexity"][0] for row in rows]
        assert value["documents"] == pytest.approx(of_documents)
        texts = [row["arguments"][0][0] for row in rows]
        tokens = [len(tokenizer.encode(text)) for text in texts]
        assert min(tokens) < 127 < 256 < max(tokens)
        assert value["tokens"]["count"] == sum(tokens)
        assert value["tokens"]["loss"] == pytest.approx(sum(of_documents) / sum(tokens))
        # The standard error of a ratio, once more by hand.
        residual = np.array(of_documents) - value["tokens"]["loss"] * np.array(tokens)
        stderr = np.sqrt(4 / 3 * (residual**2).sum()) / sum(tokens)
        assert value["tokens"]["stderr"] == pytest.approx(stderr, rel=1e-3)
        assert value["n_documents"] == 4


@pytest.mark.parametrize("layout", ["raw", "lines"])
def test_pages_are_put_together_of_lines(data: Path, layout: str) -> None:
    (data / "wikitext/test.jsonl").unlink()
    lines = "".join(PAGES).splitlines(keepends=True)
    if layout == "raw":
        (data / "wikitext/wiki.test.raw").write_text("".join(lines))
    else:
        rows = [{"text": line} for line in lines]
        name = "wikitext-2-raw-v1/test-00000-of-00001.parquet"
        write_parquet(data / "wikitext" / name, rows)
    _, manager = asked()
    (task,) = harness.load(manager, "wikitext")["tasks"].values()
    own = [document["page"] for document in task.eval_docs]
    assert [page.split() for page in own] == [page.split() for page in PAGES]
    assert [page.strip("\n") for page in own] == [page.strip("\n") for page in PAGES]


def test_a_study_tables_what_it_names(data: Path, write_study: Studies, results_dir: Path) -> None:
    named = {
        "task_path": TASKS,
        "tasks": [{"name": "commons_knowledge", "limit": 4, "role": "knowledge"}],
    }
    file = write_study(data, healing="none", perplexity=[{"name": "wikitext", "limit": 3}], **named)
    chosen = studies.load(str(file))
    check(chosen)
    opened = OpenStudy(chosen)
    measure.measure(opened, main_conditions(opened))
    table = loss.perplexity_table(opened)
    (made,) = [one for one in loss.SECTION.tables if one.name == "perplexity"]
    assert set(table.columns) == set(made.columns)
    assert len(table) == len(main_conditions(opened)) and set(table["n_documents"]) == {3}
    assert (table[["stderr", "stderr_per_byte", "stderr_per_word"]] > 0).all(axis=None)
    per_word = table["loss"] * table["n_tokens"] / table["n_words"]
    pd.testing.assert_series_equal(table["loss_per_word"], per_word, check_names=False)
    assert "<table" in loss.whole_texts(table).data
    assert "names no text" in loss.whole_texts(None).data
    again = OpenStudy(studies.load(str(write_study(data, healing="none", **named))))
    assert loss.perplexity_table(again) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": "commons_knowledge"}, "is multiple_choice with acc, acc_norm; read are those of"),
        ({"name": "wikitest"}, "unknown lm-eval task 'wikitest'"),
        ({"name": "wikitext", "limit": 1}, "perplexity.0.limit"),
    ],
)
def test_what_is_no_perplexity_is_a_line(
    data: Path, write_study: Studies, given: dict, says: str
) -> None:
    tasks = [{"name": "commons_knowledge", "limit": 4, "role": "knowledge"}]
    with pytest.raises(UserError, match=says):
        check(
            studies.load(str(write_study(data, task_path=TASKS, tasks=tasks, perplexity=[given])))
        )


def test_one_document_has_no_standard_error(data: Path, write_study: Studies) -> None:
    write_jsonl(data / "wikitext/test.jsonl", [{"page": PAGES[0]}])
    tasks = [{"name": "commons_knowledge", "limit": 4, "role": "knowledge"}]
    chosen = write_study(data, task_path=TASKS, tasks=tasks, perplexity=[{"name": "wikitext"}])
    with pytest.raises(UserError, match="'wikitext' has 1 document; a standard error takes two"):
        check(studies.load(str(chosen)))
