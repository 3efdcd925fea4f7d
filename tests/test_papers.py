"""Papers of claims: found by their files, judged without torch, each under its own heading."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_rules import paper_is_right

from lib import claims, paths
from lib.claims.rules.judging import (
    COMPARABLE,
    above,
    all_of,
    any_of,
    at_least,
    at_most,
    graded,
    measured,
    minus,
    not_shown,
    share,
    shown,
    within,
)
from lib.claims.rules.reading import Tables, flat_regions, of_state
from lib.errors import UserError
from lib.sections import pages, section, tables, verdicts

SECOND = """
from lib.claims.rules.judging import Claim, Paper, at_least, graded, measured

def many(tables):
    return graded("counted", at_least("number of distances", measured(len(tables.qa)), 10))

def claim(number):
    return Claim(number=number, statement="There are many rows.", where="Fig. <1>", tables=("qa",),
                 rule="Ten or more.", undecided="Nothing: rows are counted.", fails="Fewer.",
                 check=many, question=number == 2)

PAPER = Paper("Counting rows", "Nobody, nowhere", (claim(1), claim(2)))
"""
Write = Callable[[str], None]


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes another paper's file, second.py, in a folder that is searched as lib/claims is."""
    for name in section.names():  # before: what they say of all claims is said when imported
        section.load(name)
    folder = tmp_path / "claims"
    folder.mkdir()
    monkeypatch.setattr(claims, "__path__", [*claims.__path__, str(folder)])
    yield lambda text: (folder / "second.py").write_text(text) and None
    sys.modules.pop("lib.claims.second", None)
    vars(claims).pop("second", None)


@pytest.fixture
def measured_tables(results_dir: Path) -> Tables:
    for name, table in paper_is_right().items():
        tables.write(paths.tables("mine") / f"{name}.csv", table)
    return Tables(paths.tables("mine"))


def test_a_second_paper_is_one_file(second: Write, measured_tables: Tables) -> None:
    second(SECOND)
    assert list(claims.papers()) == ["gromov", "lu", "second"]
    assert claims.find("second-1").statement == "There are many rows."
    found = claims.verdicts(measured_tables).set_index(["paper", "claim"])
    assert found.loc[("second", 1), "verdict"] == "reproduced"
    assert found.loc[("second", 2), "verdict"] == "yes"
    assert found.loc[("gromov", 1), "verdict"] == "reproduced"
    numbers = [claim.number for claim in claims.papers()["lu"].claims]
    assert len(found) == 17 + len(numbers) + 2 and len(numbers) >= 19


def test_each_paper_stands_under_its_own_heading(second: Write, measured_tables: Tables) -> None:
    second(SECOND)
    study = SimpleNamespace(name="mine")
    opened = SimpleNamespace(study=study, published=False, tables=measured_tables.folder)
    for html in (verdicts.every_verdict(opened).data, pages.rules_table().data):
        first, other = html.split("Counting rows")
        assert "The Unreasonable Ineffectiveness of the Deeper Layers" in first
        assert "There are many rows." in other and "There are many rows." not in first
        assert "Nothing: rows are counted." in other
    assert "1. There are many rows. (the paper's Fig. &lt;1&gt;)" in other.replace(
        "&#x27;", "'"
    ).replace("\xa0", " ")
    counted = pages.count_verdicts(opened).data
    assert "Of 17 claims of Gromov et al.:" in counted and "Of 2 claims of Nobody:" in counted
    assert 'verdict-yes">1 answered yes<' in counted
    line = verdicts.every_verdict(opened).data
    assert line.count('id="claim-second-1"') == 1 and 'href="verdicts.html#claim-second-1"' in line
    assert 'id="claim-gromov-7"' not in line and "Asked for: " in line
    assert 'href="01_angular_distances.html#claim-gromov-7"' in line
    alone = pages.verdicts(opened, ["gromov-7", "gromov-14"]).data
    assert "Claim 7<" in alone and "Question 14<" in alone and "<h3" not in alone
    assert "<h3" in pages.verdicts(opened, ["gromov-7", "second-1"]).data


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SECOND.replace("claim(2)", "claim(1)"), "2 claims have the number 1"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def broken(:", "SyntaxError"),
        ("THRESHOLD = 3", "has no attribute 'PAPER'"),
        ("PAPER = 'a title'", "PAPER has to be a Paper"),
    ],
)
def test_a_paper_that_cannot_be_read_is_named_on_one_line(
    text: str, reason: str, second: Write
) -> None:
    second(text)
    with pytest.raises(UserError) as error:
        claims.papers()
    said = str(error.value)
    assert said.startswith("lib/claims/second.py: ") and reason in said and "\n" not in said


def test_an_unknown_claim_is_refused_with_those_there_are(measured_tables: Tables) -> None:
    for name in ("gromov-99", "lu-99", "7"):
        with pytest.raises(UserError, match=f"claim '{name}': unknown; there are gromov-1, "):
            claims.verdicts(measured_tables, [name])


