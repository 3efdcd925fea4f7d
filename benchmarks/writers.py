"""Many processes that write the same and different measurements into one folder, some killed.

    python benchmarks/writers.py --writers 16 --records 1000 --kills 40

Each record is wanted by four of the writers. Of most, all measure the same value. Every
twenty-fifth is disputed: each of its four writers records a value of its own, of which the first
has to stay and the others have to be kept beside it and named. Writers are ended by SIGKILL at
random moments and started again. What is then in the folder is read without the code that wrote it.
Exits non-zero if anything is lost, torn or mixed, or was returned that is not recorded.
"""

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from lib.evidence.store import Store

WANTED_BY = 4
DISPUTED = 25


def value(key: int, writer: int) -> dict:
    """Up to 10 kB that differ from record to record; of a disputed one, from writer to writer."""
    disputed = {} if key % DISPUTED else {"writer": writer}
    return disputed | {"loss": key / 7, "tokens": [key * i % 997 for i in range(key * 37 % 1000)]}


def wanted_by(key: int, writers: int) -> list[int]:
    return random.Random(key).sample(range(writers), WANTED_BY)


def write(folder: Path, number: int, writers: int, records: int) -> None:
    """One writer: what each record came back as is printed, with how often it was measured."""
    store, measured = Store(folder), []

    def measure(key: int) -> dict:
        measured.append(key)
        return value(key, number)

    for key in range(records):
        if number not in wanted_by(key, writers):
            continue
        given = ("loss", f"record {key}", {"key": key})
        measured.clear()
        if key % DISPUTED == 0:
            store.put(*given, measure(key))
        found = store.get_or_measure(*given, lambda key=key: measure(key))
        print(json.dumps([key, len(measured), text_digest(found)]), flush=True)


def text_digest(content: object) -> str:
    spelled = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(spelled.encode()).hexdigest()


def whole(path: Path) -> dict | None:
    """A record, if its checksum fits."""
    try:
        record = json.loads(path.read_text())
        checksum = record.pop("checksum")
    except (ValueError, AttributeError, KeyError):
        return None
    return record if checksum == text_digest(record) else None


def run(folder: Path, options: argparse.Namespace) -> float:
    """All writers to their ends; seconds."""
    moments = random.Random(options.seed)

    def start(number: int) -> subprocess.Popen:
        settings = ("--writers", options.writers, "--records", options.records)
        command = [sys.executable, __file__, "--write", folder, "--number", number, *settings]
        with (
            open(folder / f"{number}.out", "ab") as out,
            open(folder / f"{number}.err", "ab") as err,
        ):
            return subprocess.Popen(list(map(str, command)), stdout=out, stderr=err)

    begun = time.monotonic()
    running = {number: start(number) for number in range(options.writers)}
    for _ in range(options.kills):
        time.sleep(moments.uniform(0, 2 * options.seconds / options.kills))
        alive = [number for number, process in running.items() if process.poll() is None]
        if not alive:
            break
        number = moments.choice(alive)
        running[number].send_signal(signal.SIGKILL)
        options.killed += running[number].wait() == -signal.SIGKILL
        running[number] = start(number)
    for number, process in running.items():
        assert process.wait() == 0, (folder / f"{number}.err").read_text()
    return time.monotonic() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2, help="over which kills are spread")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write, options.number, options.writers, options.records)
        return 0
    options.killed = 0
    with tempfile.TemporaryDirectory() as name:
        seconds = run(Path(name), options)
        counts, faults = judged(Path(name), options)
    counts = {"seconds": round(seconds, 1), "killed": options.killed} | counts
    for text, count in (counts | faults).items():
        print(f"{count:>8,}  {text}")
    return 1 if any(faults.values()) else 0


def judged(folder: Path, options: argparse.Namespace) -> tuple[dict[str, int], dict[str, int]]:
    """What there is, and what must not be."""
    recorded, beside, counts, faults = {}, defaultdict(list), Counter(), Counter()
    for path in sorted((folder / "evidence").rglob("*")):
        ending = "".join(path.suffixes[-1:])
        counts[ending] += path.is_file()
        if ending in (".json", ".conflict"):
            record = whole(path)
            if record is None:
                faults["torn or mixed"] += 1
            elif ending == ".json":
                faults["recorded under two names"] += record["inputs"]["key"] in recorded
                recorded[record["inputs"]["key"]] = record["value"]
            else:
                beside[record["inputs"]["key"]].append(record["value"])
    said = "".join(path.read_text() for path in folder.glob("*.err"))
    measured = 0
    for path in folder.glob("*.out"):
        for key, times, digest in map(json.loads, path.read_text().splitlines()):
            measured += times
            faults["returned, but not recorded"] += digest != text_digest(recorded.get(key))
    for key in range(options.records):
        values = [text_digest(one) for one in [recorded.get(key), *beside[key]]]
        offered = {text_digest(value(key, one)) for one in wanted_by(key, options.writers)}
        faults["lost"] += len(offered - set(values))
        faults["never offered"] += len(set(values) - offered)
        named = said.count(f"evidence record_{key}-")
        faults["in conflict, but not named"] += bool(beside[key]) != bool(named)
    return {
        "records wanted": options.records,
        "records found": len(recorded),
        "of them disputed": len(range(0, options.records, DISPUTED)),
        "other values kept beside them": counts[".conflict"],
        "measurements, with those that another was faster with": measured,
        "parts of files that killed writers left": counts[".partial"],
    }, {"lost": 0, "torn or mixed": 0} | faults


if __name__ == "__main__":
    sys.exit(main())
