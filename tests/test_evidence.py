"""Evidence: measured once, whole or not at all, and never of something else."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Checkpoints, Studies

from lib import files as on_disk
from lib import paths, study
from lib.errors import UserError
from lib.evidence.records import digest, verify
from lib.evidence.store import Store
from lib.experiments.opened import OpenStudy

INPUTS = {"checkpoint": "abc", "block": [3, 7], "healing": None, "rate": 3e-4}
VALUE = {"loss": 1.25, "n_tokens": 10, "correct": {"quiz": "0110"}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def files(store: Store) -> set[str]:
    return {path.name for path in store.folder.rglob("*") if path.is_file()}


def unreachable() -> dict:
    raise AssertionError("measured although it is recorded")


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest(INPUTS) == digest(dict(reversed(INPUTS.items())))


def test_a_digest_is_the_same_in_every_process() -> None:
    code = f"from lib.evidence.records import digest; print(digest({INPUTS!r}))"
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=paths.ROOT, env=environment, capture_output=True
    )
    assert done.stdout.decode().strip() == digest(INPUTS)


@pytest.mark.parametrize(
    "changed",
    [
        {"checkpoint": "abd"},
        {"block": [3, 8]},
        {"block": [7, 3]},
        {"healing": {"rank": 2}},
        {"rate": 3.0000001e-4},
        {"seed": 0},
        {"rate": "3e-4"},
    ],
)
def test_a_digest_notices_every_change(store: Store, changed: dict) -> None:
    other = INPUTS | changed
    assert digest(other) != digest(INPUTS)
    assert store.path("loss", "a", other) != store.path("loss", "a", INPUTS)


def test_what_is_put_comes_back(store: Store) -> None:
    path = store.put("loss", "drop 3:7 / nf4", INPUTS, VALUE, seconds=1.5)
    assert store.get("loss", "drop 3:7 / nf4", INPUTS) == VALUE
    assert store.get("loss", "drop 3:7 / nf4", INPUTS | {"seed": 1}) is None
    assert store.get("qa", "drop 3:7 / nf4", INPUTS) is None
    record = json.loads(path.read_text())
    assert record["provenance"]["seconds"] == 1.5
    assert {"when", "packages", "commit"} <= record["provenance"].keys()
    assert verify(store.folder.parent) == []


def test_records_of_different_names_do_not_meet(store: Store) -> None:
    store.put("loss", "a", INPUTS, VALUE)
    assert store.path("loss", "a", INPUTS) != store.path("loss", "b", INPUTS)
    assert store.get("loss", "b", INPUTS) is None


def test_a_value_is_measured_once(store: Store) -> None:
    calls = []

    def measure() -> dict:
        calls.append(1)
        return {"pair": (1, 2)}

    inputs = {"block": (3, 7)}
    assert store.get_or_measure("loss", "a", inputs, measure) == {"pair": [1, 2]}
    assert store.get_or_measure("loss", "a", inputs, unreachable) == {"pair": [1, 2]}
    assert store.get_or_measure("loss", "a", {"block": [3, 7]}, unreachable) == {"pair": [1, 2]}
    assert len(calls) == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_refused_and_leaves_nothing(store: Store, bad: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.get_or_measure("loss", "a", INPUTS, lambda: {"loss": bad})
    with pytest.raises(ValueError, match="JSON"):
        store.put("loss", "a", INPUTS, {"loss": bad})
    assert files(store) == set()


def test_a_failed_measurement_records_nothing(store: Store) -> None:
    with pytest.raises(AssertionError):
        store.get_or_measure("loss", "a", INPUTS, unreachable)
    assert files(store) == set()


def _edit(record: dict) -> dict:
    return record | {"value": VALUE | {"loss": 1.0}}


def _other_inputs(record: dict) -> dict:
    """What a record copied over another's name looks like: sound, but of something else."""
    record = record | {"inputs": INPUTS | {"seed": 9}}
    del record["checksum"]
    return record | {"checksum": digest(record, 64)}


