"""Two runs of one study side by side: what each has recorded, and whether they agree."""
