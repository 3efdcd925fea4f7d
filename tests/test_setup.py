"""The set-up of .venv: what a stopped one leaves is not taken for whole. Python and pip here are
stand-ins, so nothing is downloaded."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib import paths

PYTHON = """#!/bin/sh
if [ "$1" = -c ]; then exec {python} "$@"; fi
shift 2
mkdir -p "$1/bin"
echo made anew >>{log}
printf '#!/bin/sh\\n' >"$1/bin/python"; chmod +x "$1/bin/python"
{slow}
printf '#!/bin/sh\\n{pip}\\necho installed >>{log}\\n' >"$1/bin/pip"; chmod +x "$1/bin/pip"
"""
NEVER = "touch {folder}/waiting; sleep 60"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("Makefile", "setup.sh", "requirements.txt"):
        shutil.copy(paths.ROOT / name, tmp_path)
    return tmp_path


def interpreter(clone: Path, slow: str = "", pip: str = "") -> Path:
    """A Python whose environments, and their pip, take these steps, too."""
    python, log = clone / "python", clone / "log"
    told = {"slow": slow.format(folder=clone), "pip": pip.format(folder=clone)}
    python.write_text(PYTHON.format(python=sys.executable, log=log, **told))
    python.chmod(0o755)
    return python


def start(clone: Path, **steps: str) -> subprocess.Popen:
    return subprocess.Popen(
        ["make", ".venv/.ready", f"PYTHON={interpreter(clone, **steps)}"],
        cwd=clone, env=os.environ | {"MIN_FREE_GB": "0"}, start_new_session=True,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def stopped(clone: Path, **steps: str) -> None:
    process = start(clone, **steps)
    while not (clone / "waiting").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (clone / "waiting").unlink()


def said(process: subprocess.Popen) -> tuple[bool, str]:
    _, err = process.communicate(timeout=30)
    return process.returncode == 0, err


@pytest.mark.parametrize("where", ["slow", "pip"])
def test_an_environment_that_was_stopped_half_way_is_made_anew(clone: Path, where: str) -> None:
    stopped(clone, **{where: NEVER})
    assert (clone / ".venv/bin/python").exists() and not (clone / ".venv/.ready").exists()
    (clone / "log").unlink()
    assert said(start(clone))[0]
    assert (clone / "log").read_text() == "made anew\ninstalled\ninstalled\n"
    assert {path.name for path in (clone / ".venv").iterdir()} == {"bin", ".ready"}
    assert said(start(clone))[0]
    assert (clone / "log").read_text().count("\n") == 3  # it is whole: nothing to do


def theirs(clone: Path, pip: str) -> Path:
    """An environment that the user has made, with such a pip."""
    python = interpreter(clone, pip=pip)
    subprocess.run([python, "-m", "venv", clone / ".venv"], check=True)
    (clone / ".venv/theirs").touch()
    return clone / ".venv"


def test_an_environment_of_the_users_own_is_kept(clone: Path) -> None:
    folder = theirs(clone, pip="exit 1")
    assert not said(start(clone))[0]  # as without a network: nothing has changed
    assert {path.name for path in folder.iterdir()} == {"bin", "theirs"}
    shutil.rmtree(folder)
    theirs(clone, pip=NEVER)
    stopped(clone)
    done, err = said(start(clone))
    assert not done and "error: the set-up of .venv was stopped half way: delete the folder" in err
    assert (folder / "theirs").exists()


def test_an_environment_without_pip_is_one_line(clone: Path) -> None:
    (clone / ".venv/bin").mkdir(parents=True)
    shutil.copy("/bin/true", clone / ".venv/bin/python")
    done, err = said(start(clone))
    assert not done and "error: there is no pip in .venv: delete that folder and run again" in err


def test_containers_hold_what_a_run_needs() -> None:
    """Every folder of the repository that the code reads, and no address of an index."""
    definition = (paths.ROOT / "containers/book.def").read_text("utf-8")
    for name in ("almanac", "book", "commons", "lib", "notebooks", "profiles", "published"):
        assert f"    {name} /book/{name}\n" in definition
    for name in ("abilities", "studies", "tasks"):
        assert f"    {name} /book/{name}\n" in definition
    for name in ("Snakefile", "_config.yml", "_toc.yml", "CITATION.cff"):
        assert f"    {name} /book/{name}\n" in definition
    for file in ("containers/book.def", "containers/Dockerfile", "colab/two_sections.ipynb"):
        assert "http" not in (paths.ROOT / file).read_text("utf-8")