DAMAGE: dict[str, tuple[Callable[[str], str], str]] = {
    "cut off": (lambda text: text[: len(text) // 2], "cut off"),
    "empty": (lambda text: "", "cut off"),
    "no record": (lambda text: "[1]", "schema"),
    "edited": (lambda text: json.dumps(_edit(json.loads(text))), "checksum"),
    "one digit": (lambda text: text.replace("1.25", "1.26"), "checksum"),
    "no checksum": (lambda text: text.replace('"checksum"', '"check"'), "checksum"),
    "other schema": (lambda text: text.replace('"schema": 1', '"schema": 2'), "schema"),
    "other inputs": (lambda text: json.dumps(_other_inputs(json.loads(text))), "inputs"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_record_is_named_and_measured_again(
    store: Store, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    damage, says = DAMAGE[kind]
    sound = store.put("loss", "b", INPUTS, VALUE)
    path = store.put("loss", "a", INPUTS, VALUE)
    before = path.read_text()
    damaged = damage(before)
    assert damaged != before
    path.write_text(damaged)

    found = verify(store.folder.parent)
    assert len(found) == 1 and str(path) in found[0] and says in found[0]

    assert store.get_or_measure("loss", "a", INPUTS, lambda: {"loss": 7.0}) == {"loss": 7.0}
    error = capsys.readouterr().err
    assert path.name in error and says in error and error.count("\n") == 1
    (aside,) = path.parent.glob(f"{path.stem}.*.damaged")
    assert aside.read_text() == damaged
    (left,) = verify(store.folder.parent)
    assert str(aside) in left and "set aside" in left
    aside.unlink()
    assert verify(store.folder.parent) == []
    assert store.get("loss", "a", INPUTS) == {"loss": 7.0}
    assert sound.exists() and store.get("loss", "b", INPUTS) == VALUE


@pytest.mark.parametrize("where", ["fsync", "link"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_keeps_what_there_is(
    store: Store, monkeypatch: pytest.MonkeyPatch, where: str, code: int
) -> None:
    store.put("loss", "a", INPUTS, VALUE)
    before = files(store)

    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(on_disk.os, where, full)
        with pytest.raises(UserError) as raised:
            store.get_or_measure("loss", "b", INPUTS, lambda: VALUE)
    assert "no space left" in str(raised.value) and "\n" not in str(raised.value)
    assert files(store) == before
    assert store.get("loss", "a", INPUTS) == VALUE
    assert store.get_or_measure("loss", "b", INPUTS, lambda: VALUE) == VALUE


def test_a_write_that_really_fails_leaves_no_part_of_a_file(store: Store) -> None:
    """A limit on the size of files stands in for a disk that fills in the middle of a record."""
    store.put("loss", "a", INPUTS, VALUE)
    before = files(store)
    code = f"""
import resource, signal
from pathlib import Path
from lib.errors import UserError
from lib.evidence.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
store = Store(Path({str(store.folder.parent)!r}))
try:
    store.put("loss", "b", {{}}, {{"long": "x" * 50_000}})
except UserError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True
    )
    assert done.stderr == "" and done.returncode == 0
    assert done.stdout.startswith("cannot write") and done.stdout.count("\n") == 1
    assert files(store) == before
    assert store.get("loss", "a", INPUTS) == VALUE


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        Store(tmp_path / "results").put("loss", "a", INPUTS, VALUE)


def test_a_folder_that_cannot_be_written_is_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.put("loss", "a", INPUTS, VALUE)

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(on_disk, "open", read_only, raising=False)
        patch.setattr(os, "rename", read_only)
        assert store.get("loss", "a", INPUTS) == VALUE
        with pytest.raises(UserError, match=r"^cannot write .*Read-only file system$"):
            store.put("loss", "b", INPUTS, VALUE)
        path.write_text("")
        with pytest.raises(UserError, match=r"cut off.*cannot be set aside: Read-only"):
            store.get("loss", "a", INPUTS)
    assert files(store) == {path.name}


def test_two_checkpoints_at_one_path_never_share_evidence(
    tmp_path: Path, results_dir: Path, build_dir: Path,
    tiny_checkpoint: Checkpoints, write_study: Studies,
) -> None:  # fmt: skip
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint("llama"), folder)
    opened = study.load(str(write_study(tmp_path, model="./model")))
    first = OpenStudy(opened).checkpoint
    assert OpenStudy(opened).checkpoint == first
    weights = folder / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    second = OpenStudy(opened).checkpoint
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps"', '"rms_norm_eps_"'))
    third = OpenStudy(opened).checkpoint
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert len({first, second, third, OpenStudy(opened).checkpoint}) == 4
