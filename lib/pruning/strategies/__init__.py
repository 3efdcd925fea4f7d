"""One file per strategy, found by its name: see `lib.pruning.strategy`."""
