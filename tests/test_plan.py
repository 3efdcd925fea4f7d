"""What a study takes, against counts by hand and published sizes."""

import json
import re

import pytest
import yaml
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig

from lib import paths, run
from lib import study as studies
from lib.book import memory, model_tables, plan, timing
from lib.errors import UserError
from lib.experiments.conditions import Condition, Done
from lib.healing import recipe
from lib.models import checkpoints, shapes
from lib.pruning.dropped import simple, span

# Width, FFN width, key-value width, layers, vocabulary; and the published number of parameters.
PAPER = {
    "llama-2-7b": ((4096, 11008, 4096, 32, 32000), 6_738_415_616),
    "llama-2-13b": ((5120, 13824, 5120, 40, 32000), 13_015_864_320),
    "llama-2-70b": ((8192, 28672, 1024, 80, 32000), 68_976_648_192),
    "mistral-7b": ((4096, 14336, 1024, 32, 32000), 7_241_732_096),
    "qwen-7b": ((4096, 11008, 4096, 32, 151936), 7_721_324_544),
    "qwen-14b": ((5120, 13696, 5120, 40, 152064), 14_167_290_880),
    "phi-2": ((2560, 10240, 2560, 32, 51200), 2_779_683_840),
}
# Rank, tokens per row, and peak learning rate of App. A.1.
RECIPES = {
    "llama-2-7b": (2, 2048, 3e-4),
    "llama-2-13b": (64, 4096, 3e-4),
    "llama-2-70b": (8, 4096, 3e-5),
    "mistral-7b": (4, 2048, 3e-6),
    "qwen-7b": (64, 2048, 3e-4),
    "qwen-14b": (64, 4096, 3e-4),
    "phi-2": (64, 2048, 2e-4),
}


def by_hand(name: str) -> tuple[int, int]:
    """Parameters of one layer, and of everything else."""
    width, ffn, kv, _, vocabulary = PAPER[name][0]
    if name == "phi-2":  # two FFN matrices; every map and the head has a bias; one norm, with bias
        attention = 4 * (width * width + width)
        layer = attention + 2 * width * ffn + ffn + width + 2 * width
        return layer, 2 * vocabulary * width + vocabulary + 2 * width
    layer = 2 * width * width + 2 * width * kv + 3 * width * ffn + 2 * width
    if name.startswith("qwen"):
        layer += 3 * width  # biases of query, key and value
    return layer, 2 * vocabulary * width + width


@pytest.fixture(scope="module")
def paper_shapes():
    loaded = {name: studies.load(name) for name in PAPER}
    return {name: shapes.shape_of(checkpoints.config_of_shape(one)) for name, one in loaded.items()}


