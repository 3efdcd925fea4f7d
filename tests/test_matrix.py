"""Families of many kinds against identity layers: a slim part of `tests/matrix.py`."""

import pytest
from matrix import COLUMNS, FORMS, row
from zoo import MORE

# One of a kind: a convolution, states alone and beside attention, linear attention, experts of
# another layout, latent attention under dense and sparse FFN, ALiBi, parallel blocks.
SLIM = ("lfm2", "mamba2", "granitemoehybrid", "qwen3_next", "gpt_oss", "deepseek_v3", "bloom")
SLIM += ("cohere2", "zamba2")
# What cannot be had of these, and the line that says so.
LINES = {
    "deepseek_v3": {},
    "zamba2": {"on disk and back": "share weights"},
}


@pytest.mark.parametrize("form", SLIM)
def test_a_family_is_right_or_one_line(form: str) -> None:
    cells = row(form)
    for column, cell in cells.items():
        line = LINES.get(form, {}).get(column)
        assert "WRONG" not in cell and "\n" not in cell
        if column == "healing with adapters":
            assert cell == "modules known" or "healing: none" in cell
        else:
            assert line in cell if line else cell.startswith("right"), f"{column}: {cell}"
    assert list(cells) == list(COLUMNS)


def test_the_whole_matrix_has_every_family_once() -> None:
    assert len(FORMS) == len(set(FORMS)) and set(SLIM) <= set(MORE) <= set(FORMS)
