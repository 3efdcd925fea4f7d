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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import additions
import clones
import pandas as pd
import pytest

from lib import paths
from lib.book import warm
from lib.sections import section

PUBLISHED = {"almanac", "smollm2-135m-instruct"}  # two are as many as it takes
COPIED = ("-m", "lib.book.warm")
MORE = ("\n\n\ndef ", "\n\n\nMORE = 1\n\n\ndef ")  # code before the first function


def environment() -> dict[str, str]:
    """As a user has it: results go into the copy, and all cores are there."""
    gone = {*clones.OURS, "OMP_NUM_THREADS", "MKL_NUM_THREADS", warm.ADDRESS}
    return {key: value for key, value in os.environ.items() if key not in gone}


def run(copy: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    return called(copy, "-m", "lib.run", *arguments, **more)


def called(copy: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env=environment() | more,
        capture_output=True,
        text=True,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(at.relative_to(folder)): at.read_bytes() for at in tree(folder)}


def tree(folder: Path) -> list[Path]:
    return [at for at in folder.rglob("*") if at.is_file() and "__pycache__" not in at.parts]


def touched(folder: Path, add: Callable[[Path], None]) -> set[str]:
    """The files that an addition writes or changes."""
    before = files(folder)
    add(folder)
    after = files(folder)
    assert before.keys() <= after.keys()
    return {name for name in after if after[name] != before.get(name)}


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> tuple[Path, dict[str, set[str]]]:
    """The repository's files as git would hand them over, with a section, a strategy, a recipe and
    a paper added, a strategy that stands outside, and odd names; and which files each addition
    touched."""
    folder = clones.copied(tmp_path_factory.mktemp("clone") / additions.CLONE)
    counts = {
        "section": touched(folder, additions.add_section),
        "paper": touched(folder, additions.add_paper),
        "strategy": touched(folder, additions.add_strategy),
        "recipe": touched(folder, additions.add_recipe),
    }
    own = tmp_path_factory.mktemp("outside")
    additions.compare_strategies(folder / "studies/smoke.yaml", own)
    additions.name_oddly(folder / "studies/smoke.yaml", own)
    for name in {path.name for path in folder.glob("published/*/")} - PUBLISHED:
        shutil.rmtree(folder / "published" / name)
    fits = folder / "lib/statistics/transitions.py"  # which take a quarter of the time
    fits.write_text(fits.read_text("utf-8").replace("RESAMPLES = 200", "RESAMPLES = 10"), "utf-8")
    return folder, counts


@pytest.fixture(scope="module")
def copy(bare) -> Path:
    """The copy with the smoke study's book built."""
    folder, _ = bare
    done = run(folder, "book", "--study", "smoke")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def warmed(copy) -> Iterator[dict[str, str]]:
    """The environment of runs and commands in the copy that need not import everything anew."""
    words = "import os, sys\nfrom lib.book import warm\nwarm.start()\n"
    words += "print(os.environ[warm.ADDRESS], flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", words], cwd=copy, env=environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        yield {warm.ADDRESS: process.stdout.readline().strip()}
        process.stdin.close()


def test_what_is_added_is_a_file_or_two(bare):
    _, counts = bare
    assert counts == {
        "section": {
            "notebooks/15_layer_norms.ipynb", "lib/sections/layer_norms.py", "_toc.yml",
        },
        "paper": {"lib/claims/somebody.py"},
        "strategy": {"lib/pruning/strategies/every_other.py"},
        "recipe": {"lib/healing/recipes/norms.py"},
    }  # fmt: skip


def test_an_added_section_is_run_shown_published_and_compared(copy, warmed):
    runs = (copy / "results/smoke/jobs/runs.jsonl").read_text()
    assert '"section-layer_norms"' in runs
    table = pd.read_csv(copy / "results/smoke/tables/layer_norms.csv")
    assert list(table["layer"]) == list(range(16)) and (table["norm"] > 0).all()
    page = (copy / "_build/html/studies/smoke/15_layer_norms.html").read_text("utf-8")
    assert "How large are the layers?" in page and "The largest layer is at least" in page
    columns = (copy / "_build/html/book/method.html").read_text("utf-8")
    assert "layer_norms" in columns and "sum of the norms of its weights" in columns
    fine = called(copy, *COPIED, "lib.run", "book", "--study", "smoke", "--plan", **warmed)
    assert fine.returncode == 0, fine.stderr
    done = called(copy, *COPIED, "lib.run", "publish", "--study", "smoke", **warmed)
    assert done.returncode == 0, done.stderr
    published = copy / "published/smoke"
    assert (published / "tables/layer_norms.csv").read_text() == (
        copy / "results/smoke/tables/layer_norms.csv"
    ).read_text()
    assert '"kind": "norms"' in (published / "evidence.jsonl").read_text("utf-8")
    cell = published / "tables/layer_norms.csv"
    with changed(cell, "\n0,", "\n0,1"):
        done = called(copy, *COPIED, "lib.compare", "--study", "smoke", **warmed)
    assert "norms" in done.stdout and "somebody 1" in done.stdout
    assert done.returncode == 1 and "layer_norms.csv" in done.stdout
    shutil.rmtree(published)


