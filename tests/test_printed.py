"""The audit of a paper's printed tables: sums by hand, and faults that are known to be there."""

import csv
import math

import pytest

from lib import paths
from lib.claims.rules import lu_printed

TASKS = ("piqa", "hellaswag", "openbookqa", "arc_easy", "arc_challenge", "winogrande")
LETTERED = ("mmlu", "cmmlu")
SIZES = (1838, 10042, 500, 2376, 1172, 1267, 14042, 11582)


def rows(**condition: str) -> list[dict[str, str]]:
    with open(paths.ROOT / "book/printed/lu-2024.csv", newline="") as file:
        found = list(csv.DictReader(file))
    return [row for row in found if condition.items() <= row.items()]


def numbers(text: str) -> list[float]:
    return [
        float(one.replace("−", "-")) for one in text.split("\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
    ]


def error(p: float, n: int) -> float:
    return math.sqrt(p * (1 - p) / (n - 1))


def test_every_printed_number_is_an_accuracy() -> None:
    assert len(rows()) == 126
    for row in rows():
        assert all(0.1 < float(row[task]) < 0.9 for task in (*TASKS, *LETTERED))
        assert all(len(row[task]) == 6 for task in (*TASKS, *LETTERED))


def test_one_average_is_not_the_mean() -> None:
    (found,) = lu_printed.averages()
    assert found["printed"] == "0.4190" and "Qwen1.5-7B" in found["row"]
    assert found["sum of the eight over 8"] == "3.2868 / 8 = 0.4108"
    (row,) = rows(table="1", model="Qwen1.5-7B", strategy="block-influence")
    assert sum(float(row[task]) for task in (*TASKS, *LETTERED)) == pytest.approx(3.2868)


def test_rows_of_another_fraction_are_found_as_copies() -> None:
    impossible = [row for row in lu_printed.copies() if row["which"].startswith("cannot be")]
    (found,) = impossible
    first, *others = found["rows that agree in all 32 digits"].split("; ")
    assert first == "A: Llama-3.1-8B-It, 50%, taylor, lora"
    assert [one[:2] for one in others] == ["D:"] * 3
    assert any(row["which"].startswith("follows: the same") for row in lu_printed.copies())


@pytest.mark.parametrize(("table", "fraction"), [("1", 0.25), ("A", 0.5)])
def test_leads_are_those_of_two_models_side_by_side(table: str, fraction: float) -> None:
    found = {
        (row["model"], row["reverse-order against"]): row for row in lu_printed.leads(fraction)
    }
    assert len(found) == 16
    for (model, other), row in found.items():
        (a,) = rows(table=table, model=model, strategy="reverse-order")
        (b,) = rows(table=table, model=model, strategy=other)
        sizes = dict(zip((*TASKS, *LETTERED), SIZES, strict=True))
        for name, tasks in (
            ("all eight", (*TASKS, *LETTERED)),
            ("MMLU and CMMLU", LETTERED),
            ("the other six", TASKS),
        ):
            gaps = [float(a[task]) - float(b[task]) for task in tasks]
            errors = [
                math.hypot(*(error(float(of[task]), sizes[task]) for of in (a, b)))
                for task in tasks
            ]
            value = 100 * sum(gaps) / len(gaps)
            stderr = 100 * math.hypot(*errors) / len(errors)
            assert numbers(row[name]) == pytest.approx([value, stderr], abs=0.00501)


def test_sentences_are_the_sums_that_stand_beside_them() -> None:
    found = {
        row["in the paper"]: row["what the numbers say"].replace("\N{NO-BREAK SPACE}", " ")
        for row in lu_printed.sentences()
    }
    assert "11.87 + 5.40 + 1.70 = 18.97" in found["About 19% better than block influence"]
    assert "+0.04 ± 0.57" in found["Better than Qwen1.5-7B"]
    assert "84.5% and 89.9%" in found["Comparable to the model it was cut from"]
    assert "+2.79 ± 0.57" in found["The reverse order is the best metric"]
    assert "0.0131" in found["WinoGrande .6795 ± .0109 (Table B)"]


def test_the_page_has_all_tables() -> None:
    page = (paths.ROOT / "book" / "audit.md").read_text("utf-8")
    for name, table in lu_printed.tables().items():
        assert table and f"{{include}} tables/audit_{name}.md" in page, name
    for row in lu_printed.schedules():
        step, total = (int(word) for word in row["steps"].split() if word.isdigit())
        assert row["training"] == f"{total // step} times"
