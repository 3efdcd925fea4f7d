"""Ways of healing side by side: by ability, against plain text, with errors over seeds."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Studies, sentences, write_jsonl, write_task

from lib import study
from lib.book.check import check
from lib.errors import UserError
from lib.experiments.further_conditions import way_conditions
from lib.experiments.measure import measure
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import healing_record
from lib.sections import macro, on_what, what_heals
from lib.sections.tables import answers

WAYS: list[dict[str, Any]] = [
    {"recipe": "lora", "data": "lessons"},
    {"recipe": "lora"},
    {"recipe": "lora", "distillation": 1.0},
    {"recipe": "lora", "teacher": 1.0},
]


def opened_on(write_study: Studies, folder: Path, **changes: Any) -> OpenStudy:
    write_task(folder / "tasks", "riddle", 20)
    write_jsonl(
        folder / "lessons.jsonl",
        [{"instruction": text[:4], "response": text} for text in sentences(30, 4000)],
    )
    given = {
        "tasks": [{"name": name, "role": "knowledge"} for name in ("quiz", "riddle")],
        "abilities": {"reasoning": ["riddle"]},
        "healing_data": [{"name": "lessons", "path": "./lessons.jsonl", "rows": "instructions"}],
        "strategies": ["simple"],
        "what_heals": {"recipes": WAYS, "fractions": [0.34, 0.5], "seeds": [0, 1]},
    }
    return OpenStudy(study.load(str(write_study(folder, **(given | changes)))))


@pytest.fixture
def opened(
    tmp_path: Path, write_study: Studies, results_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> OpenStudy:
    """Its model, which can do nothing, is taken to be able to do its tasks."""
    chance = property(lambda self: dict.fromkeys(self.opened.study.tasks, -1.0))
    monkeypatch.setattr(macro.Answers, "chance", chance)
    return opened_on(write_study, tmp_path)


def test_tables_hold_every_way_by_ability(opened: OpenStudy) -> None:
    conditions = way_conditions(opened)
    measure(opened, conditions)
    made = {table.name: table.make(opened) for table in what_heals.SECTION.tables}
    for table in what_heals.SECTION.tables:
        assert [*made[table.name]] == [*table.columns], table.name
    ways = made["ways_of_healing"]
    names = ["lessons", "healing text", "distilled on healing text", "taught on healing text"]
    assert ways["way"].drop_duplicates().tolist() == ["none", *names]
    trained = ways[ways["way"] != "none"]
    assert len(trained) == 4 * 2 * 2 * 3  # ways, fractions, seeds, and of these all and two
    assert trained["stderr"].notna().all() and (trained["loss_stderr"] > 0).all()
    assert set(trained["ability"]) == {"all", "reasoning", "knowledge"}
    of_one = trained.groupby(["way", "n", "seed"])["tokens"]
    assert (of_one.nunique() == 1).all()
    models = [one for one in conditions if one.healing]
    by_hand = {
        (what_heals.way(one), one.dropped.n, one.healing.seed): (
            answers(opened, one, opened.study.tasks[1]),
            healing_record(opened, one)["tokens"],
        )
        for one in models
    }
    for row in trained[trained["ability"] == "reasoning"].itertuples():
        scores, tokens = by_hand[row.way, row.n, row.seed]
        assert (row.accuracy, row.tokens) == (pytest.approx(scores.mean()), tokens)
    compared = made["ways_compared"]
    assert len(compared) == 2 * math.comb(4, 2) * 3 and not compared["own"].any()
    against = compared[compared["base"] == "healing text"]
    assert set(against["compared"]) == {*names} - {"healing text"} and len(against) == 2 * 3 * 3
    for row in against[against["ability"] == "reasoning"].itertuples():
        first, second = (
            np.stack([by_hand[way, row.n, seed][0] for seed in (0, 1)]).astype(float)
            for way in (row.compared, row.base)
        )
        gaps = first.mean(axis=0) - second.mean(axis=0)
        spread = sum(side.mean(axis=1).var(ddof=1) / 2 for side in (first, second))
        assert row.difference == pytest.approx(gaps.mean())
        assert row.stderr == pytest.approx(math.sqrt(gaps.var(ddof=1) / len(gaps) + spread))
        assert row.seeds == 2 and row.n_questions == 20
        assert row.base_tokens == pytest.approx(2 * 4 * 32)
    assert len(on_what.read_in_short(ways.drop_duplicates(["dropped", "way", "seed"]), "way")) == 4
    assert len(what_heals.leads(compared)) == len(compared)
    figure = what_heals.forest(compared)
    assert len(figure.axes) == 2 * 4
    assert set(what_heals.in_words(compared)["ability"]) == {"all", "reasoning", "knowledge"}


def test_what_is_written_counts_where_models_are_asked_to_write(
    tmp_path: Path, write_study: Studies
) -> None:
    tasks = [{"name": "quiz", "role": "knowledge"}, {"name": "riddle", "role": "generation"}]
    own = opened_on(write_study, tmp_path, tasks=tasks)
    assert {*what_heals.abilities(own)} == {"all", "reasoning", "knowledge"}
    what = {"recipes": WAYS[:2], "pruned_by": ["reverse-order"]}
    beside = opened_on(write_study, tmp_path, tasks=tasks, what_heals=what)
    assert {*what_heals.abilities(beside)} == {"all", "knowledge"}


def test_own_answers_are_set_against_those_given_to_the_same_instructions(
    tmp_path: Path, write_study: Studies
) -> None:
    lessons = {"name": "lessons", "path": "./lessons.jsonl", "rows": "instructions"}
    data = [lessons, lessons | {"name": "own", "own_answers": 8}]
    data.append(lessons | {"name": "whole", "scored": "all"})
    ways = [{"recipe": "lora", "data": one["name"]} for one in data]
    ways += [{"recipe": "lora"}, {"recipe": "lora", "data": "lessons", "distillation": 1.0}]
    settings = {"recipes": ways, "fractions": [0.5], "seeds": [0]}
    one = opened_on(write_study, tmp_path, healing_data=data, what_heals=settings)
    given, own, whole, text, distilled = (c for c in way_conditions(one) if c.healing)
    longer = replace(own, healing=own.healing.model_copy(update={"steps": 3}))
    assert what_heals._own(one, own, given) == "compared"
    assert what_heals._own(one, given, longer) == "base"
    for other in (whole, text, distilled, longer):
        assert what_heals._own(one, own, other) == ""


def rows(*found: tuple[str, str, float, float]) -> pd.DataFrame:
    """Way, ability, difference and its error; against plain text, a quarter dropped."""
    about = {"strategy": "simple", "n": 2, "fraction": 0.25, "healing": "lora-r8", "seeds": 3}
    about |= {"tokens": 101.0, "base_tokens": 100.0, "base": what_heals.PLAIN, "tasks": 1}
    about |= {
        "own": "",
        "n_questions": 50,
        "loss_difference": 0.01,
        "loss_stderr": 0.02,
        "same": "",
    }
    keys = ("compared", "ability", "difference", "stderr")
    made = [about | dict(zip(keys, one, strict=True)) for one in found]
    return pd.DataFrame(made, columns=list(what_heals.COMPARED))


def test_a_sentence_says_what_is_decided_and_what_is_not() -> None:
    table = rows(
        ("lessons", "facts", 0.05, 0.02),
        ("own", "facts", -0.05, 0.02),
        ("lessons", "sums", 0.03, 0.02),
        ("own", "sums", -0.04, 0.02),
    )
    found = what_heals.in_words(table).set_index("ability")["says"]
    assert found["facts"] == (
        "With 25% of the layers dropped, better than plain text: lessons (+5.0 ± 2.0 points); "
        "worse than plain text: own (−5.0 ± 2.0 points)."
    )
    assert found["sums"] == (
        "With 25% of the layers dropped, not decided: lessons (+3.0 ± 2.0 points), own (−4.0 ± 2.0 "
        "points)."
    )
    more = pd.concat([table, table.assign(n=4, fraction=0.5, strategy="similarity")])
    (facts, _) = what_heals.in_words(more)["says"]
    assert facts.startswith("With 25% of the layers dropped by simple, better")
    assert "points). With 50% of the layers dropped by similarity, better" in facts
    assert what_heals.leads(table)["tokens, of the base's"].tolist() == ["101.0%"] * 4


def test_marks_of_what_is_decided_are_filled() -> None:
    figure = what_heals.forest(rows(("a", "facts", 0.05, 0.02), ("b", "facts", 0.03, 0.02)))
    facts, loss = figure.axes
    marks = [line for line in facts.lines if line.get_marker() in ("o", "s")]
    assert [line.get_markerfacecolor() == "white" for line in marks] == [False, True]
    assert loss.get_title() == "loss / ln V" and facts.get_xlabel() == "difference, points"
    low, high = facts.get_xlim()
    assert low == -high and high >= 9
    nothing = what_heals.forest(rows())
    assert "no ways of healing" in nothing.axes[0].texts[0].get_text()


def test_nothing_is_compared_where_nothing_is_listed(
    tmp_path: Path, write_study: Studies, results_dir: Path
) -> None:
    one = OpenStudy(study.load(str(write_study(tmp_path))))
    for table in what_heals.SECTION.tables:
        made = table.make(one)
        assert made.empty and [*made] == [*table.columns], table.name
    assert what_heals.SECTION.extras(one) == []
    assert what_heals.in_words(what_heals.compared(one)).empty


def test_another_study_with_tasks_of_its_own_has_abilities_of_its_own(
    tmp_path: Path, write_study: Studies
) -> None:
    opened_on(write_study, tmp_path)
    tasks = "tasks: [{name: quiz, role: knowledge}]\n"
    for name, text, expected in (
        ("same.yaml", "", {"reasoning": ["riddle"]}),
        ("own.yaml", tasks, {}),
        ("named.yaml", tasks + "abilities: {facts: [quiz]}\n", {"facts": ["quiz"]}),
    ):
        (tmp_path / name).write_text(f"like: ./mine.yaml\n{text}")
        found = study.load(str(tmp_path / name))
        assert found.abilities == expected
        assert [one.name for one in found.what_heals.recipes] == [
            "lora-r4-on-lessons",
            "lora-r4",
            "lora-r4-distilled",
            "lora-r4-teacher",
        ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"recipes": [WAYS[1], WAYS[1]]}, "what_heals.recipes lists the same value twice"),
        ({"seeds": [1, 1]}, "what_heals.seeds lists the same value twice"),
        ({"recipes": [{"data": "none"}]}, "healing.data 'none' is none of"),
        ({"pruned_by": ["taylor"]}, "what_heals.pruned_by: 'taylor' is none of"),
        ({"recipes": [{"recipe": "partial", "teacher": 1.0}]}, "teacher goes with recipes that"),
        ({"fractions": [0.01]}, "what_heals.fractions [0.01] stand for no layer"),
        ({"recipes": [{"recipe": "lora", "rank": 500}]}, "rank 500 is above the narrowest"),
        ({"recipes": [{"recipe": "lora", "micro_batch": 3}]}, "micro_batch does not divide"),
    ],
)
def test_what_does_not_go_together_is_refused(
    changes: dict, says: str, tmp_path: Path, write_study: Studies, results_dir: Path
) -> None:
    what = {"recipes": WAYS, "fractions": [0.5]} | changes
    with pytest.raises(UserError) as error:
        check(opened_on(write_study, tmp_path, what_heals=what).study)
    assert says in str(error.value)


def test_a_teacher_wants_blocks_of_those_alone_whom_it_heals(
    tmp_path: Path, write_study: Studies, results_dir: Path
) -> None:
    (tmp_path / "second.py").write_text(
        "def choose(n, n_layers):\n    return [1, 3, 5, 4, 2][:n]\n", "utf-8"
    )
    scattered = {"name": "second", "file": "./second.py"}
    what = {"recipes": WAYS[1:], "fractions": [0.34]}
    given = {"which_layers": {"strategies": [scattered], "fractions": [0.34]}, "what_heals": what}
    check(opened_on(write_study, tmp_path, **given).study)
    given["what_heals"] = what | {"pruned_by": ["second"]}
    with pytest.raises(UserError, match="teacher goes with blocks of layers; strategy second"):
        check(opened_on(write_study, tmp_path, **given).study)