@pytest.mark.parametrize("name", PAPER)
def test_parameters_of_the_papers_models(name, paper_shapes):
    shape, (layer, rest) = paper_shapes[name], by_hand(name)
    n_layers = PAPER[name][0][3]
    assert shape.n_layers == n_layers
    assert shape.total == rest + n_layers * layer == PAPER[name][1]
    for n in (1, n_layers // 2, n_layers - 1):
        assert shape.pruned(simple(n, n_layers)) == rest + (n_layers - n) * layer


@pytest.mark.parametrize("name", PAPER)
def test_trainable_parameters_of_the_papers_recipes(name, paper_shapes):
    width, ffn, _, n_layers, _ = PAPER[name][0]
    rank = studies.load(name).healing.rank
    matrices = 2 if name == "phi-2" else 3
    for n in (0, 1, n_layers // 2):
        expected = rank * matrices * (width + ffn) * (n_layers - n)
        assert paper_shapes[name].trainable(rank, span(0, n)) == expected


@pytest.mark.parametrize("name", RECIPES)
def test_the_papers_settings(name):
    study = studies.load(name)
    healing = study.healing
    assert (healing.rank, healing.length, healing.learning_rate) == RECIPES[name]
    assert (healing.steps, healing.batch, healing.dropout) == (5000, 16, 0.05)
    assert round(healing.warmup * healing.steps) == 100
    assert study.distances.n_sequences == 10_000 and study.loss.n_sequences == 60_000
    assert study.validation_text.split == "validation" and study.healing_text.split == "train"
    shots = {(task.name, task.shots) for task in study.tasks}
    assert shots == {("mmlu", 5), ("mmlu", 0), ("boolq", 0)}
    assert healing.rank not in study.lora_rank.ranks


def test_a_large_layer_is_not_made_to_be_timed(paper_shapes, monkeypatch):
    made = []
    monkeypatch.setattr(plan.timing, "flops", lambda study: 1e12)
    monkeypatch.setattr(plan.timing, "of_layer", lambda *given: made.append(given) or (1.0, 2.0))
    study = studies.load("llama-2-70b")
    width = PAPER["llama-2-70b"][0][0]
    matrices = by_hand("llama-2-70b")[0] - 2 * width  # all of a layer but its norms
    assert plan.speed(study, paper_shapes["llama-2-70b"])[:2] == pytest.approx(
        (2 * matrices / 1e12, 3 * 2 * matrices / 1e12)
    )
    assert not made
    assert plan.speed(study, paper_shapes["llama-2-7b"]) == plan.Speed(1.0, 2.0) and made


def test_healed_models_are_asked_at_the_pace_of_the_numbers_they_are_in(monkeypatch):
    """In 16 bits a healed model is written out in float32; the plan once took it to be as fast as
    the unhealed ones."""
    paces = {"float32": plan.Speed(3.0, 6.0), "bfloat16": plan.Speed(1.0, 2.0)}
    monkeypatch.setattr(plan, "measured_speed", lambda config, study, size: paces[study.dtype])
    smoke = studies.load("smoke")
    shape = shapes.shape_of(checkpoints.load_config(smoke))
    for dtype, written in (("float32", None), ("bfloat16", 3.0)):
        study = smoke.model_copy(update={"dtype": dtype})
        pace = plan.speed(study, shape)
        assert pace == paces[dtype]._replace(written=written)
        opened = plan.Planned(study, checkpoints.load_config(study))
        for part in plan.parts(opened).values():
            healed = part.conditions[0].healing is not None
            wanted = 3.0 if healed and written else paces[dtype].forward
            assert pace.asking(opened, part) == plan.asked_passes(opened, part) * wanted
    # On a GPU those that were healed in 4 bits stay so; others of the same study do not.
    monkeypatch.setattr(plan, "runs_in_4bit", lambda study: True)
    asked = {True: set(), False: set()}
    for part in plan.parts(opened).values():
        if healing := part.conditions[0].healing:
            passes = plan.asked_passes(opened, part)
            asked[recipe.of(healing).needs_4bit].add(pace.asking(opened, part) / passes)
    assert asked == {True: {1.0}, False: {3.0}}
    assert plan.speed(study.model_copy(update={"healing": None}), shape).written is None


def test_the_books_tables_are_made_from_the_studies():
    found = model_tables.tables()
    recipes = [
        " | ".join(map(str, row.values())).replace("\u00a0", " ").replace("\u2011", "-")
        for row in found["paper_recipes"]
    ]
    for row in (
        "Llama-2 7B | 32 | 32,000 | 2,048 | 164 M | 3e-4 | 2 | ",
        "Llama-2 70B | 80 | 32,000 | 4,096 | 328 M | 3e-5 | 8 | ",
        "Mistral 7B | 32 | 32,000 | 2,048 | 164 M | 3e-6 | 4 | ",
        "Phi-2 | 32 | 51,200 | 2,048 | 164 M | 2e-4 | 64 | ",
        "Qwen 7B | 32 | 151,936 | 2,048 | 164 M | 3e-4 | 64 | ",
    ):
        assert sum(one.startswith(row) for one in recipes) == 1
    assert "100 steps, then cosine" in [row["value"] for row in found["paper_settings"]]


def test_the_plan_of_a_study_at_hand(capsys, monkeypatch):
    monkeypatch.setattr(plan, "measured_speed", lambda *_: plan.Speed(1e-6, 3e-6))
    assert run.main(["book", "--study", "smoke", "--plan"]) == 0
    out = capsys.readouterr().out
    study = studies.load("smoke")
    model = checkpoints.load_model(study)
    assert "the checkpoint's own" in out and "ESTIMATES" in out
    assert f"parameters: {sum(p.numel() for p in model.parameters()):,}" in out
    assert "counted" in out and "not known" not in out


def test_what_is_measured_against_a_count_by_hand():
    study = studies.load("smoke")
    opened = plan.Planned(study, checkpoints.load_config(study))
    pace, layers = plan.Speed(1e-6, 3e-6), opened.n_layers
    found = plan.rows(opened, pace)
    text = study.distances.n_sequences * study.distances.length
    for what in ("distances", "distances of the untrained twin"):
        assert found[what] == (1, pytest.approx(text * layers * 1e-6))
    parts = plan.parts(opened)
    healed = parts["simple-8-qlora-r4-seed0"]  # which is asked the study's own tasks alone
    trained = study.healing.steps * study.healing.batch * study.healing.length
    # The head is as large as so many layers: 1,024 tokens by the width.
    config = opened.config
    per_layer = sum(shapes.shape_of(config).by_layer) / layers
    head = config.vocab_size * config.hidden_size / per_layer
    seconds = trained * ((layers - 8) * 3e-6 + 2 * head * 1e-6)
    assert pace.healing(opened, healed) == pytest.approx(seconds)
    asked = sum(opened.size(task).read for task in study.tasks)
    scored = sum(opened.size(task).scored for task in study.tasks)
    text = study.loss.n_sequences * study.loss.length
    seconds = ((asked + text) * (layers - 8) + (scored + text) * head) * 1e-6
    assert pace.asking(opened, healed) == pytest.approx(seconds)
    # All unhealed prunings together read each layer's input once, if they share it: more than one
    # model's layers, fewer than all of theirs one after another.
    unhealed = parts["unhealed"]
    asked = asked + text + (scored + text) * head
    alone = [(layers - one.dropped.n) * asked for one in unhealed.conditions]
    passes = plan.asked_passes(opened, unhealed)
    assert max(alone) < passes < 2 * sum(alone)
    total = sum(pace.healing(opened, part) + pace.asking(opened, part) for part in parts.values())
    total += sum(pace.extra(opened, extra) for extra, _ in plan.extras(opened).values())
    assert sum(seconds for _, seconds in found.values()) == pytest.approx(total)


def test_questions_are_as_long_as_some_of_them_are_on_average():
    """Four bytes are a token, and each prompt and answer one more."""
    study = studies.load("smoke")
    opened = plan.Planned(study, checkpoints.load_config(study))
    lines = (paths.ROOT / "almanac/tasks/one_hop_test.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:24]]
    prompts = sum(1 + len(f"Question: {row['question']}\nAnswer:".encode()) / 4 for row in rows)
    answers = sum(1 + len(one.encode()) / 4 for row in rows for one in row["choices"])
    found = opened.size(study.tasks[0])
    assert found == (24, round(prompts + answers), round(answers), "counted")
    # Drawn anew for every question, examples are read with each; each has one of four answers.
    five = opened.size(study.tasks[0].model_copy(update={"shots": 5}))
    assert five.read == pytest.approx(6 * prompts + answers + 5 * answers / 4, abs=1)
    assert five.scored == found.scored


def test_a_pruning_in_steps_is_trained_at_each_of_them():
    study = studies.load("smoke")
    opened = plan.Planned(study, checkpoints.load_config(study))
    layers, healing = opened.n_layers, study.healing
    first = Done(span(2, 4), healing)
    both = Condition("simple", span(2, 5), "nf4", healing, (first,))
    name = plan.part_name(opened, both, "")
    assert re.fullmatch(r"simple-3-after-[0-9a-f]{6}-qlora-r4-seed0", name)
    part = plan.Part(name, (both,), ("loss",))
    tokens = healing.steps * healing.batch * healing.length
    expected = tokens * (layers - 2) + tokens * (layers - 3)
    assert plan.training_passes(opened, part) == (expected + 4 * opened.head * tokens, expected)
    assert part.what == "simple, 3 layers dropped, in 2 steps, qlora-r4, seed 0"


def test_one_layer_is_timed(monkeypatch):
    """Times differ from run to run, the work that is timed does not: with frozen weights a pass
    back costs as much as one forward."""
    study = studies.load("smoke")
    config = checkpoints.load_config(study)
    speed = plan.measured_speed(config, study, 100_000)
    assert speed.forward > 0 and speed.training > 0

    def work(run, _device):
        with FlopCounterMode(display=False) as counted:
            run()
        return counted.get_total_flops()

    monkeypatch.setattr(timing, "_seconds", work)
    speed = plan.measured_speed(config, study, 100_000)
    assert speed.forward > 0 and speed.training == pytest.approx(2 * speed.forward, rel=0.2)
    assert config.num_hidden_layers == checkpoints.load_config(study).num_hidden_layers > 1


def test_without_the_checkpoint_the_plan_follows_the_shape(capsys, monkeypatch):
    monkeypatch.setattr(plan, "measured_speed", lambda *_: plan.Speed(1e-6, 3e-6))
    assert run.main(["book", "--study", "phi-2", "--plan"]) == 0
    out = capsys.readouterr().out
    assert "as the study says" in out and "2,779,683,840" in out
    assert "mmlu, 5-shot: 14,042 questions" in out


def test_a_shape_that_the_checkpoint_contradicts_is_one_line(tmp_path):
    path = tmp_path / "mine.yaml"
    keys = {"model": str(paths.ROOT / "almanac/checkpoint"), "shape": {"hidden_size": 4096}}
    path.write_text(yaml.safe_dump(keys))
    study = studies.load(str(path))
    for call in (checkpoints.load_config, shapes.planned_config):
        with pytest.raises(UserError, match=r"shape.hidden_size is 4096, but .* has 128"):
            call(study)


@pytest.mark.parametrize("path", sorted(paths.STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_shapes_agree_with_configurations_made_of_them(path, tmp_path):
    """Some settings are kept under other names once they are read back."""
    study = studies.load(path.stem)
    if study.shape:
        checkpoints.config_of_shape(study).save_pretrained(tmp_path)
        checkpoints.check_shape(study, AutoConfig.from_pretrained(tmp_path))


def test_a_damaged_local_checkpoint_is_not_planned_by_its_shape(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{")
    shape = studies.load("llama-2-7b").shape
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"model": "./model", "shape": shape}))
    with pytest.raises(UserError, match="cannot be loaded"):
        shapes.planned_config(studies.load(str(tmp_path / "mine.yaml")))


def test_a_task_of_unknown_size_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plan, "measured_speed", lambda *_: plan.Speed(1e-6, 3e-6))
    keys = {"model": "nobody/nothing", "shape": studies.load("phi-2").shape}
    keys["tasks"] = [{"name": "squadv2", "role": "reading"}]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(keys))
    assert run.main(["book", "--study", str(tmp_path / "mine.yaml"), "--plan"]) == 0
    out = capsys.readouterr().out
    assert "squadv2, 0-shot: not known" in out and "all but tasks of unknown size" in out


@pytest.mark.parametrize("shape", [{"model_type": "novel"}, {"hidden_size": 3}])
def test_a_shape_that_is_none_is_one_line(shape, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"model": "nobody/nothing", "shape": shape}))
    assert run.main(["book", "--study", str(path), "--plan"]) == 1
    assert "shape: " in capsys.readouterr().err


