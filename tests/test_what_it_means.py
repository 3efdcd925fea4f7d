"""What verdicts mean: no sentence that none of them decides."""

import re
from pathlib import Path

import pandas as pd
import pytest

from lib import claims, study
from lib.experiments.opened import OpenStudy
from lib.sections import other_runs, pages, what_it_means
from lib.sections.what_it_means import MEANINGS, SMALLER

ONE = next(one for one in MEANINGS if one.claim == "gromov-8")


def table(*verdicts: str) -> pd.DataFrame:
    rows = [
        {"reader": SMALLER, "paper": "gromov", "claim": 8, "run": f"run <{i}>", "verdict": verdict}
        for i, verdict in enumerate(verdicts)
    ]
    return pd.DataFrame(rows, columns=[*what_it_means.COLUMNS])


def test_every_meaning_is_that_of_a_claim_and_said_once() -> None:
    assert all(claims.find(one.claim) for one in MEANINGS)
    assert len({(one.reader, one.claim) for one in MEANINGS}) == len(MEANINGS)
    assert all(one.holds != one.fails for one in MEANINGS)


@pytest.mark.parametrize(
    ("verdicts", "begins"),
    [
        (["reproduced", "reproduced", "undecided"], ONE.holds),
        (["yes"], f"On one model: {ONE.holds}"),
        (["not reproduced", "no", "not testable here"], ONE.fails),
        (["not reproduced"], f"On one model: {ONE.fails}"),
        (["reproduced", "not reproduced"], f"Not everywhere, or not in full: {ONE.holds}"),
        (["partly"], f"Not everywhere, or not in full: {ONE.holds}"),
    ],
)
def test_verdicts_choose_the_sentence(verdicts: list[str], begins: str) -> None:
    page = what_it_means.sentences(table(*verdicts), SMALLER).data
    said = page.partition("<details>")[0]
    assert re.findall(r"<p>(.*?) <a", said) == [begins]
    decisive = [one for one in verdicts if one not in ("undecided", "not testable here")]
    assert said.count("<li>run &lt;") == len(decisive)  # text of a user, escaped
    assert 'href="04_strategies.html#claim-gromov-8"' in said


def test_what_nobody_could_tell_is_not_said() -> None:
    page = what_it_means.sentences(table("undecided", "open"), SMALLER).data
    said, _, left = page.partition("<details>")
    assert "No run here has decided" in said and ONE.holds not in page and ONE.fails not in page
    assert claims.find(ONE.claim).statement in left and left.count("<li>") == 2


def test_controls_do_not_speak(monkeypatch: pytest.MonkeyPatch, results_dir: Path) -> None:
    """Runs of the almanac without facts, untrained or of other seeds are what it is compared
    with; real models speak, whoever opens the page."""
    own = pd.DataFrame([{"paper": "gromov", "claim": 8, "verdict": "reproduced"}])
    monkeypatch.setattr(claims, "verdicts", lambda *_: own)
    monkeypatch.setattr(pages, "tables", lambda *_: None)
    opened = OpenStudy(study.load("almanac"))
    said = {*what_it_means.decided(opened)["run"]}
    published = {run.title for run in other_runs.others("almanac", told=False)}
    assert opened.study.title in said and len(published - said) >= 6
    assert any(title.startswith("SmolLM2") for title in said)
    assert not any("untrained" in title.lower() for title in said)
