"""Local text is read as it stands in its files, whatever else they hold and however packed."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from conftest import sentences, write_jsonl

from lib.book import sources
from lib.errors import UserError
from lib.fields import Text
from lib.models import corpora, text_files

DOCUMENTS = sentences(30)
LINES = "".join(json.dumps({"text": one}) + "\n" for one in DOCUMENTS).encode()


def read(path: Path, seed: int | None = None) -> list[str]:
    return list(corpora.documents(Text(path=str(path)), seed))


def written(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def zstd(content: bytes) -> bytes:
    packed = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(content)
    return packed.getvalue().to_pybytes()


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        read(path)
    message = str(raised.value)
    assert message.startswith(f"text {path}") and "\n" not in message and len(message) < 500
    return message


OTHER_FIELDS = {
    "late type": lambda i: {"id": i if i < 25 else f"x{i}"},
    "late key": lambda i: {"extra": 1} if i > 25 else {},
    "late null": lambda i: {"url": None if i < 25 else "x"},
    "mixed depth": lambda i: {"meta": {"a": [i]} if i % 2 else "none"},
    "huge number": lambda i: {"id": 10**30 + i},
}


@pytest.mark.parametrize("kind", OTHER_FIELDS)
def test_fields_that_nobody_reads_may_change(tmp_path: Path, kind: str) -> None:
    """In a file of more than 10 MB, of which readers that type all columns guess from a part."""
    more = OTHER_FIELDS[kind]
    long = [f"{one} {'word ' * 90_000}" for one in DOCUMENTS]
    rows = [more(i) | {"text": one} for i, one in enumerate(long)]
    assert read(write_jsonl(tmp_path / "a.jsonl", rows)) == long


def test_text_that_looks_like_something_else_is_text(tmp_path: Path) -> None:
    for looks in (["2020-01-01", "2021-02-03"], ["12", "1e5", "null", "true", "NaN"]):
        rows = [{"text": one} for one in looks]
        assert read(write_jsonl(tmp_path / "a.jsonl", rows)) == looks
    number = written(tmp_path / "number.jsonl", f'{{"id": {"1" * 5000}, "text": "a"}}\n')
    assert read(number) == ["a"]


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    """Also Windows', blank ones and the last one without an end; other separators are text."""
    path = written(tmp_path / "a.jsonl", '{"text": "a\u2028b\x85c"}\r\n\n  \n{"text": "d"}')
    assert read(path) == ["a\u2028b\x85c", "d"]


@pytest.mark.parametrize("content", ['["a", "b"]', '[\n {"text": "a"},\n {"text": "b", "i": 1}\n]'])
def test_a_json_file_may_be_one_list(tmp_path: Path, content: str) -> None:
    assert read(written(tmp_path / "a.json", content)) == ["a", "b"]


@pytest.mark.parametrize("blank", ["\n", " \n", "\t\n", "\n \n\u3000\n", "\r\n"])
def test_blank_lines_separate_whatever_blanks_are_in_them(tmp_path: Path, blank: str) -> None:
    content = f"\ufeffOne dog.\n  Still one.\n{blank}Two cats – née.\n{blank}{blank}Three.\n"
    found = read(written(tmp_path / "a.txt", content))
    assert found == ["One dog.\n  Still one.", "Two cats – née.", "Three."]