def test_an_added_paper_stands_under_its_own_heading(copy):
    page = (copy / "_build/html/studies/smoke/verdicts.html").read_text("utf-8")
    assert page.index("Unreasonable Ineffectiveness") < page.index("Layers have norms")
    verdicts = pd.read_csv(copy / "results/smoke/tables/verdicts.csv")
    (row,) = verdicts[verdicts["paper"] == "somebody"].itertuples()
    assert (row.claim, row.verdict) == (1, "reproduced")


@pytest.mark.parametrize("name", ["every-other", "mine"])
def test_added_strategies_are_in_tables_evidence_and_commands(copy, warmed, tmp_path, name):
    qa = pd.read_csv(copy / "results/smoke/tables/qa.csv", keep_default_na=False)
    rows = qa[(qa["strategy"] == name) & (qa["n"] == 8)]
    assert set(rows["state"]) == {"unhealed", "control", "healed"}
    (dropped,) = set(rows["dropped"])
    layers = [int(layer) for layer in dropped.split()]
    assert len(layers) == 8
    if name == "every-other":
        assert layers == list(range(0, 16, 2)) and set(rows["start"]) == {""}
        found = [json.loads(at.read_text()) for at in copy.glob("results/smoke/evidence/qa/*")]
        assert any(record["inputs"].get("layers") == layers for record in found)
    else:
        (scores,) = (copy / "results/smoke/evidence/scores").glob("mine-*.json")
        record = json.loads(scores.read_text())
        ranked = sorted(range(16), key=lambda i: (record["value"]["scores"][i], -i))
        assert layers == sorted(ranked[:8]) and len(record["inputs"]["code"]) == 64
    page = (copy / "_build/html/studies/smoke/04_strategies.html").read_text("utf-8")
    assert name in page
    commands = {
        "every-other": ["lib.pruning.on_disk", "almanac/checkpoint", str(tmp_path / "out")],
        "mine": ["lib.export", str(tmp_path / "out")],
    }
    words = [*commands[name], "--strategy", name, "8", "--study", "smoke"]
    done = called(copy, *COPIED, *words, **warmed)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["num_hidden_layers"] == 8


def test_an_added_recipe_is_healed_kept_restored_exported_and_planned(copy, tmp_path):
    study = tmp_path / "norms.yaml"
    study.write_text(
        f"like: {json.dumps(str(copy / 'studies/almanac.yaml'))}\n"
        "healing: {recipe: norms, steps: 3, batch: 4, length: 32, fractions: [0.5]}\n"
        "what_to_train: {recipes: []}\nstep_by_step: {strategies: []}\non_what: {recipes: []}\n"
    )
    done = called(copy, "-c", additions.USE_RECIPE, str(study), str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "norms" in done.stdout
    assert "`norms`: the norms" in (tmp_path / "out/README.md").read_text()


def test_every_table_has_its_columns_and_every_value_a_standard_error(copy):
    assert not (copy / "results/smoke/tables/perplexity.csv").exists()  # the study names no text
    for name in section.writers().keys() - {"perplexity"}:
        table = pd.read_csv(copy / f"results/smoke/tables/{name}.csv")
        assert set(table.columns) == set(section.tables()[name].columns), name
        assert len(table) > 0, name
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
    # The added one, and two that lead to where the pages are now.
    assert others == {"15_layer_norms", "00_at_a_glance", "14_verdicts"}
    for page in [*pages, html / "index.html", html / "book/method.html"]:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"(https?:)?//", text)
        fetched += re.findall(r"<link[^>]*rel=\"stylesheet\"[^>]*href=\"(https?:)?//", text)
        assert not fetched, page
        assert "Traceback" not in text
    assert additions.names_misread(html / "studies/smoke") == []
    figures = [page for page in pages if "<figure" in page.read_text(encoding="utf-8")]
    assert len(figures) == 23
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


def test_a_date_a_commit_and_code_that_nothing_uses_make_nothing_pending(copy):
    for path in [*copy.glob("lib/*.py"), *copy.glob("notebooks/*"), *copy.glob("studies/*")]:
        os.utime(path)
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "lib"], [*who, "commit", "-qm", "new"]):
        subprocess.run(["git", *arguments], cwd=copy, check=True)
    comment = ("\n\n\ndef ", "\n\n\n# so\ndef ")
    with (
        changed(copy / "lib/sections/other_texts.py", *comment),
        changed(copy / "lib/export.py", *MORE),
    ):
        assert pending(copy) == set()


