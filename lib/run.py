"""Running sections, strictly, from the command line.

    python -m lib.run 02 --study almanac                       # one section
    python -m lib.run 02 --study mine.yaml -p pruned_layers='[4, 8]'
    python -m lib.run book --study almanac                     # all of them, then the site
    python -m lib.run book --study mine.yaml --plan            # only say what that takes
    python -m lib.run book --study mine.yaml --dry-run         # only list its jobs
    python -m lib.run check --study mine.yaml                  # only look for mistakes
    python -m lib.run verify --study mine.yaml                 # name damaged evidence
    python -m lib.run publish --study mine.yaml                # make it a reference run

papermill executes the notebooks, but only warns of a misspelt parameter; here unknown names and
mistyped values are refused before anything starts.
"""

import argparse
import ast
import json
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from lib import graph, machine, paths, progress, study
from lib.configuration import configuration
from lib.errors import UserError
from lib.evidence import verify, write_atomically

# Threads that wait for each other by spinning stall when another program uses a core: the small
# models here then take half as long again, and more in small steps. A short spin costs nothing on a
# quiet machine (benchmarks/README.md).
ENVIRONMENT = {"GOMP_SPINCOUNT": "1000", "TOKENIZERS_PARALLELISM": "false"}
DEFAULT_PROFILE = paths.ROOT / "profiles" / "default"
TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lib.run", description=__doc__.split("\n")[0])
    parser.add_argument(
        "what", help="a section's number (01 …), 'book', 'check', 'verify', 'publish'"
    )
    parser.add_argument("--study", default=paths.DEFAULT_STUDY, help="name or path of a YAML file")
    parser.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="KEY=VALUE",
        help="a parameter of the section",
    )  # fmt: skip
    parser.add_argument("--plan", action="store_true", help="with book: only say what it takes")
    parser.add_argument("--dry-run", action="store_true", help="with book: only list its jobs")
    parser.add_argument("--sections", help="with book: only these and what they need, as 02,03")
    parser.add_argument("--profile", help="with book: a folder, as profiles/slurm")
    parser.add_argument("--checked", action="store_true", help="the study has just been checked")
    options = parser.parse_args(arguments)
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    try:
        if options.parameters and options.what in ("check", "verify", "publish", "book"):
            raise UserError(f"-p goes with a section's number, not with '{options.what}'")
        if options.what == "check":
            from lib.check import check

            check(study.load(options.study))
            print(f"study {study.load(options.study).name}: nothing wrong found")
        elif options.what == "verify":
            problems = verify(paths.results(study.load(options.study).name))
            print("\n".join(problems) or "every record is whole")
            return 1 if problems else 0
        elif options.what == "publish":
            from lib.publish import publish

            folder = publish(study.load(options.study))
            print(f"published/{folder.name} is written; commit it")
        elif options.what == "book" and options.plan:
            from lib.plan import plan

            print(plan(study.load(options.study)))
        elif options.what == "book":
            return book(options.study, options.sections, options.profile, options.dry_run)
        else:
            section(options.what, options.study, parse(options.parameters), options.checked)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; everything recorded so far is kept, the next run goes on", file=sys.stderr)
        return 130
    return 0


