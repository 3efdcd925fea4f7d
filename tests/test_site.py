"""Staging executed notebooks for the site: which studies have pages, where, under which labels."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Studies

from lib import paths, study
from lib.book import page_labels, site
from lib.book.parts import run_here
from lib.errors import UserError

SOURCES = [path.name for path in paths.sections().values()]


def markdown(*lines: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": [line + "\n" for line in lines]}


def code(source: str, outputs: list[dict] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "metadata": metadata,
        "source": [source],
        "outputs": outputs or [],
        "execution_count": 1,
    }


def figure(name: str, caption: str = "A caption.") -> dict[str, Any]:
    return {"mystnb": {"figure": {"name": name, "caption": caption}}}


def notebook() -> dict[str, Any]:
    """As papermill leaves one, with a label of each kind and references to own and other ones."""
    stream = {"output_type": "stream", "text": ["10%\n"]}
    cells = [
        markdown("(sec-one)=", "# One", "See {ref}`sec-one`, {ref}`sec-other`, not sec-oneness."),
        code("study: str = 'x'", tags=["parameters", "remove-input"]),
        code("study = 'y'", tags=["injected-parameters"]),
        markdown("$$", "a = b", "$$ (eq-sum)", "as {eq}`eq-sum` and {numref}`fig-one` show"),
        code(
            "plots.draw()",
            [stream | {"name": "stderr"}, stream | {"name": "stdout"}, {"output_type": "error"}],
            **figure("fig-one", "Compare {numref}`fig-one` with {eq}`eq-sum` and fig-elsewhere."),
        ),
        code("x = 'fig-one'"),
    ]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def execute(
    build_dir: Path, results_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Put executed notebooks and tables of a study where the runner does."""
    monkeypatch.setattr(site, "STAGE", build_dir / "stage")

    def put(one: study.Study, leave_out: str = "", record: bool = True) -> None:
        for name in SOURCES:
            if name != leave_out:
                target = paths.executed(one.name, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(json.dumps(notebook()), encoding="utf-8")
        paths.tables(one.name).mkdir(parents=True)
        (paths.tables(one.name) / "verdicts.csv").write_text(one.name)
        if record:
            note = build_dir / "executed" / one.name / "study.json"
            note.write_text(json.dumps({"file": one.file}))

    return put


@pytest.fixture
def mine(tmp_path: Path, write_study: Studies) -> study.Study:
    return study.load(str(write_study(tmp_path, stem="My.Model_2", title="My model")))


@pytest.fixture
def default() -> study.Study:
    return study.load(paths.DEFAULT_STUDY)


def test_labels_are_those_that_a_notebook_declares() -> None:
    assert page_labels.labels(notebook()) == {"sec-one", "eq-sum", "fig-one"}
    assert (
        page_labels.labels({"cells": [markdown("See (sec-two)= here"), code("(sec-three)=")]})
        == set()
    )


def test_no_label_is_declared_twice() -> None:
    found = []
    for path in paths.sections().values():
        source = json.loads(path.read_text(encoding="utf-8"))
        declared = page_labels.labels(source)
        assert len(declared) > 0
        found += declared
        text = "\n".join("".join(c["source"]) for c in source["cells"])
        for label in declared:
            assert len(re.findall(rf"\({label}\)=|\$\$ \({label}\)", text)) <= 1
    for path in (paths.ROOT / "book").glob("*.md"):
        found += re.findall(r"^\((\S+)\)=|\$\$ \((\S+)\)", path.read_text("utf-8"), re.M)
    names = [name for item in found for name in ([item] if isinstance(item, str) else item) if name]
    assert len(names) == len(set(names))


def test_renaming_reaches_declarations_and_references_of_own_labels_only() -> None:
    renamed = notebook()
    page_labels.rename_labels(renamed, {"sec-one", "eq-sum", "fig-one"}, "mine")
    first, equation = ("".join(renamed["cells"][i]["source"]) for i in (0, 3))
    assert first == (
        "(sec-one-mine)=\n# One\nSee {ref}`sec-one-mine`, {ref}`sec-other`, not sec-oneness.\n"
    )
    assert "$$ (eq-sum-mine)" in equation
    assert "{eq}`eq-sum-mine` and {numref}`fig-one-mine`" in equation
    assert renamed["cells"][4]["metadata"]["mystnb"]["figure"] == {
        "name": "fig-one-mine",
        "caption": "Compare {numref}`fig-one-mine` with {eq}`eq-sum-mine` and fig-elsewhere.",
    }
    assert renamed["cells"][5] == notebook()["cells"][5]
    assert page_labels.labels(renamed) == {"sec-one-mine", "eq-sum-mine", "fig-one-mine"}


def test_two_studies_share_no_label_of_the_real_sections() -> None:
    for path in paths.sections().values():
        source = json.loads(path.read_text(encoding="utf-8"))
        own = page_labels.labels(source)
        other = copy.deepcopy(source)
        page_labels.rename_labels(other, own, "mine")
        assert page_labels.labels(other) == {f"{label}-mine" for label in own}


def test_tidying_removes_progress_bars_and_injected_parameters_only() -> None:
    tidied = notebook()
    site.tidy(tidied)
    before = notebook()["cells"]
    assert "remove-cell" in tidied["cells"][2]["metadata"]["tags"]
    outputs = tidied["cells"][4]["outputs"]
    assert [output.get("name") for output in outputs] == ["stdout", None]
    assert outputs == before[4]["outputs"][1:]
    for i in (0, 1, 3, 5):
        assert tidied["cells"][i] == before[i]


def test_the_default_study_comes_first(
    default: study.Study, mine: study.Study, execute: Callable[..., None]
) -> None:
    execute(mine)
    execute(default)
    assert [one.name for one in site.present(mine)] == [paths.DEFAULT_STUDY, "My.Model_2"]
    assert [one.name for one in site.present(default)] == [paths.DEFAULT_STUDY, "My.Model_2"]


def test_without_the_default_the_chosen_study_opens_the_book(
    mine: study.Study, execute: Callable[..., None]
) -> None:
    execute(mine)
    assert [one.name for one in site.present(mine)] == ["My.Model_2"]


def test_a_study_that_was_not_run_cannot_be_built(
    default: study.Study, mine: study.Study, execute: Callable[..., None]
) -> None:
    execute(default)
    with pytest.raises(UserError, match=r"study My.Model_2: not all of its sections"):
        site.build(mine)
    execute(mine, leave_out=SOURCES[0])
    with pytest.raises(UserError, match="not all of its sections"):
        site.build(mine)


@pytest.mark.parametrize("missing", ["a section", "the record", "the file", "the tables"])
def test_a_study_that_is_not_complete_has_no_pages(
    missing: str, default: study.Study, mine: study.Study, execute: Callable[..., None]
) -> None:
    execute(default)
    leave_out = SOURCES[-1] if missing == "a section" else ""
    execute(mine, leave_out=leave_out, record=missing != "the record")
    if missing == "the tables":
        (paths.tables(mine.name) / "verdicts.csv").unlink()
    if missing == "the file":
        Path(mine.file).unlink()
    assert [one.name for one in site.present(default)] == [paths.DEFAULT_STUDY]


def contents(*studies: study.Study) -> dict[str, Any]:
    return site.contents([run_here(one) for one in studies])


def pages(toc: dict[str, Any]) -> list[str]:
    return [toc["root"]] + [c["file"] for part in toc["parts"] for c in part["chapters"]]


def test_contents_of_the_default_are_the_repositorys(default: study.Study) -> None:
    assert contents(default) == yaml.safe_load((paths.ROOT / "_toc.yml").read_text("utf-8"))
    sections = {f"notebooks/{Path(name).stem}" for name in SOURCES}
    assert sections <= set(pages(contents(default)))
    assert len(pages(contents(default))) == len(set(pages(contents(default))))


def test_a_second_study_is_a_further_part(default: study.Study, mine: study.Study) -> None:
    toc, alone = (
        contents(default, mine),
        contents(default),
    )
    assert toc["parts"][:-1] == alone["parts"] and toc["root"] == alone["root"]
    assert "My model" in toc["parts"][-1]["caption"]
    files = [chapter["file"] for chapter in toc["parts"][-1]["chapters"]]
    assert files == [f"studies/My.Model_2/{Path(name).stem}" for name in SOURCES]


def test_alone_another_study_takes_the_place_of_the_default(mine: study.Study) -> None:
    found = pages(contents(mine))
    assert found[0] == f"studies/My.Model_2/{Path(SOURCES[0]).stem}"
    assert not any(page.startswith("notebooks/") for page in found)
    assert {page for page in found if page.startswith("book/")}


def test_staged_pages_are_those_of_the_contents(
    default: study.Study, mine: study.Study, execute: Callable[..., None]
) -> None:
    suffixes = page_labels.suffixes([default, mine])
    for one in (default, mine):
        execute(one)
        site.stage_part(run_here(one), suffixes[one.name], (run_here(default), ""))
        folder = site.STAGE / run_here(one).folder
        assert (folder / "tables/verdicts.csv").read_text() == one.name
        assert {path.name for path in folder.glob("*.ipynb")} == set(SOURCES)
    listed = {page for page in pages(contents(default, mine)) if "book/" not in page}
    staged = {
        str(path.relative_to(site.STAGE).with_suffix("")) for path in site.STAGE.rglob("*.ipynb")
    }
    assert staged == listed
    first, second = (
        json.loads((site.STAGE / run_here(one).folder / SOURCES[0]).read_text("utf-8"))
        for one in (default, mine)
    )
    assert page_labels.labels(first) == {"sec-one", "eq-sum", "fig-one"}
    assert page_labels.labels(second) == {
        "sec-one-my-model-2", "eq-sum-my-model-2", "fig-one-my-model-2",
    }  # fmt: skip
    assert not page_labels.labels(first) & page_labels.labels(second)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("04_strategies.ipynb", "# 4 · One\n"),
        ("23_b.ipynb", "# 23 · One\n"),
        ("b.ipynb", "# One\n"),
    ],
)
def test_a_title_begins_with_the_number_of_its_file(name: str, title: str) -> None:
    numbered, before = notebook(), notebook()
    site.number(numbered, name)
    assert "".join(numbered["cells"][0]["source"]).startswith(f"(sec-one)=\n{title}")
    assert numbered["cells"][1:] == before["cells"][1:]
    assert page_labels.labels(numbered) == page_labels.labels(before)


