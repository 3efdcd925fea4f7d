"""Which jobs there are, and which of them are pending."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Studies

from lib import paths
from lib import study as studies
from lib.book import graph, jobs, plan
from lib.book.configuration import configuration
from lib.book.graph import Graph, Job
from lib.errors import UserError
from lib.files import write_atomically
from lib.models.checkpoints import load_config
from lib.sections import section

PACE = plan.Speed(1e-6, 3e-6)


@pytest.fixture(scope="module")
def smoke() -> plan.Planned:
    study = studies.load("smoke")
    return plan.Planned(study, load_config(study))


@pytest.fixture(scope="module")
def almanac() -> plan.Planned:
    study = studies.load("almanac")
    return plan.Planned(study, load_config(study))


def test_every_model_of_the_almanac_is_in_one_part(almanac: plan.Planned) -> None:
    parts = plan.parts(almanac)
    healed = [part for part in parts.values() if part.healed]
    # 6 fractions × 2 strategies + unpruned; 2 ranks × 3 × 2; 2 seeds × 4; teacher and as long as
    # with one, 3 seeds × 2 each. Equal steps without a teacher are among the seeds.
    # The second paper: 3 strategies × 2 fractions with LoRA; two recipes more; twice as long; on
    # lessons; the last layer, kept and dropped, with three layers trained, of which one is there.
    # Repaired in 2 ways at 4 fractions; healed afterwards at one, and there on as many tokens.
    assert len(healed) == 13 + 12 + 8 + 6 + 6 + 6 + 2 + 1 + 1 + 3 + 8 + 2 + 1
    assert all(len(part.conditions) == 1 for part in healed)
    unhealed = parts["unhealed"].conditions
    assert len(unhealed) == 109 + 16  # and without each layer in turn
    assert len({one.strategy for one in unhealed}) == 2 + len(almanac.every_strategy)
    assert sum(one.strategy in almanac.strategies for one in unhealed) == 2 * 15
    assert len(parts["unhealed-4bit"].conditions) == 13
    firsts = [part.sections[0] for part in parts.values()]
    assert {name: firsts.count(name) for name in firsts} == {
        "qa_transitions": 15, "lora_rank": 12, "healing_seeds": 8, "teacher": 12,
        "which_layers": 6, "what_to_train": 2, "step_by_step": 1, "on_what": 1, "last_layer": 3,
        "repair": 11,
    }  # fmt: skip
    assert len({part.what for part in parts.values()}) == len(parts)


@pytest.mark.parametrize("grain", ["sections", "models"])
def test_jobs_measure_everything_once(grain: str, smoke: plan.Planned) -> None:
    found = jobs.listed(smoke, PACE, grain, 1)
    names = [job.name for job in found]
    assert len(names) == len(set(names))
    assert {need for job in found for need in job.needs} <= set(names)
    measured = [one for job in found for one in job.measures]
    assert sorted(measured) == sorted([jobs.CHOICES, *plan.parts(smoke), *plan.extras(smoke)])
    # What a notebook shows is measured before it, or by it.
    order = list(graph.judged(smoke.study, "c", found, {}).jobs)
    for name in paths.sections():
        job = found[names.index(f"section-{name}")]
        wanted = {part.name for part in plan.parts(smoke).values() if name in part.sections}
        wanted |= {extra.name for extra in section.load(name).extras(smoke)}
        before = {job.name, *job.needs}
        assert wanted <= {one for other in found if other.name in before for one in other.measures}
        assert all(order.index(need) < order.index(job.name) for need in job.needs)
    alone = [job.name for job in found if job.alone]
    assert alone == (["cost"] if grain == "models" else ["section-what_it_saves"])


def test_jobs_are_as_fine_as_the_machine_needs(smoke: plan.Planned) -> None:
    coarse, fine = (
        [job for job in jobs.listed(smoke, PACE, "auto", slots) if not job.notebook]
        for slots in (4, 20)
    )
    sections = {part.sections[0] for part in plan.parts(smoke).values()}
    assert len(coarse) == 2 + len(sections) and len(fine) > 2 * len(sections)


def test_jobs_are_finer_where_one_section_is_much_longer_than_others(smoke: plan.Planned) -> None:
    slow = plan.Speed(*(1e5 * seconds for seconds in PACE[:2]))
    for slots, fine in ((1, False), (4, True)):
        found = [job for job in jobs.listed(smoke, slow, "auto", slots) if not job.notebook]
        assert ("unhealed" in {job.name for job in found}) == fine, slots


def test_a_notebook_waits_for_all_that_its_verdicts_read(smoke: plan.Planned) -> None:
    found = {job.name: job for job in jobs.listed(smoke, PACE, "sections", 1)}
    writers = {table: job.name for job in found.values() for table in job.tables}
    assert len(writers) == sum(len(job.tables) for job in found.values())
    for name in paths.sections():
        job = found[f"section-{name}"]
        read = {
            table for claim in section.load(name).claims for table in section.claim_reads(claim)
        }
        assert read <= {*job.reads, *job.tables}
        assert {writers[table] for table in job.reads} <= {*job.needs}


def test_what_a_job_asks_of_its_models_is_part_of_it(smoke: plan.Planned) -> None:
    healing = smoke.study.healing.model_copy(update={"learning_rate": 1e-4})
    other = plan.Planned(smoke.study.model_copy(update={"healing": healing}), smoke.config)
    both = [jobs.listed(one, PACE, "models", 1) for one in (smoke, other)]
    for one, two in zip(*both, strict=True):
        healed = any("qlora" in name for name in one.measures)
        assert (one.asks != two.asks) == healed


@pytest.fixture
def made(results_dir: Path, build_dir: Path):
    """`made(a=(), b=("a",))`: jobs with these needs."""

    def make(**needs: tuple[str, ...]) -> dict[str, Job]:
        return {
            name: Job("mine", name, name, needs=before, seconds=10, made_from="x")
            for name, before in needs.items()
        }

    return make


def _note(job: Job, made_from: str = "x", **about: object) -> None:
    job.note.parent.mkdir(parents=True, exist_ok=True)
    job.note.write_text(json.dumps({"made_from": made_from} | about))


def _graph(found: dict[str, Job]) -> Graph:
    stale = tuple(job.name for job in found.values() if not job.done(job.made_from))
    return Graph("mine", "mine.yaml", "c", found, stale)


def test_pending_is_what_is_stale_and_all_that_waits_for_it(made) -> None:
    found = made(a=(), b=("a",), c=("b",), d=("a",), e=())
    for name, made_from in {"a": "x", "b": "y", "c": "x", "d": "x"}.items():
        _note(found[name], made_from)
    found["e"].note.write_text("cut o")
    graph = _graph(found)
    assert graph.stale == ("b", "e")
    assert [job.name for job in graph.pending] == ["b", "c", "e"]
    assert [job.name for job in graph.waits_for(found["c"])] == ["b"]
    assert graph.waits_for(found["b"]) == []


def test_an_output_that_is_gone_makes_its_job_stale(made, build_dir: Path) -> None:
    job = replace(made(a=())["a"], notebook="a.ipynb", tables=("one", "two"))
    job.table("one").parent.mkdir(parents=True)
    for path in [*job.pages, job.table("one")]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert job.written() == ["one"]  # the study does without the other
    _note(job, tables=job.written())
    assert job.done("x") and not job.done("y")
    for path in [*job.pages, job.table("one")]:
        path.unlink()
        assert not job.done("x")
        path.touch()


def test_tables_stand_until_they_are_written_anew(made, results_dir: Path) -> None:
    """Another run of the study, in another clone, may read them meanwhile."""
    job = replace(made(a=())["a"], notebook="a.ipynb", tables=("again", "gone", "new", "never"))
    for name in ("again", "gone"):
        write_atomically(job.table(name), "n")
    for path in (job.note, *job.pages):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with job.made_anew():
        assert not job.note.exists() and not job.pages[0].exists()
        assert job.written() == ["again", "gone"]
        for name in ("again", "new"):
            write_atomically(job.table(name), "n")
    assert job.written() == ["again", "new"]
    with pytest.raises(UserError), job.made_anew():
        write_atomically(job.table("again"), "half")
        raise UserError("no ink")
    assert job.written() == ["again"]  # what has failed is not taken for what was there


def test_the_site_is_stale_with_any_page_of_it(made, tmp_path: Path, write_study: Studies) -> None:
    study = studies.load(str(write_study(tmp_path)))
    pages = {"a": "03_loss.ipynb", "b": "02_qa_transitions.ipynb", "site": ""}
    needs = made(m=(), a=("m",), b=(), site=("a", "b"))
    found = [replace(job, notebook=pages.get(job.name, "")) for job in needs.values()]
    for job in graph.judged(study, "c", found, {}).jobs.values():
        _note(job, job.made_from)
        for page in job.pages:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.touch()
    assert not graph.judged(study, "c", found, {}).pending
    found[1].pages[0].unlink()
    assert set(graph.judged(study, "c", found, {}).stale) == {"a", "site"}
    found[1].pages[0].touch()
    found[0].note.unlink()  # what it measures may come out as before
    judged = graph.judged(study, "c", found, {})
    assert judged.stale == ("m",) and {job.name for job in judged.pending} == {"m", "a", "site"}


def test_a_graph_is_read_as_it_was_saved(made) -> None:
    found = made(a=(), b=("a",))
    found["b"] = replace(found["b"], notebook="b.ipynb", tables=("one",), reads=("two",))
    saved = _graph(found)
    graph.save(saved)
    assert graph.load("mine") == saved


def test_the_longest_chain_goes_first(made) -> None:
    found = _graph(made(a=(), b=("a",), c=("b",), d=()))
    assert found.until_end() == {"a": 30, "b": 20, "c": 10, "d": 10}
    assert found.chains({"b": 1.0, "c": 2.0}) == {"b": 3.0, "c": 2.0}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sectoins": "02"}, ["unknown key 'sectoins'", "sections"]),
        ({"sections": "02,99"}, ["no section '99'", "at_a_glance, 01_angular_distances"]),
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


@pytest.mark.parametrize(
    "given", [2, "2", "02", ["2"], [2], "[02]", " 02 ", "qa_transitions", "02_qa_transitions"]
)
def test_sections_can_be_named_in_many_ways(given: object) -> None:
    assert configuration({"sections": given}).sections == ["qa_transitions"]


def test_sections_bring_what_they_need(smoke: plan.Planned) -> None:
    found = jobs.listed(smoke, PACE, "sections", 1)
    assert graph.wanted(found, configuration({})) == found
    names = {job.name for job in graph.wanted(found, configuration({"sections": "03"}))}
    assert names == {"choices", "models-qa_transitions", "section-qa_transitions", "section-loss"}


def test_what_a_task_prints_is_not_read_and_a_broken_plan_is_made_again(
    results_dir: Path,
    build_dir: Path,
    tmp_path: Path,
    write_study: Studies,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = write_study(tmp_path)
    (tmp_path / "tasks/utils.py").write_text(
        'print("loading the questions")\n\n\ndef same(docs):\n    return docs\n'
    )
    with open(tmp_path / "tasks/quiz.yaml", "a") as task:
        task.write("process_docs: !function utils.same\n")
    asked = []

    def here(command: list[str], **_: object) -> subprocess.CompletedProcess:
        """Without importing torch once more."""
        asked.append(command)
        return subprocess.CompletedProcess(command, jobs.main(command[4:]), "", "")

    monkeypatch.setattr(graph.subprocess, "run", here)

    def built() -> list[str]:
        return list(graph.build(configuration({"study": str(file)}), 1).jobs)

    first = built()
    assert jobs.CHOICES in first and built() == first and len(asked) == 1
    (note,) = (build_dir / "plans").glob("mine-*.json")
    for broken in ("loading the questions\n" + note.read_text(), note.read_text()[:99], "{}"):
        note.write_text(broken)
        assert built() == first
    assert len(asked) == 4
