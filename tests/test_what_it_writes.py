"""What becomes of questions and sentences, counted again by hand from what was recorded; and that
nothing a file or a model says becomes HTML."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import NAMES, PLACES, write_jsonl, write_task

from lib import study as studies
from lib.experiments import measure, probes
from lib.experiments.conditions import main_conditions
from lib.experiments.opened import OpenStudy
from lib.schema import Task
from lib.sections import pages, what_it_writes
from lib.sections.tables import qa_table
from lib.sections.what_it_writes import STATES

EVIL = "<script>alert('a & b')</script>"
QUESTIONS = 24


class Seen(HTMLParser):
    """The tags of a page, and its text as a reader sees it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def write_group(folder) -> dict[str, list[dict]]:
    """A group of two tasks, with questions of their own, in an order that is not the alphabet's."""
    rows = {}
    for name in ("zebra", "ant"):
        write_task(folder, name, QUESTIONS)
        rows[name] = [
            {
                "question": f"{EVIL} The {name} of day {i} met {NAMES[i % 8]} at the",
                "choices": [f"{PLACES[(i * 3 + k) % 8]} <i>" for k in range(4)],
                "answer": i * 5 % 4,
            }
            for i in range(QUESTIONS)
        ]
        write_jsonl(folder.resolve() / f"{name}_test.jsonl", rows[name])
    group = {"group": "both", "task": ["zebra", "ant"]}
    (folder / "both.yaml").write_text(yaml.safe_dump(group))
    return rows


