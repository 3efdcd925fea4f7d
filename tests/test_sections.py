"""Sections: a notebook, a module of its name, and what follows from what the module says."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Studies

from lib import paths, study
from lib.book.plan import Planned
from lib.errors import UserError
from lib.experiments.conditions import unpruned
from lib.experiments.opened import OpenStudy
from lib.sections import section
from lib.sections.section import Section, Table


def test_every_notebook_has_a_module_and_a_page() -> None:
    assert section.names()[0] == "at_a_glance"
    assert {path.stem for path in paths.NOTEBOOKS.glob("*.ipynb")} == {
        path.stem for path in section.notebooks().values()
    }
    for name in section.names():
        assert isinstance(section.load(name), Section)


def test_listing_sections_imports_none_of_them() -> None:
    code = "import sys; from lib.sections import section; section.names(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "pandas", "matplotlib"} & set(done.stdout.split())


def test_every_table_is_of_one_section_and_says_what_its_columns_hold() -> None:
    written = section.writers()
    assert written["qa"] == "qa_transitions" and written["text_blocks"] == "other_texts"
    assert "healing" not in written and section.tables()["healing"].published
    for table in section.tables().values():
        assert table.row and all(table.columns.values()), table.name


def test_a_section_waits_for_all_that_its_claims_read() -> None:
    assert section.reads("loss") == ["qa_transitions"]
    assert section.reads("strategies") == ["qa_transitions", "loss"]
    assert section.reads("what_it_writes") == []
    everything = set(section.reads("verdicts"))
    assert everything == set(section.reads("at_a_glance")) == set(section.reads("controls"))
    assert everything - {"families"} == set(section.reads("families"))
    assert everything == {
        section.writers()[table]
        for claim in section.every_claim()
        for table in section.claim_reads(claim)
    }


@pytest.mark.parametrize("healing", ["none", {"recipe": "lora"}])
def test_a_section_that_draws_the_unpruned_model_needs_it(
    healing: object, tmp_path: Path, write_study: Studies
) -> None:
    opened = OpenStudy(study.load(str(write_study(tmp_path, healing=healing))))
    opened = Planned(opened.study, opened.config)
    drawn = [
        path.stem.partition("_")[2]
        for path in section.notebooks().values()
        if "levels(opened" in path.read_text("utf-8")
    ]
    assert {"lora_rank", "healing_seeds", "teacher"} <= set(drawn)
    for name in drawn:
        assert unpruned(opened) in section.load(name).conditions(opened)[""], name


def test_a_claims_card_stands_on_the_page_of_its_section() -> None:
    """What notebooks show is what links lead to; no card stands twice."""
    shown = []
    for name, path in section.notebooks().items():
        for of in re.findall(r"pages\.verdicts\(opened, ([^)]*)\)", path.read_text("utf-8")):
            own = section.load(name).claims
            ids = own if of.endswith("SECTION.claims") else json.loads(of.replace("\\", ""))
            assert {section.home(claim) for claim in ids} == {path}
            shown += ids
    assert len(shown) == len(set(shown))
    others = set(section.every_claim()) - set(shown)
    assert all(section.home(claim) is None for claim in others)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sections: a notebook, a module and a line of _toc.yml each."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "lib/sections").mkdir(parents=True)
    pages = [f"  - file: notebooks/{stem}" for stem in ("02_second", "first")]
    (tmp_path / "_toc.yml").write_text("\n".join(["root: book/intro", "chapters:", *pages]))
    for stem in ("02_second", "first"):
        (tmp_path / f"notebooks/{stem}.ipynb").write_text("{}")
        module = tmp_path / f"lib/sections/{stem.removeprefix('02_')}.py"
        module.write_text("SECTION = Section()\n")
    (tmp_path / "lib/sections/figures.py").write_text("GREY = 0.5\n")
    return tmp_path


def test_sections_come_in_the_order_of_the_contents(house: Path) -> None:
    assert section.names() == ["second", "first"]


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("notebooks/first.ipynb", "_toc.yml: notebooks/first: there is no notebooks/first.ipynb"),
        (
            "lib/sections/second.py",
            "notebooks/02_second.ipynb: there is no lib/sections/second.py with a SECTION",
        ),
    ],
)
def test_half_a_section_is_refused(house: Path, gone: str, message: str) -> None:
    (house / gone).unlink()
    with pytest.raises(UserError) as error:
        section.names()
    assert str(error.value) == message


def test_a_section_that_the_contents_do_not_list_is_refused(house: Path) -> None:
    (house / "lib/sections/third.py").write_text("SECTION = Section()\n")
    with pytest.raises(UserError, match=r"third\.py: there is no notebook 'third' in notebooks/"):
        section.names()
    (house / "notebooks/03_third.ipynb").write_text("{}")
    with pytest.raises(UserError, match=r"03_third\.ipynb: _toc\.yml does not list it"):
        section.names()


def test_a_module_that_is_no_section_is_refused() -> None:
    with pytest.raises(UserError, match=r"section nowhere: there is no lib/sections/nowhere\.py"):
        section.load("nowhere")
    with pytest.raises(UserError, match=r"lib/sections/comparisons\.py has no SECTION"):
        section.load("comparisons")


def test_tables_that_nobody_or_two_sections_write_are_refused(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Table("one", lambda opened: None, "a row", {"a": "b"})
    sections = {"second": Section(tables=(one,)), "first": Section(reads=("two",))}
    monkeypatch.setattr(section, "load", sections.get)
    with pytest.raises(UserError) as error:
        section.reads("first")
    line = "section first: reads table 'two', which no section writes; there are one"
    assert str(error.value) == line
    sections["first"] = Section(claims=("gromov-7",))
    with pytest.raises(UserError, match="gromov-7: reads table 'angular_distances', which no"):
        section.reads("first")
    sections["first"] = Section(tables=(dataclasses.replace(one),))
    with pytest.raises(UserError, match="section first: table 'one' is of section second already"):
        section.writers()
