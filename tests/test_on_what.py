"""What layers are chosen on, and what is healed on: samples, texts and data side by side."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Studies, sentences, write_jsonl

from lib import study
from lib.book.check import check
from lib.book.plan import Planned, parts
from lib.errors import UserError
from lib.experiments.choosing import Asked, elsewhere, part, samples
from lib.experiments.conditions import Condition
from lib.experiments.measure import measure
from lib.experiments.opened import OpenStudy
from lib.pruning.dropped import Dropped
from lib.sections import macro, on_what, strips

ASKED = {
    "calibration": {"path": "calibration.jsonl", "n_sequences": 4, "length": 16},
    "healing_data": [
        {"name": "taught", "path": "taught.jsonl", "rows": "instructions"}
        | {"template": "say {instruction}\n"}
    ],
    "on_what": {
        "samples": [1, 3],
        "draws": 3,
        "strategies": ["block-influence"],
        "texts": ["other"],
        "searches": ["block-influence", "perplexity"],
        "recipes": [{"recipe": "lora"}, {"recipe": "lora", "data": "taught"}],
        "fractions": [0.34, 0.5],
        "seeds": [0, 1],
    },
    "other_texts": [{"name": "other", "path": "other.jsonl"}],
    "strategies": ["simple"],
    "which_layers": {"strategies": ["block-influence", "perplexity"], "fractions": [0.34]},
}


def files(folder: Path) -> None:
    write_jsonl(folder / "calibration.jsonl", [{"text": t} for t in sentences(40, 2000)])
    write_jsonl(folder / "other.jsonl", [{"text": text} for text in sentences(40, 3000)])
    rows = [{"instruction": text[:4], "response": text} for text in sentences(30, 4000)]
    write_jsonl(folder / "taught.jsonl", rows)


@pytest.fixture
def opened(
    tmp_path: Path, write_study: Studies, results_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> OpenStudy:
    """Its model, which can do nothing, is taken to be able to do its task."""
    chance = property(lambda self: dict.fromkeys(self.opened.study.tasks, -1.0))
    monkeypatch.setattr(macro.Answers, "chance", chance)
    files(tmp_path)
    return OpenStudy(study.load(str(write_study(tmp_path, **ASKED))))


def test_no_two_draws_share_a_window(opened: OpenStudy) -> None:
    text = opened.study.calibration
    drawn = [Asked(opened, sample=part(text, 3, draw)).windows for draw in range(3)]
    assert [tuple(one.shape) for one in drawn] == [(3, 16)] * 3
    whole = opened.windows(text, text.model_copy(update={"n_sequences": 9}))
    assert np.array_equal(np.concatenate(drawn), whole)
    assert part(text, 3, 2).read() == 3 * 16


def test_another_text_is_read_as_much_of(opened: OpenStudy) -> None:
    (other,) = opened.study.other_texts
    sample = elsewhere(opened.study)["other"]
    windows = Asked(opened, sample=sample).windows
    assert windows.shape == (4, 16) and sample.calibration.path == other.path
    assert not np.array_equal(windows, Asked(opened).windows)


def test_each_sample_is_scored_by_itself_and_recorded(opened: OpenStudy) -> None:
    asked = samples(opened.study)
    assert len(asked) == 2 * 3 + 2 * 1  # by size and draw; by search and text
    scores = [opened.strategy(name).scores(Asked(opened, sample=one)) for name, one in asked]
    assert len({json.dumps(found["scores"]) for found in scores}) == len(asked)
    again = [opened.strategy(name).scores(Asked(opened, sample=one)) for name, one in asked]
    assert again == scores
    alone = [found for (_, one), found in zip(asked, scores, strict=True) if one.read() == 16]
    assert alone and not any("stderr" in found for found in alone)  # of one window there is none


def test_tables_of_samples_texts_and_data(opened: OpenStudy) -> None:
    for group in on_what.conditions(opened).values():
        measure(opened, group)
    made = {table.name: table.make(opened) for table in on_what.SECTION.tables}
    for table in on_what.SECTION.tables:
        assert [*made[table.name]] == [*table.columns], table.name
    assert len(made["calibration_sets"]) == 6 and len(made["calibration_texts"]) == 4
    healed = made["healed_on"]
    assert healed["data"].drop_duplicates().tolist() == ["none", "healing text", "taught"]
    trained = healed[healed["healing"] != "none"]
    assert len(trained) == 2 * 2 * 2 and (trained["tokens"] > 0).all()
    taught = trained[trained["data"] == "taught"]
    assert (taught["scored_tokens"] < taught["tokens"]).all() and taught["epochs"].notna().all()
    mean = trained.groupby(["n", "data"])["accuracy"].mean()
    gains = {n: mean[n, "healing text"] - mean[n, "taught"] for n in (2, 3)}
    compared = made["data_compared"]
    assert compared["n"].tolist() == [2, 2, 3, 3]  # over all tasks, and those of knowledge
    for found in compared.to_dict("records"):
        assert (found["compared"], found["base"]) == ("healing text", "taught")
        assert found["difference"] == pytest.approx(gains[found["n"]])
        assert (found["seeds"], found["masked"]) == (2, "alike")
    (found,) = made["data_interaction"].to_dict("records")
    assert (found["n"], found["more"]) == (2, 3)
    assert found["interaction"] == pytest.approx(gains[2] - gains[3])
    assert len(on_what.read_in_short(healed)) == 2
    assert strips.sample_panels(made["calibration_sizes"], made["calibration_sets"]).axes
    assert len(on_what.texts_in_short(made["calibration_texts"])) == 4
    assert len(on_what.leads(compared)) == 4


def test_likeness_of_draws_by_hand() -> None:
    def drops(*layers: int) -> Condition:
        return Condition("mine", Dropped(layers), "float32")

    same, none = [drops(0, 1)] * 4, [drops(0, 1), drops(2, 3)]
    assert on_what._alike(same) == (pytest.approx(1.0), pytest.approx(0.0))
    assert on_what._alike(none)[0] == pytest.approx(0.0)
    three = [drops(0, 1), drops(0, 1), drops(1, 2)]
    mean, stderr = on_what._alike(three)
    assert mean == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    left = np.array([1 / 3, 1 / 3, 1.0])  # without one of them: the index of the other two
    assert stderr == pytest.approx(np.sqrt(2 * ((left - left.mean()) ** 2).mean()))


def test_nothing_is_measured_for_a_plan(opened: OpenStudy) -> None:
    planned = Planned(opened.study, opened.config)
    found = parts(planned)
    assert sum("on-taught" in name for name in found) == 4  # two numbers of layers, two seeds
    assert not opened.store.folder.exists()


def test_nothing_on_samples_or_data_where_nothing_is_listed(
    tmp_path: Path, write_study: Studies, results_dir: Path
) -> None:
    opened = OpenStudy(study.load(str(write_study(tmp_path))))
    for table in on_what.SECTION.tables:
        made = table.make(opened)
        assert made.empty and [*made] == [*table.columns], table.name
    figure = strips.sample_panels(on_what.sizes(opened), on_what.sets(opened))
    assert "no samples" in figure.axes[0].texts[0].get_text()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"on_what": {"strategies": ["mine"]}}, "on_what.strategies: 'mine' is none of"),
        ({"on_what": {"recipes": [{"data": "none"}]}}, "healing.data 'none' is none of"),
        ({"on_what": {"samples": [1, 1]}}, "on_what.samples lists the same value twice"),
        ({"on_what": {"samples": [500]}}, "too short, it gives"),
        ({"on_what": {"texts": ["gone"]}}, "on_what.texts: 'gone' is none of other_texts, other"),
        ({"on_what": {"searches": []}}, "on_what.texts and on_what.searches go together"),
        ({"on_what": {"samples": []}}, "on_what.samples and on_what.strategies go together"),
        ({"on_what": {"fractions": [0.01]}}, "on_what.fractions: the first, 0.01, at which"),
        ({"on_what": {"strategies": ["simple"]}}, "strategy simple reads no calibration text"),
        (
            {"other_texts": [{"name": "other", "path": "healing.jsonl"}]},
            "is both calibration and healing_text",
        ),
        (
            {"on_what": {"recipes": [{"recipe": "lora", "steps": 5000}]}},
            "healing.jsonl: too short, it gives",
        ),
        ({"calibration": None}, "give the study `calibration"),
    ],
)
def test_what_cannot_be_read_or_scored_is_refused(
    changes: dict, says: str, tmp_path: Path, write_study: Studies, results_dir: Path
) -> None:
    files(tmp_path)
    asked = {**ASKED, **changes}
    if "on_what" in changes:
        asked["on_what"] = ASKED["on_what"] | changes["on_what"]
    asked = {key: value for key, value in asked.items() if value is not None}
    with pytest.raises(UserError) as error:
        check(study.load(str(write_study(tmp_path, **asked))))
    assert says in str(error.value)
