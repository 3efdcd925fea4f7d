"""A study that heals nothing: distances, unhealed answers and costs, and nothing asked beside."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import Studies

from lib import claims, export, paths
from lib import study as studies
from lib.book import jobs, memory, plan, sources
from lib.book.check import check
from lib.book.configuration import configuration
from lib.errors import UserError
from lib.experiments.conditions import main_conditions, teacher_conditions
from lib.experiments.measure import measure
from lib.experiments.opened import OpenStudy
from lib.models.shapes import shape_of
from lib.sections import pages, section


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, write_study: Studies):
    folder = tmp_path_factory.mktemp("unhealed")
    path = write_study(folder, healing="none", writing={"tokens": 4}, lora_rank={"ranks": [2]})
    (folder / "healing.jsonl").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULTS_DIR", str(folder / "results"))
        yield OpenStudy(studies.load(str(path)))


def test_none_is_read_and_written_as_a_word(tmp_path: Path, write_study: Studies) -> None:
    study = studies.load(str(write_study(tmp_path, healing="none")))
    assert study.healing is None and study.fractions == [0.25, 0.5, 0.75] and study.adapted == []
    assert json.loads(json.dumps(study.model_dump()))["healing"] == "none"
    assert studies.override(study, batch=4).healing is None
    assert studies.effective(study)["healing"] == "none"
    for wrong in ("nothing", None, [], False):
        with pytest.raises(UserError, match=r"key 'healing': .*or none"):
            studies.load(str(write_study(tmp_path, healing=wrong)))


def test_like_takes_it_over_and_lays_its_own_over_it(tmp_path: Path, write_study: Studies) -> None:
    write_study(tmp_path, healing="none")
    for name, own, recipe in (("same", "", None), ("own", "healing: {rank: 2}", "qlora")):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"like: ./mine.yaml\n{own}\n")
        found = studies.load(str(path)).healing
        assert (found and found.recipe) == recipe
    write_study(tmp_path)
    path.write_text("like: ./mine.yaml\nhealing: none\n")
    assert studies.load(str(path)).healing is None


def test_what_healing_needs_is_not_asked(opened: OpenStudy) -> None:
    check(opened.study)
    about = sources.of_study(opened.study)
    assert not [name for name in about["code"] if "recipes" in name]
    assert list(memory.memory(opened.study, shape_of(opened.config))) == ["unhealed"]
    assert "healing" not in plan.plan(opened.study)
    assert not any(one.healing or one.weights == "nf4" for one in main_conditions(opened))
    assert not any(teacher_conditions(opened).values())
    config = configuration({"study": opened.study.file})
    found = jobs.prepare(opened.study, config, 2)["jobs"]
    assert not [job["name"] for job in found if "qlora" in job["name"]]


def test_there_is_nothing_to_export(opened: OpenStudy, tmp_path: Path, capsys) -> None:
    arguments = ["--study", opened.study.file, "--simple", "1", str(tmp_path / "out")]
    assert export.main(arguments) == 1
    assert "heals nothing" in capsys.readouterr().err


def test_every_section_is_made_and_claims_of_healing_are_not_testable(opened: OpenStudy) -> None:
    made = {}
    for name in section.names():
        made |= pages.measured(opened, section.load(name))
    assert set(made["qa"]["state"]) == {"unhealed"} == set(made["loss"]["state"])
    assert len(made["lora_rank"]) == len(made["healing_seeds"]) == len(made["teacher"]) == 0
    assert len(made["strategies_compared"]) > 0
    shown = pages.settings(opened, "healing").data
    assert {"nothing"} <= set(shown.replace(":", "").split())
    assert shown.startswith(pages.sign(opened).data)
    found = claims.verdicts(pages.tables(opened)).query("paper == 'gromov'").set_index("claim")
    for claim in (1, 2, 3, 5, 9, 10, 11, 12, 14, 17):
        assert found.loc[claim, "verdict"] == "not testable here", found.loc[claim, "reason"]
    assert found.loc[6, "verdict"] != "not testable here"
    assert not list((opened.store.folder / "healing").glob("*"))
    measure(opened, main_conditions(opened))  # nothing is left to measure


def test_of_a_model_that_can_answer_the_claims_of_healing_alone_are_not_testable(
    tmp_path: Path,
) -> None:
    """The tables of a published run, as they would be had nothing been healed."""
    for table in paths.published("almanac-seed1").glob("tables/*.csv"):
        rows = pd.read_csv(table)
        if "state" in rows:
            rows = rows[rows["state"] == "unhealed"]
        elif "models" in rows:
            rows = rows[rows["models"] == "unhealed"]
        elif table.stem in ("ranks_compared", "healing_seeds_compared"):
            rows = rows[:0]
        rows.to_csv(tmp_path / table.name, index=False)
    found = claims.verdicts(claims.Tables(tmp_path)).query("paper == 'gromov'")
    found = found.set_index("claim")["verdict"]
    untestable = {*found[found == "not testable here"].index}
    assert untestable >= {1, 2, 3, 5, 9, 10, 11, 12, 14, 17}
    assert not untestable & {4, 6, 7, 8}
