"""Names are free: whatever a text, task, title, folder or clone is called, it stays what it is on
its way through figures, pages, tables, Snakemake and the site."""

import ast
import io
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from conftest import Studies
from matplotlib import pyplot as plt
from snakemake.cli import parse_config
from snakemake.common import dict_to_key_value_args

from lib import paths, run, study
from lib.book import page_labels, scheduler
from lib.book.configuration import configuration
from lib.claims.rules import reading
from lib.errors import UserError
from lib.experiments.opened import OpenStudy
from lib.schema import Study
from lib.sections import figures, other_texts, pages, tables

NAMES = [
    "from $5 to $10", "cost $5_$", r"\$x\$ \(y\)", "100 $% of $", "a #1", "a: b", "x[2]", "{x} {0}",
    "it's", 'say "hi" & <b>', "_hidden", "*bold* `code` |", "模型 ё é", "NA", "null", "007", "1e5",
]  # fmt: skip


@pytest.fixture(autouse=True)
def styled() -> Any:
    with plt.rc_context():
        figures.style()
        yield
    plt.close("all")


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_shows_a_name_as_it_is(name: str) -> None:
    """In a title, on an axis, on a tick and in a legend, each drawn as text."""
    figure, panels = figures.grid(1, 1, 3, 3)
    axes = panels[0, 0]
    axes.plot([0, 1], [0, 1], label=figures.legend_name(name))
    axes.set(title=name, xlabel=name)
    axes.set_xticks([0], [name])
    figures.shared_legend(figure, panels)
    figure.canvas.draw()
    (entry,) = figure.legends[0].get_texts()
    assert entry.get_text().strip("\N{THIN SPACE}") == name
    drawn = [axes.title, axes.xaxis.label, axes.get_xticklabels()[0], entry]
    assert not any(text.get_parse_math() for text in drawn)


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_holds_a_name_as_text(name: str) -> None:
    """To be found and read aloud, in the reader's fonts: also what that of the figures lacks."""
    figure, panels = figures.grid(1, 1, 3, 3)
    panels[0, 0].set_title(name)
    file = io.StringIO()
    figure.savefig(file, format="svg")
    drawing = ElementTree.fromstring(file.getvalue())
    texts = list(drawing.iter("{http://www.w3.org/2000/svg}text"))
    assert name in ["".join(text.itertext()) for text in texts]
    assert all("'DejaVu Sans', 'Verdana', sans-serif" in text.get("style") for text in texts)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_shows_a_name_as_it_is(name: str) -> None:
    """As text, and where MathJax does not look for mathematics."""
    table = pd.DataFrame({"task": [name]})
    for html in (pages.show(table), pages.show(table, words=True), pages.key_numbers({name: name})):
        page = BeautifulSoup(html.data, "html.parser")
        found = page.find_all(string=name)
        assert found
        for one in found:
            assert one.find_parent(class_="mathjax_ignore")


@pytest.mark.parametrize("name", NAMES)
def test_the_sign_of_a_page_shows_names_as_they_are(name: str) -> None:
    opened = OpenStudy(Study(name="mine", model="x", title=name, sign=name))
    page = BeautifulSoup(pages.sign(opened).data, "html.parser")
    assert [one.name for one in page.find_all()] == ["p", "strong"]
    assert "mathjax_ignore" in page.p["class"]
    sign, title = page.p.strong.text, page.p.text.removeprefix(page.p.strong.text)
    assert sign in (name, name[0].upper() + name[1:]) and title == f": {name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_table_gives_a_name_back_as_it_is(tmp_path: Path, name: str) -> None:
    made = pd.DataFrame(
        {column: [name, "other"] for column in reading.NAMES} | {"n": [1, None], "state": "healed"}
    )
    tables.write(tmp_path / "qa.csv", made)
    found = reading.Tables(tmp_path).qa
    pd.testing.assert_frame_equal(found, made, check_dtype=False)
    assert found["n"].dtype == "float64"


FOLDERS = [
    "a #1",
    "a: b",
    "x[2]",
    "{é}",
    "it's",
    'say "hi"',
    "a=b",
    "模型 😀",
    "50%",
    "b\\s",
    "$HOME",
]


