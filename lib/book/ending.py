"""How a run ends: in order when it is asked to, and never without all that it has started.

`lib.run` starts Snakemake, that starts a process for each job (`lib.book.worker`), and a job's
notebook has a kernel. A signal to `lib.run` is passed on by it. Where it is killed, nothing is
passed on; so each process watches the one that started it, and ends with it. A kernel does so by
itself (ipykernel). Jobs on a cluster are started by the cluster and outlive a killed `lib.run`.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

STARTED_BY = "BOOK_STARTED_BY"  # the process that starts others, in their environment
EVERY = 0.5  # seconds between two looks at it
GRACE = 10  # seconds that a process has to end in order


class Stopped(KeyboardInterrupt):
    """Asked to end, by the signal of this name."""


@contextmanager
def heeded(grace: int = 0) -> Iterator[None]:
    """Have Ctrl-C, SIGTERM and SIGHUP raise `Stopped` in the main thread, also where a shell had
    Ctrl-C ignored, as of what a script starts in the background. SIGHUP stays ignored where it is:
    that is what nohup is for. grace: seconds after which the process is killed if it has not ended
    by then; 0: it may take any time."""

    def stop(number: int, _: object) -> None:
        signal.alarm(grace)
        raise Stopped(signal.Signals(number).name)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def with_starter() -> int:
    """End this process when the one that started it has ended, if that wants it so (`STARTED_BY`):
    all of its group at once where it leads one, else in order. Returns the process whose end is
    the end of this one: the other, or itself."""
    starter = int(os.environ.pop(STARTED_BY, 0))
    if not starter:
        return os.getpid()

    def watch() -> None:
        while os.getppid() == starter:  # it changes with the end of a parent
            time.sleep(EVERY)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        signal.alarm(GRACE)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    return starter
