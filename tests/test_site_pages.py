"""What the site adds to its pages: sources of figures, feet, descriptions, BibTeX; what goes."""

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pydata_sphinx_theme
import pytest
import yaml

from lib import paths
from lib.book import citing, figure_sources, finish, icons, repository, status
from lib.claims.rules.reading import Untestable
from lib.errors import UserError
from lib.sections import pages, section

ADDRESS = "https://example.org/us/book"
PAGE = """<html><head>
<meta name="viewport" content="a"/><meta name="viewport" content="b"/>
  <script defer src="../_static/scripts/fontawesome.js?digest=5"></script>
  <script>window.MathJax = {"options": {}}</script>
  <script defer="defer" src="../_static/mathjax/tex-chtml.js"></script>
</head><body><article class="bd-article"><h1>A &amp; B<a class="headerlink" href="#a">#</a></h1>
<div class="pst-scrollable-table-container"><table>
<tr><th class="head">n</th><th class="head"><p></p></th></tr>
<tr><td>4</td><td>x</td></tr><tr><td></td></tr></table></div>
<details><summary aria-label="Toggle hidden content">Code</summary></details>
<p class="sign">A toy</p><p>Cut layers. Gromov <em>et al.</em> [2025] did. %s</p></article>
<!-- foot --></body></html>"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Set addresses in a copy of _config.yml."""

    def put(url: str = "", baseurl: str = "") -> None:
        found = yaml.safe_load((paths.ROOT / "_config.yml").read_text("utf-8"))
        found["repository"]["url"], found["html"]["baseurl"] = url, baseurl
        monkeypatch.setattr(repository, "settings", lambda: json.loads(json.dumps(found)))

    return put


def test_every_figure_names_the_function_that_draws_it() -> None:
    known = {*section.tables()}
    without = 0
    for path in paths.sections().values():
        notebook = json.loads(path.read_text("utf-8"))
        figures = sum("figure" in c["metadata"].get("mystnb", {}) for c in notebook["cells"])
        figure_sources.add(notebook, known)
        added = [c["source"] for c in notebook["cells"] if ":::{div} figure-source" in c["source"]]
        assert len(added) == figures, path.name
        without += sum("{download}" not in text for text in added)
        for text in added:
            (module,) = re.findall(r"in `(lib/\S+\.py)`", text)
            (function,) = re.findall(r"by `(\w+)`", text)
            assert f"def {function}(" in (paths.ROOT / module).read_text("utf-8")
            assert set(re.findall(r"tables/(\w+)\.csv", text)) <= known
    assert without <= 1  # training losses are drawn from the records of healings


def test_links_and_buttons_are_there_once_the_repository_has_an_address(config) -> None:
    config()
    assert repository.link("lib/paths.py", 3) == ""
    assert "launch_buttons" not in repository.configured()
    assert "url" not in citing.book() and "doi" not in citing.markdown().partition("```\n")[0]
    config(ADDRESS)
    assert repository.link("lib/paths.py", 3, "abc") == f"{ADDRESS}/blob/abc/lib/paths.py#L3"
    assert repository.configured()["html"]["use_edit_page_button"]
    assert f"{{{ADDRESS}}}" in citing.book()
    config("example.org")
    with pytest.raises(UserError, match="an address starts with"):
        repository.address()


def test_both_papers_can_be_cited() -> None:
    text = citing.markdown()
    assert text.count("```bibtex") == 3 and "{2403.17887}" in text and "{2411.15558}" in text
    cff = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text("utf-8"))
    assert len(cff["references"]) == 2


def test_the_foot_says_when_and_with_what_a_page_was_run(config) -> None:
    config(ADDRESS)
    packages = {"torch": "2", "numpy": "1"}
    run = {"when": "2026-01-02T03:04:05+00:00", "commit": "abcdef0123", "processor": "A <CPU>"}
    foot = status.foot(run | {"python": "3.11", "packages": packages, "seconds": 3})
    for part in ("run 2026-01-02", "A &lt;CPU&gt;", "Python 3.11", "torch 2", status.version()):
        assert part in foot
    assert f'href="{ADDRESS}/commit/abcdef0123"' in foot and "numpy" not in foot
    assert "built 20" in status.foot({})


