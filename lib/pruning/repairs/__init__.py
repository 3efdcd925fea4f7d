"""One file per repair, found by its name: see `lib.pruning.repair`."""
