"""What tests share: tiny random checkpoints, studies to run on them, and nothing of this machine.

No test reads the network, this user's caches or this clone's results.
"""

import gc
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def _folder_in_memory(memory: Path = Path("/dev/shm"), room: int = 6 * 2**30) -> Path | None:
    """Where there is one with room, and memory beside: tests write many small files, and each
    waits for the disk. What an earlier run left there is thrown away."""
    try:
        found = os.statvfs(memory)
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    available = 1024 * int(next(line.split()[1] for line in lines if "MemAvailable" in line))
    if min(available, found.f_bavail * found.f_frsize) < room or found.f_flag & os.ST_NOEXEC:
        return None
    for old in memory.glob("tests-[0-9]*"):
        if not Path("/proc", old.name.removeprefix("tests-")).exists():
            shutil.rmtree(old, ignore_errors=True)
    own = memory / f"tests-{os.getpid()}"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(mode=0o700)
    return own


# Not where it is said where files go, nor for scripts that borrow from here and are no tests.
_WANTED = "PYTEST_VERSION" in os.environ and not {"PYTEST_XDIST_WORKER", "TMPDIR"} & {*os.environ}
_IN_MEMORY = _folder_in_memory() if _WANTED else None
if _IN_MEMORY:
    os.environ |= dict.fromkeys(("TMPDIR", "PYTEST_DEBUG_TEMPROOT"), str(_IN_MEMORY))
    tempfile.tempdir = None  # asked for before, perhaps

# Before torch and datasets are imported, which read these once.
_CACHE = tempfile.mkdtemp(prefix="tests-cache-")
os.environ |= {
    "HF_HOME": _CACHE,
    "HF_HUB_OFFLINE": "1",
    "GOMP_SPINCOUNT": "1000",
    "TOKENIZERS_PARALLELISM": "false",
}
if "PYTEST_XDIST_WORKER" in os.environ:  # which share the cores
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import commands  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import torch.utils.collect_env  # noqa: E402
import yaml  # noqa: E402
from ablation_study import ablated, ablation_study, ablation_study_opened  # noqa: E402, F401
from qwen_checkpoint import load as load_qwen  # noqa: E402
from qwen_reference import write as write_qwen  # noqa: E402
from tiny import random_model  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
)

from lib import paths, study  # noqa: E402
from lib.schema import Study  # noqa: E402

# lm-eval alone asks pip for all packages, for its notes, each time that it is run.
torch.utils.collect_env.get_pretty_env_info = lambda: "not asked"

gc.freeze()  # what was imported is never garbage: to look through it takes a second each time

WIDTHS = {"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4}
LLAMA_LIKE = WIDTHS | {"intermediate_size": 128, "num_key_value_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": LLAMA_LIKE,
    "mistral": LLAMA_LIKE | {"sliding_window": 16, "head_dim": 16},
    "mixtral": LLAMA_LIKE | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": LLAMA_LIKE,
    "phi": WIDTHS | {"intermediate_size": 128},
    "gpt_neox": WIDTHS | {"intermediate_size": 128},
    "gemma2": LLAMA_LIKE | {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16},
    "opt": WIDTHS | {"ffn_dim": 128, "word_embed_proj_dim": 64},
}

Checkpoints = Callable[..., Path]
Studies = Callable[..., Path]
Load = Callable[..., Study]


# Those that take longest begin, or at the end one process would wait for the others.
FIRST = ("test_book", "test_slurm", "test_training")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = dict.fromkeys(FIRST) | dict.fromkeys(item.path.stem for item in items)
    order = list(names)
    items.sort(key=lambda item: order.index(item.path.stem))


def pytest_configure(config: pytest.Config) -> None:
    """Where several processes test, they and the commands that they start are copies of one."""
    if not hasattr(config, "workerinput") and config.getoption("numprocesses", None):
        commands.prepare()


def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    for spec in specs:
        spec.python = shlex.join(commands.command("tester"))


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores, as some tests wait for what they started."""
    return min(4, (os.cpu_count() or 1) + 1)


def pytest_sessionfinish(exitstatus: int) -> None:
    shutil.rmtree(_CACHE, ignore_errors=True)
    if _IN_MEMORY and exitstatus == 0:  # else there is something to look at, until the next run
        shutil.rmtree(_IN_MEMORY, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _results_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULTS_DIR", str(tmp_path_factory.mktemp("results")))
        yield


@pytest.fixture
def results_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty RESULTS_DIR of the test's own."""
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture
def build_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty _build of the test's own (in this process only)."""
    monkeypatch.setattr(paths, "BUILD", tmp_path / "_build")
    return tmp_path / "_build"


@pytest.fixture
def published_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty published/ of the test's own (in this process only)."""
    monkeypatch.setattr(paths, "published", lambda name: tmp_path / "published" / name)
    return tmp_path / "published"


@pytest.fixture
def own_tasks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval's own tasks, which take seconds to list, are not looked at."""
    import lm_eval.tasks

    manager = lm_eval.tasks.TaskManager
    monkeypatch.setattr(
        lm_eval.tasks, "TaskManager", lambda **given: manager(**given | {"include_defaults": False})
    )


@pytest.fixture(scope="session")
def tokenizer_folder() -> Path:
    """A folder with tokenizer files; it may hold other files too."""
    return paths.ROOT / "almanac" / "checkpoint"


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tokenizer_folder)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Checkpoints:
    """`tiny_checkpoint("phi", num_hidden_layers=4)`: the folder of a small random causal LM in
    float32 with the shipped tokenizer. One folder per arguments: copy it before changing it.

    Every norm weight and bias differs from its neutral start, so that leaving one out shows."""
    made: dict[str, Path] = {}

    def make(family: str, **config: Any) -> Path:
        key = json.dumps([family, config], sort_keys=True)
        if key not in made:
            made[key] = tmp_path_factory.mktemp(f"checkpoint-{family}")
            # Qwen2's tokenizer class adds a token of its own to any tokenizer.
            vocabulary = len(tokenizer) + (family == "qwen2")
            settings = {"vocab_size": vocabulary, "max_position_embeddings": 128}
            _write_checkpoint(made[key], family, settings | FAMILIES.get(family, {}) | config)
            tokenizer.save_pretrained(made[key])
        return made[key]

    return make


