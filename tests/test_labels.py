"""Labels of tasks: what people read in place of names, and what stays as it is."""

from types import SimpleNamespace

import pytest
import yaml

from lib import labels, paths
from lib.fields import Task
from lib.sections import pages


@pytest.fixture(autouse=True)
def as_shipped():
    labels.use([])
    yield
    labels.use([])


def test_every_task_that_the_book_brings_has_a_label():
    places = ("*/tasks/*.yaml", "tasks/*.yaml", "abilities/summaries/*.yaml")
    files = [path for place in places for path in paths.ROOT.glob(place)]
    told = [yaml.load(path.read_text("utf-8"), yaml.BaseLoader) for path in files]
    named = [one.get("group", one["task"]) for one in told if "task" in one]
    names = {name for name in named if isinstance(name, str)}
    assert names == labels.SHIPPED.keys()
    assert len(set(labels.SHIPPED.values())) == len(labels.SHIPPED)


def test_a_study_gives_its_own_and_the_next_one_has_them_no_more():
    labels.use([Task(name="quiz", label="my quiz"), Task(name="piqa", label="physics at home")])
    assert labels.of("quiz") == "my quiz"
    assert labels.title("piqa", 0) == "Physics at home"
    labels.use([Task(name="quiz")])
    assert labels.of("quiz") == "quiz"
    assert labels.title("piqa", 5) == "PIQA (5-shot)"


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("almanac_sums (0-shot): 0.61", "written sums: 0.61"),
        ("mmlu (5-shot) and arc_easy", "MMLU (5-shot) and ARC-Easy"),
        ("my_almanac_sums (0-shot)", "my_almanac_sums (0-shot)"),
        ("almanac_sums_2, almanac_sums-2", "almanac_sums_2, almanac_sums-2"),
        ("a reading of reading (0-shot)", "a reading of my passages"),
    ],
)
def test_in_a_sentence_names_are_replaced_but_no_words(said, read):
    labels.use([Task(name="reading", label="my passages")])
    assert labels.spelt(said) == read


def test_a_name_with_its_own_spelling_keeps_it():
    assert labels.capital("a learnt fact") == "A learnt fact"
    assert labels.capital("mine_1 is flat") == "mine_1 is flat"
    assert labels.capital("iPhone questions") == "iPhone questions"


def test_what_a_verdict_asks_for_has_labels_like_what_it_found():
    row = SimpleNamespace(reason="arc_easy (0-shot): flat", asked="arc_easy (0-shot) at least 20%")
    html = pages.reason(row)
    assert "arc_easy" not in html and html.count("ARC-Easy") == 2
