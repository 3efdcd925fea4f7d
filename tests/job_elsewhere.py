"""A worker whose `_build` is the first argument."""

import signal
from pathlib import Path

from lib import paths
from lib.book import worker


def main(arguments: list[str]) -> int:
    paths.BUILD = Path(arguments[0])
    # A shell that starts tests in the background has them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return worker.main(arguments[1:])
