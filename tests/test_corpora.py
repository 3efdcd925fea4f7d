"""Texts become token sequences as an independent reading of the files says."""

import copy
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Checkpoints, Studies, sentences, write_jsonl
from tokenizers.processors import TemplateProcessing

from lib import study
from lib.errors import UserError
from lib.experiments import probes
from lib.experiments.conditions import unpruned
from lib.experiments.opened import OpenStudy
from lib.fields import Text
from lib.models import corpora

DOCUMENTS = sentences(30)


@pytest.fixture
def text(tmp_path: Path) -> Text:
    return Text(path=str(write_jsonl(tmp_path / "a.jsonl", [{"text": t} for t in DOCUMENTS])))


def ids(tokenizer: Any, document: str) -> list[int]:
    """By hand, so that it does not depend on how the tokenizer is called: <s> and the text."""
    return [tokenizer.bos_token_id, *tokenizer.encode(document, add_special_tokens=False)]


def refusal(text: Text, call: Any = None) -> str:
    with pytest.raises(UserError) as raised:
        list(call() if call else corpora.documents(text, seed=None))
    message = str(raised.value)
    assert message.startswith("text ") and "\n" not in message and len(message) < 400
    return message


@pytest.mark.parametrize("length", [2, 7, 64])
def test_windows_are_the_documents_end_to_end(text: Text, tokenizer: Any, length: int) -> None:
    stream = [token for document in DOCUMENTS for token in ids(tokenizer, document)]
    count = len(stream) // length
    found = corpora.windows(text, tokenizer, count, length, seed=None)
    assert found.shape == (count, length) and found.dtype == torch.int64
    assert found.flatten().tolist() == stream[: count * length]
    with pytest.raises(UserError, match=f"too short, it gives {count} windows of {length}"):
        corpora.windows(text, tokenizer, count + 1, length, seed=None)


def test_windows_take_shuffled_documents_whole(text: Text, tokenizer: Any) -> None:
    order = DOCUMENTS.copy()
    random.Random(3).shuffle(order)
    assert order != DOCUMENTS
    stream = [token for document in order for token in ids(tokenizer, document)]
    found = corpora.windows(text, tokenizer, 12, 10, seed=3)
    assert found.flatten().tolist() == stream[:120]
    assert not torch.equal(found, corpora.windows(text, tokenizer, 12, 10, seed=4))


def test_fewer_windows_are_the_first_of_more(text: Text, tokenizer: Any) -> None:
    more = corpora.windows(text, tokenizer, 12, 10, seed=3)
    assert torch.equal(more[:5], corpora.windows(text, tokenizer, 5, 10, seed=3))


def with_settings(tokenizer: Any, kind: str) -> Any:
    """A copy that is set up in a way that changes what it makes of long text when it cuts."""
    found = copy.deepcopy(tokenizer)
    inner = found.backend_tokenizer
    if kind == "keeps the end":
        found.truncation_side = "left"
    elif kind == "ends in </s>":
        special = [(token, found.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
        inner.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=special)
    elif kind == "cuts by itself":
        inner.enable_truncation(5, direction="left")
        inner.enable_padding(length=600, direction="left")
    return found


SETTINGS = ["as it is", "keeps the end", "ends in </s>", "cuts by itself"]


@pytest.mark.parametrize("kind", SETTINGS)
def test_documents_are_cut_alike_whatever_the_tokenizer_does(
    text: Text, tokenizer: Any, kind: str
) -> None:
    """The first tokens of each document, special ones included; windows hold all of them."""
    made = with_settings(tokenizer, kind)
    end = [tokenizer.eos_token_id] if kind == "ends in </s>" else []
    whole = [[*ids(tokenizer, document), *end] for document in DOCUMENTS]
    length = min(map(len, whole)) + 3  # some are shorter
    found = corpora.document_sequences(text, made, len(DOCUMENTS), length, seed=None)
    assert found == [one[:length] for one in whole]
    stream = [token for one in whole for token in one]
    assert corpora.windows(text, made, 9, 20, seed=None).flatten().tolist() == stream[:180]


@pytest.mark.parametrize("kind", SETTINGS)
def test_records_tell_where_the_tokenizer_would_cut_otherwise(tokenizer: Any, kind: str) -> None:
    """Which it once did; by itself alone it does not cut in these libraries."""
    found = corpora.cuts_otherwise(with_settings(tokenizer, kind))
    assert found == (kind in ("keeps the end", "ends in </s>"))


def test_records_of_cut_documents_alone_say_so(
    tmp_path: Path, results_dir: Path, write_study: Studies, tiny_checkpoint: Checkpoints
) -> None:
    """And only where the tokenizer would cut otherwise: all others keep their digests."""
    model = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "model")
    path = write_study(tmp_path, model="./model")

    def texts() -> dict[str, dict[str, str]]:
        opened = OpenStudy(study.load(str(path)))
        whole, settings = unpruned(opened), opened.study
        asked = {"loss": settings.loss, "writing": settings.writing}
        found = {name: probes.probe_inputs(opened, whole, one) for name, one in asked.items()}
        for packing in (True, False):
            recipe = settings.healing.model_copy(update={"packing": packing})
            found[f"healing {packing}"] = probes.healing_inputs(opened, recipe)
        assert "text" not in probes.probe_inputs(opened, whole, settings.tasks[0])
        return {name: inputs["text"] for name, inputs in found.items()}

    before = texts()
    assert all(list(text) == ["sha256"] for text in before.values())
    file = model / "tokenizer_config.json"
    settings = json.loads(file.read_text()) | {"truncation_side": "left"}
    file.write_text(json.dumps(settings))
    after = texts()
    assert after.pop("healing True") == before.pop("healing True")
    assert after == {name: text | {"cut": "here"} for name, text in before.items()}


