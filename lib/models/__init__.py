"""A checkpoint and a text, opened: layers, number formats, families."""