@pytest.mark.parametrize("folder", FOLDERS)
def test_snakemake_is_handed_the_path_of_a_study_as_it_is(
    tmp_path: Path, write_study: Studies, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """Read back as Snakemake reads it, and as its jobs do, to which it hands it on."""
    (tmp_path / folder).mkdir()
    path = write_study(tmp_path / folder)
    given: list[list[str]] = []
    monkeypatch.setattr(scheduler, "listing", lambda command, log: given.append([*command]) or 0)
    assert run.main(["book", "--dry-run", "--sections", "02", "--study", str(path)]) == 0
    (command,) = given
    after = command[command.index("--config") + 1 :]
    entries = after[: next((i for i, one in enumerate(after) if one.startswith("--")), len(after))]
    for _ in range(2):
        config = parse_config(entries)
        assert configuration(config).study == str(path)
        assert configuration(config).sections == ["qa_transitions"]
        entries = dict_to_key_value_args(config, repr_obj=True)


def test_a_profile_is_found_from_the_clone_whatever_that_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake takes the path of a profile for a pattern."""
    clone = tmp_path / "x[2] *?"
    for folder in (clone / "profiles/default", tmp_path / "own", tmp_path / "[own]"):
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("cores: 1\n")
    monkeypatch.setattr(paths, "ROOT", clone)
    assert run._profile(clone / "profiles/default") == "profiles/default"
    assert run._profile(tmp_path / "own") == "../own"
    with pytest.raises(UserError, match=r"no profile with \*, \? or \[ in its path"):
        run._profile(tmp_path / "[own]")


SHOWN = """
import sys
from pathlib import Path
from lib.book import graph, progress
from lib.book.graph import Graph, Job
names = {names!r}
jobs = [Job("mine", f"job-{{i}}", f"distances on {{name}}") for i, name in enumerate(names)]
by_name = {{job.name: job for job in jobs}}
found = Graph("mine", "", "", by_name, tuple(by_name))
graph.build = lambda *_: found
graph.begin = lambda _: None
progress.only_run = lambda *_: None
from snakemake.cli import main
main(["--dry-run", "--cores", "1", "--snakefile", {snakefile!r}, "--directory", {folder!r}])
"""


def test_snakemake_says_the_words_of_a_job_as_they_are(tmp_path: Path) -> None:
    script = SHOWN.format(
        names=NAMES, snakefile=str(paths.ROOT / "Snakefile"), folder=str(tmp_path)
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=paths.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in NAMES:
        assert f"distances on {name}, of study mine" in done.stderr + done.stdout


def named(*names: str) -> list[Study]:
    return [Study(name=name, model="x") for name in names]


def test_labels_of_two_studies_never_share_a_suffix() -> None:
    """Whatever order they come in; one of them keeps the address that it has alone."""
    names = ["my-model", "my_model", "My.Model", "my--model", "other", "My_Other", "MY-MODEL"]
    found = page_labels.suffixes(named(*names))
    assert len(set(found.values())) == len(names)
    assert found == page_labels.suffixes(named(*reversed(names)))
    assert (found["my-model"], found["other"], found["My_Other"]) == (
        "my-model",
        "other",
        "my-other",
    )
    assert page_labels.suffixes(named("my_model", "b")) == {"my_model": "my-model", "b": "b"}
    for suffix in found.values():
        assert page_labels.LABEL.fullmatch(f"fig-one-{suffix}")


def test_what_is_drawn_names_no_formula() -> None:
    """No module of sections writes mathematics for matplotlib, which takes all text as it is."""
    for path in (paths.ROOT / "lib/sections").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert "$" not in node.value, path


def test_a_study_in_such_a_folder_loads_by_its_path(tmp_path: Path, write_study: Studies) -> None:
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
        assert study.load(str(write_study(tmp_path / folder))).name == "mine"


def test_runs_may_be_called_as_columns_are() -> None:
    """In tables with a column per run, among others."""
    keys = pd.MultiIndex.from_tuples([("gromov", 1), ("gromov", 2)], names=["paper", "claim"])
    titles = ["statement", "claim", "paper"]
    wide = pd.DataFrame({title: [f"{title} {i}" for i in (1, 2)] for title in titles}, index=keys)
    found = pages.with_statements(wide, pd.Series(["A.", "B."], index=keys))
    assert [*found] == ["paper", "claim", "statement", *titles]
    assert found.iloc[1].to_list() == ["gromov", 2, "B.", "statement 2", "claim 2", "paper 2"]
    shown = BeautifulSoup(pages.show(found, words=True).data, "html.parser")
    cells = [cell.text for cell in shown.find_all("tr")[1].find_all("td")]
    assert cells == ["gromov", "1", "A.", "statement 1", "claim 1", "paper 1"]


def test_texts_may_be_called_as_columns_are() -> None:
    """The comparison of two texts comes out the same under other names."""
    rows = [(n, start) for n in (1, 2, 3) for start in range(5 - n)]

    def compared(*names: str) -> pd.DataFrame:
        distances = pd.DataFrame(
            [
                {"text": name, "n": n, "start": start, "distance": (3 * n + 5 * start + i) % 7}
                for i, name in enumerate(names)
                for n, start in rows
            ]
        ).assign(stderr=0.1)
        smallest = distances.groupby(["text", "n"], sort=False)["distance"].idxmin()
        found = other_texts.text_pairs(distances, distances.loc[smallest])
        return found.drop(columns=["text", "and"])

    pd.testing.assert_frame_equal(compared("n", "start"), compared("one", "two"))
