"""The explorer, driven in a browser as a reader does: what it shows stands in the tables."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from browser import Browser, browser  # noqa: F401

from lib import labels, paths, study
from lib.claims.rules.reading import read
from lib.experiments.opened import OpenStudy
from lib.sections import explorer

PUBLISHED = paths.ROOT / "published"
SMOLLM = "smollm2-135m-instruct-public"


@pytest.fixture
def opened(results_dir: Path) -> OpenStudy:
    """The default study, whose tables are the published ones."""
    tables = paths.tables("almanac")
    tables.mkdir(parents=True)
    for name in ("qa", "loss", "texts"):
        (tables / f"{name}.csv").write_bytes(table_file("almanac", name).read_bytes())
    return OpenStudy(study.load("almanac"))


def table_file(run: str, name: str) -> Path:
    return PUBLISHED / run / "tables" / f"{name}.csv"


@pytest.fixture
def page(opened: OpenStudy, tmp_path: Path) -> str:
    shown = explorer.show(opened, *(read(table_file("almanac", one)) for one in ("qa", "loss")))
    style = (paths.ROOT / "book/_static/custom.css").read_text("utf-8")
    file = tmp_path / "page.html"
    file.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>x</title>'
        f'<meta name="viewport" content="width=device-width"><style>{style}</style>'
        f"<body>{shown.data}</body></html>",
        encoding="utf-8",
    )
    return file.as_uri()


def wanted(run: str, strategy: str, state: str, n: int) -> dict[str, str]:
    """What the rows of the explorer have to say, out of the tables themselves."""
    qa, loss = (pd.read_csv(table_file(run, name)) for name in ("qa", "loss"))

    def of(table: pd.DataFrame) -> pd.DataFrame:
        table = table[table["strategy"].isin([strategy, "none"]) & (table["state"] == state)]
        return table[table["n"] == n]

    found = {
        labels.title(row.task, row.shots): f"{100 * row.accuracy:.1f} ± {100 * row.stderr:.1f}% "
        f"of {row.n_questions}"
        for row in of(qa).itertuples()
    }
    row = of(loss).iloc[0]
    return found | {
        f"Loss on {row['corpus']}": f"{row['loss']:.2f} ± {row['stderr']:.2f} nats per token"
    }


def shown(browser: Browser) -> dict[str, str]:  # noqa: F811
    pairs = browser.run(
        "[...document.querySelectorAll('.explorer .row')].map(row =>"
        " [row.children[0].textContent, row.children[2].textContent])"
    )
    return dict(pairs)


def alike(said: dict[str, str], expected: dict[str, str]) -> None:
    """The same words, and numbers that may be rounded to the other side."""
    number = re.compile(r"\d+\.?\d*")
    assert said.keys() == expected.keys()
    for key, text in said.items():
        assert number.sub("", text) == number.sub("", expected[key])
        found, right = (list(map(float, number.findall(one))) for one in (text, expected[key]))
        assert found == pytest.approx(right, abs=0.1001)


def stack(browser: Browser) -> list[int]:  # noqa: F811
    return browser.run(
        "[...document.querySelectorAll('.stack .cut')].map(one => Number(one.textContent))"
    )


def test_a_reader_drives_it_by_keyboard_and_shares_the_address(browser, page):  # noqa: F811
    browser.said.clear()
    browser.open(page)
    assert browser.run("document.querySelector('.explorer output').textContent") == (
        "4 of 16 layers cut (25%)"
    )
    alike(shown(browser), wanted("almanac", "similarity", "healed", 4))
    browser.run("document.querySelector('[name=healed]').focus()")
    browser.press(" ")
    alike(shown(browser), wanted("almanac", "similarity", "unhealed", 4))
    browser.run("document.querySelector('[name=n]').focus()")
    browser.press("ArrowRight", 3)
    alike(shown(browser), wanted("almanac", "similarity", "unhealed", 7))
    loss = pd.read_csv(table_file("almanac", "loss"))
    row = loss.query("strategy == 'similarity' and state == 'unhealed' and n == 7").iloc[0]
    assert stack(browser) == [int(layer) for layer in row["dropped"].split()]
    browser.run("document.querySelector('[name=strategy]').focus()")
    browser.press("ArrowDown")
    assert stack(browser) == list(range(8, 15))
    alike(shown(browser), wanted("almanac", "simple", "unhealed", 7))
    address = browser.run("location.href")
    assert address.endswith("#run=almanac&strategy=simple&layers=7&state=unhealed")
    browser.open(address, width=360)
    alike(shown(browser), wanted("almanac", "simple", "unhealed", 7))
    assert browser.run("document.documentElement.scrollWidth") <= 360
    assert browser.said == []


def test_every_run_and_every_choice_is_as_its_tables_have_it(browser, page, opened):  # noqa: F811
    browser.open(f"{page}#run={SMOLLM}&strategy=similarity&layers=6&state=healed")
    alike(shown(browser), wanted(SMOLLM, "similarity", "healed", 6))
    browser.run("document.querySelector('[name=healed]').click()")
    browser.run("document.querySelector('[name=n]').focus()")
    browser.press("End")
    last = int(browser.run("document.querySelector('.explorer output').textContent").split()[0])
    alike(shown(browser), wanted(SMOLLM, "similarity", "unhealed", last))
    runs = browser.run("[...document.querySelector('[name=run]').options].map(one => one.value)")
    assert runs[0] == "almanac"
    assert sorted(runs) == sorted(path.parent.name for path in PUBLISHED.glob("*/study.json"))


def test_texts_are_shown_as_text_and_only_where_they_were_measured(
    browser,  # noqa: F811
    opened,
    tmp_path,
):
    texts = read(table_file("almanac", "texts"))
    evil = "</script><b id='evil'>bold</b>"
    changed = texts.assign(text=texts["text"].where(texts["n"] != 4, evil))
    changed.to_csv(paths.tables("almanac") / "texts.csv", index=False)
    shown_ = explorer.show(opened, *(read(table_file("almanac", one)) for one in ("qa", "loss")))
    file = tmp_path / "evil.html"
    file.write_text(f'<!doctype html><meta charset="utf-8">{shown_.data}', encoding="utf-8")
    browser.open(f"{file.as_uri()}#run=almanac&strategy=similarity&layers=4&state=unhealed")
    text = "document.querySelector('.writes .text').textContent"
    assert browser.run(text) == evil
    assert browser.run("document.getElementById('evil')") is None
    browser.open(f"{file.as_uri()}#run=almanac&strategy=simple&layers=4&state=unhealed")
    assert browser.run(text) == "Not measured for this choice."


def test_without_scripts_it_stays_away_and_its_data_are_numbers(opened):
    shown_ = explorer.show(opened, *(read(table_file("almanac", one)) for one in ("qa", "loss")))
    head, data = shown_.data.split('class="explorer-data">')
    assert 'aria-label="Explorer" hidden>' in head
    runs = json.loads(data.split("</script>")[0])
    assert all(run["texts"].keys() and len(run["texts"]) <= 3 for run in runs[:1])
    assert len(data) < 150_000
