"""A study with pages of its own: run in this clone, or published by somebody."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lib import paths
from lib.schema import Study


@dataclass(frozen=True)
class Part:
    """notebooks: executed, by the names of their files; tables: where they lie; published: pages
    were made of what somebody published, and nothing was measured."""

    study: Study
    notebooks: dict[str, Path]
    tables: Path
    published: bool = False

    @property
    def name(self) -> str:
        return self.study.name

    @property
    def folder(self) -> str:
        """Of its pages, within the book."""
        default = self.name == paths.DEFAULT_STUDY
        return "notebooks" if default else f"studies/{self.name}"

    @property
    def pages(self) -> list[str]:
        return [f"{self.folder}/{Path(name).stem}" for name in self.notebooks]

    @cached_property
    def executed(self) -> dict[str, dict[str, Any]]:
        """The notebooks, read."""
        return {name: json.loads(path.read_text("utf-8")) for name, path in self.notebooks.items()}

    def run(self, notebook: str) -> dict[str, Any]:
        """What a section was run with; empty where the notebook does not say."""
        return self.executed[notebook]["metadata"].get("run", {})


def run_here(study: Study) -> Part:
    """A study of which every section has been executed in this clone."""
    names = [path.name for path in paths.sections().values()]
    executed = {name: paths.executed(study.name, name) for name in names}
    return Part(study, executed, paths.tables(study.name))