@pytest.mark.parametrize("length", [2, 9, 400])
def test_documents_keep_their_order_and_are_cut(text: Text, tokenizer: Any, length: int) -> None:
    found = corpora.document_sequences(text, tokenizer, len(DOCUMENTS), length, seed=None)
    assert found == [ids(tokenizer, document)[:length] for document in DOCUMENTS]


def test_a_seed_draws_documents_without_repeats(text: Text, tokenizer: Any) -> None:
    draws = [
        [tuple(s) for s in corpora.document_sequences(text, tokenizer, 20, 400, seed)]
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]
    everything = {tuple(ids(tokenizer, document)) for document in DOCUMENTS}
    assert all(len(set(draw)) == 20 and set(draw) <= everything for draw in draws)


def test_too_few_documents_are_refused(text: Text, tokenizer: Any) -> None:
    count = len(DOCUMENTS) + 1
    message = refusal(
        text, lambda: corpora.document_sequences(text, tokenizer, count, 20, seed=None)
    )
    assert f"too short, it gives {count - 1} documents" in message and f"asked: {count}" in message


def test_blank_documents_are_passed_over(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"text": t} for t in ["", "One dog.", "  \n ", "Two cats."]]
    text = Text(path=str(write_jsonl(tmp_path / "a.jsonl", rows)))
    assert list(corpora.documents(text, seed=None)) == ["One dog.", "Two cats."]
    found = corpora.document_sequences(text, tokenizer, 2, 50, seed=None)
    assert found == [ids(tokenizer, "One dog."), ids(tokenizer, "Two cats.")]


def test_one_token_documents_have_nothing_to_predict(text: Text, tokenizer: Any) -> None:
    with pytest.raises(UserError, match="at least 2 tokens"):
        corpora.document_sequences(text, tokenizer, 1, 1, seed=None)


def test_documents_of_a_txt_file_are_separated_by_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("One dog.\nStill one.\n\nTwo cats – née.\n\n\n\nThree.\n", encoding="utf-8")
    found = list(corpora.documents(Text(path=str(path)), seed=None))
    assert [document.strip() for document in found] == [
        "One dog.\nStill one.", "Two cats – née.", "Three.",
    ]  # fmt: skip


def test_other_fields_do_not_matter(tmp_path: Path) -> None:
    rows = [{"id": i, "text": t, "meta": {"a": [i]}} for i, t in enumerate(DOCUMENTS)]
    text = Text(path=str(write_jsonl(tmp_path / "a.jsonl", rows)))
    assert list(corpora.documents(text, seed=None)) == DOCUMENTS


