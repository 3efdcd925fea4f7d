"""Downloading what a study needs, where there is a network, for machines that reach none: model,
texts and the questions of lm-eval's own tasks, into the caches of the hub's libraries.

    make fetch STUDY=path/to/mine.yaml
"""

from collections.abc import Iterator

from huggingface_hub import snapshot_download

from lib.errors import UserError
from lib.evaluation import harness, whole_texts
from lib.experiments.opened import OpenStudy
from lib.fields import Text
from lib.models import checkpoints, corpora, fetched_texts
from lib.models.hub import explain
from lib.schema import Study

# Of a repository: weights in one form, and what says how to read them and text.
FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
FOLDERS = ["original/*", "onnx/*"]  # the same weights in other forms
OFFLINE = "HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1"


def fetch(study: Study) -> Iterator[str]:
    """Download, and say so part by part. Raises UserError for what cannot be had."""
    yield _model(study)
    for text in _texts(study):
        yield _text(text)
    yield _tasks(study)
    yield f"where there is no network, set {OFFLINE}"


def _model(study: Study) -> str:
    if study.model_is_local:
        return f"model {study.model}: on this machine"
    if (file := checkpoints.gguf_file(study)) is not None:
        return f"model {study.model}: {file}"
    try:
        folder = snapshot_download(
            study.model, revision=study.revision, allow_patterns=FILES, ignore_patterns=FOLDERS
        )
    except Exception as error:  # many kinds: no network, gated, misspelt
        raise UserError(f"model {study.model}: {explain(error, 'model', study.model)}") from None
    return f"model {study.model}: {folder}"


def _texts(study: Study) -> list[Text]:
    """All that the study reads, each source once."""
    named = [study.validation_text, study.calibration, *study.other_texts]
    if study.healing is not None:
        named += [study.healing_text, study.held_out_text, *study.healing_data]
    found = {(corpora.describe(one), one.revision): one for one in named if one is not None}
    return list(found.values())


def _text(text: Text) -> str:
    if text.path is not None:
        return f"text {text.path}: on this machine"
    try:
        return fetched_texts.fetch(text)
    except UserError:
        raise
    except Exception as error:
        reason = explain(error, "dataset", str(text.dataset))
        raise UserError(f"text {corpora.describe(text)}: {reason}") from None


def _tasks(study: Study) -> str:
    """Questions are kept by the library that reads them, so reading them once is enough."""
    opened = OpenStudy(study)
    manager = opened.task_manager
    asked = [*study.every_task, *opened.prompt_tasks]
    for name in dict.fromkeys(task.name for task in asked):
        harness.check_tasks(study, manager, [task for task in asked if task.name == name])
    for one in study.perplexity:
        whole_texts.check(one.name, manager)
    return f"tasks: {', '.join(dict.fromkeys(task.name for task in [*asked, *study.perplexity]))}"
