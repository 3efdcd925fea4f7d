"""Numbers and places as a page sets them."""

import pytest

from lib.words import of_paper, typeset


@pytest.mark.parametrize(
    ("text", "set_"),
    [
        ("similarity leads by -5.3 ± 4.0 points", "similarity leads by −5.3~±~4.0~points"),
        ("a loss of +0.061 of ln V, or -0.1", "a loss of +0.061~of~ln~V, or −0.1"),
        ("0.61 [-0.41, 0.81] and [12.5%, 25%]", "0.61~[−0.41,~0.81] and [12.5%,~25%]"),
        ("1.19 times; 3 seeds: (-1)", "1.19~times; 3~seeds: (−1)"),
        # No signs: names, ranges, numbers of examples, dates, powers.
        ("lora-r8-a16-all (0-shot), 10-20, 2026-11-29, 3e-05", None),
        ("10–90% from 2 to 4, with [no numbers, here]", None),
        ("the whole model's Fig. 2, Tables 1, D", "the whole model's Fig.~2, Tables~1, D"),
        ("half-way to ln V", "half-way to ln~V"),
    ],
)
def test_signs_and_spaces(text: str, set_: str | None) -> None:
    assert typeset(text) == (set_ or text).replace("~", "\N{NO-BREAK SPACE}")
    assert typeset(typeset(text)) == typeset(text)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("Fig. 2, 6", "the paper's Fig. 2, 6"),
        ("Table A", "the paper's Table A"),
        ("§5, Eq. 8", "the paper's §5, Eq. 8"),
        ("Footnote 10", "the paper's footnote 10"),
        ("after the paper", "after the paper"),
        ("reviews", "reviews"),
    ],
)
def test_a_papers_figures_are_not_the_books(where: str, says: str) -> None:
    assert of_paper(where) == says