@pytest.mark.parametrize("formula", [True, False])
def test_pages_load_what_they_need_and_say_what_they_are(
    formula: bool, config, tmp_path: Path
) -> None:
    config(ADDRESS, "https://book.example.org")
    static = tmp_path / "_static"
    fonts = "mathjax/output/chtml/fonts/a.woff"
    for name in ("mathjax/tex-chtml.js", "mathjax/tex-svg.js", fonts, "scripts/fontawesome.js"):
        (static / name).parent.mkdir(parents=True, exist_ok=True)
        (static / name).write_text("")
    words = 'Let <span class="math notranslate nohighlight">\\(x\\)</span>' if formula else "More."
    page = tmp_path / "book" / "one.html"
    page.parent.mkdir()
    page.write_text(PAGE % words)
    index = tmp_path / "index.html"
    index.write_text('<meta http-equiv="Refresh" content="0; url=book/one.html" />\n')
    finish.finish(tmp_path, "The book", lambda name: f"foot of {name}")
    text = index.read_text()
    assert 'content="0; url=book/one.html"' in text and "<main>" in text
    assert 'rel="icon" href="_static/favicon.svg"' in text
    text = page.read_text()
    assert ("mathjax" in text) is formula and ("window.MathJax" in text) is formula
    assert "fontawesome" not in text and text.count("viewport") == 1
    assert "foot of book/one" in text and '<th scope="col" class="head">' in text
    assert '<tr><th scope="row">4</th><td>x</td></tr><tr><td></td></tr>' in text
    assert '<th scope="col" class="head">n</th><td></td></tr>' in text
    assert "<summary>Code</summary>" in text
    assert 'tabindex="0" role="region" aria-label="A &amp; B">' in text
    about = "Cut layers. Gromov et al. [2025] did." + " More." * (not formula)
    assert f'<meta name="description" content="{about}">' in text
    assert 'property="og:title" content="A &amp; B"' in text
    assert "https://book.example.org/book/one.html" in text
    assert 'property="og:image" content="https://book.example.org/_static/share.png"' in text
    left = {path.relative_to(static).as_posix() for path in static.rglob("*") if path.is_file()}
    assert left == {"mathjax/tex-chtml.js", fonts}


@pytest.mark.parametrize("site", ["", "https://book.example.org/it"])
def test_what_needs_the_sites_address_is_there_once_it_has_one(
    site: str, config, tmp_path: Path
) -> None:
    config(baseurl=site)
    shutil.copytree(paths.ROOT / "book/_static", tmp_path / "_static")
    for name in ("a b.html", "notebooks/one.html", "search.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("<html></html>" if name == "search.html" else PAGE % "")
    finish.finish(tmp_path, "The <book>", lambda name: "")
    finish.addressed(tmp_path, "The <book>")
    shown = {path.name for path in (tmp_path / "_static").iterdir()}
    assert ("share.png" in shown) == bool(site) and not any("landing" in name for name in shown)
    assert ("og:image" in (tmp_path / "a b.html").read_text("utf-8")) == bool(site)
    if not site:
        assert not {*tmp_path.glob("*.xml")} | {*tmp_path.glob("404*")}
        return
    places = ElementTree.parse(tmp_path / "sitemap.xml").getroot().iterfind(".//{*}loc")
    assert [place.text for place in places] == [f"{site}/a%20b.html", f"{site}/notebooks/one.html"]
    lost = (tmp_path / "404.html").read_text("utf-8")
    assert "The &lt;book&gt;" in lost and "<book>" not in lost
    assert set(re.findall(r'href="([^"]*)"', lost)) == {f"{site}/", f"{site}/search.html"}


def test_icons_that_no_page_names_are_left_out(tmp_path: Path) -> None:
    theme = Path(pydata_sphinx_theme.__file__).parent / "theme/pydata_sphinx_theme/static"
    static = tmp_path / "_static"
    for name in ("styles", "vendor"):
        shutil.copytree(theme / name, static / name)
    (tmp_path / "a.html").write_text('<i class="fa-solid fa-bars"></i>')
    icons.keep_used(tmp_path)
    sheet = (static / "styles/pydata-sphinx-theme.css").read_text("utf-8")
    assert ".fa-bars:before" in sheet and ".fa-ghost:before" not in sheet
    fonts = static / "vendor/fontawesome/webfonts"
    assert {path.name for path in fonts.glob("*.woff*")} == {
        f"fa-{name}.woff" for name in ("brands-400", "regular-400", "solid-900")
    }
    assert ".woff2" not in sheet and (fonts / "fa-solid-900.woff").stat().st_size < 4000


def test_a_table_that_is_not_there_says_which_section_writes_it(
    results_dir: Path, build_dir: Path
) -> None:
    found = pages.tables_of("mine")
    with pytest.raises(Untestable, match=r"run section 02 first, which writes transitions\.csv"):
        found.transitions  # noqa: B018
    done = paths.executed("mine", paths.sections()["qa_transitions"].name)
    done.parent.mkdir(parents=True)
    done.touch()
    with pytest.raises(Untestable, match=r"this study does without transitions\.csv"):
        found.transitions  # noqa: B018
