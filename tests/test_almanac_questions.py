"""The almanac's questions: true, balanced, and shown in no text.

Each property is a function that returns what breaks it, called on what is shipped and then on
the same with a fault planted, which it has to find.
"""

import copy
import itertools
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from test_almanac import WORLD, beginnings, instructions, rows, stream, texts, truths

from almanac.text import ask
from almanac.vocabulary import ROUTES, TOPICS
from almanac.world import FOLDER, held_out

FACTS = "one_hop", "two_hop"
SPLITS = "test", "dev"
SIZES = {"one_hop": (400, 96), "two_hop": (192, 36), "reading": (400, 40), "sums": (160, 32)}
# A problem of two steps as it is asked, and as it is worked.
STEPS = (
    r"had (\d+) \w+, bought (\d+) and gave away (\d+)",
    r"(\d+) \+ (\d+) = \d+\. \d+ - (\d+)",
)
FILES = "validation", "healing", "healing_facts", "healing_validation", "tales"
FILES += "calibration", "held_out"

Rows = list[dict]


def questions(task: str, split: str) -> Rows:
    return rows(f"tasks/{task}_{split}.jsonl")


def answers(split: str) -> dict[str, str]:
    """The true answers about the subjects of a split; none leads over a plain subject."""
    if split == "test":
        return truths(WORLD.quizzed, WORLD.quizzed + WORLD.schooled)
    return truths(WORLD.schooled, WORLD.schooled)


@cache
def everything_read() -> list[str]:
    """The beginnings of the training streams, and every shipped text."""
    return [*stream(), *stream(facts=False), *instructions(), *itertools.chain(*map(texts, FILES))]


def wrong_choices(found: Rows, truth: dict[str, str]) -> Rows:
    """Questions whose right choice is not the only one, or that are nobody's to ask."""
    return [
        row
        for row in found
        if len(set(row["choices"])) != 4
        or [truth.get(row["question"]) == choice for choice in row["choices"]]
        != [position == row["answer"] for position in range(4)]
    ]


def uneven_positions(found: Rows) -> list[int]:
    """Positions that are not right as often as the others."""
    counts = Counter(row["answer"] for row in found)
    return [position for position in range(4) if 4 * counts[position] != len(found)]


def telling_values(found: Rows) -> list[tuple[str, str]]:
    """Values, by kind of question, that are right more or less often than one time in four."""
    offered = Counter((row["kind"], choice) for row in found for choice in row["choices"])
    right = Counter((row["kind"], row["choices"][row["answer"]]) for row in found)
    return [value for value in offered if offered[value] != 4 * right[value]]


def asked(row: dict) -> object:
    """A question with its passage; of sums the numbers, whoever has how much of what."""
    text = row.get("passage", "") + row["question"]
    return tuple(reckoned(text)) or text


def shared(test: Rows, dev: Rows) -> set[object]:
    """Questions that are in both."""
    return {asked(row) for row in test} & {asked(row) for row in dev}


def repeated(found: Rows) -> list[object]:
    return [question for question, count in Counter(map(asked, found)).items() if count > 1]


@cache
def hops() -> dict[str, list[str]]:
    """Every statement, up to the value, of the two facts that a two-hop question takes."""
    known = {subject.name: subject for subject in WORLD.everybody}
    return {
        route.question.format(name=subject.name): beginnings(subject, route.first)
        + beginnings(known[subject.facts[route.first]], route.second)
        for subject, route in itertools.product(WORLD.everybody, ROUTES)
        if subject.kind == route.kind
    }


def told_hops(asking: Iterable[str], documents: Iterable[str]) -> list[str]:
    """Questions of which these documents state a fact, the first or the second."""
    text = "\n".join(documents)
    return [question for question in asking if any(words in text for words in hops()[question])]


def shown(documents: Iterable[str], found: Rows) -> list[str]:
    """Questions, or the passages that they are on, that occur in these documents."""
    text = "\n".join(documents)
    return [words for row in found if (words := row.get("passage", row["question"])) in text]


def traveller(row: dict) -> str:
    return row["passage"].split()[0]


def met_travellers(found: Rows, documents: Iterable[str]) -> list[str]:
    """Travellers who are met twice, or in these documents, or who could be."""
    words = set(re.findall(r"\w+", "\n".join(documents)))
    counts = Counter(map(traveller, found))
    return [
        name for name, count in counts.items() if count > 1 or name in words or not held_out(name)
    ]


def question_form(row: dict) -> str:
    return row["question"].replace(traveller(row), "{name}")


def telling_forms(found: Rows) -> list[str]:
    """Forms of questions that are not answered yes as often as no."""
    balance = Counter()
    for row in found:
        balance[question_form(row)] += 1 if row["answer"] else -1
    return [form for form, difference in balance.items() if difference]


def misread(found: Rows) -> Rows:
    """Questions whose answer is not what one sentence of the passage, and no other, tells."""
    topics = {topic.question: topic for topic in TOPICS}
    wrong = []
    for row in found:
        topic = topics[question_form(row)]
        told = [
            answer
            for answer, sentences in enumerate((topic.no, topic.yes))
            for sentence in sentences
            if f" {sentence.format(name=traveller(row))}" in row["passage"]
        ]
        if told != [row["answer"]]:
            wrong.append(row)
    return wrong


def reckoned(text: str) -> list[tuple]:
    """Every sum, difference and problem in a text; numbers that are added are put in order."""
    found: list[tuple] = []
    for one, sign, other in re.findall(r"(\d+) ([+-]) (\d+)", text):
        pair = int(one), int(other)
        found.append((sign, *(sorted(pair) if sign == "+" else pair)))
    for had, bought, gave in itertools.chain(*(re.findall(words, text) for words in STEPS)):
        found.append(("steps", *sorted([int(had), int(bought)]), int(gave)))
    return found


