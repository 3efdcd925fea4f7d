"""Losses on other texts than the study's own: values, what is recorded when, tables, refusals."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Studies, sentences, write_jsonl
from matplotlib import pyplot as plt
from transformers import AutoModelForCausalLM, PreTrainedModel

from lib import study as studies
from lib.book import plan, sources
from lib.book.check import check
from lib.book.comparing import recorded
from lib.book.comparing.agreement import PLACE
from lib.errors import UserError
from lib.evaluation import evaluate
from lib.evidence.records import digest, file_digest
from lib.experiments import measure, models, probes
from lib.experiments.conditions import Condition, main_conditions, unpruned
from lib.experiments.opened import OpenStudy
from lib.healing import heal, reading
from lib.models import corpora
from lib.models.checkpoints import load_config
from lib.pruning.dropped import span
from lib.sections import loss

RAIN = [f"Rain, rain and {i} drops of rain: {text}" for i, text in enumerate(sentences(8, 500))]
LENGTH = 32  # tokens at which documents are cut: some are longer
OTHERS = [
    {"name": "rain", "path": "./rain.jsonl", "loss": True},
    {"name": "a copy", "path": "./copy.jsonl", "loss": True},
    {"name": "tales", "path": "./tales.jsonl"},
]


def opened_study(
    write_study: Studies, folder: Path, others: list[dict] = OTHERS, **keys: Any
) -> OpenStudy:
    """Rain has as many documents as the loss takes; the copy is one of the validation text."""
    write_jsonl(folder / "rain.jsonl", [{"text": text} for text in RAIN])
    write_jsonl(folder / "copy.jsonl", [{"text": text} for text in sentences(40)])
    write_jsonl(folder / "tales.jsonl", [{"text": text} for text in sentences(20, 700)])
    write_jsonl(folder / "few.jsonl", [{"text": text} for text in sentences(6, 800)])
    settings = {
        "loss": {"n_sequences": len(RAIN), "length": LENGTH, "seed": 3},
        "healing": {"recipe": "lora"},
        "writing": {"n_prompts": 0},
    }
    settings |= {"other_texts": others} | keys
    return OpenStudy(studies.load(str(write_study(folder, **settings))))


@pytest.fixture(scope="module")
def whole(write_study: Studies, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study and, in results/, all that its main models were asked."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULTS_DIR", str(folder / "results"))
        opened = opened_study(write_study, folder)
        measure.measure(opened, main_conditions(opened))
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with a copy of the results."""
    shutil.copytree(whole / "results", tmp_path / "results")
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    return whole


@pytest.fixture
def opened(write_study: Studies, folder: Path) -> OpenStudy:
    return opened_study(write_study, folder)


def by_hand(model: PreTrainedModel, tokenizer: Any, documents: list[str]) -> float:
    """Nats per predicted token, a document at a time in float64."""
    model = model.double().eval()
    total, count = 0.0, 0
    for document in documents:
        ids = torch.tensor([tokenizer(document)["input_ids"][:LENGTH]])
        with torch.no_grad():
            logits = model(ids, use_cache=False).logits[0, :-1]
        picked = logits.log_softmax(-1)[torch.arange(ids.shape[1] - 1), ids[0, 1:]]
        total, count = total - picked.sum().item(), count + len(picked)
    return total / count


def files(opened: OpenStudy) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in opened.store.folder.rglob("*.json")}


def test_unhealed_prunings_have_the_loss_of_the_pruned_model_alone(
    opened: OpenStudy, tokenizer: Any
) -> None:
    rain = probes.other_losses(opened.study)[0]
    plain = [one for one in main_conditions(opened) if one.healing is None]
    assert {one.dropped.n for one in plain} == {0, 1, 3}
    for one in plain:
        model = AutoModelForCausalLM.from_pretrained(opened.study.model, dtype=torch.float64)
        kept = [layer for i, layer in enumerate(model.model.layers) if i not in one.dropped]
        model.model.layers = torch.nn.ModuleList(kept)
        value = probes.recorded(opened, one, rain)
        assert value["loss"] == pytest.approx(by_hand(model, tokenizer, RAIN), rel=1e-5)
        assert value["n_sequences"] == len(RAIN) and value["stderr"] > 0


