"""The whole way, in a copy of the repository: a small study through every section to the site."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from clones import copied

from lib import paths
from lib.sections import section

MORE = ("\n\n\ndef ", "\n\n\nMORE = 1\n\n\ndef ")  # code before the first function


def environment() -> dict[str, str]:
    """As a user has it: results go into the copy."""
    return {key: value for key, value in os.environ.items() if key != "RESULTS_DIR"}


def run(copy: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "lib.run", *arguments],
        cwd=copy,
        env=environment(),
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The repository's files as git would hand them over, and the smoke study's book built."""
    folder = copied(tmp_path_factory.mktemp("clone"))
    done = run(folder, "book", "--study", "smoke")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_table_has_its_columns_and_every_value_a_standard_error(copy):
    for name in section.writers():
        table = pd.read_csv(copy / f"results/smoke/tables/{name}.csv")
        assert set(table.columns) == set(section.tables()[name].columns), name
        assert len(table) > 0
        if "stderr" in table:
            assert table["stderr"].notna().all() and (table["stderr"] >= 0).all()


def test_tables_hold_every_block_and_the_controls(copy):
    distances = pd.read_csv(copy / "results/smoke/tables/angular_distances.csv")
    assert len(distances) == sum(16 - n + 1 for n in range(1, 16))
    qa = pd.read_csv(copy / "results/smoke/tables/qa.csv")
    unpruned = qa[qa["n"] == 0]
    assert set(zip(unpruned["weights"], unpruned["healing"], strict=True)) == {
        ("float32", "none"), ("nf4", "none"), ("nf4", "qlora-r4"),
    }  # fmt: skip
    assert (unpruned["strategy"] == "none").all() and (unpruned["stop"] == 0).all()


def test_the_site_is_whole_and_fetches_nothing(copy):
    html = copy / "_build/html"
    pages = [html / f"studies/smoke/{path.stem}.html" for path in paths.sections().values()]
    others = {path.stem for path in (html / "studies").rglob("*.html")} - {p.stem for p in pages}
    assert others == {"00_at_a_glance", "14_verdicts"}  # which lead to where these are now
    for page in [*pages, html / "index.html", html / "book/method.html"]:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"(https?:)?//", text)
        fetched += re.findall(r"<link[^>]*rel=\"stylesheet\"[^>]*href=\"(https?:)?//", text)
        assert not fetched, page
        assert "Traceback" not in text
    figures = [page for page in pages if "<figure" in page.read_text(encoding="utf-8")]
    assert len(figures) == 14
    for page in figures:
        for image in re.findall(r"<img[^>]*_images[^>]*>", page.read_text(encoding="utf-8")):
            assert re.search(r'alt="[^"]{20,}"', image), page


def pending(copy: Path) -> set[str]:
    """What a dry run lists, but for jobs that wait for others and may have nothing to do."""
    done = run(copy, "book", "--study", "smoke", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "jobs; estimated" in done.stdout or "up to date" in done.stdout, done.stdout
    lines = [line for line in done.stdout.splitlines() if not line.endswith("changes")]
    found = re.findall(r"^(section \w+|the site|models of section \w+) ", "\n".join(lines), re.M)
    return {name.removeprefix("section ") for name in found}


@contextmanager
def changed(path: Path, old: str, new: str) -> Iterator[None]:
    whole = path.read_text("utf-8")
    assert old in whole
    path.write_text(whole.replace(old, new, 1), "utf-8")
    try:
        yield
    finally:
        path.write_text(whole, "utf-8")


def test_every_job_left_its_note_and_a_line_about_its_run(copy):
    runs = (copy / "results/smoke/jobs/runs.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in runs]
    assert {one["job"] for one in found} >= {
        "choices", "models-qa_transitions", "section-loss", "section-verdicts", "site",
    }  # fmt: skip
    for one in found:
        assert one["ended"] == "well" and one["seconds"] > 0 and one["peak_memory_bytes"] > 1e8
        assert one["threads"] >= 1 and one["processor"]
    assert (copy / "_build/logs/smoke/models-qa_transitions.log").exists()


def test_a_date_or_a_commit_makes_nothing_pending(copy):
    for path in [*copy.glob("lib/*.py"), *copy.glob("notebooks/*"), *copy.glob("studies/*")]:
        os.utime(path)
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "lib"], [*who, "commit", "-qm", "new"]):
        subprocess.run(["git", *arguments], cwd=copy, check=True)
    assert pending(copy) == set()


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        # Readers see a notebook's comments; nothing else reads them.
        ("notebooks/03_loss.ipynb", "loss.loss_panel(", "# so\\nloss.loss_panel(", {"03_loss"}),
        ("lib/sections/other_texts.py", "\n\n\ndef ", "\n\n\n# so\ndef ", set()),
        ("lib/sections/other_texts.py", *MORE, {"08_other_texts"}),
        ("lib/sections/families.py", *MORE, {"12_families"}),
        ("lib/export.py", *MORE, None),
        (
            *("results/smoke/tables/cost.csv", "nf4", "nf5"),
            {"12_families", "13_controls", "verdicts", "at_a_glance"},
        ),
    ],
    ids=["notebook", "comment", "helper of one section", "of another", "of none", "a table"],
)  # fmt: skip
def test_what_a_change_makes_pending(copy, file, old, new, expected):
    with changed(copy / file, old, new):
        found = pending(copy)
    assert found == (expected | {"the site"} if expected else set())


