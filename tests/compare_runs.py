"""A run and the published run of the same name, made once; tests get copies to damage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lib import paths
from lib.book import publish
from lib.evidence.records import file_of, spelled
from lib.experiments import costs
from lib.experiments.opened import OpenStudy
from lib.sections import controls, tables
from lib.sections.pages import count_verdicts

Change = Callable[[dict[str, Any]], Any]


class Runs(NamedTuple):
    study: str  # its file
    own: Path  # results/mine
    published: Path  # published/mine

    def change(self, side: str, kind: str, change: Change, forged: bool = True, which: int = 0):
        """Change one record of a kind, and with `forged` its checksum and name too."""
        if side == "own":
            path = sorted((self.own / "evidence" / kind).glob("*.json"))[which]
            record = json.loads(path.read_text())
            path.unlink()
            changed = _changed(record, change, forged)
            if forged:
                path = self.own / "evidence" / file_of(kind, record["name"], record["inputs"])
            path.write_text(changed)
        else:
            path = self.published / "evidence.jsonl"
            lines = path.read_text().splitlines()
            of_kind = [i for i, line in enumerate(lines) if json.loads(line)["kind"] == kind]
            at = of_kind[which]
            record = json.loads(lines[at])
            lines[at] = _changed(record, change, forged)
            path.write_text("\n".join(lines) + "\n")
        return record

    def change_all(self, change: Change) -> None:
        """Change every record of this run, with its checksum and name."""
        for path in sorted((self.own / "evidence").glob("*/*.json")):
            record = json.loads(path.read_text())
            path.unlink()
            changed = _changed(record, change, True)
            file = file_of(record["kind"], record["name"], record["inputs"])
            (self.own / "evidence" / file).write_text(changed)


def _changed(record: dict[str, Any], change: Change, forged: bool) -> str:
    checksum = record.pop("checksum")
    change(record)
    return spelled(record) if forged else json.dumps(record | {"checksum": checksum})


@pytest.fixture(scope="module")
def whole(ablation_study_opened: OpenStudy, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The small study of the ablations, with its costs, its tables, and published."""
    folder = tmp_path_factory.mktemp("compared")
    shutil.copytree(ablation_study_opened.store.folder.parent, folder / "results" / "mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULTS_DIR", str(folder / "results"))
        patch.setattr(paths, "published", lambda name: folder / "published" / name)
        opened = OpenStudy(ablation_study_opened.study)
        costs.cost_table(opened)
        for name, make in publish.TABLES.items():
            table = make(opened)
            if table is not None:
                tables.save(opened, name, table)
        tables.save(opened, "unpruned", controls.unpruned_table(opened))
        count_verdicts(opened)
        publish.publish(ablation_study_opened.study)
    return Runs(
        ablation_study_opened.study.file, folder / "results/mine", folder / "published/mine"
    )


@pytest.fixture
def runs(whole: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build_dir: Path) -> Runs:
    """A copy of both runs, which are where `lib` looks for them."""
    for one in (whole.own, whole.published):
        shutil.copytree(one, tmp_path / one.parent.name / one.name, ignore=_adapters)
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setattr(paths, "published", lambda name: tmp_path / "published" / name)
    return Runs(whole.study, tmp_path / "results/mine", tmp_path / "published/mine")


def _adapters(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "adapters"]