def _write_checkpoint(folder: Path, family: str, settings: dict[str, Any]) -> None:
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(family, **(special | settings))
    model = AutoModelForCausalLM.from_config(config).float()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=random)
            if parameter.ndim == 1:
                parameter.add_(0.2 * noise)
            else:
                parameter.copy_(0.1 * noise)
    model.save_pretrained(folder)


NAMES = ("Ada", "Bruno", "Carla", "Dmitri", "Edda", "Farid", "Greta", "Hugo")
PLACES = ("market", "harbour", "school", "garden", "mill", "church", "forest", "bridge")
THINGS = ("a loaf", "some fish", "an old book", "two apples", "a lamp", "the key", "a red hat")


def sentences(count: int, first: int = 0) -> list[str]:
    """Short documents of two to four simple sentences, no two alike."""
    found = []
    for i in range(first, first + count):
        name, place = NAMES[i % 8], PLACES[i // 8 % 8]
        parts = [
            f"On day {i} {name} walked to the {place} and bought {THINGS[i % 7]}.",
            f"Nobody at the {PLACES[i * 3 % 8]} had seen {name} before.",
            f"{name} kept {THINGS[i * 5 % 7]} and went home.",
            f"It rained for {i % 9} hours.",
        ]
        found.append(" ".join(parts[: 2 + i % 3]))
    return found


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_task(folder: Path, name: str = "quiz", questions: int = 24) -> Path:
    """A four-choice lm-eval task on local files, with as many examples for few-shot prompts."""
    files = {}
    for split, first in {"test": 0, "dev": questions}.items():
        rows = [
            {
                "question": f"On day {i} {NAMES[i % 8]} walked to the",
                "choices": [PLACES[(i + k) % 8] for k in range(4)],
                "answer": i * 7 % 4,
            }
            for i in range(first, first + questions)
        ]
        files[split] = str(write_jsonl(folder.resolve() / f"{name}_{split}.jsonl", rows))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "test_split": "test",
        "fewshot_split": "dev",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def write_study(tiny_checkpoint: Checkpoints) -> Studies:
    """`write_study(folder, healing={"rank": 2})`: the path of a small, sound study that needs
    nothing outside `folder` but a tiny Llama. Keys given replace its own, one level deep; with
    `stem` the file has another name than mine.yaml."""

    def write(folder: Path, stem: str = "mine", **keys: Any) -> Path:
        write_jsonl(folder / "validation.jsonl", [{"text": text} for text in sentences(40)])
        write_jsonl(folder / "healing.jsonl", [{"text": text} for text in sentences(120, 1000)])
        write_task(folder / "tasks")
        settings: dict[str, Any] = {
            "device": "cpu",
            "validation_text": {"path": "./validation.jsonl"},
            "healing_text": {"path": "./healing.jsonl"},
            "text_name": "sentences",
            "task_path": "./tasks",
            "tasks": [{"name": "quiz", "role": "knowledge"}],
            "batch": 8,
            "distances": {"n_sequences": 8, "length": 16, "bootstrap": 100},
            "loss": {"n_sequences": 8, "length": 32},
            "pruned_layers": [1, 3],
            "healing": {"rank": 4, "steps": 2, "batch": 4, "length": 32, "fractions": [0.5]},
            "lora_rank": {"ranks": [2], "fractions": [0.5]},
        }
        for key, value in keys.items():
            own = settings.get(key)
            merge = isinstance(value, dict) and isinstance(own, dict) and key != "validation_text"
            settings[key] = own | value if merge and key != "healing_text" else value
        if isinstance(settings["healing"], dict) and settings["healing"].get("recipe") == "full":
            del settings["healing"]["rank"]
        if "model" not in settings:
            settings["model"] = str(tiny_checkpoint("llama"))
        path = folder / f"{stem}.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load("model: x")`: the study that this text is, in a file of the test's own."""

    def write_and_load(text: str, name: str = "mine.yaml") -> Study:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return study.load(str(path))

    return write_and_load


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama in several shards; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("llama") / "whole"
    random_model("llama").save_pretrained(folder, max_shard_size="400KB")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "LICENSE").write_text("free")
    (folder / "README.md").write_text("---\nlicense: mit\nmetrics: [x]\n---\nold card")
    return folder


@pytest.fixture
def copied(sharded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sharded, tmp_path / "copied")


@pytest.fixture(scope="session")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the layout of Qwen version 1; tests that change it copy it first."""
    return write_qwen(tmp_path_factory.mktemp("qwen") / "whole")


@pytest.fixture(scope="session")
def qwen_model(qwen_folder: Path) -> PreTrainedModel:
    return load_qwen(qwen_folder)