BAD_FILES = {
    "empty.jsonl": (b"", "empty"),
    "empty.txt": (b"", "empty"),
    "blank.txt": (b"\n\n\n", "no document"),
    "blank.jsonl": (b'{"text": ""}\n{"text": " "}\n', "no document"),
    "field.jsonl": (b'{"content": "a"}\n', "need a field 'text'"),
    "later.jsonl": (b'{"text": "a"}\n{"content": "a"}\n', "text"),
    "number.jsonl": (b'{"text": 3}\n', "'text' must be text"),
    "null.jsonl": (b'{"text": "a"}\n{"text": null}\n', "'text' must be text"),
    "cut.jsonl": (b'{"text": "a"}\n{"text": "b', "cannot be read as .jsonl"),
    "words.jsonl": (b"not json at all\n", "cannot be read as .jsonl"),
    "bytes.txt": (b"\xff\xfe\x00\x01" * 20, "cannot be read as .txt"),
    "book.pdf": (b"%PDF", "ending in .jsonl, .json, .txt"),
    "folder.txt": (None, "no file in this folder"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_text_that_cannot_be_used_is_named(tmp_path: Path, name: str) -> None:
    content, says = BAD_FILES[name]
    path = tmp_path / name
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    message = refusal(Text(path=str(path)))
    assert str(path) in message and says in message


def test_a_missing_text_is_named(tmp_path: Path) -> None:
    message = refusal(Text(path=str(tmp_path / "none.jsonl")))
    assert "none.jsonl" in message and "no such file" in message
    with pytest.raises(UserError, match="no such file"):
        corpora.source(Text(path=str(tmp_path / "none.jsonl")))


@pytest.mark.parametrize("ask", [corpora.source, lambda text: next(corpora.documents(text, 0))])
def test_a_hub_dataset_without_network_is_one_line(ask: Any) -> None:
    text = Text(dataset="nobody/no-such-text", split="validation")
    with pytest.raises(UserError) as raised:
        ask(text)
    message = str(raised.value)
    assert "\n" not in message and "hub cannot be reached" in message
    assert "nobody/no-such-text" in message


@pytest.mark.parametrize("bad", [None, 3, ["a"]])
def test_rows_of_a_hub_dataset_have_to_be_text(bad: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "a"}, {"text": " "}, {"text": bad}]
    monkeypatch.setattr(corpora, "_load_dataset", lambda *_, **__: iter(rows))
    found = corpora.documents(Text(dataset="a/b"), seed=None)
    assert next(found) == "a"
    with pytest.raises(UserError, match=r"^text a/b/train: the column 'text' must be text"):
        next(found)


def test_a_local_text_is_checked_to_its_end_and_a_hub_one_at_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": "a"}] * 100 + [{"text": 3}]
    message = refusal(
        Text(path=str(write_jsonl(tmp_path / "a.jsonl", rows))),
        lambda: corpora.check(Text(path=str(tmp_path / "a.jsonl"))) or [],
    )
    assert "line 101" in message
    monkeypatch.setattr(corpora, "_load_dataset", lambda *_, **__: iter(rows))
    corpora.check(Text(dataset="a/b"))


def test_a_source_is_identified_by_its_content(tmp_path: Path, build_dir: Path) -> None:
    rows = [{"text": document} for document in DOCUMENTS]
    first = Text(path=str(write_jsonl(tmp_path / "a.jsonl", rows)))
    copy = Text(path=str(write_jsonl(tmp_path / "b.jsonl", rows)))
    other = Text(path=str(write_jsonl(tmp_path / "c.jsonl", rows[::-1])))
    assert corpora.source(first) == corpora.source(copy) != corpora.source(other)
    assert json.dumps(corpora.source(first))


@pytest.mark.parametrize("tokens", [[5], [5, 5, 5], [1, 2, 3, 2], [9, 8, 9, 8, 8]])
def test_the_commonest_share_counts_the_commonest_token(tokens: list[int]) -> None:
    expected = Counter(tokens).most_common(1)[0][1] / len(tokens)
    assert corpora.commonest_share(torch.tensor(tokens)) == expected


def test_text_to_heal_on_may_hold_nothing_that_is_measured(text: Text, tmp_path: Path) -> None:
    """With one planted document it is refused; without, not."""
    others = [{"text": one} for one in sentences(30, 1000)]
    healing = Text(path=str(write_jsonl(tmp_path / "b.jsonl", others)))
    corpora.check_disjoint(text, healing)
    planted = [*others, {"text": f"  {DOCUMENTS[7]}\n"}]
    healing = Text(path=str(write_jsonl(tmp_path / "c.jsonl", planted)))
    message = refusal(text, lambda: corpora.check_disjoint(text, healing))
    assert "1 of its documents" in message and DOCUMENTS[7][:30] in message
    assert "both" in refusal(text, lambda: corpora.check_disjoint(text, text))


def test_one_split_of_the_hub_does_not_serve_both() -> None:
    splits = [Text(dataset="allenai/c4", config="en", split=one) for one in ("validation", "train")]
    corpora.check_disjoint(*splits)
    with pytest.raises(UserError, match="both"):
        corpora.check_disjoint(splits[0], splits[0])
