"""No library moves the weights under a measurement: one model has one number, however it is cut."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import Checkpoints, Studies
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lib import study as studies
from lib.book.check import check
from lib.errors import UserError
from lib.evaluation import evaluate
from lib.experiments import measure, probes
from lib.experiments.conditions import unpruned
from lib.experiments.opened import OpenStudy
from lib.healing import heal, training
from lib.models import checkpoints
from lib.models.untouched import untouched
from lib.pruning import on_disk
from lib.pruning.dropped import UNPRUNED, Dropped
from lib.pruning.surgery import pruned, save_pruned


def tied_by_flag(source: Path, folder: Path, flag: bool = True) -> Path:
    """A checkpoint with a head of its own, whose configuration may say otherwise."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": flag}))
    return folder


@pytest.fixture
def study(tmp_path: Path, tiny_checkpoint: Checkpoints, write_study: Studies, results_dir: Path):
    """Of a model whose configuration says that its head is tied, while its tensors say it is not;
    and the same weights under a configuration that is right."""
    whole = tiny_checkpoint("llama", tie_word_embeddings=False)
    folder = tied_by_flag(whole, tmp_path / "model")
    return studies.load(str(write_study(tmp_path, model=str(folder)))), whole


@torch.inference_mode()
def loss_by_hand(model: PreTrainedModel, opened: OpenStudy) -> float:
    total = count = 0
    for row in opened.loss_sequences:
        logs = model(torch.tensor([row])).logits[0].double().log_softmax(-1)
        total -= sum(float(logs[i - 1, row[i]]) for i in range(1, len(row)))
        count += len(row) - 1
    return total / count


def loss(opened: OpenStudy, model: PreTrainedModel) -> float:
    return evaluate.next_token_loss(model, opened.loss_sequences, 8, 0)["loss"]


def test_the_loss_is_the_same_before_questions_and_after(study) -> None:
    study, whole = study
    opened = OpenStudy(study)
    right = loss_by_hand(AutoModelForCausalLM.from_pretrained(whole).eval(), opened)
    tied = AutoModelForCausalLM.from_pretrained(whole).eval()
    tied.lm_head.weight = tied.model.embed_tokens.weight
    assert abs(loss_by_hand(tied, opened) - right) > 1e-3  # so that it shows
    before = loss(opened, opened.model)
    (task,) = study.tasks
    evaluate.accuracy(opened.model, opened.tokenizer, task, opened.task_manager, 8)
    opened.model.tie_weights()  # nor may any other library
    assert [before, loss(opened, opened.model)] == pytest.approx([right, right], abs=1e-5)
    measure.measure(opened, [unpruned(opened)])  # all of it in one job
    found = probes.recorded(opened, unpruned(opened), study.loss)["loss"]
    assert found == pytest.approx(right, abs=1e-5)


def test_what_is_written_has_the_same_head(study, tmp_path: Path) -> None:
    """Pruned from memory and on disk: ordinary checkpoints, for other programs, too."""
    study, whole = study
    opened, dropped = OpenStudy(study), Dropped([2, 3])
    right = AutoModelForCausalLM.from_pretrained(whole).eval()
    with pruned(right, dropped):
        expected = loss_by_hand(right, opened)
    save_pruned(opened.model, dropped, opened.tokenizer, tmp_path / "memory")
    on_disk.prune(Path(study.model), tmp_path / "disk", dropped)
    for name in ("memory", "disk"):
        assert not json.loads((tmp_path / name / "config.json").read_text())["tie_word_embeddings"]
        model = AutoModelForCausalLM.from_pretrained(tmp_path / name).eval()
        model.tie_weights()
        assert loss_by_hand(model, opened) == pytest.approx(expected, abs=1e-5)


def test_healing_keeps_the_head(study, tmp_path: Path) -> None:
    study, whole = study
    tokenizer = AutoTokenizer.from_pretrained(whole)
    found = heal.heal(study, study.healing, Dropped([2, 3]), tokenizer)
    head = AutoModelForCausalLM.from_pretrained(whole).lm_head.weight
    assert torch.equal(found.model.lm_head.weight, head)
    found.model.save_pretrained(tmp_path / "healed")  # as it is exported
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "healed")
    written.tie_weights()
    assert torch.equal(written.lm_head.weight, head)


@pytest.mark.parametrize("kind", ["contradicted", "tied", "untied", "two alike"])
def test_the_check_says_where_flag_and_tensors_contradict_each_other(
    kind: str, tmp_path, tiny_checkpoint, write_study, capsys
) -> None:
    whole = tiny_checkpoint("llama", tie_word_embeddings=kind == "tied")
    flag = kind != "untied"
    folder = tied_by_flag(whole, tmp_path / "model", flag)
    if kind == "two alike":
        tensors = load_file(folder / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    check(studies.load(str(write_study(tmp_path, model=str(folder)))))
    said = capsys.readouterr().err
    assert ("tie_word_embeddings: true, but lm_head.weight has" in said) == (kind == "contradicted")


def test_a_tied_head_stays_tied(tmp_path, tiny_checkpoint, write_study) -> None:
    folder = tiny_checkpoint("llama", tie_word_embeddings=True)
    model = checkpoints.load_model(studies.load(str(write_study(tmp_path, model=str(folder)))))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.tie_word_embeddings


@pytest.mark.parametrize("what", ["tied", "scaled"])
def test_a_change_of_weights_is_an_error(study, what: str) -> None:
    study, _ = study
    model = OpenStudy(study).model
    with untouched(model, "nothing"), torch.no_grad():
        model(torch.tensor([[1, 2, 3]]))
    head = model.lm_head
    changed = pytest.raises(UserError, match=r"a library has changed the weights .*lm_head\.weight")
    with changed, untouched(model, "a library"), torch.no_grad():
        if what == "tied":
            head.weight = model.model.embed_tokens.weight
        else:
            head.weight.mul_(1.01)


def test_nothing_is_recorded_of_a_model_that_a_harness_has_changed(study, monkeypatch) -> None:
    study, _ = study
    opened = OpenStudy(study)
    made = HFLM.__init__

    def meddling(self, *given, **named) -> None:
        made(self, *given, **named)
        with torch.no_grad():
            self.model.lm_head.weight.mul_(1.5)

    monkeypatch.setattr(HFLM, "__init__", meddling)
    with pytest.raises(UserError, match=r"'quiz': asking it has changed the weights"):
        measure.measure(opened, [unpruned(opened)])
    assert probes.recorded(opened, unpruned(opened), study.tasks[0]) is None


def test_training_may_change_only_what_it_trains(study, monkeypatch) -> None:
    study, whole = study
    real = training.Trainer.train

    def meddling(self, *given, **named):
        found = real(self, *given, **named)
        with torch.no_grad():
            self.model.get_base_model().lm_head.weight.mul_(1.5)
        return found

    monkeypatch.setattr(training.Trainer, "train", meddling)
    tokenizer = AutoTokenizer.from_pretrained(whole)
    with pytest.raises(UserError, match=r"training has changed the weights .*lm_head\.weight"):
        heal.heal(study, study.healing, UNPRUNED, tokenizer)
