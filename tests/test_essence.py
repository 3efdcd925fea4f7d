"""Lines of lib that stand on pages."""

import importlib.util
import inspect
import json
import re
from html import unescape
from pathlib import Path
from types import ModuleType

import pytest

from lib import paths
from lib.healing import adapters
from lib.pruning import dropped, geometry, surgery
from lib.sections import pages
from lib.statistics import paired, transitions

SHOWN = [
    geometry.angular_distance,
    dropped.most_similar,
    surgery.without,
    transitions.step,
    paired.paired,
    adapters.lora,
]


def text(html: str) -> str:
    """What a reader sees of the code."""
    code = re.findall(r'<div class="highlight"><pre>(.*?)</pre></div>', html, re.DOTALL)
    return unescape(re.sub(r"<[^>]+>", "", "\n".join(code)))


def written(source: str) -> ModuleType:
    """A module in the repository's folder, as long as the test runs."""
    path = paths.ROOT / "essence_of_a_test.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("function", SHOWN, ids=lambda function: function.__name__)
def test_the_page_shows_the_source(function: object) -> None:
    html = pages.essence(function).data
    source = inspect.getsource(function)
    body = source[source.index('"""', source.index('"""') + 3) + 3 :]
    assert body.strip() in text(html)
    assert source.partition("\n")[0] in text(html)
    name = Path(inspect.getsourcefile(function)).relative_to(paths.ROOT)
    assert f"<code>{name.as_posix()}</code>" in html
    assert "style=" not in html  # colours are the theme's
    assert len(text(html).splitlines()) <= 20


def test_private_helpers_come_along_and_long_docstrings_are_cut() -> None:
    found = text(pages.essence(geometry.angular_distance).data)
    assert "def _unit(" in found and "def _between_units(" in found
    assert 'in [0, 1], in float64."""' in found
    assert "keeps its precision" not in found


def test_files_stand_apart() -> None:
    html = pages.essence(dropped.most_similar, dropped.simple, paired.paired).data
    assert html.count('<div class="essence">') == 2


def test_a_changed_function_changes_the_page(root: Path) -> None:
    before = pages.essence(written("def f(x):\n    return x + 1\n").f).data
    after = pages.essence(written("def f(x):\n    return x + 22\n").f).data
    assert "return x + 1\n" in text(before)
    assert "return x + 22\n" in text(after)


def test_markup_in_code_is_escaped(root: Path) -> None:
    source = 'def f(x):\n    return "<script>alert(1)</script>" if x < 1 & 2 else "&amp;"\n'
    html = pages.essence(written(source).f).data
    assert "<script" not in html
    assert source in text(html)


def test_methods_lose_their_indent(root: Path) -> None:
    source = "class C:\n    def f(self, x):\n        return x\n"
    assert text(pages.essence(written(source).C.f).data) == "def f(self, x):\n    return x\n"


def test_notebooks_show_them_with_the_call_hidden() -> None:
    shown = set()
    for path in sorted(paths.NOTEBOOKS.glob("*.ipynb")):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            for call in re.findall(r"pages\.essence\((.*?)\)", "".join(cell["source"])):
                assert "remove-input" in cell["metadata"]["tags"], path.name
                shown |= {name.strip().rpartition(".")[2] for name in call.split(",")}
    assert shown == {function.__name__ for function in SHOWN}
