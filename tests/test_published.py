"""Reference runs: every record stands as it was measured, and today's code gives its inputs the
digest that it was recorded under.

A refactoring must leave this green. Where a value or an input rightly changes, METHOD is raised,
the run is measured and published again, and its line in CONTENT is made anew.
"""

from pathlib import Path

import pytest
from transformers import AutoConfig

from lib import paths, study
from lib.book.publish import TABLES
from lib.evidence.records import digest, file_of, in_place, spelled
from lib.experiments import costs
from lib.experiments.opened import OpenStudy
from lib.sections import other_runs, tables

# SHA-256 over kind, name, inputs and value of all records of a run, in order.
CONTENT = {
    "almanac": "ab703b4f195fd82718646887683f9c6a5c67af04395b75da82c1e0489b68b961",
    "almanac-8-layers": "4d2fca7633681f5d9074587ff8444bd21154b5fa3fb1d1501df1878fd9c9e049",
    "almanac-fact-healing": "d70009e7f8f9d5794ad19d941a69f8b710405438c62b07994b85ff6b36403d84",
    "almanac-no-facts": "db60b22b7bf3b8921f43db41660dc70ae0308c6c5452d6eaf0816e676c2ecdbc",
    "almanac-seed1": "fad714742c0162ac7e84610b27b49aac0645eba39b358ad8d91ce083fe0b5f9f",
    "almanac-seed2": "8abc45434f1bd23fc0935663abc49c9fa341c15563a1fe4c3372c90a6fb19f9b",
    "almanac-untrained": "8522d0a1ffde8113ed1c0abace7fa89b1cbd762766002bbc414e6c318334a5d6",
    "qwen2.5-coder-0.5b-instruct": (
        "e654b8d11d3b1006ecd0752b8f19fd244561ecf655066b0e603d21bee54e26ad"
    ),
    "smollm2-135m-instruct": "0cef1f92d216362834cf62d385fa41dae8ed3fb0bf693c93784a067796fe8556",
    "smollm2-135m-instruct-public": (
        "9878fa77cc80a05616bbc33ddaf94335760d22882aa4ba48f776af3b05860790"
    ),
}


def recorded(name: str) -> list[dict]:
    found = []
    for label, record, problem in in_place(paths.published(name) / "evidence.jsonl"):
        assert problem is None, f"{label}: {problem}"
        found.append(record)
    return found


def content(records: list[dict]) -> str:
    rows = [[one[key] for key in ("kind", "name", "inputs", "value")] for one in records]
    return digest(sorted(rows, key=lambda row: digest(row)), 64)


def test_every_published_run_is_held() -> None:
    assert set(CONTENT) == {path.parent.name for path in paths.published("").glob("*/study.json")}


def test_runs_under_way_are_whole_as_far_as_they_go() -> None:
    for path in paths.published("").glob("*.jsonl"):
        study.load(path.stem)
        assert not (paths.published(path.stem) / "study.json").exists(), "it has come to its end"
        for label, record, problem in in_place(path):
            assert problem is None and record["value"], f"{label}: {problem}"


@pytest.mark.parametrize("name", CONTENT)
def test_records_are_as_they_were_measured(name: str) -> None:
    assert content(recorded(name)) == CONTENT[name]


def test_every_published_run_has_the_sign_of_its_study(results_dir: Path) -> None:
    found = {run.name: run.sign for run in other_runs.others("")}
    assert found == {name: study.load(name).sign for name in CONTENT}


def take_data_as_recorded(opened: OpenStudy, found: list[dict]) -> None:
    """The sources of texts and of questions, which an opened study else looks at once."""
    for one in found:
        inputs, name = one["inputs"], one["name"]
        if one["kind"] == "distances" and "checkpoint" in inputs:
            others = {text.name: text for text in opened.study.other_texts}
            which = others.get(name.rpartition(" ")[0], "validation")
            opened.texts[which] = inputs["text"]
        elif one["kind"] == "healing":
            opened.texts[opened.study.healing_text] = inputs["healing"]["text"]
        elif one["kind"] in ("qa", "perplexity"):
            task = inputs["task"]
            opened._task_sources[task["name"], task.get("shots", 0) > 0] = inputs["source"]


@pytest.mark.parametrize("name", CONTENT)
def test_todays_code_finds_every_record(
    name: str, results_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the shipped files: checkpoint (of the almanac itself), texts, tasks, settings. What is
    not shipped is taken to be what the records say: models, and public data."""
    found = recorded(name)
    files = set()
    for one in found:
        path = results_dir / name / "evidence" / file_of(one["kind"], one["name"], one["inputs"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(spelled(one), encoding="utf-8")
        files.add(path)
    # Times are of the machine that they were taken on.
    for place in (one["inputs"] for one in found if one["kind"] == "cost"):
        monkeypatch.setattr(costs, "device_name", lambda opened, place=place: place["device"])
        timed = {key: place[key] for key in costs.ON_CPU if key in place}
        monkeypatch.setattr(costs, "ON_CPU", timed)
    monkeypatch.setattr(tables, "fit", lambda *_: None)  # of what was found, which takes long
    opened = OpenStudy(study.load(name))
    if not Path(opened.study.model).exists():  # neither controls nor real models are shipped
        distances = [one for one in found if one["kind"] == "distances"]
        own = next(one for one in distances if "checkpoint" in one["inputs"])
        twins = [one["inputs"]["untrained"] for one in distances if "untrained" in one["inputs"]]
        if twins:  # of the same configuration
            opened.config = AutoConfig.for_model(**twins[0])
        else:
            opened.config = OpenStudy(study.load("almanac")).config
            opened.config.num_hidden_layers = max(own["value"]["table"]["n"]) + 1
        opened.checkpoint = own["inputs"]["checkpoint"]

    if not Path(opened.study.validation_text.path).exists():
        take_data_as_recorded(opened, found)

    def measured(kind: str, name: str, *_: object, **__: object) -> None:
        raise AssertionError(f"{kind} {name} is not found and would be measured")

    get = opened.store.get
    monkeypatch.setattr(
        opened.store,
        "get_or_measure",
        lambda kind, name, inputs, *_, **__: get(kind, name, inputs) or measured(kind, name),
    )
    for table, make in TABLES.items():
        if (paths.published(name) / "tables" / f"{table}.csv").exists():
            make(opened)
    assert opened.store.used == files
