"""Measurements on disk, from the command line: what there is, whether it is whole, and merging it.

    python -m lib.evidence list PLACE --kind qa      # what is recorded
    python -m lib.evidence verify PLACE              # name what is damaged or was set aside
    python -m lib.evidence export PLACE OUT.csv      # or OUT.jsonl
    python -m lib.evidence merge SOURCE... TARGET    # add to the last place what the others have

PLACE is a study's name, its results folder or an evidence.jsonl file.
"""

import argparse
import filecmp
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib import paths
from lib.errors import UserError
from lib.evidence import listing, sums
from lib.evidence.records import (
    Record,
    digest,
    in_place,
    locate,
    locate_new,
    records,
    verify,
)
from lib.evidence.store import Store
from lib.files import claimed, copy_new, unwritable, write_new


@dataclass
class Merged:
    """What a merge did."""

    added: int = 0
    known: int = 0
    adapters: int = 0
    conflicts: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def merge(sources: list[Path], target: Path) -> Merged:
    """Add to a results folder the records that results folders and .jsonl files have, and the
    adapters of healed models. What the target has stays as it is, and sources are only read.

    Adapters belong to the record whose digest they bear: they come with it, before it, and only
    where the target has no other record of that healing.

    Raises UserError when the target cannot be written; what was added until then stays."""
    store, found = Store(target), Merged()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(target, error) from None
    says = f"another process is merging into {target}; waiting"
    with claimed(target / "merge", says) as alone:
        for left in (target / "adapters").glob(".*.copying") if alone else []:
            shutil.rmtree(left, ignore_errors=True)  # of a merge that was killed
        for source in sources:
            for label, record, problem in in_place(source):
                if problem is None:
                    _merge(source, store, record, found)
                else:
                    found.damaged.append(f"evidence {label}: {problem}")
    return found


def _merge(source: Path, store: Store, record: Record, found: Merged) -> None:
    name = digest(record["inputs"])
    theirs, ours = source / "adapters" / name, store.folder.parent / "adapters" / name
    path = store.path(record["kind"], record["name"], record["inputs"])
    standing = store.standing(record)
    if standing is None and ours.exists() and not _same_files(theirs, ours):
        found.conflicts.append(f"evidence {path}: {ours} is of another training; left out")
        return
    agree = standing is None or standing["value"] == record["value"]
    if agree and theirs.is_dir() and not ours.exists():
        if problem := sums.damage(theirs):
            found.damaged.append(f"adapters {theirs}: {problem}; left out")
        else:
            found.adapters += copy_new(theirs, ours)
    standing = standing or store.add(record)
    if standing is None:
        found.added += 1
    elif standing["value"] == record["value"]:
        found.known += 1
    else:
        differs = listing.difference(standing, record)
        found.conflicts.append(f"evidence {path}: here / in {source}: {differs}; the first stays")


def _same_files(one: Path, other: Path) -> bool:
    names = [
        {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        - {Path(sums.NAME)}  # which not all have
        for folder in (one, other)
    ]
    same = all(filecmp.cmp(one / name, other / name, shallow=False) for name in names[0] & names[1])
    return names[0] == names[1] and same


def main(arguments: list[str] | None = None) -> int:
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m lib.evidence", description=about)
    commands = parser.add_subparsers(required=True, metavar="command")
    place = "a study's name, its results folder or an evidence.jsonl file"

    def command(name: str, run: Callable[[argparse.Namespace], int], says: str) -> Any:
        found = commands.add_parser(name, help=says, description=says)
        found.set_defaults(run=run)
        return found

    one = command("list", _list, "show what is recorded")
    one.add_argument("place", help=place)
    one.add_argument("--kind", help="only records of this kind, such as qa")
    one = command("verify", _verify, "name what is damaged, misnamed or was set aside")
    one.add_argument("place", help=place)
    one = command("export", _export, "write all records into one file")
    one.add_argument("place", help=place)
    one.add_argument("out", help="a file that does not exist, ending in .jsonl or .csv")
    one = command("merge", _merge_command, "add to the last place what the others have")
    one.add_argument("sources", nargs="+", metavar="source", help=place)
    one.add_argument(
        "target", help="a study's name, or the path of a results folder, which may be new"
    )
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what was added is kept, and the same command goes on", file=sys.stderr)
        return 130


def _list(options: argparse.Namespace) -> int:
    found, damaged = _sound(options.place)
    kinds = sorted({record["kind"] for record in found})
    if options.kind is not None:
        if options.kind not in kinds:
            known = ", ".join(kinds) or "none"
            raise UserError(f"no records of kind '{options.kind}' there; kinds are: {known}")
        found = [record for record in found if record["kind"] == options.kind]
    print(listing.table(found))
    return _named(damaged)


def _verify(options: argparse.Namespace) -> int:
    problems = verify(locate(options.place))
    print("\n".join(problems) or "every record is whole")
    return 1 if problems else 0


def _export(options: argparse.Namespace) -> int:
    out = paths.from_home(options.out)
    form = {".jsonl": listing.lines, ".csv": listing.spreadsheet}.get(out.suffix)
    if form is None:
        raise UserError(f"file {out}: its name has to end in .jsonl or .csv")
    found, damaged = _sound(options.place)
    if not found:
        raise UserError(f"place '{options.place}': has no records to export")
    if not write_new(out, form(found)):
        raise UserError(f"file {out}: is there already; nothing is overwritten")
    print(f"{out}: {len(found):,} records")
    return _named(damaged)


def _sound(place: str) -> tuple[list[Record], list[str]]:
    """The records of a place, and a line for each that is damaged."""
    found, damaged = [], []
    for label, record, problem in records(place):
        if problem is None:
            found.append(record)
        else:
            damaged.append(f"evidence {label}: {problem}; left out")
    return found, damaged


def _named(problems: list[str]) -> int:
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _merge_command(options: argparse.Namespace) -> int:
    sources, target = [locate(source) for source in options.sources], locate_new(options.target)
    for source in sources:
        if source.resolve() == target.resolve():
            raise UserError(f"place {source}: is a source and the target")
    found = merge(sources, target)
    for line in found.conflicts + found.damaged:
        print(line)
    print(
        f"{target}: {found.added:,} records and {found.adapters:,} adapters added; {found.known:,} "
        f"there already, {len(found.conflicts):,} in conflict, {len(found.damaged):,} damaged"
    )
    return 1 if found.conflicts or found.damaged else 0
