"""What prose pages promise about the code."""

import re

import pytest
from pydantic import BaseModel

import lib
from lib import fields, open_sets, paths, schema


def keys(page: str) -> dict[str, list[str]]:
    """Heading → the keys in its table, of `book/rerun.md`."""
    found = {}
    text = re.sub(r"^```\w*$.*?^```$", "", page, flags=re.M | re.DOTALL)
    for part in text.split("## Every key of a study")[1].split("\n### ")[1:]:
        found[part.partition("\n")[0]] = sorted(re.findall(r"^\| `(\w+)` \|", part, re.M))
    return found


def test_every_key_of_a_study_stands_in_the_tables_once() -> None:
    tables = keys((paths.ROOT / "book/rerun.md").read_text("utf-8"))
    of_study = schema.Study.model_fields

    def own(text: type[fields.Text]) -> set[str]:
        return set(text.model_fields) - set(fields.Text.model_fields)

    expected = {
        "The study": set(of_study) - {"name", "file"},
        "A text source": set(fields.NamedText.model_fields),
        "Data for healing": own(fields.Data),
        "A task": set(schema.Task.model_fields),
        "Whole texts": set(schema.Perplexity.model_fields),
        "A strategy": set(open_sets.Chosen.model_fields),
        "`healing`": set(open_sets.Healing.model_fields),
        "Adapters": set(open_sets.Adapters.model_fields) - set(open_sets.Healing.model_fields),
    }
    shared = expected["`healing`"] | expected["Adapters"]
    for name in open_sets.known("recipe"):
        if further := set(open_sets.module("recipe", name).Settings.model_fields) - shared:
            expected[f"Recipe `{name}`"] = further
    for key, field in of_study.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not fields.Text:
            expected[f"`{key}`"] = set(kind.model_fields)
    expected["`calibration`"] = own(fields.Calibration)
    found = {
        next(title for title in expected if head.startswith(title)): keys
        for head, keys in tables.items()
    }
    assert found == {title: sorted(keys) for title, keys in expected.items()}


def test_the_page_names_every_recipe_and_strategy() -> None:
    page = (paths.ROOT / "book/rerun.md").read_text("utf-8")
    for kind in ("recipe", "strategy"):
        for name in open_sets.known(kind):
            assert f"`{name}`" in page, name


def test_the_strategies_on_the_page_work() -> None:
    page = (paths.ROOT / "book/rerun.md").read_text("utf-8")
    code = next(
        one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "choose" in one
    )
    defined: dict = {}
    exec(code, defined)
    for n in range(1, 12):
        assert len({layer for layer in defined["choose"](n, 12) if 0 <= layer < 12}) == n


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "book/method.md"])
def test_the_wings_stand_beside_the_map_in_their_own_words(name: str) -> None:
    page = (paths.ROOT / name).read_text("utf-8")
    wings = re.findall(r"^(\w+) {2,}(\S.*)$", lib.__doc__ or "", re.M)
    rows = [f"| `lib/{wing}/` | {says} |" for wing, says in reversed(wings)]
    found = [line for line in page.splitlines() if re.match(r"\| `lib/\w+/` \|", line)]
    assert len(found) == len(rows)
    assert all(line.startswith(row) for line, row in zip(found, rows, strict=True))
    for theme in ("light", "dark"):
        assert f"_static/house-{theme}.svg" in page


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "rerun", "method", "cluster"])
def test_files_that_pages_name_are_there(name: str) -> None:
    page = (paths.ROOT / (name if name.endswith(".md") else f"book/{name}.md")).read_text("utf-8")
    for path in re.findall(r"`((?:lib|tests|book|almanac|tasks|profiles)/[\w./-]+)`", page):
        example = {"lib/sections/name.py", "lib/claims/name.py"}
        assert (paths.ROOT / path).exists() or path in example, path


def test_every_file_that_contributing_points_to_is_in_its_wing() -> None:
    page = (paths.ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for wing, hints in re.findall(r"^\| `lib/(\w+)/` \|[^|]*\| ([^|]*) \|$", page, re.M):
        named = re.findall(r"`(\w+/?)`", hints)
        assert named, wing
        for name in named:
            path = paths.ROOT / "lib" / wing / (name if name.endswith("/") else f"{name}.py")
            assert path.exists(), path
