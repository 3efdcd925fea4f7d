"""Study files: what is refused, in one line, and how what is accepted is read."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Load

from lib import paths, study
from lib.errors import UserError
from lib.schema import Study


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as raised:
        call()
    message = str(raised.value)
    assert message and "\n" not in message
    return message


BAD_KEYS = [
    ("foo: 1", ["unknown key 'foo'", "allowed: model, revision", "lora_rank"]),
    ("name: other", ["unknown key 'name'", "allowed: model"]),
    ("file: other", ["unknown key 'file'", "allowed: model"]),
    (
        "healing: {rnk: 3}",
        ["unknown key 'healing.rnk'", "allowed: recipe, teacher, distillation, data"],
    ),
    ("distances: {n: 3}", ["unknown key 'distances.n'", "allowed: n_sequences, length"]),
    ("healing_text: {file: a}", ["unknown key 'healing_text.file'", "allowed: path, dataset"]),
    ("tasks: [{name: a, shot: 1}]", ["unknown key 'tasks.0.shot'", "allowed: name, shots, limit"]),
    ("lora_rank: {rank: [2]}", ["unknown key 'lora_rank.rank'", "allowed: ranks, fractions"]),
    ("controls: {runs: [a]}", ["unknown key 'controls.runs'", "allowed: untrained, seed, studies"]),
    ("1: 2", ["keys must be text"]),
    ("healing: {1: 2}", ["healing.1"]),
]
BAD_TYPES = [
    ("revision: 3", ["revision", "string", "3"]),
    ("batch: '8'", ["batch", "integer", "'8'"]),
    ("batch: 1.5", ["batch", "integer", "1.5"]),
    ("healing: {rank: true}", ["healing.rank", "integer", "True"]),
    ("healing: 3", ["healing", "not 3"]),
    ("healing:", ["healing", "not None"]),
    ("healing: {targets: mlp}", ["healing.targets", "list", "'mlp'"]),
    ("pruned_layers: 3", ["pruned_layers", "list"]),
    ("tasks: [mmlu]", ["tasks.0", "'mmlu'"]),
    ("tasks: [{shots: 1}]", ["tasks.0.name", "missing"]),
    ("title: null", ["title", "string"]),
    ("revision: 1234567", ["revision", "not 1234567; in quotes it is text"]),
    ("title: no", ["title", "string", "in quotes it is text"]),
    ("dtype: fp8", ["dtype", "'auto', 'float32', 'bfloat16' or 'float16'", "'fp8'"]),
    ("device: gpu", ["device", "'auto', 'cpu' or 'cuda'"]),
    ("loss: {sample: last}", ["loss.sample", "'random' or 'first'"]),
    ("tasks: [{name: a, role: x}]", ["tasks.0.role", "'knowledge', 'reading' or 'generation'"]),
]
BAD_VALUES = [
    ("batch: 0", ["batch", "greater than or equal to 1", "0"]),
    ("distances: {n_sequences: 1}", ["distances.n_sequences", "equal to 2"]),
    ("distances: {length: 1}", ["distances.length", "equal to 2"]),
    ("distances: {bootstrap: 10}", ["distances.bootstrap", "equal to 100"]),
    ("distances: {seed: -1}", ["distances.seed", "equal to 0"]),
    ("loss: {n_sequences: 1}", ["loss.n_sequences", "equal to 2"]),
    ("tasks: []", ["tasks", "at least 1"]),
    ("tasks: [{name: a, shots: -1}]", ["tasks.0.shots", "equal to 0"]),
    ("tasks: [{name: a, limit: 0}]", ["tasks.0.limit", "equal to 1"]),
    ("tasks: [{name: a}, {name: a}]", ["tasks", "twice"]),
    ("pruned_layers: [0]", ["pruned_layers.0", "equal to 1"]),
    ("pruned_layers: [-2]", ["pruned_layers.0", "equal to 1"]),
    ("pruned_layers: [2, 2]", ["pruned_layers", "twice"]),
    ("pruned_layers: []", ["pruned_layers", "at least 1"]),
    (f"sign: {'x' * 41}", ["sign", "at most 40"]),
    ("sign: ' '", ["sign", "at least 1"]),
    ("healing: {rank: 0}", ["healing.rank", "equal to 1"]),
    ("healing: {length: 7}", ["healing.length", "equal to 8"]),
    ("healing: {learning_rate: 0}", ["healing.learning_rate", "greater than 0"]),
    ("healing: {learning_rate: .inf}", ["healing.learning_rate", "finite"]),
    ("healing: {warmup: 1.0}", ["healing.warmup", "less than 1"]),
    ("healing: {dropout: -0.1}", ["healing.dropout", "equal to 0"]),
    ("healing: {targets: []}", ["healing.targets", "at least 1"]),
    ("healing: {fractions: []}", ["healing.fractions", "at least 1"]),
    ("healing: {fractions: [1.0]}", ["healing.fractions.0", "less than 1"]),
    ("healing: {fractions: [0.5, 0.5]}", ["healing.fractions", "twice"]),
    ("lora_rank: {ranks: [2, 2]}", ["lora_rank.ranks", "twice"]),
    ("controls: {studies: [a, a]}", ["controls.studies", "twice"]),
    ("validation_text: {path: a, dataset: b}", ["validation_text", "either path", "or dataset"]),
    ("healing_text: {split: train}", ["healing_text", "either path", "or dataset"]),
]


@pytest.mark.parametrize(("text", "says"), BAD_KEYS + BAD_TYPES + BAD_VALUES)
def test_a_bad_key_type_or_value_is_named(load: Load, text: str, says: list[str]) -> None:
    message = refusal(lambda: load(f"model: x\n{text}\n"))
    assert message.startswith("study mine.yaml: ")
    for part in says:
        assert part in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected keys and values"),
        ("- model", "expected keys and values"),
        ("model: [1", "not readable as YAML"),
        ("model: !!python/name:os.system x", "not readable as YAML"),
        ("title: no model", "key 'model' is missing"),
        ("model: 3", "key 'model'"),
        ("model: ''", "key 'model'"),
    ],
)
def test_a_file_without_a_readable_model_is_refused(load: Load, text: str, says: str) -> None:
    message = refusal(lambda: load(text))
    assert message.startswith("study mine.yaml: ") and says in message


def test_a_file_in_no_text_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not readable" in refusal(lambda: study.load(str(tmp_path / "mine.yaml")))


def test_an_unknown_name_lists_the_studies_there_are() -> None:
    message = refusal(lambda: study.load("nonesuch"))
    assert "unknown study 'nonesuch'" in message
    assert all(path.stem in message for path in paths.STUDIES.glob("*.yaml"))


@pytest.mark.parametrize("name", ["nonesuch.yaml", "./a/nonesuch.yaml", "~/nonesuch.yaml"])
def test_a_missing_file_is_named(name: str) -> None:
    message = refusal(lambda: study.load(name))
    assert name in message and "no such file" in message


@pytest.mark.parametrize("name", ["mine.yml", "mine.json", "{braces}.yaml", "a b.yaml", "-x.yaml"])
def test_a_file_name_that_cannot_name_a_study_is_refused(load: Load, name: str) -> None:
    assert name in refusal(lambda: load("model: x", name))


@pytest.mark.parametrize("shipped", sorted(path.name for path in paths.STUDIES.glob("*.yaml")))
def test_a_file_may_not_shadow_a_shipped_study(load: Load, shipped: str) -> None:
    message = refusal(lambda: load("model: x", shipped))
    assert "belongs to a shipped study" in message and Path(shipped).stem in message


@pytest.mark.parametrize("shipped", sorted(path.stem for path in paths.STUDIES.glob("*.yaml")))
def test_shipped_studies_load_by_name_and_by_path(shipped: str) -> None:
    by_name = study.load(shipped)
    assert by_name.name == shipped
    assert study.load(str(paths.STUDIES / f"{shipped}.yaml")) == by_name


def test_only_the_model_is_required(load: Load) -> None:
    found = load("model: some/model")
    assert (found.name, found.title, found.model) == ("mine", "mine", "some/model")
    assert found.healing.name == "qlora-r8"
    assert found.validation_text.dataset == found.healing_text.dataset == "allenai/c4"
    flat = study.effective(found)
    assert flat["healing.learning_rate"] == 3e-4
    assert flat["tasks"][0]["name"] == "mmlu"
    assert not {"name", "file"} & flat.keys()


def test_local_paths_are_relative_to_the_file(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load("model: ./here").model == str(tmp_path / "here")
    assert load("model: ../there").model == str(tmp_path.parent / "there")
    assert load("model: ~/mine").model == str(tmp_path / "home/mine")
    assert load("model: /abs/olute").model == "/abs/olute"
    found = load("model: x\ntask_path: tasks\nvalidation_text: {path: text.jsonl}")
    assert found.task_path == [str(tmp_path / "tasks")]
    assert found.validation_text.path == str(tmp_path / "text.jsonl")
    found = load("model: x\ntask_path: [tasks, ../more]")
    assert found.task_path == [str(tmp_path / "tasks"), str(tmp_path.parent / "more")]
    assert load("model: x\ntask_path:").task_path == []


@pytest.mark.parametrize("model", ["gpt2", "meta-llama/Llama-2-7b-hf"])
def test_hub_ids_are_left_alone(tmp_path: Path, load: Load, model: str) -> None:
    (tmp_path / model).mkdir(parents=True)
    found = load(f"model: {model}")
    assert found.model == model and not found.model_is_local
    assert load("model: ./x").model_is_local


@pytest.mark.parametrize(
    ("written", "meant"), [("3e-4", 3e-4), ("2E-3", 2e-3), ("1.e-3", 1e-3), ("0.5", 0.5), ("1", 1)]
)
def test_numbers_in_scientific_notation_are_numbers(load: Load, written: str, meant: float) -> None:
    assert load(f"model: x\nhealing: {{learning_rate: {written}}}").healing.learning_rate == meant


def test_parameters_of_none_leave_the_study_alone(load: Load) -> None:
    found = load("model: x\nloss: {length: 99}")
    unchanged = study.override(found, loss={"length": None, "n_sequences": None}, batch=None)
    assert unchanged == found


def test_parameters_replace_only_what_they_name(load: Load) -> None:
    found = load("model: x\nloss: {length: 99, seed: 5}")
    changed = study.override(found, loss={"n_sequences": 7, "length": None}, pruned_layers=[3])
    assert (changed.loss.n_sequences, changed.loss.length, changed.loss.seed) == (7, 99, 5)
    assert changed.pruned_layers == [3]
    assert found.loss.n_sequences != 7 and found.pruned_layers is None
    assert changed.healing == found.healing
    assert (changed.name, changed.file) == (found.name, found.file)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"loss": {"length": 1}}, "key 'loss.length'"),
        ({"distances": {"n_sequences": "many"}}, "key 'distances.n_sequences'"),
        ({"lora_rank": {"ranks": [0]}}, "key 'lora_rank.ranks.0'"),
        ({"lora_rank": {"ranks": [2, 2]}}, "lora_rank.ranks lists the same value twice"),
        ({"pruned_layers": []}, "key 'pruned_layers'"),
        ({"healing": {"speed": 1}}, "unknown key 'healing.speed'; allowed: recipe, teacher"),
    ],
)
def test_parameters_are_checked_like_the_file(load: Load, changes: dict, says: str) -> None:
    message = refusal(lambda: study.override(load("model: x"), **changes))
    assert message.startswith("parameters of study mine: ") and says in message


def test_like_inherits_settings_but_not_what_a_study_is_called(load: Load) -> None:
    base = study.load("almanac")
    found = load("like: almanac\nhealing: {rank: 2}\nloss: {length: 64}\nmodel: ./other\n")
    assert found.healing == base.healing.model_copy(update={"rank": 2})
    assert found.loss == base.loss.model_copy(update={"length": 64})
    assert (found.tasks, found.task_path) == (base.tasks, base.task_path)
    assert found.validation_text == base.validation_text
    assert (found.title, found.about, found.controls.studies) == ("mine", "", [])
    assert found.model.endswith("/other") and found.name == "mine"


def test_a_sign_says_what_kind_of_model_it_is_and_goes_with_the_model(load: Load) -> None:
    almanac, plain = study.load("almanac").sign, load("model: x").sign
    assert almanac == "a made-up world" and plain == "a model of your own"
    assert load("like: almanac").sign == almanac
    assert load("like: almanac\nmodel: ./other").sign == plain
    assert load("like: almanac\nsign: mine").sign == "mine"
    assert load("like: almanac\nmodel: ./other\nsign: mine").sign == "mine"


@pytest.mark.parametrize("shipped", sorted(path.stem for path in paths.STUDIES.glob("*.yaml")))
def test_every_shipped_study_has_a_sign(shipped: str) -> None:
    assert study.load(shipped).sign != Study.model_fields["sign"].default


def test_like_replaces_a_text_as_a_whole(load: Load) -> None:
    found = load("like: almanac\nhealing_text: {dataset: a/b}\n")
    assert (found.healing_text.path, found.healing_text.dataset) == (None, "a/b")


def test_like_reads_a_file_beside_it_once(tmp_path: Path, load: Load) -> None:
    (tmp_path / "base.yaml").write_text("model: ./there\nbatch: 3\n", encoding="utf-8")
    assert load("like: ./base.yaml").batch == 3
    (tmp_path / "middle.yaml").write_text("like: ./base.yaml\n", encoding="utf-8")
    assert "may not have a 'like' itself" in refusal(lambda: load("like: ./middle.yaml"))
    assert "may not have a 'like' itself" in refusal(lambda: load("like: ./mine.yaml"))
    assert "unknown study 'nosuch'" in refusal(lambda: load("like: nosuch"))
    assert "there is no such file" in refusal(lambda: load("like: ./nosuch.yaml"))
    assert "key 'batch'" in refusal(lambda: load("like: ./base.yaml\nbatch: x"))


def test_tasks_go_by_the_abilities_that_they_are_said_to_ask_for(load: Load) -> None:
    tasks = "{name: a, role: knowledge}, {name: b, role: generation}, {name: c, role: reading}"
    text = f"model: x\ntasks: [{tasks}, {{name: a, role: knowledge, shots: 5}}]\n"
    found = load(text + "abilities: {sums: [b]}").by_ability
    assert {name: [(one.name, one.shots) for one in of] for name, of in found.items()} == {
        "sums": [("b", 0)],
        "knowledge": [("a", 0)],
        "reading": [("c", 0)],
    }
    for given, says in {"{sums: [d]}": "'d' is none of", "{x: [a], y: [a]}": "named twice"}.items():
        with pytest.raises(UserError, match=says):
            load(f"{text}abilities: {given}")


def test_abilities_are_inherited_with_their_tasks(load: Load) -> None:
    tasks = "tasks: [{name: a, role: knowledge}, {name: b, role: reading}]\n"
    load(f"model: x\n{tasks}abilities: {{sums: [b], facts: [a]}}", "whole.yaml")
    assert [*load("like: ./whole.yaml").abilities] == ["sums", "facts"]
    assert load("like: ./whole.yaml\nabilities: {more: [b]}").abilities == {"more": ["b"]}
    assert load("like: ./whole.yaml\ntasks: [{name: c, role: reading}]").abilities == {}