def test_a_shape_is_not_inherited_by_another_model(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"model": "nobody/nothing", "like": "llama-2-7b"}))
    assert studies.load(str(path)).shape is None


def refusal_of_memory(study, room, monkeypatch) -> str:
    monkeypatch.setattr(memory, "machine_memory", lambda _: int(room))
    with pytest.raises(UserError) as error:
        memory.check_memory(study, shapes.shape_of(checkpoints.load_config(study)))
    message = str(error.value)
    assert "\n" not in message and "needs about" in message
    return message


def test_where_memory_is_enough_nothing_is_said(monkeypatch):
    study = studies.load("almanac")
    shape = shapes.shape_of(checkpoints.load_config(study))
    most = max(memory.memory(study, shape).values())
    monkeypatch.setattr(memory, "machine_memory", lambda _: int(most) + 1)
    memory.check_memory(study, shape)


def test_of_activations_fewer_at_once_fit(monkeypatch):
    alone = {"recipes": [], "strategies": [], "samples": [], "searches": [], "texts": []}
    study = studies.override(
        studies.load("almanac"),
        healing={"batch": 12},
        which_layers={"strategies": [], "healed": []},
        what_layers_do={"gradients": 0},
        what_to_train={"recipes": []},
        last_layer={"recipes": []},
        step_by_step={"recipes": [], "strategies": []},
        on_what=alone,
    )
    shape = shapes.shape_of(checkpoints.load_config(study))
    needs = {part: memory.memory(study, shape, part)["healing"] for part in (12, 6, 4, 3, 2, 1)}
    assert "healing.micro_batch: 4 would fit" in refusal_of_memory(study, needs[4], monkeypatch)
    line = refusal_of_memory(study, needs[1] - 1, monkeypatch)
    assert line.endswith("with gradient_checkpointing: true would fit")
    recipe = study.healing.model_copy(update={"gradient_checkpointing": True})
    checkpointed = study.model_copy(update={"healing": recipe})
    fits = [n for n in needs if memory.memory(checkpointed, shape, n)["healing"] < needs[1]]
    assert f"healing.micro_batch: {max(fits)} with" in line


