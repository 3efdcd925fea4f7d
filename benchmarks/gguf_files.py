"""Whether a GGUF file is read as it is: every tensor against the gguf package's own dequantisation,
with what llama.cpp changes of a model done by hand, and its angular distances against a loop in
float64.

    PYTHONPATH=. .venv/bin/python benchmarks/gguf_files.py FILE.gguf
"""

import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from lib import paths

sys.path.insert(0, str(paths.ROOT / "tests"))
from gguf_writer import tensors

from lib.models import gguf_files
from lib.pruning import geometry

WINDOWS, LENGTH, BATCH = 32, 64, 8


def main(file: Path) -> int:
    reader = gguf.GGUFReader(file)
    architecture = reader.fields["general.architecture"].contents()
    with tempfile.TemporaryDirectory() as folder:
        paths.BUILD = Path(folder)  # so that it is read now
        model = AutoModelForCausalLM.from_pretrained(gguf_files.made(file)).eval()
    read = tensors(model, architecture)
    there = {one.name: one for one in reader.tensors}
    assert read.keys() == there.keys(), sorted(read.keys() ^ there.keys())
    apart = 0.0
    for name, one in there.items():
        values = gguf.dequantize(one.data, one.tensor_type)
        assert values.shape == read[name].shape, name
        apart = max(apart, float(np.abs(values - read[name]).max()))
    print(f"{file.name}: {len(there)} tensors, {sum(v.size for v in read.values()):,} numbers")
    print(f"largest difference of any tensor: {apart:g}")
    print(f"largest difference of a distance: {distances_apart(model):g}")
    return 0


def distances_apart(model: PreTrainedModel) -> float:
    """The book's distances against equation 7 in a loop, at the last token of random windows. The
    states themselves are the model's own, in float32."""
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (WINDOWS, LENGTH), generator=random)
    found = geometry.measure(model, ids, BATCH, 10, 0).table
    last: list[torch.Tensor] = []
    model.model.layers[-1].register_forward_hook(lambda _layer, _inputs, out: last.append(out))
    streams: list[np.ndarray] = []  # of each window [L+1, width]
    with torch.no_grad():
        for begin in range(0, WINDOWS, BATCH):
            rows = ids[begin : begin + BATCH]
            states = model.model(rows, output_hidden_states=True, use_cache=False).hidden_states
            whole = [one[:, -1].double() for one in (*states[:-1], last[-1])]
            streams += list(torch.stack(whole, dim=1).numpy())
    apart = 0.0
    for n, start, distance in found[["n", "start", "distance"]].itertuples(index=False):
        each = []
        for stream in streams:
            one, other = stream[start], stream[start + n]
            cosine = one @ other / np.sqrt((one @ one) * (other @ other))
            each.append(np.arccos(cosine) / np.pi)
        apart = max(apart, abs(np.mean(each) - distance))
    return apart


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