def spoilt(found: Rows, **changes: object) -> Rows:
    """The same questions, the first with other entries."""
    return [found[0] | changes, *copy.deepcopy(found[1:])]


def exchanged(found: Rows, kind: str, key: str) -> Rows:
    """The same questions, where the first two of a kind that differ there have each other's."""
    found = copy.deepcopy(found)
    one, other = next(
        pair
        for pair in itertools.combinations([row for row in found if row["kind"] == kind], 2)
        if pair[0][key] != pair[1][key]
    )
    one[key], other[key] = other[key], one[key]
    return found


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", FACTS)
def test_fact_questions_are_true_and_balanced(task: str, split: str) -> None:
    found = questions(task, split)
    assert wrong_choices(found, answers(split)) == []
    assert uneven_positions(found) == []
    assert telling_values(found) == []
    assert repeated(found) == []


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", FACTS)
def test_untrue_and_unbalanced_fact_questions_are_found(task: str, split: str) -> None:
    found, truth = questions(task, split), answers(split)
    choices, answer = found[0]["choices"], found[0]["answer"]
    other = questions(task, "dev" if split == "test" else "test")[0]
    assert wrong_choices(spoilt(found, answer=(answer + 1) % 4), truth)
    assert wrong_choices(spoilt(found, choices=[choices[answer]] * 4), truth)
    assert wrong_choices(spoilt(found, choices=[*choices[:3], choices[0]]), truth)
    assert wrong_choices([*found, other], truth) == [other]  # about a subject of the other split
    assert uneven_positions(spoilt(found, answer=(answer + 1) % 4))
    assert telling_values(spoilt(found, answer=(answer + 1) % 4))
    assert telling_values(exchanged(found, found[0]["kind"], "answer"))
    assert repeated([*found, found[3]])


def test_healing_tells_no_fact_that_a_two_hop_question_takes() -> None:
    asking = [row["question"] for row in questions("two_hop", "test")]
    healing = [*texts("healing"), *texts("healing_validation"), *texts("tales")]
    assert told_hops(asking, healing) == []
    assert told_hops(asking, texts("healing_facts")) == asking
    for words in hops()[asking[0]]:
        assert asking[0] in told_hops(asking, [*healing[:9], f"{words}something."])
    over_plain = truths(WORLD.quizzed, WORLD.everybody).keys() - answers("test").keys()
    assert over_plain and set(told_hops(over_plain, healing)) == over_plain
    wrong = [{"question": question, "choices": [*"abcd"], "answer": 0} for question in over_plain]
    assert wrong_choices(wrong, answers("test")) == wrong


@pytest.mark.parametrize("task", SIZES)
def test_tests_and_examples_share_no_question(task: str) -> None:
    test, dev = (questions(task, split) for split in SPLITS)
    assert shared(test[:5], [*dev[:5], test[2]])
    assert shared(test, dev) == set()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", SIZES)
def test_no_text_shows_a_question(task: str, split: str) -> None:
    found = questions(task, split)
    # Examples are about the schooled, whom training may ask about in the very same words.
    exempt = split == "dev" and task in FACTS
    healing = [*texts("healing"), *texts("healing_facts"), *texts("healing_validation")]
    assert shown(healing if exempt else everything_read(), found) == []
    words = found[7].get("passage", found[7]["question"])
    assert shown([*healing[:9], f"Once more: {words}"], found) == [words]


def test_nobody_met_before_travels_in_reading_questions() -> None:
    found = questions("reading", "test") + questions("reading", "dev")
    assert met_travellers(found, everything_read()) == []
    name = traveller(found[0])
    assert met_travellers(found, [*stream()[:9], f"Where was {name}?"]) == [name]
    assert met_travellers([*found, found[8]], []) == [traveller(found[8])]
    known = next(text for text in stream() if " went to the " in text)
    assert met_travellers([{"passage": known}], [])


@pytest.mark.parametrize("split", SPLITS)
def test_reading_questions_are_true_and_balanced(split: str) -> None:
    found = questions("reading", split)
    assert misread(found) == []
    assert telling_forms(found) == []
    assert {question_form(row) for row in found} == {topic.question for topic in TOPICS}
    assert repeated(found) == []


def test_untrue_and_unbalanced_reading_questions_are_found() -> None:
    found = questions("reading", "test")
    flipped = spoilt(found, answer=1 - found[0]["answer"])
    assert misread(flipped) == flipped[:1]
    assert telling_forms(flipped) == [question_form(found[0])]
    assert misread(spoilt(found, passage=f"{traveller(found[0])} went to the pond."))
    topic = next(topic for topic in TOPICS if topic.question == question_form(found[0]))
    both = " ".join(topic.yes[0:1] + topic.no[0:1]).format(name=traveller(found[0]))
    assert misread(spoilt(found, passage=f"{found[0]['passage']} {both}"))


def test_tasks_load_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(tmp_path)
    manager = TaskManager(include_path=str(FOLDER / "tasks"), include_defaults=False)
    assert sorted(manager.all_tasks) == sorted(f"almanac_{task}" for task in SIZES)
    tasks = manager.load(manager.all_tasks)["tasks"]
    for name, sizes in SIZES.items():
        task = tasks[f"almanac_{name}"]
        docs = list(task.test_docs())
        assert (len(docs), len(task.fewshot_docs())) == sizes
        for doc, row in zip(docs, questions(name, "test"), strict=True):
            passage = f"{row['passage']}\n" if name == "reading" else ""
            # As in training, with the space before the answer that lm-eval puts there.
            assert task.doc_to_text(doc) + " " == passage + ask(row["question"], "")
