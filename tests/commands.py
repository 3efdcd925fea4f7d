"""Commands that tests start: each a process of its own, and a copy of one that has everything
imported (`lib.book.warm`), where the suite has started one; to import it all takes seconds."""

import os
import sys

from lib import paths
from lib.book import warm

HERE = {"PYTHONPATH": str(paths.ROOT / "tests")}


def prepare() -> None:
    """Have a process ready to be copied, which ends with this one."""
    kept = dict(os.environ)
    os.environ |= HERE | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    warm.start((*warm.IMPORTED, "lib.run", "lib.pruning.on_disk"))
    address = {key: os.environ[key] for key in (warm.ADDRESS,) if key in os.environ}
    os.environ.clear()
    os.environ |= kept | HERE | address


def command(module: str, *arguments: object) -> list[str]:
    """Runs `main` of a module of the repository, or of one beside this, with these arguments."""
    return [sys.executable, "-m", "lib.book.warm", module, *map(str, arguments)]


def environment() -> dict[str, str]:
    """What `command` is to be started with, in the repository."""
    return os.environ | HERE
