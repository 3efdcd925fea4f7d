"""Evidence that many processes write into one folder: nothing lost, torn, mixed or overwritten."""

import errno
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lib import paths
from lib.evidence import records, store
from lib.evidence.journal import Journal
from lib.evidence.records import verify
from lib.evidence.store import Store
from lib.files import write_new

INPUTS = {"checkpoint": "abc", "block": [3, 7]}
RECORD = ("loss", "a", INPUTS)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def files(folder: Path, pattern: str = "*") -> list[Path]:
    return sorted(path for path in folder.rglob(pattern) if path.is_file())


def process(code: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=paths.ROOT, stdout=pipe, stderr=pipe, text=True)


def test_sixteen_writers_of_a_thousand_records() -> None:
    """Of which some are killed. The benchmark judges what is in the folder without the code that
    wrote it."""
    script = paths.ROOT / "benchmarks/writers.py"
    command = [sys.executable, script, *("--writers", "16", "--records", "1000")]
    command += ["--kills", "12", "--seconds", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    counts = {
        text: int(count.replace(",", ""))
        for count, text in re.findall(r"^ *([\d,]+)  (.+)$", done.stdout, re.M)
    }
    assert done.returncode == 0, done.stdout + done.stderr
    assert counts["records found"] == 1000
    assert counts["lost"] == counts["torn or mixed"] == 0
    assert counts["of them disputed"] == 40
    assert counts["other values kept beside them"] == 40 * 3
    assert counts["killed"] > 0


def test_importing_it_is_cheap() -> None:
    code = "import sys, lib.evidence; print(*{'torch', 'numpy', 'pandas'} & set(sys.modules))"
    assert process(code).communicate() == ("\n", "")


def test_the_first_record_stays_and_another_value_is_kept_beside_it(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = Store(results), Store(results)
    path = one.put(*RECORD, {"loss": 1.0}, seconds=1)
    first = path.read_bytes()
    other.put(*RECORD, {"loss": 1.0}, seconds=2)
    assert files(results) == [path] and capsys.readouterr().err == ""

    for _ in range(2):
        assert other.put(*RECORD, {"loss": 2.0}) == path
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and path.name in said and "stays" in said
    (beside,) = files(results, "*.conflict")
    assert beside.name in said and beside.stem.startswith(path.stem)
    assert json.loads(beside.read_text())["value"] == {"loss": 2.0}
    assert path.read_bytes() == first and files(results) == sorted([path, beside])
    (problem,) = verify(results)
    assert str(beside) in problem


def test_what_another_recorded_meanwhile_is_what_is_returned(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = Store(results), Store(results)

    def slow() -> dict:
        other.put(*RECORD, {"loss": 1.0})
        return {"loss": 2.0}

    assert one.get_or_measure(*RECORD, slow) == {"loss": 1.0}
    assert one.used == {one.path(*RECORD)}
    assert len(files(results, "*.conflict")) == 1


def no_links(*_: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_without_hard_links_too(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    store = Store(results)
    path = store.put(*RECORD, {"loss": 1.0})
    store.put(*RECORD, {"loss": 2.0})
    assert store.get(*RECORD) == {"loss": 1.0}
    assert files(results) == sorted([path, *files(results, "*.conflict")])
    assert len(files(results)) == 2
    assert not write_new(path, "other") and store.get(*RECORD) == {"loss": 1.0}


def test_a_link_whose_answer_was_lost_is_no_conflict(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network file system that asks twice says that the name is taken: by this very file."""
    link = os.link

    def asked_twice(*names: Path) -> None:
        link(*names)
        raise FileExistsError

    monkeypatch.setattr(os, "link", asked_twice)
    path = Store(results).put(*RECORD, {"loss": 1.0})
    assert files(results) == [path] and capsys.readouterr().err == ""


def test_names_of_unfinished_files_do_not_meet_on_two_machines(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines with one process number, both about to give their file its name."""
    seen, link = [], os.link
    monkeypatch.setattr(os, "getpid", lambda: 1)

    def second_meanwhile(partial: Path, path: Path) -> None:
        seen.append(partial)
        if len(seen) == 1:
            assert write_new(path, "second")
        link(partial, path)

    monkeypatch.setattr(os, "link", second_meanwhile)
    assert not write_new(results / "a.json", "first")
    assert len(set(seen)) == 2
    assert [path.read_text() for path in files(results)] == ["second"]


def damaged(results: Path) -> tuple[Store, Path]:
    one = Store(results)
    path = one.put(*RECORD, {"loss": 1.0})
    path.write_text("{")
    return one, path


def meanwhile(monkeypatch: pytest.MonkeyPatch, between: Callable[[], object]) -> None:
    """Something happens once, after a record was read for the first time."""
    read = records.read

    def first_read(path: Path) -> tuple[dict, str | None]:
        found = read(path)
        monkeypatch.setattr(store, "read", read)
        between()
        return found

    monkeypatch.setattr(store, "read", first_read)


def test_damage_that_two_find_at_once_is_set_aside_once(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, path = damaged(results)
    meanwhile(monkeypatch, lambda: Store(results).get(*RECORD))
    assert one.get(*RECORD) is None
    assert [file.suffix for file in files(results)] == [".damaged"]
    assert capsys.readouterr().err.count(path.name) == 1


def test_what_a_third_recorded_meanwhile_is_not_set_aside(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, path = damaged(results)

    def mended() -> None:
        Store(results).get_or_measure(*RECORD, lambda: {"loss": 2.0})

    meanwhile(monkeypatch, mended)
    one.get(*RECORD)
    assert one.get(*RECORD) == {"loss": 2.0}
    assert [file.read_text() for file in files(results, "*.damaged")] == ["{"]
    assert len(files(results)) == 2 and path.exists()


def test_damage_found_while_recording_is_set_aside(results: Path) -> None:
    one, _ = damaged(results)
    one.put(*RECORD, {"loss": 3.0})
    assert one.get(*RECORD) == {"loss": 3.0}
    assert len(files(results, "*.damaged")) == 1 and len(files(results)) == 2


def test_a_record_that_is_a_broken_link_is_replaced(results: Path) -> None:
    """As data version control leaves them; the file that it leads to is not there."""
    one, path = damaged(results)
    path.unlink()
    path.symlink_to(results / "nowhere")
    assert one.get_or_measure(*RECORD, lambda: {"loss": 4.0}) == {"loss": 4.0}
    assert path.is_file() and not path.is_symlink()


JOURNAL = """
import sys
from pathlib import Path
from lib.evidence.journal import Journal
journal = Journal(Path(sys.argv[1]))
for i in range(50):
    journal.add((f"{sys.argv[2]}-{i}-{j}", [(float(i), True)] * 100) for j in range(30))
"""


def test_lines_of_two_journals_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "unfinished" / "rows.jsonl"
    path.parent.mkdir()
    path.write_text('["cut off", [[1.')
    writers = [process(JOURNAL, path, number) for number in range(4)]
    assert [writer.communicate() for writer in writers] == [("", "")] * 4
    known = Journal(path).known
    assert len(known) == 4 * 50 * 30
    assert all(found == [(float(key.split("-")[1]), True)] * 100 for key, found in known.items())


@pytest.mark.parametrize("mixed", ['["a", [[1.0, ["b", [[', "3", '[["a"], []]', '["a", 4]', "é"])
def test_a_journal_drops_what_it_cannot_read(tmp_path: Path, mixed: str) -> None:
    journal = Journal(tmp_path / "rows.jsonl")
    journal.add([("one", [(1.0, True)])])
    with open(journal.path, "ab") as file:
        file.write(mixed.encode("latin-1") + b"\n")
    journal.add([("two", [(2.0, False)])])
    assert Journal(journal.path).known == {"one": [(1.0, True)], "two": [(2.0, False)]}


@pytest.mark.parametrize(
    ("old", "new"), [("-1.5", "-2.5"), ("true", "false"), ("one", "two"), ("-inf", "0.25")]
)
def test_a_journal_drops_what_was_changed(tmp_path: Path, old: str, new: str) -> None:
    journal = Journal(tmp_path / "rows.jsonl")
    scores = [("one", [(-1.5, True), (-math.inf, False)]), ("three", [(0.1 + 0.2, False)])]
    journal.add(scores)
    assert Journal(journal.path).known == dict(scores)
    text = journal.path.read_text().replace("Infinity", "inf")
    assert text.count(old) == 1
    journal.path.write_text(text.replace(old, new).replace("inf", "Infinity"))
    assert Journal(journal.path).known == dict(scores[1:])
