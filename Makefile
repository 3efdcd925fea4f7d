# make book [STUDY=name or path]   the whole book, into _build/html
# make test                        all tests
# Both set up .venv first, if it is not there.
PYTHON ?= python3
STUDY ?= almanac
BIN := .venv/bin

.PHONY: book test lock clean
.SILENT:

book: .venv/.ready
	$(BIN)/python -m lib.run book --study "$(STUDY)"

test: .venv/.ready
	$(BIN)/python -m pytest

.venv/.ready: requirements.txt setup.sh
	PYTHON="$(PYTHON)" sh setup.sh

lock:
	PYTHON="$(PYTHON)" sh setup.sh --lock

clean:
	rm -rf _build .snakemake
