"""Running sections, strictly, from the command line.

python -m lib.run 02 --study almanac                       # one section, by number or name
python -m lib.run 02 --study mine.yaml -p pruned_layers='[4, 8]'
python -m lib.run book --study almanac                     # all of them, then the site
python -m lib.run book --study mine.yaml --plan            # only say what that takes
python -m lib.run book --study mine.yaml --dry-run         # only list its jobs
python -m lib.run check --study mine.yaml                  # only look for mistakes
python -m lib.run fetch --study mine.yaml                  # download what it needs
python -m lib.run verify --study mine.yaml                 # name damaged evidence
python -m lib.run publish --study mine.yaml                # make it a reference run
"""

import argparse
import glob
import os
import sys
from contextlib import suppress
from pathlib import Path
from signal import Signals

import yaml

from lib import paths, study
from lib.book import ending, machine, progress, scheduler
from lib.book.configuration import configuration
from lib.book.notebooks import ENVIRONMENT, parse, section
from lib.errors import UserError
from lib.evidence import ownership
from lib.evidence.records import verify

DEFAULT_PROFILE = paths.ROOT / "profiles" / "default"
BARS = ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
COMMANDS = ("book", "check", "fetch", "verify", "publish")  # all else is a section
PATIENCE = 15.0  # seconds that jobs on this machine have to end in order


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lib.run", description=__doc__.split("\n")[0])
    parser.add_argument(
        "what", help="a section's number or name, 'book', 'check', 'fetch', 'verify', 'publish'"
    )
    parser.add_argument("--study", default=paths.DEFAULT_STUDY, help="name or path of a YAML file")
    parser.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="KEY=VALUE",
        help="a parameter of the section",
    )  # fmt: skip
    parser.add_argument("--plan", action="store_true", help="with book: only say what it takes")
    parser.add_argument("--dry-run", action="store_true", help="with book: only list its jobs")
    parser.add_argument("--sections", help="with book: only these and what they need, as 02,loss")
    parser.add_argument("--profile", help="with book: a folder, as profiles/slurm")
    parser.add_argument("--checked", action="store_true", help="the study has just been checked")
    options = parser.parse_args(arguments)
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    if not sys.stderr.isatty():  # bars are drawn over and over: a file keeps them all
        for key in BARS:
            os.environ.setdefault(key, "1")
    try:
        with ending.heeded():
            return _run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ending.Stopped as signal:
        with suppress(OSError):  # a terminal that is gone
            print(
                f"stopped ({signal}); everything recorded so far is kept, the next run goes on",
                file=sys.stderr,
            )
        return 128 + Signals[str(signal)]


def _run(options: argparse.Namespace) -> int:
    if options.parameters and options.what in COMMANDS:
        raise UserError(f"-p goes with a section, not with '{options.what}'")
    if options.what == "check":
        from lib.book.check import check
        from lib.models.checkpoints import checkpoint_digest

        chosen = study.load(options.study)
        check(chosen)
        ownership.check(chosen, checkpoint_digest(chosen))
        print(f"study {chosen.name}: nothing wrong found")
    elif options.what == "fetch":
        from lib.book.fetch import fetch

        for line in fetch(study.load(options.study)):
            print(line, flush=True)
    elif options.what == "verify":
        chosen = study.load(options.study)
        folder = paths.results(chosen.name)
        if not (folder / "evidence").is_dir():
            raise UserError(f"study {chosen.name}: {folder} holds no evidence; `make book`")
        ownership.check(chosen)
        problems = verify(folder)
        print("\n".join(problems) or "every record is whole")
        return 1 if problems else 0
    elif options.what == "publish":
        from lib.book.publish import publish

        folder = publish(study.load(options.study))
        print(f"published/{folder.name} is written; commit it")
    elif options.what == "book" and options.plan:
        from lib.book.plan import plan

        print(plan(study.load(options.study)))
    elif options.what == "book":
        return book(options.study, options.sections, options.profile, options.dry_run)
    else:
        done = section(options.what, options.study, parse(options.parameters), options.checked)
        from lib.book import one_page

        one_page.show(study.load(options.study), paths.section(options.what), done)
    return 0


def book(name: str, sections: str | None, profile: str | None, dry: bool) -> int:
    """Let Snakemake run what is missing or out of date; dry: only list it. profile: a folder with
    a config.yaml of Snakemake's, in place of profiles/default."""
    chosen = study.load(name)
    # An address, since Snakemake and its jobs read what they are handed as YAML: a # ends it there.
    config = {"study": Path(chosen.file).as_uri()} | ({"sections": sections} if sections else {})
    configuration(config)
    folder = paths.from_home(profile or DEFAULT_PROFILE).resolve()
    if not (folder / "config.yaml").is_file():
        raise UserError(f"profile '{profile}': no folder with a config.yaml")
    command = [
        *(sys.executable, "-m", "snakemake", "--workflow-profile", _profile(folder)),
        *("--directory", str(paths.ROOT), "--snakefile", str(paths.ROOT / "Snakefile")),
        *("--config", *(f"{key}={value}" for key, value in config.items())),
    ]
    if folder == DEFAULT_PROFILE:  # what this machine has bounds what runs at once
        memory = machine.host_memory() // 1_000_000
        command += ["--resources", f"mem_mb={memory}", f"gpu={len(machine.gpus())}"]
    log = paths.BUILD / "logs" / "snakemake.log"
    if dry:
        return scheduler.listing([*command, "--dry-run"], log)
    progress.only_run().release()  # refused at once; while it runs, Snakemake holds the clone
    code = scheduler.watch(chosen.name, command, log, PATIENCE if _here(folder) else None)
    if code == 0 and not sections:
        print(f"the book is at {paths.BUILD / 'html/index.html'}")
    elif code:
        print("the book is not complete; what was measured is kept", file=sys.stderr)
    return code


def _profile(folder: Path) -> str:
    """From the clone's folder, where Snakemake runs: it takes the path for a pattern, and the
    clone may have any name."""
    path = os.path.relpath(folder, paths.ROOT)
    if glob.escape(path) != path:
        raise UserError(f"profile {folder}: Snakemake takes no profile with *, ? or [ in its path")
    return path


def _here(profile: Path) -> bool:
    """Whether jobs run on this machine, and so end when they are told to."""
    try:
        settings = yaml.safe_load((profile / "config.yaml").read_text("utf-8"))
        return settings.get("executor", "local") == "local"
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return False


if __name__ == "__main__":
    sys.exit(main())