@pytest.mark.parametrize("ending", ["jsonl", "json", "txt"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, ending: str) -> None:
    content = "a" if ending == "txt" else '{"text": "a"}'
    assert read(written(tmp_path / f"a.{ending}", b"\xef\xbb\xbf" + content.encode())) == ["a"]


@pytest.mark.parametrize("packed", [".gz", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".txt"])
def test_compressed_files_hold_what_the_plain_ones_do(
    tmp_path: Path, packed: str, kind: str
) -> None:
    content = "\n\n".join(DOCUMENTS).encode() if kind == ".txt" else LINES
    pack = gzip.compress if packed == ".gz" else zstd
    half = content.index(b"\n", len(content) // 2) + 1
    # Of several members, as tools write that compress in parallel.
    whole = written(tmp_path / f"a.b{kind}{packed}", pack(content[:half]) + pack(content[half:]))
    assert read(whole) == DOCUMENTS
    cut = written(tmp_path / f"cut{kind}{packed}", pack(content)[:-12])
    assert f"cannot be read as {kind}" in refusal(cut)
    assert f"cannot be read as {kind}" in refusal(written(tmp_path / f"no{kind}{packed}", content))


def test_a_parquet_file_is_read_by_its_column(tmp_path: Path) -> None:
    columns = {"id": range(30), "text": DOCUMENTS, "meta": [{"a": i} for i in range(30)]}
    assert read(parquet(tmp_path / "a.parquet", columns, row_group_size=7)) == DOCUMENTS
    typed = pyarrow.array(DOCUMENTS).dictionary_encode()
    assert read(parquet(tmp_path / "b.parquet", {"text": typed})) == DOCUMENTS
    assert "needs a column 'text', there are a, b" in refusal(
        parquet(tmp_path / "c.parquet", {"a": [1], "b": [2]})
    )
    assert "row 2" in refusal(parquet(tmp_path / "d.parquet", {"text": ["a", None]}))
    cut = written(tmp_path / "e.parquet", (tmp_path / "a.parquet").read_bytes()[:-9])
    assert "cannot be read as .parquet" in refusal(cut)


def test_a_folder_is_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "texts [1]"
    parquet(folder / "b/z.parquet", {"text": ["third"]})
    written(folder / "a.jsonl.gz", gzip.compress(b'{"text": "first"}\n'))
    written(folder / "b/a.txt", "second")
    written(folder / "c.jsonl", "")
    for unread in ("README.md", ".cache/a.jsonl", "b/.a.jsonl", "a.csv"):
        written(folder / unread, '{"text": "not this"}')
    assert read(folder) == ["first", "second", "third"]
    (folder / "none").mkdir()
    assert "no file in this folder ends in" in refusal(folder / "none")


def test_paths_are_no_patterns(tmp_path: Path) -> None:
    named = written(tmp_path / "text[1].jsonl", '{"text": "the named one"}')
    written(tmp_path / "text1.jsonl", '{"text": "another"}')
    assert read(named) == ["the named one"]
    assert read(written(tmp_path / "[x]*?/a{b}, c.txt", "in the folder")) == ["in the folder"]


def test_a_source_is_the_bytes_of_all_files(tmp_path: Path, build_dir: Path) -> None:
    """It moves with any byte and with the order, not with where the files lie; whether a job is
    out of date goes with it."""

    def of(path: Path) -> str:
        return json.dumps(text_files.source(path))

    first, second = (tmp_path / name for name in ("one", "two"))
    for folder in (first, second):
        written(folder / "a.jsonl", LINES)
        written(folder / "b.txt", "b")
    assert of(first) == of(second) and sources._text(str(first)) == sources._text(str(second))
    found = {of(first), of(first / "a.jsonl"), of(first / "b.txt")}
    before = sources._text(str(second))
    written(second / "b.txt", "c")
    assert sources._text(str(second)) != before
    found.add(of(second))
    (second / "b.txt").rename(second / "0.txt")
    found.add(of(second))
    written(second / "c.jsonl", LINES)
    found.add(of(second))
    (second / "c.jsonl").rename(second / "c.txt")  # the same bytes are other documents then
    assert len(found | {of(second)}) == 7


@pytest.mark.parametrize("held", [1, 300, 3000, 1 << 28])
def test_shuffling_is_that_of_a_list_whatever_is_held(
    tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpora, "HELD", held)
    monkeypatch.setattr(corpora, "EACH", 0)
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": one} for one in [*DOCUMENTS, " ", "a"]])
    order = [*DOCUMENTS, "a"]
    random.Random(5).shuffle(order)
    assert read(path, seed=5) == order


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"text": "a"}\n{"text": 3}\n', "line 2"),
        ('{"text": "a"}\n{"txet": "b"}\n', "line 2 has none"),
        ('{"text": "a"}\n["b"]\n', "line 2 has none"),
        ('{"text": "a"}\n{"text": "b"\n', "line 2"),
        ('{"text": "a"}\n{"text": "\\ud800"}\n', "line 2 holds half a character"),
        ('{"text": "a", "more": ' + "[" * 100_000, "line 1"),
        ('[{"text": "a"}, {"text": null}]', "item 2"),
        ('[{"text": "a"}', "cannot be read as .jsonl"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, content: str, says: str) -> None:
    assert says in refusal(written(tmp_path / "a.jsonl", content))
