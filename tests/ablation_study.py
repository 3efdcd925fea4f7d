"""The small study on which tests of the ablations are run, measured once for all of them."""

import shutil
from pathlib import Path

import pytest

from lib import paths
from lib import study as studies
from lib.experiments import conditions, measure, probes
from lib.experiments.opened import OpenStudy
from lib.files import claimed

STUDY = {
    "pruned_layers": [1, 3],
    "healing": {"recipe": "lora", "learning_rate": 0.3, "steps": 4, "seed": 5},
    "prompts": {"shots": 5, "orders": 3, "numbers": [5, 0], "limit": 20},
    "healing_seeds": {"seeds": [2], "fractions": [0.5]},
    "teacher": {"seeds": [5, 2], "fractions": [0.5], "weight": 2.0},
    "lora_rank": {"ranks": [2], "fractions": [0.5]},
    "writing": {"n_prompts": 1, "tokens": 2},
}


def all_conditions(opened) -> list:
    """What the sections on ablations ask for, one after the other."""
    return [
        *conditions.main_conditions(opened),
        *conditions.rank_conditions(opened),
        *conditions.seed_conditions(opened),
        *(one for group in conditions.teacher_conditions(opened).values() for one in group),
    ]


@pytest.fixture(scope="session")
def ablation_study(write_study, tmp_path_factory, worker_id) -> Path:
    """Its file, beside `results`: what is measured of it, once for all processes that test, and to
    be copied."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "ablations"
    with claimed(folder, "the study of the ablations is being measured"):
        if not (folder / "whole").exists():
            folder.mkdir(exist_ok=True)
            file = str(write_study(folder, **STUDY))
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("RESULTS_DIR", str(folder / "results"))
                opened = OpenStudy(studies.load(file))
                measure.measure(opened, all_conditions(opened))
            (folder / "whole").touch()
    return folder / "mine.yaml"


@pytest.fixture(scope="session")
def ablation_study_opened(ablation_study, tmp_path_factory) -> OpenStudy:
    """Its evidence is there; tests take `ablated`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULTS_DIR", str(tmp_path_factory.mktemp("results")))
        shutil.copytree(ablation_study.parent / "results/mine", paths.results("mine"))
        return OpenStudy(studies.load(str(ablation_study)))


@pytest.fixture
def ablated(ablation_study_opened: OpenStudy, monkeypatch) -> OpenStudy:
    """The study with all its evidence, and its results folder that of this test."""
    monkeypatch.setenv("RESULTS_DIR", str(ablation_study_opened.store.folder.parent.parent))
    return ablation_study_opened


def hits(opened, condition, task) -> list[int]:
    return [int(one) for one in probes.recorded(opened, condition, task)["correct"][task.name]]


def similar(opened, healed: bool) -> list:
    """Similarity-informed prunings of half the layers, healed with the study's recipe or not."""
    (found,) = (
        one
        for one in conditions.main_conditions(opened)
        if one.strategy == "similarity" and one.dropped.n == 3 and bool(one.healing) == healed
    )
    return [found]
