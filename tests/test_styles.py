"""Style sheets without rules that no page can use."""

from pathlib import Path

from lib.book import styles

CSS = """@charset "utf-8";
/* said by the theme */
.a, .b > p, #here .a:hover { color: red; --x: url("data:image/svg+xml,<svg/>"); }
.gone { color: blue }
.a.gone, .a:not(.gone) { margin: 0 !important }
a[class*="col-gone"] { padding: 0 }
@media (min-width: 10px) { .gone { top: 0 } .b{left:0} }
@media print { .gone { top: 0 } }
@keyframes gone { from { top: 0 } to { top: 1px } }
@font-face { font-family: X; src: url(x.woff2) }
:root { --a: 1 }
"""


def test_rules_stay_that_may_fit_an_element() -> None:
    found = styles.used(CSS, {"a", "b", "here"})
    assert '.a,.b > p,#here .a:hover{color: red; --x: url("data:image/svg+xml,<svg/>");}' in found
    assert ".gone{" not in found and ".a.gone" not in found and "said by" not in found
    assert ".a:not(.gone){margin: 0 !important}" in found
    assert 'a[class*="col-gone"]{' in found and ":root{--a: 1}" in found
    assert "@media (min-width: 10px) {.b{left:0}}" in found and "print" not in found
    assert "@keyframes gone" in found and "@font-face" in found
    assert styles.used(found, {"a", "b", "here"}) == found


def test_words_come_from_pages_and_scripts_and_our_own_sheet_stays(tmp_path: Path) -> None:
    static = tmp_path / "_static"
    static.mkdir()
    (tmp_path / "a.html").write_text('<p class="one">')
    (static / "x.js").write_text("element.classList.add('two')")
    for name in ("theme.css", "custom.css"):
        (static / name).write_text(".one{top:0}\n.two{top:0}\n.three{top:0}")
    styles.keep_used(tmp_path)
    assert (static / "theme.css").read_text() == ".one{top:0}\n.two{top:0}"
    assert "three" in (static / "custom.css").read_text()
