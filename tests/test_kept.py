"""What healing leaves on disk is used as it was written, or not at all."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Studies
from recorded import content
from safetensors.torch import load_file, save_file

from lib import study as studies
from lib.evidence import sums
from lib.evidence.merging import merge
from lib.evidence.records import verify
from lib.experiments import conditions, models, probes
from lib.experiments.conditions import Condition, Done
from lib.experiments.opened import OpenStudy
from lib.healing import heal
from lib.pruning.dropped import span
from lib.schema import Study

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def half(kept: Path) -> None:
    file = next(kept.glob("*.safetensors"))
    tensors = load_file(file)
    save_file({name: tensors[name] for name in sorted(tensors)[::2]}, file, {"format": "pt"})


def other_alpha(kept: Path) -> None:
    settings = json.loads((kept / CONFIG).read_text())
    (kept / CONFIG).write_text(json.dumps(settings | {"lora_alpha": 64}))


def cut_off(kept: Path) -> None:
    file = next(kept.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:500])


def no_config(kept: Path) -> None:
    (kept / CONFIG).unlink()


def one_bit(kept: Path) -> None:
    file = next(kept.glob("*.safetensors"))
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 1
    file.write_bytes(whole)


def no_weights(kept: Path) -> None:
    next(kept.glob("*.safetensors")).unlink()


class World:
    """A model that was healed, and its weights as they were then."""

    def __init__(self, study: Study) -> None:
        self.opened = OpenStudy(study)
        weights = self.opened.weights_of(study.healing)
        self.condition = Condition("given", span(2, 4), weights, study.healing)
        self.folder = self.opened.store.folder.parent
        self.kept = probes.adapters(self.opened, self.condition)
        self.healed = self.model()
        self.sound = content(self.kept)

    def model(self) -> dict[str, torch.Tensor]:
        """The weights of what would be asked."""
        with models.materialised(self.opened, self.condition) as model:
            return {name: value.clone() for name, value in model.state_dict().items()}

    def put_back(self) -> Path:
        shutil.rmtree(self.kept)
        for name, text in self.sound.items():
            (self.kept / name).parent.mkdir(parents=True, exist_ok=True)
            (self.kept / name).write_bytes(text)
        return self.kept

    def assert_as_healed(self) -> None:
        found = self.model()
        assert found.keys() == self.healed.keys()
        assert all(torch.equal(value, self.healed[name]) for name, value in found.items())


def made(write: Studies, folder: Path, recipe: str) -> World:
    settings = {"recipe": recipe, "learning_rate": 1e-2}
    return World(studies.load(str(write(folder, stem=f"kept-{recipe}", healing=settings))))


@pytest.fixture(scope="module")
def lora(write_study: Studies, tmp_path_factory: pytest.TempPathFactory) -> World:
    return made(write_study, tmp_path_factory.mktemp("lora"), "lora")


@pytest.fixture(scope="module")
def full(write_study: Studies, tmp_path_factory: pytest.TempPathFactory) -> World:
    return made(write_study, tmp_path_factory.mktemp("full"), "full")


ANY = [half, cut_off, no_weights]
ADAPTERS = [other_alpha, no_config]


@pytest.mark.parametrize(
    ("recipe", "change", "old"),
    [
        *(("lora", change, False) for change in [*ANY, *ADAPTERS, one_bit]),
        # Kept before there were sums: what can be seen without is seen.
        *(("lora", change, True) for change in [*ANY, *ADAPTERS]),
        *(("full", change, False) for change in [half, one_bit]),
        *(("full", change, True) for change in ANY),
    ],
)
def test_what_is_damaged_is_healed_again(
    recipe: str,
    change: Callable[[Path], None],
    old: bool,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = request.getfixturevalue(recipe)
    change(world.put_back())
    if old:
        (world.kept / sums.NAME).unlink()
    capsys.readouterr()
    world.assert_as_healed()
    assert content(world.kept) == world.sound
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "healed again" in one]
    assert line.startswith(f"{world.condition.name}: {world.kept}")


@pytest.mark.parametrize("recipe", ["lora", "full"])
@pytest.mark.parametrize("old", [False, True], ids=["with sums", "without"])
def test_what_is_whole_is_used(
    recipe: str, old: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = request.getfixturevalue(recipe)
    world.put_back()
    if old:
        (world.kept / sums.NAME).unlink()
    monkeypatch.setattr(heal, "heal", None)
    world.assert_as_healed()


def test_sums_are_read_by_the_usual_program(lora: World) -> None:
    command = ["sha256sum", "--check", "--quiet", sums.NAME]
    assert subprocess.run(command, cwd=lora.put_back()).returncode == 0
    one_bit(lora.kept)
    assert subprocess.run(command, cwd=lora.kept, capture_output=True).returncode == 1


def test_damage_is_named_and_not_merged(lora: World, tmp_path: Path) -> None:
    lora.put_back()
    there = shutil.copytree(lora.folder, tmp_path / "there")
    assert verify(there) == []
    kept = there / "adapters" / lora.kept.name
    one_bit(kept)
    (line,) = verify(there)
    assert line == f"adapters {kept}: {WEIGHTS} is not what was written"
    merged = merge([there], tmp_path / "new")
    assert merged.adapters == 0
    assert merged.damaged == [f"adapters {kept}: {WEIGHTS} is not what was written; left out"]
    (kept / WEIGHTS).unlink()
    assert [f"{WEIGHTS} is missing" in line for line in verify(there)] == [True]
    (kept / WEIGHTS).symlink_to(kept / WEIGHTS)  # a link that loops
    assert [f"{WEIGHTS} is missing" in line for line in verify(there)] == [True]
    (kept / sums.NAME).write_text("nothing")
    assert [f"{sums.NAME} is damaged" in line for line in verify(there)] == [True]


def test_a_model_to_go_on_from_is_made_again_where_it_is_damaged(
    lora: World,
) -> None:
    """A step of a schedule starts from a checkpoint among what is unfinished."""
    opened, study = lora.opened, lora.opened.study
    last = Condition("given", span(2, 5), opened.weights, None, (Done(span(2, 4), study.healing),))
    folder = models._continued_folder(opened, conditions.previous(opened, last))

    class Stopped(Exception):
        pass

    with pytest.raises(Stopped), models.source(opened, last):
        raise Stopped
    sound = content(folder)
    half(folder)
    with models.source(opened, last):
        assert content(folder) == sound
    assert not folder.exists()


def test_a_model_to_go_on_from_is_none_of_the_hubs(
    tmp_path: Path, write_study: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = studies.load(str(write_study(tmp_path)))
    of_hub = {"model": "some/model", "revision": "v2", "gguf": "small.gguf", "shape": {"a": 1}}
    opened = OpenStudy(own.model_copy(update=of_hub))
    opened.checkpoint = "its digest"
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setattr(
        models, "_write_model", lambda _opened, _condition, to: to.mkdir(0o777, True)
    )
    first = Condition("given", span(2, 4), opened.weights)
    with models.going_on(opened, first) as study:
        assert study.model_is_local
        assert (study.revision, study.gguf, study.shape) == (None, None, None)
