"""`benchmarks/gpu.py` on a CPU, small: a lent GPU is no place to find out that it does not run."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lib import paths

ABSENT = ("bitsandbytes", "datasets", "gguf", "lm_eval")  # on a bare machine
NEEDED = ("pruning.geometry", "pruning.surgery", "evaluation.sweep")
NEEDED += ("healing.adapters", "healing.recipe", "healing.training")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("gpu") / "found.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(paths.ROOT / "benchmarks")
        import gpu

        gpu.main(["--shape", "small", "--device", "cpu", "--rounds", "1", "--out", str(out)])
    return json.loads(out.read_text("utf-8"))["parts"]


def test_every_part_yields_finite_ratios(found: dict[str, Any]) -> None:
    assert list(found) == ["geometry", "letters", "answers", "healing", "nf4"]
    for part, one in found.items():
        assert "left out" not in one, (part, one)
        compared = [way for way in one["ways"].values() if "over" in way]
        assert compared
        for way in one["ways"].values():
            assert all(math.isfinite(second) and second > 0 for second in way["seconds"])
        for way in compared:
            median, least, most = way["ratio"]
            assert 0 < least <= median <= most < math.inf


@pytest.mark.parametrize("part", ["letters", "answers"])
def test_the_sweep_agrees_with_the_models_one_by_one(found: dict[str, Any], part: str) -> None:
    notes = found[part]["notes"]
    assert notes["way"] == "shared"
    assert notes["log-likelihoods apart at most"] < 1e-4
    assert notes["judged alike"] == 1
    # All layers once, and the last one again for every pruning.
    assert notes["layer passes"] == 2 * notes["models"] - 1


@pytest.mark.parametrize("part", ["healing", "nf4"])
def test_both_ways_train_the_same_parameters(found: dict[str, Any], part: str) -> None:
    # Rank 8 on three matrices of 64 by 128 in the four layers that stay.
    assert found[part]["notes"]["trained parameters"] == [8 * (64 + 128) * 3 * 4]


def test_parts_that_find_no_time_are_named(tmp_path: Path, found: dict[str, Any]) -> None:
    import gpu

    arguments = ["--shape", "small", "--device", "cpu", "--minutes", "0"]
    left = gpu.main([*arguments, "--out", str(tmp_path / "found.json")])["parts"]
    assert {part: one["left out"] for part, one in left.items()} == dict.fromkeys(
        found, "no time: the minutes are over"
    )


def test_it_needs_few_packages() -> None:
    code = f"import sys; sys.modules |= dict.fromkeys({ABSENT!r}); "
    code += "; ".join(f"import lib.{name}" for name in NEEDED)
    subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, check=True)
