"""A pytest plugin that prints what the tests of families found, as one table:

    .venv/bin/python -m pytest -n 0 -p tests.matrix tests/test_{families,pruning,sweep}.py

A row is a family or a form of one; a cell holds the outcomes for dropping a block and for dropping
layers here and there, in that order, or one for a test that does both. Healing sees weights and
biases only; forms that have those of their family are not healed again.
"""

from collections import defaultdict

import pytest

COLUMNS = {
    "test_logits_equal_a_loop_over_the_kept_layers": "logits equal a loop by hand",
    "test_generation_with_a_cache_equals_without": "cached generation equals uncached",
    "test_saved_and_loaded_equals_in_memory": "saved and loaded equals in memory",
    "test_equals_the_model_pruned_in_memory": "on disk equals saved from memory",
    "test_afterwards_the_model_is_whole_again": "restored bit for bit",
    "test_a_sweep_equals_model_by_model": "sweep equals model by model",
    "test_the_ffn_is_in_4_bit_with_adapters_that_merge": "whole FFN in NF4 with adapters",
    "test_two_steps_of_healing_train_the_whole_ffn": "two healing steps move all of it",
}
SIGNS = {"passed": "✓", "failed": "✗", "skipped": "skipped"}
KINDS = ["contiguous", "scattered", "both"]

_cells: dict[str, tuple[str, str, str]] = {}  # node id → form, column, kind of drop
_found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        column = COLUMNS.get(getattr(item, "originalname", ""))
        if column:
            form = item.callspec.params["form"]
            kind = next((kind for kind in KINDS if kind in item.callspec.id), "both")
            _cells[item.nodeid] = form, column, kind


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.nodeid in _cells and (report.when == "call" or not report.passed):
        form, column, kind = _cells[report.nodeid]
        _found[form, column][kind] = SIGNS[report.outcome]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from tiny import VARIANTS  # plugins are loaded before conftest.py, which is to come first

    columns = list(COLUMNS.values())
    write = terminalreporter.write_line
    write(f"| family | {' | '.join(columns)} |")
    write("|---" * (len(columns) + 1) + "|")
    for form in dict.fromkeys(form for form, _ in _found):
        missing = "as its family" if form in VARIANTS else "not run"
        cells = [_found.get((form, column), {}) for column in columns]
        signs = [" ".join(cell[kind] for kind in KINDS if kind in cell) for cell in cells]
        write(f"| {form} | {' | '.join(shown or missing for shown in signs)} |")
    outcomes = [sign for cell in _found.values() for sign in cell.values()]
    write(f"{outcomes.count('✓')} of {len(outcomes)} passed; ✓ ✓: a block, and scattered layers")
