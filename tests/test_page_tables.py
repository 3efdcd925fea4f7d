"""The tables that pages include: which there are, when they are made, and without torch."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from run_records import run, write

from lib import paths
from lib.book import page_tables, published_verdicts
from lib.errors import UserError
from lib.words import amount, percent, plain, power_of_ten, size, spoken


def test_the_site_is_built_without_torch() -> None:
    code = "import sys, lib.book.site; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT).returncode == 0


def test_pages_include_what_is_written_and_it_is_made_once(
    tmp_path: Path,
    build_dir: Path,
    results_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []

    def here(command: list[str], **_: Any) -> subprocess.CompletedProcess:
        made.append(command[3])
        if len(made) > 1:  # the same again would take as long
            shutil.copytree(tmp_path / "first", command[-1])
            return subprocess.CompletedProcess(command, 0)
        return subprocess.CompletedProcess(command, page_tables.main(command[-1:]))

    monkeypatch.setattr(subprocess, "run", here)
    monkeypatch.setattr(page_tables.sources, "helpers", lambda names: code)
    code = "of before"
    page_tables.write(tmp_path / "first")
    pages = (paths.ROOT / "book").glob("*.md")
    text = "".join(page.read_text("utf-8") for page in pages)
    included = re.findall(r"\{include\} tables/(\w+)\.md", text)
    written = {path.stem for path in (tmp_path / "first").iterdir()}
    assert sorted(included) == sorted(written)
    assert "{include} tables/status.txt" in text  # that of the studies the site writes
    text = (tmp_path / "first/cost_runs.md").read_text().replace("\xa0", " ")
    assert "| published |" in " ".join(text.split())

    write(results_dir / "a|b <c>", run("site", 90.0))
    page_tables.write(tmp_path / "second")
    assert made == ["lib.book.page_tables"]  # what runs took needs no other process
    row = (tmp_path / "second/cost_runs.md").read_text().splitlines()[2].replace("\xa0", " ")
    row = " ".join(row.split())  # as wide as the longest name
    assert row.startswith(r"| a\|b \<c\> |") and "| 90 s " in row

    code = "of now"
    page_tables.write(tmp_path / "third")
    assert len(made) == 2


def test_where_they_cannot_be_made_none_are_kept(
    tmp_path: Path, build_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    for _ in range(2):
        with pytest.raises(UserError, match="cannot be made"):
            page_tables.write(tmp_path / "tables")


def test_numbers_in_words() -> None:
    assert [amount(x) for x in (0, 0.0123, 1.25, 99.94, 100, 12345.6)] == [
        "0", "0.0123", "1.25", "99.9", "100", "12,300",
    ]  # fmt: skip
    assert [power_of_ten(x) for x in (312e12, 9.96e13)] == ["3.1 × 10¹⁴", "1.0 × 10¹⁴"]
    assert [size(x) for x in (0, 1500, 3.5e6, 138e9, 2e12)] == [
        "0 kB", "1.5 kB", "3.5 MB", "138 GB", "2 TB",
    ]  # fmt: skip
    assert [spoken(x) for x in (0, 119, 120, 7200, 172_800)] == [
        "0 s", "119 s", "2.0 min", "2.0 h", "2.0 days",
    ]  # fmt: skip
    assert [percent(x) for x in (0.125, 1.0)] == ["12.5%", "100%"]
    assert plain("a|b\n*d*") == r"a\|b \*d\*"


def test_published_runs_of_real_models_stand_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims that none of them tests are left out, and so are runs of other models."""
    monkeypatch.setattr(published_verdicts.paths, "published", lambda name: tmp_path / name)
    assert published_verdicts.tables() == {"real": []}
    rows = {
        "one": ("a real model, whole", ["reproduced", "not testable here"]),
        "two": ("a real model", ["not testable here", "not testable here"]),
        "toy": ("a made-up world", ["reproduced", "reproduced"]),
    }
    for name, (sign, verdicts) in rows.items():
        (tmp_path / name / "tables").mkdir(parents=True)
        (tmp_path / name / "study.json").write_text(json.dumps({"title": name, "sign": sign}))
        lines = [f"gromov,{number},words {number},{one}" for number, one in enumerate(verdicts, 1)]
        text = "\n".join(["paper,claim,statement,verdict", *lines])
        (tmp_path / name / "tables" / "verdicts.csv").write_text(text)
    assert published_verdicts.tables()["real"] == [
        {"claim": "gromov-1", "what it says": "words 1", "one": "reproduced"}
        | {"two": "not testable here"}
    ]
