"""All angular distances: against a bare forward pass of the decoder, and against one pass per n
that asks for all hidden states, as a script that compares two layers at a time would.

    .venv/bin/python benchmarks/geometry.py [--layers 24 --width 256 --length 512 --pairs 21]
    .venv/bin/python benchmarks/geometry.py --model CHECKPOINT
"""

import argparse
import resource
import subprocess
import sys

import torch
from side_by_side import alternate, milliseconds, ratio, subject

from lib.pruning import geometry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--model", help="a folder or a GGUF file, in place of a random Llama")
    parser.add_argument("--length", type=int, default=512, help="tokens in a sequence")
    parser.add_argument("--batch", type=int, default=8, help="sequences")
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--naive", type=int, default=3, help="pairs with one pass per n")
    parser.add_argument("--memory", choices=["bare", "all distances"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    model = subject(args.model, args.layers, args.width)
    layers = model.config.num_hidden_layers
    vocabulary = model.config.vocab_size
    tokens = torch.randint(vocabulary, (args.batch, args.length))

    @torch.inference_mode()
    def bare() -> None:
        model.get_decoder()(input_ids=tokens, use_cache=False)

    def all_distances() -> None:
        geometry.measure(model, tokens, args.batch, bootstrap=1000, seed=0)

    @torch.inference_mode()
    def pass_per_n() -> None:
        for n in range(1, layers):
            found = model(input_ids=tokens, output_hidden_states=True, use_cache=False)
            states = [state[:, -1] for state in found.hidden_states]
            for start in range(layers - n + 1):
                geometry.angular_distance(states[start], states[start + n]).mean()

    if args.memory:
        (bare if args.memory == "bare" else all_distances)()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    measured, alone = alternate(args.pairs, all_distances, bare)
    print(f"bare decoder {milliseconds(alone)}, all distances {milliseconds(measured)}")
    print(f"all distances over bare decoder: {ratio(measured, alone)}", flush=True)
    if args.naive:
        naive, measured = alternate(args.naive, pass_per_n, all_distances)
        print(f"one pass per n over all distances: {ratio(naive, measured)}", flush=True)
    peaks = {}
    for name in ("bare", "all distances"):
        command = [sys.executable, __file__, *sys.argv[1:], "--memory", name]
        peaks[name] = int(subprocess.run(command, capture_output=True, check=True).stdout)
    share = peaks["all distances"] / peaks["bare"] - 1
    print(f"peak memory of the process: {100 * share:+.1f}% over the bare decoder's")


if __name__ == "__main__":
    main()
