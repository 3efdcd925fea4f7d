"""The questions of abilities/ are those that the script writes, and must be read to be answered."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lm_eval.tasks import TaskManager

from abilities import make
from abilities.fours import in_fours
from lib import paths

TASKS = paths.ROOT / "abilities" / "tasks"
KINDS = ("arithmetic", "steps", "brackets", "copying")
NAMES = (*KINDS, "context_short", "context_long")
FILES = [f"{kind}_{split}" for kind in KINDS for split in ("test", "dev")] + ["contexts"]
CLOSES = {")": "(", "]": "[", "}": "{"}


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TASKS / f"{name}.jsonl").read_text("utf-8").splitlines()]


def test_the_files_are_those_that_the_script_writes(tmp_path: Path) -> None:
    make.main(tmp_path)
    written = sorted(tmp_path.iterdir())
    assert [path.name for path in written] == sorted(path.name for path in TASKS.glob("*.jsonl"))
    for path in written:
        assert path.read_bytes() == (TASKS / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", FILES)
def test_options_alone_say_nothing(name: str) -> None:
    found = rows(name)
    assert len(found) % 4 == 0 and (len(found) >= 100 or name.endswith("dev"))
    for four in (found[i : i + 4] for i in range(0, len(found), 4)):
        assert len({frozenset(row["choices"]) for row in four}) == 1
        # Whatever somebody takes for right, of options or of places, is right once in four.
        assert {row["choices"][row["answer"]] for row in four} == {*four[0]["choices"]}
        assert sorted(row["answer"] for row in four) == [0, 1, 2, 3]
        for place in range(4):
            assert len({row["choices"][place] for row in four}) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_no_prompt_stands_twice(kind: str) -> None:
    prompts = [next(iter(row.values())) for row in rows(f"{kind}_test") + rows(f"{kind}_dev")]
    assert len(set(prompts)) == len(prompts)


def test_four_questions_have_four_options() -> None:
    with pytest.raises(ValueError, match="four different options"):
        in_fours([{}] * 4, ["a", "b", "c", "c"], None)


@pytest.mark.parametrize("split", ["test", "dev"])
def test_sums_are_right_and_no_option_is_a_number_of_the_question(split: str) -> None:
    signs: Counter[str] = Counter()
    for row in rows(f"arithmetic_{split}"):
        a, sign, b = re.fullmatch(r"What is (\d+) ([+-]) (\d+)\?", row["question"]).groups()
        signs[sign] += 1
        value = int(a) + int(b) if sign == "+" else int(a) - int(b)
        assert row["choices"][row["answer"]] == str(value)
        assert not {a, b} & {*row["choices"]}
        # No bound rules an option out.
        numbers, options = (int(a), int(b)), [int(one) for one in row["choices"]]
        assert min(options) > max(numbers) if sign == "+" else max(options) < int(a)
    assert min(signs.values()) > 0.25 * signs.total()


@pytest.mark.parametrize("split", ["test", "dev"])
def test_two_steps_are_needed(split: str) -> None:
    for row in rows(f"steps_{split}"):
        a, b, c = map(int, re.findall(r"\d+", row["question"]))
        assert row["choices"][row["answer"]] == str(a + b - c)
        assert not {str(n) for n in (a, b, c, a + b)} & {*row["choices"]}


def closed(text: str) -> bool:
    """Whether all brackets of a text are closed, in the reverse order."""
    left: list[str] = []
    for sign in text.split():
        if sign not in CLOSES:
            left.append(sign)
        elif not left or left.pop() != CLOSES[sign]:
            return False
    return not left


@pytest.mark.parametrize("split", ["test", "dev"])
def test_one_continuation_closes_all_brackets(split: str) -> None:
    for row in rows(f"brackets_{split}"):
        right = [closed(f"{row['opened']} {choice}") for choice in row["choices"]]
        assert right == [place == row["answer"] for place in range(4)]
        assert len({"".join(sorted(choice)) for choice in row["choices"]}) == 1
        # Nor does the last bracket say it, with which two of them begin.
        assert sorted(Counter(choice[0] for choice in row["choices"]).values()) == [2, 2]


@pytest.mark.parametrize("split", ["test", "dev"])
def test_the_right_words_are_those_that_were_said(split: str) -> None:
    for row in rows(f"copying_{split}"):
        assert row["choices"][row["answer"]] == row["words"]
        words = [sorted(choice.split(", ")) for choice in row["choices"]]
        assert all(one == words[0] for one in words) and len({*words[0]}) == 8


def test_only_the_fact_says_where_something_is() -> None:
    fillers = rows("fillers")
    for length, least in (("short", make.SHORT), ("long", make.LONG)):
        for row in fillers:
            assert least <= len(row[length].split()) < least + 80
    assert all(row["long"].startswith(row["short"]) for row in fillers)
    for row in rows("contexts"):
        answer = row["choices"][row["answer"]]
        assert answer in row["fact"] and answer not in row["question"]
        text = fillers[row["filler"]]["long"].lower()
        assert not any(choice.split()[-1] in text for choice in row["choices"])
        assert row["question"].removesuffix("?").split()[-1] not in text


@pytest.mark.parametrize("name", NAMES)
def test_lm_eval_reads_them(name: str) -> None:
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    task = manager.load([f"ability_{name}"])["tasks"][f"ability_{name}"]
    documents = list(task.eval_docs)
    assert len(documents) in (100, 144)
    for document in documents[:4]:
        prompt, target = task.doc_to_text(document), task.doc_to_target(document)
        assert not prompt[-1].isspace() and "{{" not in prompt
        assert task.doc_to_choice(document)[target] == document["choices"][document["answer"]]
    lengths = [len(task.doc_to_text(document).split()) for document in documents]
    assert min(lengths) > {"context_short": 80, "context_long": 480}.get(name, 4)