def parse(pairs: list[str]) -> dict[str, Any]:
    """KEY=VALUE pairs, the values read as YAML: 3 is a number, [4, 8] a list, null None."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"parameter '{pair}': write it as KEY=VALUE")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
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


def section(number: str, name: str, parameters: dict[str, Any], checked: bool = False) -> Path:
    """Execute one section for one study; returns the executed notebook under _build/executed/, or
    under _build/trials/ when it was given parameters of its own.

    It is written to _build/logs/ while it runs and stays there if it fails, to be read."""
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    found = paths.sections()
    if number not in found:
        raise UserError(f"unknown section '{number}': there are {', '.join(found)}")
    chosen = study.load(name)
    source = found[number]
    notebook = nbformat.read(source, as_version=4)
    if "study" in parameters:
        raise UserError("parameter study: give it with --study")
    check_parameters(declared(notebook), parameters)
    if not checked:
        from lib.check import check

        check(chosen)
    shipped = Path(chosen.file).parent == paths.STUDIES
    reference = chosen.name if shipped else chosen.file
    log = paths.BUILD / "logs" / chosen.name / source.name
    final = paths.executed(chosen.name, source.name)
    if parameters:  # a trial: the book's own copy of this section is no longer what the tables say
        final.unlink(missing_ok=True)
        final = paths.BUILD / "trials" / chosen.name / source.name
    # After Ctrl-C, what polls the kernel may notice its end first, and would print a traceback.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    # Sockets to the kernel: files of this user on a local disk, not ports open to the machine.
    runtime = tempfile.mkdtemp(prefix="kernel-")
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        print(f"section {number} of study {chosen.name}: {source.stem}", flush=True)
        papermill.execute_notebook(
            str(source).replace("{", "{{").replace("}", "}}"),
            str(log).replace("{", "{{").replace("}", "}}"),
            parameters={"study": reference, **parameters},
            kernel_name="python3",
            cwd=str(paths.ROOT),
            progress_bar=False,
            stderr_file=sys.stderr,
            config=Config(
                {
                    "KernelManager": {
                        "transport": "ipc",
                        "connection_file": f"{runtime}/kernel.json",
                    },
                    # A kernel asked to end gracefully is interrupted first, and may say so.
                    "NotebookClient": {"shutdown_kernel": "immediate"},
                }
            ),
        )
        shutil.move(log, final)
        write_atomically(final.parent / "study.json", json.dumps({"file": chosen.file}))
    except PapermillExecutionError as error:
        if error.ename == "UserError":
            raise UserError(f"section {number} of study {chosen.name}: {error.evalue}") from None
        last = " ".join(str(error.evalue).split())[:300]
        raise UserError(
            f"section {number} of study {chosen.name} failed in cell {error.exec_count} "
            f"({error.ename}: {last}); the executed notebook is {log}"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write {error.filename or log}: {error.strerror}") from None
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
    return final


def book(name: str, sections: str | None, profile: str | None, dry: bool) -> int:
    """Let Snakemake run what is missing or out of date; dry: only list it. profile: a folder with
    a config.yaml of Snakemake's, in place of profiles/default."""
    chosen = study.load(name)
    config = {"study": chosen.file} | ({"sections": sections} if sections else {})
    configuration(config)
    folder = paths.from_home(profile or DEFAULT_PROFILE).resolve()
    if not (folder / "config.yaml").is_file():
        raise UserError(f"profile '{profile}': no folder with a config.yaml")
    command = [
        *(sys.executable, "-m", "snakemake", "--workflow-profile", str(folder)),
        *("--directory", str(paths.ROOT), "--snakefile", str(paths.ROOT / "Snakefile")),
        *("--config", *(f"{key}={value}" for key, value in config.items())),
    ]
    if folder == DEFAULT_PROFILE:  # what this machine has bounds what runs at once
        memory = machine.host_memory() // 1_000_000
        command += ["--resources", f"mem_mb={memory}", f"gpu={len(machine.gpus())}"]
    log = paths.BUILD / "logs" / "snakemake.log"
    if dry:
        return progress.listing([*command, "--dry-run"], log)
    progress.only_run().close()  # refused at once; while it runs, Snakemake holds the clone
    # Tables that came out otherwise than before make what reads them out of date, so the sections
    # are gone through again, at most once for each of them.
    for _ in paths.sections():
        code = progress.watch(chosen.name, command, log)
        if code or not graph.load(chosen.name).pending:
            break
    if code == 0 and not sections:
        print(f"the book is at {paths.BUILD / 'html/index.html'}")
    elif code > 0:
        print("the book is not complete; what was measured is kept", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