def test_what_changes_make_pending(copy):
    """A notebook's comments are read by readers; a table by those that show it."""
    with (
        changed(copy / "notebooks/03_loss.ipynb", "loss.loss_panel(", "# so\\nloss.loss_panel("),
        changed(copy / "lib/sections/what_it_writes.py", *MORE),
        changed(copy / "results/smoke/tables/cost.csv", "nf4", "nf5"),
    ):
        assert pending(copy) == {
            *("03_loss", "10_what_it_writes"),
            *("12_families", "13_controls", "verdicts", "what_it_means"),
            *("at_a_glance", "the site"),
        }


def test_a_second_run_beside_the_first_is_refused(copy):
    with open(copy / "_build/lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("process 7, since noon")
        held.flush()
        done = run(copy, "book", "--study", "smoke")
    assert done.returncode == 1
    assert done.stderr.startswith("error: another run is going on in this clone (process 7")
    assert done.stderr.count("\n") == 1


def of_section_02(record: Path) -> bool:
    """Whether it is of a model healed as the study says: at its fraction, one half, with its own
    seed, and plainly."""
    inputs = json.loads(record.read_text())["inputs"]
    healing, (start, stop) = inputs["healing"], inputs.get("block", (0, 0))
    plain = (healing["seed"], healing["steps"], "teacher" in healing) == (0, 2, False)
    return plain and stop - start == 8 and "repair" not in inputs


def test_after_ctrl_c_the_next_run_goes_on_and_an_edited_record_is_measured_again(copy, warmed):
    results = copy / "results/smoke"
    folder = results / "evidence/qa"
    gone = list(folder.glob("*_0-shot_drop_*_none-*.json"))
    for path in (results / "jobs/models-qa_transitions.json", *gone):
        path.unlink()
    left = len(list(folder.iterdir()))
    process = subprocess.Popen(
        [sys.executable, "-m", "lib.run", "book", "--study", "smoke", "--sections", "02"],
        cwd=copy, env=environment() | warmed, stderr=subprocess.PIPE, text=True,
        # A shell that starts tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*.json"))) < left + 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, stderr = process.communicate(timeout=30)
    assert time.monotonic() - start < 15
    assert process.returncode == 130
    assert "the next run goes on" in stderr and "Traceback" not in stderr
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert left + 3 <= len(kept) < left + len(gone)
    record = next(filter(of_section_02, folder.glob("*_0-shot_drop_*_qlora-r4-*.json")))
    record.write_text(record.read_text().replace('"accuracy": ', '"accuracy": 1', 1))
    del kept[record]
    table = results / "tables/qa.csv"
    before = table.read_text()
    done = run(copy, "book", "--study", "smoke", "--sections", "02", **warmed)
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == moment for path, moment in kept.items())
    said = "".join(path.read_text() for path in copy.glob("_build/logs/smoke/*.log"))
    assert f"{record.name}: edited" in said
    assert len(list(folder.glob(f"{record.stem}.*.damaged"))) == 1
    assert table.read_text() == before


def test_plain_papermill_runs_a_section_too(copy):
    words = ["notebooks/01_angular_distances.ipynb", "out.ipynb", "-p", "study", "smoke"]
    done = called(copy, "-m", "papermill", "--no-progress-bar", *words)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_changed_helper_runs_its_section_again_and_one_that_fails_says_where(copy, warmed):
    executed = {
        path: path.stat().st_mtime_ns for path in copy.glob("_build/executed/smoke/*.ipynb")
    }
    notebook, failing = copy / "notebooks/03_loss.ipynb", "raise ValueError('no ink')\\n"
    with changed(copy / "lib/sections/other_texts.py", *MORE):
        with changed(notebook, "loss.loss_panel(", f"{failing}loss.loss_panel("):
            done = run(copy, "book", "--study", "smoke", "--sections", "03,08", **warmed)
        assert done.returncode != 0
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert "section 03_loss of study smoke failed in cell" in line and "no ink" in line
        assert "03_loss.ipynb" in line and "Traceback" not in done.stderr
        assert "no ink" in (copy / "_build/logs/smoke/03_loss.ipynb").read_text()
        assert "what was measured is kept" in done.stderr
        left = {path: path.stat().st_mtime_ns for path in executed if path.exists()}
        again = [path.stem for path in left if left[path] != executed[path]]
        assert again == ["08_other_texts"] and len(left) == len(executed) - 1
        assert pending(copy) == {"03_loss", "the site"}
