"""Odd study files: what is written twice, in quotes, without end or out of range."""

from pathlib import Path

import pytest
import torch
import yaml
from conftest import Load
from test_study import refusal
from transformers import set_seed

from lib import study


def laughs(levels: int) -> str:
    """Each level ten times the one before it, 10 ** levels values in a few lines."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, levels):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]")
    return "\n".join(lines)


TWICE = [
    ("model: a/b\nbatch: 2\nmodel: c/d\n", "key 'model' is there twice, lines 1 and 3"),
    ("model: a/b\n'model': c/d\n", "key 'model' is there twice, lines 1 and 2"),
    (
        "model: a/b\nhealing: {rank: 64}\nbatch: 8\nhealing: {seed: 1}\n",
        "key 'healing' is there twice, lines 2 and 4",
    ),
    (
        "model: a/b\nhealing:\n  rank: 64\n  steps: 5\n  rank: 8\n",
        "key 'healing.rank' is there twice, lines 3 and 5",
    ),
    (
        "model: a/b\ntasks:\n- name: x\n  shots: 1\n- {name: y, shots: 1, shots: 2}\n",
        "key 'tasks.1.shots' is there twice, lines 5 and 5",
    ),
    (
        "model: a/b\nshape: {rope: {a: 1, b: {c: 1,\n c: 2}}}\n",
        "key 'shape.rope.b.c' is there twice, lines 2 and 3",
    ),
]


@pytest.mark.parametrize(("text", "says"), TWICE)
def test_a_key_twice_is_refused_at_any_depth(load: Load, text: str, says: str) -> None:
    assert refusal(lambda: load(text)) == f"study mine.yaml: {says}"


def test_keys_may_be_taken_over_from_elsewhere_in_the_file(load: Load) -> None:
    found = load("model: x\nloss: &l {length: 99, seed: 3}\ndistances: {<<: *l, length: 50}\n")
    assert (found.loss.length, found.distances.length, found.distances.seed) == (99, 50, 3)


QUOTED = ["12e4567", "9e10420", "1e3", "3e-4", "2024-02-30", "1:30", "010", "0x10", "12"]


@pytest.mark.parametrize("value", QUOTED)
def test_what_is_in_quotes_is_text(load: Load, value: str) -> None:
    for quoted in (f"'{value}'", f'"{value}"', f"!!str {value}"):
        found = load(
            f"model: x\nrevision: {quoted}\ntitle: {quoted}\nwriting: {{prompts: [{quoted}]}}"
        )
        assert (found.revision, found.title, found.writing.prompts) == (value, value, [value])


@pytest.mark.parametrize("value", ["12e4567", "2024-02-30", "2024-01-01", "1:30", "abc1234"])
def test_what_is_no_number_of_a_study_is_text_without_quotes_too(load: Load, value: str) -> None:
    assert load(f"model: x\nrevision: {value}").revision == value


@pytest.mark.parametrize("value", ["010", "0o10", "0x10", "1:30", "'3'", "1e999"])
def test_a_number_is_none_that_could_mean_another(load: Load, value: str) -> None:
    assert "key 'batch'" in refusal(lambda: load(f"model: x\nbatch: {value}"))


# What is wrong, and a word that the line has.
ODD = {
    "empty number": ("batch: !!int ''", "no int"),
    "long number": (f"batch: {'1' * 5000}", "no int"),
    "no truth": ("controls: {untrained: !!bool x}", "no bool"),
    "not finite": ("shape: {x: [1, .nan]}", "shape.x.1"),
    "infinite": ("shape: {x: -.inf}", "finite"),
    "tagged not finite": ("healing: {learning_rate: !!float nan}", "healing.learning_rate"),
    "too large": ("healing: {learning_rate: 1e999}", "healing.learning_rate"),
    "itself": ("shape: &s {x: *s}", "key 'shape.x': contains itself"),
    "itself in a list": ("tasks: &t [*t]", "contains itself"),
    "each other": ("shape: &s {x: &t {y: *s}}", "contains itself"),
    "merged itself": ("shape: &s {<<: *s}", "contains itself"),
    "laughs": (laughs(9), "values"),
    "many": ("shape: {x: [" + "1, " * 60_000 + "]}", "values"),
    "large": ("about: " + "x" * 300_000, "characters"),
    "deep": ("shape: {x: " + "[" * 5000 + "]" * 5000 + "}", "nested too deeply"),
    "deep keys": ("shape: " + "{x: " * 900, "YAML"),
    "deep lists": ("shape: " + "- " * 3000, "YAML"),
    "NUL in a path": ('task_path: "a\\0b"', "task_path"),
    "NUL in a key": ('"a\\0b": 1', "NUL"),
    "half a character": ('title: "a\\ud800"', "title"),
    "half a character in a key": ('shape: {"\\udfff": 1}', "half a character"),
    "control character": ('title: "a\\x07b"', "control characters"),
    "no name": ("other_texts: [{name: ' ', path: a}]", "other_texts.0.name"),
    "number as key": ("shape: {1: 2}", "key 'shape.1': keys must be text"),
    "truth as key": ("shape: {yes: 2}", "keys must be text"),
    "nothing as key": ("shape: {~: 2}", "keys must be text"),
    "list as key": ("? [a]\n: 1", "keys must be text"),
    "binary": ("title: !!binary aGk=", "YAML"),
    "set": ("shape: {x: !!set {a, b}}", "YAML"),
    "pairs": ("shape: {x: !!pairs [a: 1]}", "YAML"),
    "tagged date": ("title: !!timestamp 2024-02-30", "YAML"),
    "own tag": ("title: !mine x", "YAML"),
    "no such anchor": ("title: *x", "YAML"),
    "tab": ("loss:\n\tlength: 3", "YAML"),
    "two documents": ("---\nbatch: 3", "YAML"),
    "merged text": ("<<: x", "YAML"),
    "merged list": ("shape: {<<: [1]}", "YAML"),
    "list": ("healing: [1]", "healing"),
    "text for keys": ("healing: lora", "healing"),
    "no recipe": ("healing: {recipe: [1]}", "recipe"),
    "recipe of a path": ("healing: {recipe: ../x}", "recipe"),
    "keys for a list": ("tasks: {name: a}", "tasks"),
    "list for text": ("model: [x]", "model"),
    "strategy of keys": ("strategies: [{name: {a: 1}}]", "strategies"),
    "strategy of a number": ("strategies: [3]", "strategies"),
    "strategy of nothing": ("strategies: [~]", "strategies"),
    "strategy setting": ("strategies: [{name: simple, x: 1}]", "strategies.0"),
    "strategy settings": ("strategies: [{name: simple, settings: 1}]", "strategies.0"),
    "long strategy": (f"strategies: [{{name: {'x' * 300}, file: a.py}}]", "strategies.0.name"),
    "long path": (f"model: ./{'x' * 300}", "too long"),
    "long text": (f"validation_text: {{path: {'x' * 300}.txt}}", "too long"),
    "long task path": (f"task_path: {'x' * 300}", "too long"),
    "long like": (f"like: ./{'0' * 300}.yaml", "too long"),
    "no such user": ("task_path: ~nobody-here/x", "nobody-here"),
    "like a number": ("like: 3", "like"),
    "like nothing": ("like: ''", "unknown study ''"),
    "like itself": ("like: ./mine.yaml", "like"),
    "like a folder": ("like: ./", "must end in .yaml"),
    "like with NUL": ('like: "./a\\0.yaml"', "NUL"),
}
ODD |= {
    f"{part} {key} {value}": (f"{part}: {{{key}: {value}}}" if part else f"{key}: {value}", key)
    for part, key, value in [
        ("", "batch", 10**10),
        ("", "pruned_layers", [10**10]),
        ("distances", "n_sequences", 10**20),
        ("distances", "length", 10**20),
        ("distances", "bootstrap", 10**6),
        ("distances", "seed", 2**32),
        ("loss", "n_sequences", 10**20),
        ("loss", "length", 10**20),
        ("loss", "seed", 2**32),
        ("healing", "seed", 20261127103000),
        ("healing", "steps", 10**10),
        ("healing", "batch", 10**10),
        ("healing", "micro_batch", 10**10),
        ("healing", "length", 10**10),
        ("healing", "rank", 10**10),
        ("healing", "learning_rate", "1e400"),
        ("healing", "warmup", "1e0"),
        ("healing", "teacher", "-1e-9"),
        ("healing_seeds", "seeds", [2**32]),
        ("teacher", "seeds", [2**32]),
        ("teacher", "weight", "0.0"),
        ("lora_rank", "ranks", [10**10]),
        ("prompts", "shots", 10**9),
        ("prompts", "orders", 10**9),
        ("prompts", "numbers", [0, 10**9]),
        ("prompts", "limit", 10**10),
        ("writing", "n_prompts", 10**20),
        ("writing", "prompt_tokens", 10**20),
        ("writing", "tokens", 10**20),
        ("writing", "seed", 2**32),
        ("cost", "length", 10**20),
        ("cost", "batch", 10**20),
        ("cost", "tokens", 10**20),
        ("cost", "repeats", 10**20),
        ("controls", "seed", 2**32),
    ]
}
ODD |= {
    "shots of a task": ("tasks: [{name: a, role: reading, shots: 1000000000}]", "tasks.0.shots"),
    "limit of a task": ("tasks: [{name: a, role: reading, limit: 10000000000}]", "tasks.0.limit"),
    "order of a task": ("tasks: [{name: a, role: reading, order: 4294967296}]", "tasks.0.order"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_is_refused_in_one_line(load: Load, kind: str) -> None:
    text, says = ODD[kind]
    message = refusal(lambda: load(f"model: x\n{text}\n" if "model:" not in text else text))
    assert says in message and len(message) < 600


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_every_seed_that_is_allowed_is_one_to_all_that_draw(load: Load, seed: int) -> None:
    found = load(f"model: x\nhealing: {{seed: {seed}}}\ncontrols: {{seed: {seed}}}")
    set_seed(found.healing.seed)
    torch.manual_seed(found.controls.seed)


def test_studies_like_each_other_are_refused(tmp_path: Path, load: Load) -> None:
    (tmp_path / "other.yaml").write_text("like: ./mine.yaml\n", encoding="utf-8")
    assert "may not have a 'like' itself" in refusal(lambda: load("like: ./other.yaml"))


def test_a_study_of_a_name_that_is_too_long_or_leads_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    (tmp_path / f"{'x' * 101}.yaml").write_text("model: x", encoding="utf-8")
    for name in ("loop", "x" * 101, "x" * 300, "x/" * 3000, "a\0b"):
        refusal(lambda name=name: study.load(f"{tmp_path}/{name}.yaml"))


def test_links_that_lead_to_themselves_are_no_end(tmp_path: Path, load: Load) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert load("model: ./loop/x").model == str(tmp_path / "loop/x")


SOUND = ["a #1", "a: b", "x[2]", "{x}", "$5 or $6", "it's", 'say "hi"', "模型", "-", "*?", "a\\b"]


@pytest.mark.parametrize("name", SOUND)
def test_names_are_free(tmp_path: Path, load: Load, name: str) -> None:
    """Of texts, tasks and what a study is called; as YAML spells them."""
    (tmp_path / name).mkdir()
    written = {
        "model": f"./{name}/model",
        "title": name,
        "about": name,
        "sign": name,
        "text_name": name,
        "validation_text": {"path": f"{name}/a.txt"},
        "other_texts": [{"name": f"{name}.", "path": f"./{name}"}],
        "tasks": [{"name": name, "role": "reading"}],
    }
    found = load(yaml.safe_dump(written, allow_unicode=True), f"{name}/mine.yaml")
    folder = tmp_path / name
    assert (found.title, found.about, found.sign, found.text_name) == (name,) * 4
    assert (found.tasks[0].name, found.other_texts[0].name) == (name, f"{name}.")
    assert found.model == str(folder / name / "model")
    assert found.validation_text.path == str(folder / name / "a.txt")
    assert study.load(found.file) == found


def test_names_stand_on_one_line(load: Load) -> None:
    found = load("model: x\ntitle: |\n  one\n  two\nabout: >\n  three\n\n  four\n")
    assert (found.title, found.about) == ("one two", "three four")