def test_a_changed_helper_runs_its_section_again_and_no_other(copy):
    executed = {
        path: path.stat().st_mtime_ns for path in copy.glob("_build/executed/smoke/*.ipynb")
    }
    with changed(copy / "lib/sections/other_texts.py", *MORE):
        done = run(copy, "book", "--study", "smoke")
        assert done.returncode == 0, done.stderr
        again = [path.stem for path in executed if path.stat().st_mtime_ns != executed[path]]
        assert again == ["08_other_texts"]
        assert pending(copy) == set()
    assert pending(copy) == {"08_other_texts", "the site"}  # as it was before is another change


def test_a_second_run_beside_the_first_is_refused(copy):
    with open(copy / "_build/lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("process 7, since noon")
        held.flush()
        done = run(copy, "book", "--study", "smoke")
    assert done.returncode == 1
    assert done.stderr.startswith("error: another run is going on in this clone (process 7")
    assert done.stderr.count("\n") == 1


def test_results_of_another_checkpoint_are_left_alone(copy):
    with changed(copy / "results/smoke/checkpoint.json", '"checkpoint": "', '"checkpoint": "x'):
        done = run(copy, "book", "--study", "smoke", "--dry-run")
    assert done.returncode == 1
    assert "belongs to another checkpoint" in done.stderr and "RESULTS_DIR" in done.stderr


def test_an_edited_record_is_named_set_aside_and_measured_again(copy):
    record = sorted((copy / "results/smoke/evidence/loss").glob("*.json"))[0]
    whole = record.read_text()
    record.write_text(re.sub(r'"loss": (\d)', r'"loss": 9\1', whole, count=1))
    table = copy / "results/smoke/tables/loss.csv"
    before = table.read_text()
    done = run(copy, "03", "--study", "smoke")
    assert done.returncode == 0
    assert record.name in done.stderr and "edited" in done.stderr
    assert len(list(record.parent.glob(f"{record.stem}.*.damaged"))) == 1
    assert table.read_text() == before


def test_stopped_by_ctrl_c_the_next_run_goes_on(copy):
    results = copy / "results/smoke"
    for path in (results / "jobs/models-qa_transitions.json", results / "evidence/qa"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    process = subprocess.Popen(
        [sys.executable, "-m", "lib.run", "book", "--study", "smoke", "--sections", "02"],
        cwd=copy, env=environment(), stderr=subprocess.PIPE, text=True,
        # A shell that starts tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    folder = copy / "results/smoke/evidence/qa"
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, stderr = process.communicate(timeout=30)
    assert time.monotonic() - start < 15
    assert process.returncode == 130
    assert "the next run goes on" in stderr and "Traceback" not in stderr
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert len(kept) >= 3
    assert run(copy, "book", "--study", "smoke", "--sections", "02").returncode == 0
    assert all(path.stat().st_mtime_ns == moment for path, moment in kept.items())


def test_plain_papermill_runs_a_section_too(copy):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "papermill", "--no-progress-bar"),
            *("notebooks/01_angular_distances.ipynb", "out.ipynb", "-p", "study", "smoke"),
        ],
        cwd=copy, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_section_that_fails_says_where_and_the_rest_goes_on(copy):
    notebook = copy / "notebooks/03_loss.ipynb"
    with changed(notebook, "loss.loss_panel(", "raise ValueError('no ink')\\nloss.loss_panel("):
        done = run(copy, "book", "--study", "smoke", "--sections", "03,09")
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "section 03_loss of study smoke failed in cell" in line and "no ink" in line
    assert "03_loss.ipynb" in line and "Traceback" not in done.stderr
    assert "no ink" in (copy / "_build/logs/smoke/03_loss.ipynb").read_text()
    assert (copy / "_build/executed/smoke/09_what_it_saves.ipynb").exists()
    assert "what was measured is kept" in done.stderr