@pytest.fixture(scope="module")
def world(write_study, tmp_path_factory):
    """A measured opened, and its group's questions in order: those of `ant` come first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULTS_DIR", str(tmp_path_factory.mktemp("results")))
        folder = tmp_path_factory.mktemp("fates")
        (folder / "tasks").mkdir()
        rows = write_group(folder / "tasks")
        path = write_study(
            folder,
            tasks=[
                {"name": "both", "limit": 20, "role": "knowledge"},
                {"name": "quiz", "shots": 1, "role": "knowledge"},
            ],
            pruned_layers=[1, 2, 4],
            healing={"recipe": "lora", "learning_rate": 0.2, "fractions": [0.3, 0.7]},
            writing={"n_prompts": 2, "tokens": 4, "prompts": [f"{EVIL} he\nsaid"]},
            prompts={"shots": 2, "orders": 2, "numbers": [0, 2], "limit": 4},
        )
        opened = OpenStudy(studies.load(str(path)))
        measure.measure(opened, similar(opened))
        yield opened, [row for name in ("ant", "zebra") for row in rows[name][:20]]


def similar(opened):
    """The conditions without those of the simple strategy, whose fate is not followed."""
    return [one for one in main_conditions(opened) if one.strategy != "simple"]


def correct(opened, task, models) -> dict[int, str]:
    """By n, what similarity-informed prunings answered: 0 or 1 for each question."""
    found = {}
    for one in similar(opened):
        if bool(one.healing) == (models == "healed" and one.dropped.n > 0):
            by_task = probes.recorded(opened, one, task)["correct"]
            found[one.dropped.n] = "".join(by_task[name] for name in sorted(by_task))
    return found


def test_every_question_is_kept_lost_gained_or_wrong(world):
    opened, _ = world
    table = what_it_writes.question_table(opened)
    sizes = {(task.name, models): [0, 2, 4] for task in opened.study.tasks for models in STATES}
    assert {k: list(v) for k, v in table.groupby(["task", "models"])["n"]} == sizes
    for row in table.itertuples():
        (task,) = (one for one in opened.study.tasks if one.name == row.task)
        answers = correct(opened, task, row.models)
        pairs = list(zip(answers[0], answers[row.n], strict=True))
        fate = {"kept": ("1", "1"), "lost": ("1", "0"), "gained": ("0", "1"), "wrong": ("0", "0")}
        for name, pair in fate.items():
            assert getattr(row, name) == pairs.count(pair)
        assert row.n_questions == len(pairs) == (40 if row.task == "both" else 24)
        whole, now = (answers[n].count("1") for n in (0, row.n))
        assert row.by_chance == pytest.approx(whole / len(pairs) * now / len(pairs) * len(pairs))
        assert row.fraction == row.n / 6 and row.shots == task.shots
    assert (table.query("n == 0")[["lost", "gained"]] == 0).all(axis=None)
    assert (table.query("n > 0")[["kept", "lost", "gained", "wrong"]].sum() > 0).all()


def test_fates_add_up_to_the_accuracies_of_the_other_table(world):
    opened, _ = world
    fate = what_it_writes.question_table(opened)
    qa = qa_table(opened, similar(opened))
    qa["hits"] = (qa["accuracy"] * qa["n_questions"]).round().astype(int)
    whole = qa[(qa["n"] == 0) & (qa["healing"] == "none")].set_index(["task", "shots"])["hits"]
    for row in fate.itertuples():
        assert row.kept + row.lost == whole[row.task, row.shots]
    for models, rows in fate.groupby("models"):
        same = qa[(qa["healing"] == "none") == (models == "unhealed")]
        both = rows[rows["n"] > 0].merge(same, on=["task", "shots", "n"], validate="one_to_one")
        assert len(both) == 4
        assert (both["kept"] + both["gained"] == both["hits"]).all()


def test_questions_are_shown_with_their_answers_and_how_long_they_last(world):
    opened, rows = world
    task = opened.study.tasks[0]
    answers = correct(opened, task, "healed")
    last = []  # up to which fraction a question was answered without a miss
    for question in range(len(rows)):
        held = -1
        for n in (0, 2, 4):
            if answers[n][question] == "0":
                break
            held = n / 6
        last.append(held)
    known = [i for i, held in enumerate(last) if held >= 0]
    table = what_it_writes.lost_questions(opened, task, 9)
    assert len(table) == 9 < len(known)
    index = {row["question"]: i for i, row in enumerate(rows)}
    shown = [index[question] for question in table["question"]]
    assert len(set(shown)) == 9 and set(shown) <= set(known)
    for i, answer, held in zip(shown, table["answer"], table["right up to"], strict=True):
        assert answer == rows[i]["choices"][rows[i]["answer"]]
        assert held == f"{100 * last[i]:.3g}% dropped"
    order = [last[i] for i in shown]
    assert order == sorted(order)
    assert {order[0], order[-1]} == {min(last[i] for i in known), max(last[i] for i in known)}
    assert {i >= 20 for i in shown} == {True, False}  # of both tasks


@pytest.mark.parametrize("count", [1, 1000])
def test_of_few_questions_all_are_shown_once(world, count):
    opened, _ = world
    task = opened.study.tasks[0]
    known = correct(opened, task, "healed")[0].count("1")
    table = what_it_writes.lost_questions(opened, task, count)
    assert len(table) == table["question"].nunique() == min(count, known)


def test_where_nothing_was_known_nothing_is_shown(world, monkeypatch):
    opened, _ = world
    real = what_it_writes.answers
    monkeypatch.setattr(what_it_writes, "answers", lambda *given: real(*given) * 0)
    assert what_it_writes.lost_questions(opened, opened.study.tasks[0], 9).empty


def test_a_model_whose_healing_broke_down_is_left_out(world, monkeypatch):
    opened, _ = world
    monkeypatch.setattr(
        what_it_writes, "broken", lambda _, one: bool(one.healing) and one.dropped.n == 2
    )
    table = what_it_writes.question_table(opened)
    sizes = {models: sorted(set(rows["n"])) for models, rows in table.groupby("models")}
    assert sizes == {"unhealed": [0, 2, 4], "healed": [0, 4]}
    assert set(what_it_writes.texts_table(opened).query("models == 'healed'")["n"]) == {0, 4}


def test_texts_are_those_that_were_recorded(world):
    opened, _ = world
    table = what_it_writes.texts_table(opened)
    known = set()
    for one in similar(opened):
        found = probes.recorded(opened, one, opened.study.writing)
        # The whole model stands first on both sides; healed it is another model.
        if found and (one.dropped.n or not one.healing):
            sides = ["healed" if one.healing else "unhealed"] if one.dropped.n else STATES
            for side in sides:
                for prompt, text in zip(found["prompts"], found["texts"], strict=True):
                    known.add((prompt, side, one.dropped.n, one.dropped.n / 6, text))
    assert set(table.itertuples(index=False, name=None)) == known
    assert len(table) == len(known) == 3 * 2 * 3
    assert list(dict.fromkeys(table["prompt"])) == sorted(
        opened.writing_prompts(opened.study.writing)
    )


def test_with_nothing_to_write_there_is_an_empty_table(world, monkeypatch):
    opened, _ = world
    nothing = {"prompts": [], "texts": []}
    monkeypatch.setattr(what_it_writes, "record", lambda *_: nothing)
    table = what_it_writes.texts_table(opened)
    assert table.empty and what_it_writes.written(table).data == ""


def test_a_curve_goes_by_size(world):
    opened, _ = world
    for wanted in ([4, 2, 1], [4]):  # of the last, the control of the other size comes later
        other = OpenStudy(opened.study.model_copy(update={"pruned_layers": wanted}))
        other.__dict__["distances"] = opened.measure_distances()
        for which in STATES:
            assert [one.dropped.n for one in what_it_writes.curve(other, which)] == [0, 2, 4]


def test_a_choice_that_is_the_question_is_shown(write_study, tmp_path):
    """As in winogrande, where the text that is asked about is a number of a choice."""
    opened = OpenStudy(studies.load(str(write_study(tmp_path))))
    file = tmp_path / "tasks" / "quiz.yaml"
    turned = {"doc_to_text": "answer", "doc_to_target": "{{question}}"}
    settings = yaml.safe_load(file.read_text("utf-8")) | turned
    file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    right = [PLACES[(i + i * 7 % 4) % 8] for i in range(24)]
    asked = [f"On day {i} {NAMES[i % 8]} walked to the" for i in range(24)]
    found = what_it_writes._documents(opened, opened.study.tasks[0])
    assert found == list(zip(right, asked, strict=True))


def words(text: str) -> list[str]:
    return text.replace("⏎", " ").split()


def test_line_breaks_are_shown_on_one_line():
    texts = pd.DataFrame(
        {"prompt": "So", "models": models, "n": 0, "fraction": 0.0, "text": " it\n\n is  so.\n"}
        for models in ("unhealed", "healed")
    )
    (shown,) = what_it_writes.side_by_side(texts, "So")["healed"]
    assert words(shown) == ["it", "is", "so."] and "\n" not in shown
    assert shown.count("⏎") == 2  # what ends the text breaks no line of it


def test_texts_stand_side_by_side(world):
    opened, _ = world
    texts = what_it_writes.texts_table(opened)
    prompt = opened.writing_prompts(opened.study.writing)[0]
    wide = what_it_writes.side_by_side(texts, prompt)
    assert list(wide.columns) == ["dropped", "unhealed", "healed"]
    assert list(wide["dropped"]) == ["0%", "33.3%", "66.7%"]
    cells = texts[texts["prompt"] == prompt].set_index(["models", "n"])["text"]
    for n, row in zip((0, 2, 4), wide.itertuples(), strict=True):
        assert words(row.unhealed) == words(cells["unhealed", n])
        assert words(row.healed) == words(cells["healed", n])
    assert wide["unhealed"][0] == wide["healed"][0]  # one model
    assert list(wide["unhealed"][1:]) != list(wide["healed"][1:])


def test_questions_become_no_html(world):
    opened, _ = world
    table = what_it_writes.lost_questions(opened, opened.study.tasks[0], 3)
    page = pages.show(table, words=True).data
    seen = Seen(page)
    assert seen.tags == {"div", "table", "thead", "tbody", "tr", "th", "td"}
    assert seen.text.count(EVIL) == 3
    assert "<i>" in seen.text and "<i>" not in page


def test_texts_become_no_html():
    texts = pd.DataFrame(
        {"prompt": EVIL, "models": models, "n": n, "fraction": n / 4, "text": f"<b>{models}{n}&lt;"}
        for models in ("unhealed", "healed")
        for n in (0, 2)
    )
    page = what_it_writes.written(texts).data
    seen = Seen(page)
    assert seen.tags == {"p", "em", "div", "table", "thead", "tbody", "tr", "th", "td"}
    assert EVIL in seen.text
    for text in texts["text"]:
        assert text in seen.text


def test_every_prompt_has_a_table(world):
    opened, _ = world
    page = what_it_writes.written(what_it_writes.texts_table(opened)).data
    seen = Seen(page)
    assert page.count("<table") == 3
    for prompt in opened.writing_prompts(opened.study.writing):
        assert " ".join(words(prompt)) in " ".join(words(seen.text))


def test_long_texts_are_shown_whole():
    text = "word " * 300 + "end"
    texts = pd.DataFrame(
        {"prompt": "So", "models": models, "n": 0, "fraction": 0.0, "text": text}
        for models in ("unhealed", "healed")
    )
    assert Seen(what_it_writes.written(texts).data).text.count(text) == 2


def test_the_questions_of_one_task_alone(world):
    """Without a group, and with examples in the prompt, which are not shown."""
    opened, _ = world
    task = opened.study.tasks[1]
    assert task == Task(name="quiz", shots=1, role="knowledge")
    lines = Path(*opened.study.task_path, "quiz_test.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    right = {row["question"]: row["choices"][row["answer"]] for row in rows}
    table = what_it_writes.lost_questions(opened, task, 4)
    assert [right[question] for question in table["question"]] == list(table["answer"])
