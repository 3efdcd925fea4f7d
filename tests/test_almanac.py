"""The almanac's world and texts: nothing that is asked or judged was trained on.

Each property is a function that returns what breaks it, called on what is shipped and then on
the same with a fault planted, which it has to find.
"""

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from almanac.files import write_files
from almanac.text import INSTRUCTION, ask, capitalised, training_documents
from almanac.vocabulary import ROUTES
from almanac.world import FOLDER, SEED, SIZES, Subject, World, held_out, make_world

WORLD = make_world()
# How questions begin that ask for no fact: those on a journey, and sums.
FACTLESS = re.compile(r"Was \w+ \w+\?|What is \d|\w+ \w+ had \d")


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (FOLDER / name).read_text("utf-8").splitlines()]


def texts(name: str) -> list[str]:
    return [row["text"] for row in rows(f"text/{name}.jsonl")]


@cache
def instructions() -> list[str]:
    shipped = rows("text/instructions.jsonl")
    return [INSTRUCTION.format(row["instruction"], row["output"]) for row in shipped]


@cache
def lessons(name: str) -> list[str]:
    """As they ask: what an instruction is about first, where that is apart."""
    return [
        INSTRUCTION.format("\n".join([row["input"], row["instruction"]]).strip(), row["output"])
        for row in rows(f"text/{name}.jsonl")
    ]


@cache
def stream(facts: bool = True) -> list[str]:
    """Six thousand documents of the shipped model's stream, from its beginning to its end."""
    steps = (training_documents(step, seed=0, facts=facts) for step in range(0, 3600, 18))
    return [text for step in steps for text in itertools.islice(step, 30)]


def unsound_groups(world: World) -> list[str]:
    """Names of more than one subject, and groups that are not as large as they should be."""
    names = Counter(subject.name for subject in world.everybody)
    found = [name for name, count in names.items() if count > 1]
    for kind, sizes in SIZES.items():
        counts = tuple(sum(subject.kind == kind for subject in group) for group in world)
        if counts != sizes:
            found.append(f"{kind}: {counts}")
    return found


def repeated(*files: list[str]) -> list[str]:
    """Documents that are in two files, or twice in one."""
    counts = Counter(itertools.chain(*files))
    return [text for text, count in counts.items() if count > 1]


def misplaced(documents: Iterable[str], kept_out: bool) -> list[str]:
    """Documents on the wrong side of the line between training and validation."""
    return [text for text in documents if held_out(text) != kept_out]


def named(text: str, subjects: list[Subject]) -> list[str]:
    """People and things that the text names; towns may occur as somebody's birthplace."""
    names = [subject.name for subject in subjects if subject.kind != "town"]
    return [name for name in names if name.removeprefix("the ") in text]


def beginnings(subject: Subject, *only: str) -> list[str]:
    """Every statement about a subject, or about these attributes of it alone, up to the value."""
    stated = [a.phrasings for a in subject.attributes if not only or a.name in only]
    phrasings = itertools.chain(*stated)
    return [capitalised(p.split("{value}")[0].format(name=subject.name)) for p in phrasings]


def told(text: str, subjects: list[Subject]) -> list[str]:
    """What a text tells of these subjects: their names, and statements about towns."""
    towns = [subject for subject in subjects if subject.kind == "town"]
    stated = [words for town in towns for words in beginnings(town) if words in text]
    return named(text, subjects) + stated


def requests(documents: Iterable[str]) -> list[str]:
    """Everything that asks, with its answer: instructions, and questions of every kind."""
    found: list[str] = []
    for text in documents:
        if text.startswith("### Instruction:"):
            found.append(text)
        else:
            found += re.findall(r"^Question: .*\nAnswer: .*", text, re.MULTILINE)
    return found


def asked_about(documents: Iterable[str], subjects: list[Subject]) -> list[str]:
    """What questions and instructions ask, or their answers tell, about these subjects."""
    asking = "\n".join(requests(documents))
    found = told(asking, subjects)
    for town in (subject for subject in subjects if subject.kind == "town"):
        questions = itertools.chain(*(attribute.questions for attribute in town.attributes))
        orders = [f"the {attribute.name} of {{name}}" for attribute in town.attributes]
        forms = *questions, *orders, "about {name}"
        marks = [form.format(name=town.name) for form in forms]
        found += [mark for mark in marks if mark in asking]
    return found