def test_no_path_of_this_machine_is_published() -> None:
    cell = {
        "cell_type": "code",
        "metadata": {"tags": ["injected-parameters"], "papermill": {"a": "/home/me/x"}},
        "source": 'study = "/home/me/mine.yaml"\nlength = 5\n',
        "outputs": [],
    }
    notebook = {"metadata": {"papermill": {"input_path": "/home/me/x"}}, "cells": [cell]}
    site.tidy(notebook)
    assert "/home/me" not in json.dumps(notebook)
    assert 'study = "mine.yaml"' in cell["source"] and "length = 5" in cell["source"]


def test_old_addresses_lead_to_where_pages_are_now(
    default: study.Study, mine: study.Study, build_dir: Path
) -> None:
    names = [path.stem for path in paths.sections().values()]
    for one in (default, mine):
        folder = build_dir / "html" / run_here(one).folder
        folder.mkdir(parents=True)
        site.redirect(run_here(one))
        assert not any(folder.iterdir())  # to nothing nothing leads
        for name in ("at_a_glance", "verdicts"):
            (folder / f"{name}.html").touch()
        site.redirect(run_here(one))
        moved = list(folder.glob("[0-9]*.html"))
        assert {path.stem for path in moved} == {"00_at_a_glance", "14_verdicts"}
        for path in moved:
            text = path.read_text("utf-8")
            assert "//" not in text  # nothing of another host
            icon, target = dict.fromkeys(re.findall(r'(?:url=|href=")([^"]+)"', text))
            assert (path.parent / icon).resolve() == build_dir / "html/_static/favicon.svg"
            assert target == f"{path.stem[3:]}.html" and target[:-5] in names