def test_a_healed_model_has_the_loss_of_its_weights(opened: OpenStudy, tokenizer: Any) -> None:
    rain = probes.other_losses(opened.study)[0]
    one = next(one for one in main_conditions(opened) if one.healing and one.dropped)
    with models.materialised(opened, one) as model:
        expected = by_hand(model, tokenizer, RAIN)
    assert probes.recorded(opened, one, rain)["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_sample_is_drawn_as_that_of_the_own_text(opened: OpenStudy) -> None:
    """Of a copy of the own text every model has the same loss, to the last digit."""
    copy = probes.other_losses(opened.study)[1]
    for one in main_conditions(opened):
        value = probes.recorded(opened, one, copy)
        assert value == probes.recorded(opened, one, opened.study.loss)
        assert value["n_sequences"] == len(RAIN) < 40


def test_inputs_hold_what_the_text_says_not_what_it_is_called(opened: OpenStudy) -> None:
    study, one = opened.study, unpruned(opened)
    inputs = probes.probe_inputs(opened, one, probes.OtherLoss(study.other_texts[0], study.loss))
    own = probes.probe_inputs(opened, one, study.loss)
    text = {"sha256": file_digest(Path(study.other_texts[0].path))}
    assert inputs == own | {"text": text}
    opened.__dict__["_cut"] = {"cut": "here"}
    inputs = probes.probe_inputs(opened, one, probes.OtherLoss(study.other_texts[0], study.loss))
    assert inputs["text"] == text | {"cut": "here"}


def test_only_what_is_missing_is_measured(
    opened: OpenStudy, write_study: Studies, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing again; of a text that asks for it now all models, of which none is trained again."""
    asked: list[tuple[int, int]] = []  # models and documents of each pass
    losses = evaluate.losses

    def counted(model: Any, blocks: Any, sequences: Any, *rest: Any) -> Any:
        asked.append((len(blocks), len(sequences)))
        return losses(model, blocks, sequences, *rest)

    monkeypatch.setattr(evaluate, "losses", counted)
    monkeypatch.setattr(heal, "heal", None)
    monkeypatch.setattr(evaluate, "accuracies", None)
    before, conditions = files(opened), main_conditions(opened)
    measure.measure(opened, conditions)
    assert not asked
    more = opened_study(write_study, folder, [one | {"loss": True} for one in OTHERS])
    measure.measure(more, conditions)
    different = {digest(probes.condition_inputs(more, one)): one for one in conditions}
    plain = [one for one in different.values() if one.healing is None]
    assert asked == [(len(plain), len(RAIN)), *([(1, len(RAIN))] * (len(different) - len(plain)))]
    after = files(more)
    assert before.items() < after.items() and len(after) == len(before) + len(different)
    gone = next(path for path in more.store.folder.glob("loss/tales*") if "lora" not in path.name)
    gone.unlink()
    asked.clear()
    measure.measure(more, conditions)
    assert asked == [(1, len(RAIN))] and files(more).keys() == after.keys()


def test_without_the_key_there_are_the_records_and_tables_of_before(
    opened: OpenStudy, write_study: Studies, folder: Path
) -> None:
    plain = opened_study(write_study, folder, [one | {"loss": False} for one in OTHERS])
    measure.measure(plain, main_conditions(plain))  # which finds all
    assert loss.other_losses(plain) is None and loss.other_panels(plain, None) is None
    assert "names no text" in loss.on_other_texts(None).data
    assert all(not isinstance(one, probes.OtherLoss) for one in _probes(plain))
    assert [one for one in _probes(opened) if not isinstance(one, probes.OtherLoss)] == _probes(
        plain
    )


def _probes(opened: OpenStudy) -> list[probes.Probe]:
    return probes.probes(opened, unpruned(opened))


def test_the_table_has_every_text_and_model(opened: OpenStudy) -> None:
    table, conditions = loss.other_losses(opened), main_conditions(opened)
    own = loss.SECTION.tables[0].make(opened)
    assert list(table) == list(own)
    assert list(table["corpus"]) == ["rain"] * len(conditions) + ["a copy"] * len(conditions)
    (described,) = [one for one in loss.SECTION.tables if one.name == "other_losses"]
    assert set(described.columns) == set(table)
    copy = table[table["corpus"] == "a copy"].reset_index(drop=True)
    assert copy.drop(columns="corpus").equals(own.drop(columns="corpus"))
    assert "rain" in loss.on_other_texts(table).data
    figure = loss.other_panels(own, table)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["sentences", "rain", "a copy"]
    assert len({axes.get_ylim() for axes in figure.axes[:3]}) == 1
    labels = {text.get_text() for text in figure.axes[3].get_legend().get_texts()}
    assert labels == {"healed", "unhealed", "unpruned", "ln V"}
    plt.close(figure)


def test_a_table_follows_from_published_records_without_their_texts(
    opened: OpenStudy, tmp_path: Path
) -> None:
    place = opened.store.folder.parent
    run = recorded._read(place, place, "results/mine")
    gone = [text.model_copy(update={"path": "/nowhere"}) for text in opened.study.other_texts]
    found = recorded._Published(opened.study.model_copy(update={"other_texts": gone}))
    found.weights = opened.weights
    free = PLACE | recorded.GIVEN
    found.store = recorded._Recorded(tmp_path / "scratch", run.records, free, place)
    assert loss.other_losses(found).equals(loss.other_losses(opened))


def test_a_plan_counts_what_is_read(opened: OpenStudy, write_study: Studies, folder: Path) -> None:
    asks, plain = (
        plan.Planned(one.study, load_config(one.study))
        for one in (opened, opened_study(write_study, folder, []))
    )
    one = Condition("simple", span(2, 5), "float32", opened.study.healing)
    part = plan.Part("healed", (one,), ("loss",))
    more = plan.asked_passes(asks, part) - plan.asked_passes(plain, part)
    layers = opened.n_layers - 3 + asks.head  # each text by all layers that are left, and the head
    assert more == pytest.approx(2 * len(RAIN) * LENGTH * layers)


@pytest.mark.parametrize(
    ("change", "counts"),
    [({"name": "snow"}, True), ({"loss": False}, True), ({"path": "moved"}, False)],
)
def test_what_makes_results_out_of_date(
    opened: OpenStudy, change: dict[str, Any], counts: bool, tmp_path: Path
) -> None:
    first, *others = opened.study.other_texts
    if "path" in change:
        change = {"path": str(shutil.copy(first.path, tmp_path / change["path"]))}
    texts = [first.model_copy(update=change), *others]
    changed = OpenStudy(opened.study.model_copy(update={"other_texts": texts}))
    assert (sources.of_study(changed.study) != sources.of_study(opened.study)) == counts
    if not counts:  # of jobs, what they ask
        assert repr(_probes(changed)) == repr(_probes(opened))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "few": ({"path": "./few.jsonl"}, "few.jsonl: too short, it gives 6 documents of at least 2"),
    "healing": ({"path": "./healing.jsonl"}, "is both one of other_texts with loss, 'odd', and"),
    "shared": ({"path": "./shared.jsonl"}, "1 of its documents are in .*shared.jsonl too"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_text_that_will_not_do_is_one_line(
    kind: str, write_study: Studies, tmp_path: Path, results_dir: Path
) -> None:
    """And will for distances."""
    keys, says = REFUSED[kind]
    shared = [{"text": text} for text in sentences(9, 999)]  # the healing text begins at 1000
    write_jsonl(tmp_path / "shared.jsonl", shared[:2] + [{"text": text} for text in RAIN])
    odd = {"name": "odd"} | keys
    with pytest.raises(UserError, match=says) as raised:
        check(opened_study(write_study, tmp_path, [odd | {"loss": True}]).study)
    assert len(raised.value.lines) == 1 and "\n" not in str(raised.value)
    check(opened_study(write_study, tmp_path, [odd]).study)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"other_texts": [OTHERS[0] | {"loss": "yes"}]}, "key 'other_texts.0.loss'"),
        ({"validation_text": {"path": "a", "loss": True}}, "unknown key 'validation_text.loss'"),
    ],
)
def test_the_key_is_a_yes_or_no_of_other_texts(
    keys: dict[str, Any], says: str, write_study: Studies, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says):
        opened_study(write_study, tmp_path, **keys)


def test_streamed_text_to_heal_on_may_hold_nothing_of_it(
    write_study: Studies, tmp_path: Path, tokenizer: Any
) -> None:
    long = {"loss": {"n_sequences": 8, "length": 99, "sample": "first"}}
    streamed = {"healing_text": {"dataset": "nobody/none"}}
    study = opened_study(write_study, tmp_path, OTHERS[:1], **long, **streamed).study
    expected = {corpora.fingerprint(text) for text in [*sentences(8), *RAIN]}
    corpora.measured_on.cache_clear()
    found = reading.refused(study, study.healing, tokenizer)
    lengths = [len(tokenizer(text)["input_ids"]) for text in [*sentences(8), *RAIN]]
    assert min(lengths) >= corpora.DISTINCT and found == expected