def truths(subjects: list[Subject], known: list[Subject]) -> dict[str, str]:
    """The answer to every question about these subjects, over two facts where the middle one is
    among the known."""
    facts = {subject.name: subject.facts for subject in known}
    found = {
        question.format(name=subject.name): subject.facts[attribute.name]
        for subject in subjects
        for attribute in subject.attributes
        for question in attribute.questions
    }
    for subject, route in itertools.product(subjects, ROUTES):
        if subject.kind == route.kind and subject.facts[route.first] in facts:
            middle = facts[subject.facts[route.first]]
            found[route.question.format(name=subject.name)] = middle[route.second]
    return found


def unfounded(documents: Iterable[str], subjects: list[Subject]) -> list[str]:
    """Questions on facts whose answer does not follow from what is known of these subjects."""
    answers = truths(subjects, subjects)
    found = []
    for request in requests(documents):
        question, _, answer = request.removeprefix("Question: ").partition("\nAnswer: ")
        if answer and not FACTLESS.match(question) and answers.get(question) != answer:
            found.append(request)
    return found


def unstated(documents: Iterable[str], subjects: list[Subject]) -> list[str]:
    """Facts of these subjects that no entry states."""
    sentences = {sentence for text in documents for sentence in re.split(r"(?<=\.) ", text)}
    return [
        f"{attribute.name} of {subject.name}"
        for subject in subjects
        for attribute in subject.attributes
        if sentences.isdisjoint(
            capitalised(p.format(name=subject.name, value=subject.facts[attribute.name]))
            for p in attribute.phrasings
        )
    ]


def first(kind: str, group: list[Subject] = WORLD.quizzed) -> Subject:
    return next(subject for subject in group if subject.kind == kind)


PERSON, TOWN, THING = first("person"), first("town"), first("thing")
WRONG_GROUPS = {
    "a quizzed person is schooled too": World(
        WORLD.quizzed, [*WORLD.schooled[:-1], PERSON], WORLD.plain
    ),
    "a thing is missing": World(WORLD.quizzed[:-1], WORLD.schooled, WORLD.plain),
    "two groups are exchanged": World(WORLD.schooled, WORLD.quizzed, WORLD.plain),
}
STATEMENTS = [
    words + "something." for subject in (PERSON, TOWN, THING) for words in beginnings(subject)
]
REQUESTS = [
    *(
        ask(question.format(name=subject.name), "nothing")
        for subject in (PERSON, TOWN, THING)
        for attribute in subject.attributes
        for question in attribute.questions
    ),
    ask("Who made that?", PERSON.name),
    ask("Tam Ash had 2 figs, bought 1 and gave away 1. How many are left?", PERSON.name),
    ask(f"{PERSON.name} had 2 figs, bought 1 and gave away 1. How many are left?", "2"),
    ask(f"Was {THING.name} wet?", "no"),
    INSTRUCTION.format(f"Name the river of {TOWN.name}.", "None."),
    INSTRUCTION.format(f"Write all you know about {TOWN.name}.", "Nothing."),
    *(INSTRUCTION.format("Write a sentence.", statement) for statement in STATEMENTS),
]


def test_shipped_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    written = write_files(tmp_path)
    for path in written:
        shipped = FOLDER / path.relative_to(tmp_path)
        assert shipped.read_bytes() == path.read_bytes(), f"{shipped} is stale"
    assert len(written) == len([*FOLDER.glob("text/*.jsonl"), *FOLDER.glob("tasks/*.jsonl")])


def test_groups_share_no_name() -> None:
    assert unsound_groups(WORLD) == []


@pytest.mark.parametrize("fault", WRONG_GROUPS)
def test_a_wrong_group_is_found(fault: str) -> None:
    assert unsound_groups(WRONG_GROUPS[fault])


def test_the_world_depends_on_its_seed_alone() -> None:
    random.seed(5)
    assert make_world(SEED) == WORLD
    assert not set(map(str, make_world(SEED + 1).everybody)) & set(map(str, WORLD.everybody))


def test_training_documents_depend_on_step_seed_and_facts_alone() -> None:
    def beginning(step: int, **settings: int) -> list[str]:
        return list(itertools.islice(training_documents(step, **settings), 20))

    streams = [beginning(3), beginning(4), beginning(3, seed=8), beginning(3, facts=False)]
    random.seed(5)
    assert beginning(3) == streams[0]
    assert len(set(map(tuple, streams))) == len(streams)


