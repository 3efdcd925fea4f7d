"""Pruning a checkpoint on disk (lib.pruning), on a random Llama checkpoint of 24 layers in several
shards of which 8 are dropped, alternately in one run:

- streaming the kept layers into new shards over copying files of just as many bytes: both without
  imports, both until everything is on the disk (fsync)
- the whole command over mergekit's passthrough merge of the same layers: both as processes, with
  imports, and both until everything is on the disk

    .venv/bin/python benchmarks/pruning.py --size 2 --mergekit /path/to/venv/bin/mergekit-yaml

With --kills 10 the command is also killed ten times at random moments of its writing: what is left
must not load.

mergekit needs an environment of its own, made by hand:

    python3 -m venv MK && MK/bin/pip install mergekit==0.1.5 torch==2.13.0
"""

import argparse
import filecmp
import json
import math
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lib import paths
from lib.models import shards

N_LAYERS, DROPPED = 24, range(13, 21)
KEPT = [layer for layer in range(N_LAYERS) if layer not in DROPPED]
VOCABULARY = 32_000
N_SHARDS = 6
PIECE = 16 << 20  # bytes of random numbers made at once


def make_checkpoint(folder: Path, size: float) -> None:
    """A Llama of about `size` bytes in bf16, written piece by piece."""
    # A layer has 4 width² weights in attention and 3 · 2.75 width² in its FFN.
    width = max(128, int(math.sqrt(size / 2 / N_LAYERS / 12.25)) // 128 * 128)
    wide = width * 11 // 4
    layer = {f"self_attn.{name}_proj.weight": [width, width] for name in "qkvo"}
    layer |= {"mlp.gate_proj.weight": [wide, width], "mlp.up_proj.weight": [wide, width]}
    layer |= {"mlp.down_proj.weight": [width, wide]}
    layer |= {"input_layernorm.weight": [width], "post_attention_layernorm.weight": [width]}
    shapes = {"model.embed_tokens.weight": [VOCABULARY, width]}
    for i in range(N_LAYERS):
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    shapes |= {"model.norm.weight": [width], "lm_head.weight": [VOCABULARY, width]}
    names = list(shapes)
    weight_map = {}
    for k in range(N_SHARDS):
        part = names[len(names) * k // N_SHARDS : len(names) * (k + 1) // N_SHARDS]
        file = f"model-{k + 1:05d}-of-{N_SHARDS:05d}.safetensors"
        weight_map |= dict.fromkeys(part, file)
        _write_shard(folder / file, {name: shapes[name] for name in part})
    total = 2 * sum(math.prod(shape) for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / shards.INDEX).write_text(json.dumps(index))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": wide,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 64,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(paths.ROOT / "almanac" / "checkpoint" / name, folder)


def _write_shard(path: Path, shapes: dict[str, list[int]]) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, end, PIECE):
            file.write(os.urandom(min(PIECE, end - start)))


def stream(checkpoint: Path, out: Path) -> None:
    out.mkdir()
    found = shards.read(checkpoint)
    stack = shards.layer_stack(found, N_LAYERS)
    shards.write(found, shards.renamed(found, stack, KEPT), out)


def copy(like: Path, out: Path) -> None:
    """Plain copies of as many bytes in as many files."""
    out.mkdir()
    for path in like.iterdir():
        shutil.copyfile(path, out / path.name)
    sync(out)


def sync(folder: Path) -> None:
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def timed(work: Callable[[Path], object], out: Path) -> float:
    """Seconds of one run into an empty place on a disk with nothing left to write."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    start = time.perf_counter()
    work(out)
    return time.perf_counter() - start


def compare(
    title: str,
    one: Callable[[Path], object],
    other: Callable[[Path], object],
    out: Path,
    pairs: int,
) -> None:
    """Print the median ratio of both times with its 95% bootstrap interval."""
    for work in (one, other):  # caches
        timed(work, out)
    times = []
    for _ in range(pairs):
        pair = {}
        for work in random.sample([one, other], 2):
            pair[work] = timed(work, out)
        times.append((pair[one], pair[other]))
    shutil.rmtree(out)
    ratios = np.array([a / b for a, b in times])
    resampled = np.median(np.random.default_rng(0).choice(ratios, (10_000, pairs)), axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{title}: {a:.2f} s over {b:.2f} s, ratio {np.median(ratios):.2f} "
        f"[{low:.2f}, {high:.2f}], {pairs} pairs",
        flush=True,
    )


class Process:
    """A command that writes a folder, and the most memory that any run of it held."""

    def __init__(self, arguments: Callable[[Path], list[str]]) -> None:
        self.arguments = arguments
        self.peak = 0  # bytes

    def __call__(self, out: Path) -> None:
        process = subprocess.Popen(
            self.arguments(out),
            cwd=paths.ROOT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"failed: {' '.join(self.arguments(out))}")
        self.peak = max(self.peak, usage.ru_maxrss * 1024)
        sync(out)


def kill(command: list[str], out: Path, times: int) -> None:
    """Print what SIGKILL at random moments leaves; stop if half a checkpoint loads."""
    from transformers import AutoModelForCausalLM  # big: not in the memory measured before

    hidden, reference = out.parent / f".{out.name}.unfinished", out.parent / "reference"
    longest, left = 0.0, Counter[str]()
    while left.total() < times:
        for folder in (out, hidden):
            shutil.rmtree(folder, ignore_errors=True)
        process = subprocess.Popen(
            command, cwd=paths.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not hidden.exists() and process.poll() is None:
            time.sleep(0.001)
        start = time.perf_counter()
        if not longest:  # the first one is left alone
            process.wait()
            longest = time.perf_counter() - start
            out.rename(reference)
            continue
        time.sleep(random.uniform(0, longest))
        process.kill()
        process.wait()
        if out.exists():
            names = sorted(path.name for path in reference.iterdir())
            assert names == sorted(path.name for path in out.iterdir()), "files are missing"
            assert filecmp.cmpfiles(out, reference, names, shallow=False)[0] == names
            left["a whole checkpoint"] += 1
            continue
        try:
            AutoModelForCausalLM.from_pretrained(hidden, local_files_only=True)
        except (OSError, ValueError):
            weights = any(hidden.glob("*.safetensors"))
            left["some weights, which do not load" if weights else "no weights"] += 1
        else:
            sys.exit(f"what was left loads: {sorted(path.name for path in hidden.iterdir())}")
    shutil.rmtree(reference)
    print(f"killed at {times} random moments in {longest:.1f} s of writing: {dict(left)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=float, default=2, help="GB of the checkpoint")
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--mergekit", metavar="PATH", help="its mergekit-yaml; left out without")
    parser.add_argument("--kills", type=int, default=0, help="of the command, while it writes")
    parser.add_argument("--folder", help="where to write: the disk that is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        checkpoint, like, out = folder / "checkpoint", folder / "like", folder / "out"
        checkpoint.mkdir()
        make_checkpoint(checkpoint, options.size * 1e9)
        stream(checkpoint, like)
        whole, kept = (sum(p.stat().st_size for p in f.iterdir()) for f in (checkpoint, like))
        print(f"{whole / 1e9:.2f} GB in {N_SHARDS} shards, {kept / 1e9:.2f} GB kept", flush=True)

        compare(
            "streaming over copying the kept bytes",
            lambda out: stream(checkpoint, out),
            lambda out: copy(like, out),
            out,
            options.pairs,
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(f"peak memory of the process that did both: {peak / 1e6:.0f} MB")

        ours = Process(
            lambda out: [
                *(sys.executable, "-m", "lib.pruning", str(checkpoint), str(out)),
                *("--drop", f"{DROPPED.start}:{DROPPED.stop}"),
            ]
        )
        if options.kills:
            kill(ours.arguments(out), out, options.kills)
        if not options.mergekit:
            print("the whole command is not compared: no --mergekit")
            return
        ranges = [[0, DROPPED.start], [DROPPED.stop, N_LAYERS]]
        sources = [{"model": str(checkpoint), "layer_range": span} for span in ranges]
        merge = {"merge_method": "passthrough", "slices": [{"sources": [one]} for one in sources]}
        (folder / "merge.yaml").write_text(json.dumps(merge))  # JSON is YAML
        theirs = Process(lambda out: [options.mergekit, str(folder / "merge.yaml"), str(out)])
        theirs(folder / "theirs")
        same = [
            {(t.name, t.dtype, t.shape) for shard in shards.read(f) for t in shard.tensors}
            for f in (like, folder / "theirs")
        ]
        assert same[0] == same[1], "mergekit has written other tensors"
        shutil.rmtree(folder / "theirs")
        compare("whole command over mergekit's", ours, theirs, out, options.pairs)
        print(f"peak memory: {ours.peak / 1e6:.0f} MB, mergekit {theirs.peak / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