def test_verdicts_take_no_torch(measured_tables: Tables) -> None:
    code = (
        "import sys; from lib import claims; from pathlib import Path\n"
        f"found = claims.verdicts(claims.Tables(Path({str(measured_tables.folder)!r})))\n"
        "assert len(found) > 17 and 'reproduced' in set(found['verdict'])\n"
        "assert not {'torch', 'transformers'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_every_rule_says_in_words_what_leaves_it_undecided() -> None:
    for paper in claims.papers().values():
        assert paper.title and paper.cite
        for claim in paper.claims:
            assert claim.undecided.endswith(".") and len(claim.undecided) > 30, claim.number
            assert claim.rule and claim.fails and claim.tables, claim.number
    asked = [claim.number for claim in claims.papers()["gromov"].claims if claim.question]
    assert asked == [14, 15]


def test_a_condition_is_open_where_its_interval_covers_the_edge() -> None:
    for error, sure, possible in ((0.0, True, True), (0.04, True, True), (0.06, False, True)):
        found = at_least("x", measured(0.6, error), 0.5)
        assert (found.holds, found.sure, found.possible) == (True, sure, possible)
    assert not at_most("x", measured(0.6, 0.04), 0.5).possible
    assert at_most("x", measured(0.6, 0.06), 0.5).open
    # On the edge itself, without an error.
    assert at_least("x", measured(1), 1).sure and not above("x", measured(1), 1).possible


@pytest.mark.parametrize(
    ("difference", "error", "sure", "possible"),
    [
        (0.0, 0.02, True, True),  # all of it within the margin
        (-0.01, 0.03, False, True),  # it covers one end
        (0.0, 0.1, False, True),  # and both
        (-0.1, 0.03, False, True),
        (-0.1, 0.02, False, False),  # all of it outside
    ],
)
def test_alike_is_shown_by_the_whole_interval(
    difference: float, error: float, sure: bool, possible: bool
) -> None:
    found = within("x", measured(difference, error), 0.05)
    assert (found.sure, found.possible) == (sure, possible)


@pytest.mark.parametrize(
    ("effect", "error", "verdict"),
    [
        (0.02, 0.009, "reproduced"),  # above 0 by two standard errors, however small
        (0.01, 0.01, "not reproduced"),  # it covers 0 and ends below COMPARABLE
        (-0.1, 0.01, "not reproduced"),
        (0.04, 0.03, "undecided"),  # it covers both
        (0.0, 0.03, "undecided"),
    ],
)
def test_an_effect_that_is_not_seen_is_not_therefore_absent(
    effect: float, error: float, verdict: str
) -> None:
    assert COMPARABLE == 0.05
    assert graded("", shown("x", effect, error)).verdict == verdict
    contrary = {"reproduced": "not reproduced", "not reproduced": "reproduced"}
    assert graded("", not_shown("x", effect, error)).verdict == contrary.get(verdict, verdict)


def test_undecided_is_what_open_conditions_decide() -> None:
    sure, fails = at_least("sure", measured(1), 0), at_least("fails", measured(-1), 0)
    one, other = (at_least(name, measured(0.1, 1), 0) for name in ("one", "other"))
    assert graded("", sure, fails, one).verdict == "partly"  # whatever becomes of the open one
    found = graded("why", sure, one, other)
    assert found.verdict == "undecided"
    assert found.reason == "why; within the error of its edge: one, other"
    assert found.margins == (
        "sure: 1 to spare; one: 0.1 ± 1 to spare, open; other: 0.1 ± 1 to spare, open"
    )
    assert not all_of("", [sure, one, fails]).possible and all_of("", [sure, one]).open
    assert any_of("", [fails, one, sure]).sure and any_of("", [fails, one]).open


def test_a_share_is_as_certain_as_its_cases() -> None:
    clear = [above("", measured(1, 0.1), 0)] * 3 + [above("", measured(-1, 0.1), 0)]
    assert share(clear) == pytest.approx((0.75, 0.75, 0.75))
    vague = [above("", measured(0.1, 10), 0)] * 4  # each a coin that has come up heads
    value, low, high = share(vague)
    assert value == 1 and low == pytest.approx(0, abs=0.01) and high == pytest.approx(1, abs=0.01)


def test_errors_of_a_difference_add_up_in_squares() -> None:
    found = minus(measured(1.0, 0.3), measured(0.4, 0.2), 2.0)
    assert found == pytest.approx((0.2, 0.2 - 1.0, 0.2 + 1.0))


def test_the_control_is_what_is_unhealed_where_there_is_none_apart() -> None:
    qa = paper_is_right()["qa"]
    assert set(of_state(qa, "control")["weights"]) == {"nf4"}
    same = qa[qa["state"] != "control"]
    assert of_state(same, "control").equals(of_state(same, "unhealed"))


def test_a_flat_region_ends_where_accuracy_is_lost() -> None:
    qa = paper_is_right()["qa"]
    found = flat_regions(qa, "similarity")
    assert found[("know", 0)] == (0.375, 0.375, 0.375)
    wide = flat_regions(qa.assign(stderr=0.03), "similarity")[("know", 0)]
    assert wide.sure == 0 and wide.reached == 0.375 and wide.possible >= 0.375
