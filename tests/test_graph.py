"""Which jobs there are, and which of them are pending."""

import itertools
import json
import re
from pathlib import Path

import pytest

from lib import paths
from lib import study as studies
from lib.book import jobs, planning, workload
from lib.book.configuration import configuration
from lib.book.graph import Graph, Job
from lib.claims.gromov import CLAIMS
from lib.errors import UserError
from lib.models.checkpoints import load_config


@pytest.fixture(scope="module")
def smoke() -> workload.Planned:
    study = studies.load("smoke")
    return workload.Planned(study, load_config(study))


@pytest.fixture(scope="module")
def almanac() -> workload.Planned:
    study = studies.load("almanac")
    return workload.Planned(study, load_config(study))


def test_every_model_of_the_almanac_is_in_one_part(almanac: workload.Planned) -> None:
    parts = workload.parts(almanac)
    healed = [part for part in parts.values() if part.healed]
    # 6 fractions × 2 strategies + unpruned; 2 ranks × 3 × 2; 2 seeds × 4; teacher and as long as
    # with one, 3 seeds × 2 each. Equal steps without a teacher are among the seeds.
    assert len(healed) == 13 + 12 + 8 + 6 + 6
    assert all(len(part.conditions) == 1 for part in healed)
    assert len(parts["unhealed"].conditions) == 31
    assert len(parts["unhealed-4bit"].conditions) == 13
    sections = [part.section for part in parts.values()]
    assert [sections.count(section) for section in jobs.MEASURING] == [15, 12, 8, 12]


@pytest.mark.parametrize("grain", ["sections", "models", "measurements"])
def test_jobs_measure_every_part_once(grain: str, smoke: workload.Planned) -> None:
    found = jobs.listed(smoke, grain, 1)
    names = [job.name for job in found]
    assert len(names) == len(set(names))
    assert {name for job in found for name in job.needs} <= {*names, "section-01"}
    measured = [(name, job.probe) for job in found for name in job.parts]
    assert len(measured) == len(set(measured))
    parts = workload.parts(smoke)
    assert {name for name, _ in measured} == set(parts)
    if grain == "measurements":
        for name, part in parts.items():
            asked = {probe for one, probe in measured if one == name}
            assert asked == {*range(len(jobs.probes(smoke, part)))} | (
                {-1} if part.healed else set()
            )


def test_models_trained_whole_stay_with_their_questions(smoke: workload.Planned) -> None:
    full = smoke.study.model_copy(
        update={"healing": smoke.study.healing.model_copy(update={"recipe": "full"})}
    )
    found = jobs.listed(workload.Planned(full, smoke.config), "measurements", 1)
    healed = [job for job in found if any("full" in name for name in job.parts)]
    assert healed and all(job.probe is None for job in healed)


def test_jobs_are_as_fine_as_the_machine_needs(smoke: workload.Planned) -> None:
    coarse, fine = jobs.listed(smoke, "auto", 2), jobs.listed(smoke, "auto", 16)
    assert len(coarse) == 4 and len(fine) > 16


def test_a_notebook_waits_for_all_that_its_verdicts_read() -> None:
    writers = {table: section for section, names in planning.WRITES.items() for table in names}
    writers["untrained_distances"] = "01"
    wanted = {writers[table] for claim in CLAIMS for table in claim.tables}
    for section in ("13", "14", "00"):
        assert wanted <= {*planning.READS[section]}
    assert wanted - {"12"} <= {*planning.READS["12"]}
    for number, path in paths.sections().items():
        stated = re.search(r"section\.verdicts\(opened, \[([\d, ]+)\]", path.read_text())
        for claim in map(int, stated[1].split(",") if stated else []):
            read = {writers[table] for table in CLAIMS[claim - 1].tables} - {number}
            assert read <= {*planning.READS.get(number, ())}, (number, claim)


def _graph(folder: Path, **needs: tuple[str, ...]) -> Graph:
    made = {
        name: Job(name, name, str(folder / f"{name}.json"), needs=before, seconds=10, made_from="x")
        for name, before in needs.items()
    }
    return Graph("mine", "mine.yaml", "c", made)


def _note(folder: Path, name: str, made_from: str = "x") -> None:
    (folder / f"{name}.json").write_text(json.dumps({"made_from": made_from}))


def test_pending_is_what_is_missing_or_made_from_something_else(tmp_path: Path) -> None:
    for name, made_from in {"a": "x", "b": "y"}.items():
        _note(tmp_path, name, made_from)
    (tmp_path / "d.json").write_text("cut o")
    graph = _graph(tmp_path, a=(), b=("a",), c=("a", "b"), d=())
    assert [job.name for job in graph.pending] == ["b", "c", "d"]
    assert [job.name for job in graph.waits_for(graph.jobs["c"])] == ["b"]
    assert graph.waits_for(graph.jobs["b"]) == []


def test_an_output_that_is_gone_makes_its_job_pending(tmp_path: Path) -> None:
    _note(tmp_path, "a")
    table = tmp_path / "table.csv"
    job = Job("a", "a", str(tmp_path / "a.json"), outputs=(str(table),), made_from="x")
    assert not job.done
    table.touch()
    assert job.done


def test_the_site_follows_any_section(tmp_path: Path) -> None:
    for name in ("a", "b", "site"):
        _note(tmp_path, name)
    assert not _graph(tmp_path, a=(), b=(), site=("a", "b")).pending
    (tmp_path / "a.json").unlink()
    found = _graph(tmp_path, a=(), b=(), site=("a", "b"))
    assert [job.name for job in found.pending] == ["a", "site"]


def test_the_longest_chain_goes_first(tmp_path: Path) -> None:
    graph = _graph(tmp_path, a=(), b=("a",), c=("b",), d=())
    assert graph.until_end() == {"a": 30, "b": 20, "c": 10, "d": 10}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sectoins": "02"}, ["unknown key 'sectoins'", "sections"]),
        ({"sections": "02,99"}, ["no section '99'", "00, 01"]),
        ({"threads": 0}, ["threads", "greater than or equal to 1"]),
        ({"grain": "fine"}, ["grain", "'models'"]),
        ({"memory_mb": "8GB"}, ["memory_mb"]),
    ],
)
def test_a_mistake_in_the_configuration_is_one_line(given: dict, says: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        configuration(given)
    assert "\n" not in str(raised.value)
    assert all(part in str(raised.value) for part in says)


@pytest.mark.parametrize("given", [2, "2", "02", ["2"], [2], "[02]", " 02 "])
def test_sections_can_be_named_in_many_ways(given: object) -> None:
    assert configuration({"sections": given}).sections == ["02"]


def test_sections_bring_what_they_need() -> None:
    needs = {"m": (), "section-01": (), "section-02": ("m", "section-01"), "section-04": ("m",)}
    needs["section-03"] = ("section-02",)
    made = [Job(name, name, name, needs=before) for name, before in needs.items()]
    found = {job.name for job in planning._wanted(made, ["03"])}
    assert found == {"m", "section-01", "section-02", "section-03"}


def test_tables_are_written_by_one_section_each() -> None:
    names = list(itertools.chain.from_iterable(planning.WRITES.values()))
    assert len(names) == len(set(names))
    for number, tables in planning.WRITES.items():
        code = paths.sections()[number].read_text()
        saved = {"verdicts"} if number == "14" else {*tables}
        assert all(f'\\"{name}\\"' in code for name in saved - {"verdicts"}), number
