"""Memory that stays with the process (lib/__init__.py) against memory that is returned to the
system after each large tensor, in turn in one run: the loss of a model and of two prunings.

    .venv/bin/python benchmarks/kept_memory.py [--model CHECKPOINT] [--length 256 --pairs 7]

Linux with glibc only. With --peak kept or --peak returned, the process's peak memory of the one.
"""

import argparse
import ctypes
import resource

import torch
from side_by_side import alternate, milliseconds, ratio, subject, text_of

import lib
from lib.evaluation import evaluate
from lib.pruning.dropped import UNPRUNED, Dropped


def keep(kept: bool) -> None:
    """glibc's own settings are those that do not keep it."""
    libc = ctypes.CDLL(None)
    libc.mallopt(lib.M_MMAP_MAX, 0 if kept else 65_536)
    libc.mallopt(lib.M_TRIM_THRESHOLD, 2**30 if kept else 128 * 1024)
    libc.malloc_trim(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", help="a folder or a GGUF file, in place of a random Llama")
    parser.add_argument("--length", type=int, default=256, help="tokens in a sequence")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--peak", choices=["kept", "returned"])
    args = parser.parse_args()
    model, text = subject(args.model, 12, 256, vocabulary=49_152), text_of(args.model)
    n_layers, size = model.config.num_hidden_layers, (args.sequences, args.length)
    sequences = torch.randint(len(text), size).tolist()
    blocks = [UNPRUNED, *(Dropped(range(n_layers - 1 - n, n_layers - 1)) for n in (2, 8))]

    def losses(kept: bool) -> None:
        keep(kept)
        list(evaluate.losses(model, blocks, sequences, args.batch, text.pad_token_id))

    if args.peak:
        losses(args.peak == "kept")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"memory {args.peak}: {peak / 1024:,.0f} MiB at most")
        return
    kept, returned = alternate(args.pairs, lambda: losses(True), lambda: losses(False))
    print(f"memory kept {milliseconds(kept)}, returned {milliseconds(returned)}")
    print(f"kept over returned: {ratio(kept, returned)}")


if __name__ == "__main__":
    main()
