"""Helpers under the notebooks, in wings. A wing imports only from those above it:

evidence     What was measured, on disk: whole, or not at all.
models       A checkpoint and a text, opened: layers, number formats, families.
pruning      Which layers go, and taking them out, in memory or on disk.
healing      What is trained afterwards, and on what.
evaluation   What a model answers: questions, loss, text; all prunings in one pass.
experiments  A study opened, the models that it compares, and measuring them.
statistics   Paired differences, transitions, straight lines.
claims       What papers say, as rules over tables: one file a paper.
sections     One module per notebook, of its name: its models, its tables, its figures.
book         Running notebooks: jobs, progress, the site, what it costs, comparing two runs.

What lies here beside the wings is ground that all stand on (errors, paths, files, fields, schema,
study, words, open sets), and doors: `python -m lib.run`, `lib.pruning`, `lib.export`,
`lib.evidence`, `lib.compare`.
"""

import atexit
import gc
import logging

# Importing torch and transformers makes millions of objects, none of them garbage: looking for it
# as often as Python would takes a tenth of the time, and as a process ends a second and a half.
gc.set_threshold(100_000, 50, 100)
atexit.register(gc.freeze)

# As soon as it is imported, it misses an optional kernel that is not used here.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