@pytest.mark.parametrize("kept", [0, 5, 15])
def test_of_a_model_too_large_so_many_layers_fit(kept, monkeypatch):
    study = studies.override(studies.load("almanac"), dtype="bfloat16")
    shape = shapes.shape_of(checkpoints.load_config(study))
    outside = shape.total - sum(shape.by_layer)
    # Two bytes each; half a layer more makes no whole one.
    room = 2 * (outside + (kept + 0.5) * shape.by_layer[0]) if kept else 1000
    says = f"a checkpoint with {kept} of its 16 layers would fit" if kept else "nothing fit"
    assert says in refusal_of_memory(study, room, monkeypatch)


def test_half_of_the_bytes_fit(monkeypatch):
    study = studies.override(studies.load("almanac"), dtype="float32")
    total = shapes.shape_of(checkpoints.load_config(study)).total
    assert "dtype: bfloat16 would fit" in refusal_of_memory(study, 3 * total, monkeypatch)


def test_memory_of_this_machine_is_in_gigabytes():
    assert 2e8 < memory.machine_memory(studies.load("almanac")) < 1e13


def test_what_recipes_of_the_second_paper_train():
    rows = model_tables.tables()["second_trained"]
    assert [list(row.values())[-1] for row in rows] == [  # of Llama-3.1 8B (its Table 4)
        "24", "15.7 M", "15.7 M", "525.3 M", "743.5 M", "961.6 M", "1,179.7 M"
    ]  # fmt: skip
    assert rows[-1]["trained"] == "`partial`: the head, the final norm, the last 3 layers"
    assert [row["trained"][:7] for row in rows[1:3]] == ["`lora`:", "`qlora`"]
