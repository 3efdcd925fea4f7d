"""Executing a section's notebook, strictly: papermill only warns of a misspelt parameter; here
unknown names and mistyped values are refused before anything starts."""

import ast
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from lib import paths, strict_yaml, study
from lib.errors import UserError
from lib.evidence import ownership, provenance
from lib.files import write_atomically

# Threads that wait for each other by spinning stall when another program uses a core: the small
# models here then take half as long again, and more in small steps. A short spin costs nothing on a
# quiet machine (benchmarks/README.md).
ENVIRONMENT = {"GOMP_SPINCOUNT": "1000", "TOKENIZERS_PARALLELISM": "false"}
LONGEST = 100  # bytes of a socket's name; Linux allows 107, macOS 103
TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list}


def parse(pairs: list[str]) -> dict[str, Any]:
    """KEY=VALUE pairs, the values read as in a study: 3 is a number, [4, 8] a list, null None."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"parameter '{pair}': write it as KEY=VALUE")
        try:
            found[key] = strict_yaml.load(value)
        except UserError:
            raise UserError(f"parameter {key}: '{value}' cannot be read as a value") from None
    return found


def declared(notebook: dict[str, Any]) -> dict[str, str]:
    """Name → annotation of the parameters cell's `name: type = default` lines."""
    cells = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise UserError("the notebook needs exactly one cell tagged 'parameters'")
    tree = ast.parse("".join(cells[0]["source"]))
    return {
        line.target.id: ast.unparse(line.annotation)
        for line in tree.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }


def check_parameters(allowed: dict[str, str], given: dict[str, Any]) -> None:
    for key, value in given.items():
        if key not in allowed:
            raise UserError(f"unknown parameter '{key}'; allowed: {', '.join(allowed)}")
        kind = eval(allowed[key], {"__builtins__": {}}, TYPES)  # our own notebook's annotation
        try:
            TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError:
            raise UserError(f"parameter {key}: {value!r} is not of type {allowed[key]}") from None


def section(which: str, name: str, parameters: dict[str, Any], checked: bool = False) -> Path:
    """Execute one section (as `paths.section` has it) for one study; returns the executed notebook
    under _build/executed/, or under _build/trials/ when it was given parameters of its own.

    It is written to _build/logs/ while it runs and stays there if it fails, to be read."""
    source = paths.sections()[paths.section(which)]
    chosen = study.load(name)
    about = f"section {source.stem} of study {chosen.name}"
    if "study" in parameters:
        raise UserError("parameter study: give it with --study")
    check_parameters(declared(json.loads(source.read_text("utf-8"))), parameters)
    if not checked:
        from lib.book.check import check
        from lib.models.checkpoints import checkpoint_digest

        check(chosen, section=paths.section(which))
        ownership.check(chosen, checkpoint_digest(chosen))
    shipped = Path(chosen.file).parent == paths.STUDIES
    reference = chosen.name if shipped else chosen.file
    log = paths.BUILD / "logs" / chosen.name / source.name
    final = paths.executed(chosen.name, source.name)
    try:
        if parameters:  # a trial: the book's copy of this section no longer fits the tables
            final.unlink(missing_ok=True)
            final = paths.BUILD / "trials" / chosen.name / source.name
        print(about, flush=True)
        execute(source, log, {"study": reference, **parameters}, about)
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(log, final)
        write_atomically(final.parent / "study.json", json.dumps({"file": chosen.file}))
    except OSError as error:
        raise UserError(f"cannot write {error.filename or log}: {error.strerror}") from None
    return final


def execute(source: Path, target: Path, parameters: dict[str, Any], about: str) -> None:
    """Execute a notebook, and sign it with what it was run with. What has been executed is written
    to `target` on the way, and stays there.

    Raises UserError, which begins with `about`, where the notebook raises one or fails."""
    # With it jsonschema builds 38 parsers, which takes a second; no notebook's format needs them.
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    from lib.book import kernels

    # After Ctrl-C, what polls the kernel may notice its end first, and would print a traceback.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    runtime = _runtime()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        config = {
            "KernelManager": {"transport": "ipc", "connection_file": f"{runtime}/kernel.json"},
            # A kernel asked to end gracefully is interrupted first, and may say so.
            "NotebookClient": {"shutdown_kernel": "immediate"},
        }
        with kernels.ready():
            papermill.execute_notebook(
                str(source).replace("{", "{{").replace("}", "}}"),
                str(target).replace("{", "{{").replace("}", "}}"),
                parameters=parameters,
                kernel_name="python3",
                cwd=str(paths.ROOT),
                progress_bar=False,
                stderr_file=sys.stderr,
                config=Config(config),
            )
        _sign(target, time.monotonic() - start)
    except PapermillExecutionError as error:
        if error.ename == "UserError":
            raise UserError(f"{about}: {error.evalue}") from None
        last = " ".join(str(error.evalue).split())[:300]
        raise UserError(
            f"{about} failed in cell {error.exec_count} "
            f"({error.ename}: {last}); the executed notebook is {target}"
        ) from None
    finally:
        shutil.rmtree(runtime, ignore_errors=True)


def _sign(executed: Path, seconds: float) -> None:
    """Leave in an executed notebook what it was run with, for the foot of its page."""
    notebook = json.loads(executed.read_text("utf-8"))
    about = provenance.surroundings()
    kept = ("when", "processor", "python", "packages", "commit")
    notebook["metadata"]["run"] = {key: about[key] for key in kept} | {"seconds": round(seconds, 1)}
    write_atomically(executed, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def _runtime() -> str:
    """A folder for sockets to the kernel: files of this user on a local disk, not ports open to the
    machine. Below TMPDIR, unless their names would be too long there for a system's sockets.

    Raises UserError where there is no such folder."""
    try:
        runtime = tempfile.mkdtemp(prefix="kernel-")
        if len(os.fsencode(f"{runtime}/kernel-ipc-9")) > LONGEST:
            os.rmdir(runtime)
            runtime = tempfile.mkdtemp(prefix="kernel-", dir="/tmp")
    except OSError as error:
        raise UserError(
            f"no folder for the kernel's sockets: {error.filename}: {error.strerror}; set TMPDIR "
            "to one with a short name"
        ) from None
    return runtime
