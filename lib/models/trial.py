"""Trying out what files make of a library, in a copy of this process that has limits: a file that
lies may ask for any amount of time and memory, or end the process that reads it."""

import faulthandler
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from lib.errors import UserError

SECONDS = 8  # of a processor
PATIENCE = 60  # seconds in all, on a busy machine too
BYTES = 1_200_000_000  # beside what this process has already


def trial(what: str, step: Callable[[], object]) -> None:
    """Run a step in a copy of this process; all that it leaves is its errors.

    Raises UserError as the step does, and one that begins with `what` where it raises anything
    else, takes more than it may, or ends its process."""
    if sys.platform != "linux":  # elsewhere a copy of a process with threads is not safe
        step()
        return
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _run(what, step, writer)
    os.close(writer)
    try:
        with open(reader, "rb") as file:
            said = file.read()
    except BaseException:
        os.kill(child, 9)
        raise
    finally:
        os.waitpid(child, 0)
    if lines := json.loads(said or json.dumps([_given_up(what)])):
        raise UserError(*lines)


def _given_up(what: str) -> str:
    return f"{what}: is given up: it crashes, or takes more than {SECONDS} s or {BYTES / 1e9} GB"


def _run(what: str, step: Callable[[], object], writer: int) -> None:
    """In the copy: run the step, tell what it raised, and end at once."""
    lines: tuple[str, ...] = (_given_up(what),)
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):  # what libraries say when they crash
            os.dup2(nothing, stream)
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Threads of the process that was copied are not there.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        torch.set_num_threads(1)
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        most = pages * resource.getpagesize() + BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        step()
        lines = ()
    except UserError as error:
        lines = error.lines
    except MemoryError:
        pass
    except BaseException as error:  # panics of libraries are no Exception
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        lines = (f"{what}: cannot be loaded: {reason}",)
    finally:
        with suppress(BaseException):
            os.write(writer, json.dumps(lines).encode())
        os._exit(0)