def test_a_title_in_the_contents_begins_no_formula(default: study.Study, mine: study.Study) -> None:
    """It reads as it is: what parts the marks of a formula is not seen."""
    title = r"from $5 to $$10$$ \(x\) \[y\] \begin{z} *a* [b] `c` {d} <e>"
    other = mine.model_copy(update={"title": title})
    caption = contents(default, other)["parts"][-1]["caption"]
    assert caption.replace("\N{WORD JOINER}", "") == f"Another model: {title}"
    assert not re.search(r"\$\$|\\[(\[a-z]", caption)


def test_what_a_published_run_does_not_have_is_not_linked() -> None:
    text = "See {download}`qa.csv <tables/qa.csv>` and {download}`no.csv <tables/no.csv>`."
    card = '<a href="{}.html#claim-lu-1">1 <b>x</b></a>'
    shown = code("x", [{"data": {"text/html": [card.format("04_a"), card.format("05_b")]}}])
    made = {"cells": [markdown(text), shown]}
    site.unlink_absent(made, {"04_a.html", "qa.csv"})
    told = "See {download}`qa.csv <tables/qa.csv>` and no.csv."
    assert made["cells"][0]["source"].strip() == told
    html = made["cells"][1]["outputs"][0]["data"]["text/html"]
    assert html == card.format("04_a") + "1 <b>x</b>"
