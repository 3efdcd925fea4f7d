"""One file per recipe, found by its name: see `lib.healing.recipe`."""