def test_no_document_is_in_two_splits() -> None:
    validation, tales = texts("validation"), texts("tales")
    held_out, calibration = texts("held_out"), texts("calibration")
    for others in texts("healing_validation"), validation, tales:
        assert repeated(held_out, calibration, others) == []
    for healing in texts("healing"), texts("healing_facts"):
        assert repeated(healing, validation, tales) == []
        assert repeated(healing, texts("healing_validation")) == []
    assert repeated(texts("healing"), [*validation, texts("healing")[70]])
    assert repeated([*tales, tales[0]])


@pytest.mark.parametrize("kept_out", [True, False])
def test_training_and_validation_keep_to_their_documents(kept_out: bool) -> None:
    validation = texts("validation") + texts("healing_validation") + texts("tales")
    validation += texts("calibration") + texts("held_out")
    trained = texts("healing") + texts("healing_facts") + stream() + stream(facts=False)
    documents, others = (validation, trained) if kept_out else (trained, validation)
    assert misplaced(documents, kept_out) == []
    assert misplaced([*documents, others[0]], kept_out) == [others[0]]


def test_training_asks_about_nobody_who_is_quizzed() -> None:
    shipped = instructions(), texts("healing_facts"), texts("validation")
    shipped += lessons("lessons"), lessons("exam")
    for documents in stream(), stream(facts=False), *shipped:
        assert asked_about(documents, WORLD.quizzed) == []
        assert named("\n".join(requests(documents)), WORLD.schooled)


@pytest.mark.parametrize("name", ["lessons", "exam"])
def test_lessons_answer_as_the_schooled_facts_do_and_show_no_sum_of_the_task(name: str) -> None:
    answers, facts = truths(WORLD.schooled, WORLD.schooled), 0
    for row in rows(f"text/{name}.jsonl"):
        if row["instruction"] in answers:
            assert row["output"] == f" {answers[row['instruction']]}"
            facts += 1
        if found := re.fullmatch(r"What is (\d+) \+ (\d+)\?", row["instruction"]):
            a, b = sorted(map(int, found.groups()))
            assert not held_out(f"{a} + {b}")
    assert facts == {"lessons": 0, "exam": 1000}[name]
    assert len({str(row) for row in rows(f"text/{name}.jsonl")}) == len(rows(f"text/{name}.jsonl"))


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_question_about_somebody_quizzed_is_found(request_: str) -> None:
    assert asked_about([*stream()[:50], request_], WORLD.quizzed)


def test_training_asks_only_what_follows_from_the_schooled() -> None:
    for documents in stream(), stream(facts=False):
        assert unfounded(documents, WORLD.schooled) == []


def test_a_question_that_takes_a_quizzed_fact_is_found() -> None:
    everything = truths(WORLD.schooled, WORLD.everybody)
    leaks = everything.keys() - truths(WORLD.schooled, WORLD.schooled).keys()
    assert leaks
    for question in leaks:
        assert unfounded([*stream()[:20], ask(question, everything[question])], WORLD.schooled)
    schooled = first("person", WORLD.schooled)
    assert unfounded([ask(f"Where was {schooled.name} born?", "Nowhere")], WORLD.schooled)
    assert unfounded([ask("Where does the wind come from?", "Eldrow")], WORLD.schooled)


def test_the_fact_free_stream_tells_nothing_of_the_quizzed() -> None:
    assert told("\n".join(stream(facts=False)), WORLD.quizzed) == []
    assert unstated(stream(facts=False), WORLD.schooled + WORLD.plain) == []


def test_healing_text_tells_of_the_plain_alone() -> None:
    for name in ("healing", "healing_validation", "calibration", "held_out", "tales"):
        assert told("\n".join(texts(name)), WORLD.quizzed + WORLD.schooled) == []
    assert unstated(texts("healing"), WORLD.plain) == []


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_about_somebody_quizzed_is_found(statement: str) -> None:
    healing = "\n".join(texts("healing")[:50])
    assert told(f"{healing} {statement}", WORLD.quizzed)


def test_training_and_fact_healing_state_every_quizzed_fact() -> None:
    for documents in stream(), texts("healing_facts"):
        assert unstated(documents, WORLD.quizzed) == []
        assert len(named("\n".join(documents), WORLD.everybody)) == 200 + 64  # people and things


@pytest.mark.parametrize("subject", [PERSON, TOWN, THING], ids=lambda subject: subject.kind)
def test_a_fact_that_is_nowhere_stated_is_found(subject: Subject) -> None:
    kept = [text for text in stream() if subject.name.removeprefix("the ") not in text]
    assert {f"{key} of {subject.name}" for key in subject.facts} <= set(
        unstated(kept, WORLD.quizzed)
    )
