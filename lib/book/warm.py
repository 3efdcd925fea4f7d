"""Processes that begin with everything imported, as copies of one that has done nothing else.

A job and the kernel of its notebook each need torch, transformers and more. To import them takes
seconds, and a book has dozens of both. So a run starts one process that imports them (`start`) and
copies itself on demand; what is imported is then in memory once.

    python -m lib.book.warm lib.book.worker section-loss --study almanac

calls `main` of a module in such a copy as if in this process: it has its directory, environment and
standard streams. Signals are passed on, the copy's exit status becomes that of this process, and a
copy ends with it. Where there is nothing to copy (on a cluster's nodes; beside a GPU, whose driver
does not bear it; on other systems than Linux) the module simply runs here.
"""

import ctypes
import gc
import hashlib
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from lib import paths
from lib.book import ending, machine

ADDRESS = "BOOK_WARM"  # of the process that can be copied, in the environment
# Of this clone: others import other code.
OURS = f"book-{hashlib.sha256(os.fsencode(paths.ROOT)).hexdigest()[:12]}-"
IMPORTED = (
    "datasets",
    "ipykernel.kernelapp",
    "lm_eval.models.huggingface",
    "papermill",
    "peft",
    "transformers.models.llama.modeling_llama",
    "lib.book.jobs",
    "lib.book.notebooks",
    "lib.sections.figures",
)
INLINE = "module://matplotlib_inline.backend_inline"  # how a kernel draws; read by an import
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
NUMBER = struct.Struct("i")
FORK = get_context("fork")

copied = False  # whether this process is such a copy
_started: subprocess.Popen | None = None


def start(imported: Sequence[str] = IMPORTED) -> None:
    """Have a process ready to be copied for what this one starts, unless this one's starter has;
    it ends with this one."""
    global _started
    if sys.platform != "linux" or machine.gpus() or _address():
        return
    name = f"{OURS}{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")  # not a file: nothing to leave behind
        listener.listen(64)
        _started = subprocess.Popen(
            [sys.executable, "-m", "lib.book.warm", "--serve", str(listener.fileno()), *imported],
            stdin=subprocess.PIPE,
            env=os.environ | {"MPLBACKEND": INLINE, "OPENBLAS_NUM_THREADS": "1"},
            pass_fds=[listener.fileno()],
        )
    os.environ[ADDRESS] = name


def main(arguments: Sequence[str]) -> int:
    if arguments[0] == "--serve":
        _serve(socket.socket(fileno=int(arguments[1])), arguments[2:])
    try:
        connection = _connected()
        copy = 0 if connection is None else _ask(connection, arguments)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if not copy:
        return importlib.import_module(arguments[0]).main(arguments[1:])
    return _stand_for(copy, connection)


def _connected() -> socket.socket | None:
    """To the process that can be copied, if there is one and it is this user's."""
    name = _address()
    if name is None:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(f"\0{name}")
        if _user(connection) == os.getuid():
            return connection
    except OSError:
        pass
    connection.close()
    return None


def _address() -> str | None:
    """Of a process that has imported what lies here, and not in another clone."""
    name = os.environ.get(ADDRESS, "")
    return name if name.startswith(OURS) else None


def _user(connection: socket.socket) -> int:
    """Whose process is at the other end."""
    about = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", about)[1]


def _ask(connection: socket.socket, arguments: Sequence[str]) -> int:
    """Have a copy run that; returns its number, or 0 where there is none after all."""
    starter = os.environ.pop(ending.STARTED_BY, None)  # of this process, not of the copy
    asked = {
        "arguments": arguments,
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        "nohup": signal.getsignal(signal.SIGHUP) == signal.SIG_IGN,
    }
    if starter is not None:
        os.environ[ending.STARTED_BY] = starter
    with suppress(OSError):
        socket.send_fds(connection, [json.dumps(asked).encode() + b"\n"], [0, 1, 2])
        return _number(connection)
    return 0


def _stand_for(copy: int, connection: socket.socket) -> int:
    """Pass signals on to a copy until it has ended; returns its exit status, as a shell would."""
    ending.with_starter()

    def pass_on(number: int, _: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(copy, number)

    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, pass_on)
    status = -signal.SIGKILL  # as all copies end with what they were copied from
    with suppress(OSError):
        status = _number(connection, status)
    return status if status >= 0 else 128 - status


def _number(connection: socket.socket, otherwise: int = 0) -> int:
    """What the other end says, or otherwise where that is gone."""
    told = connection.recv(NUMBER.size, socket.MSG_WAITALL)
    return NUMBER.unpack(told)[0] if told else otherwise


def _serve(listener: socket.socket, imported: Sequence[str]) -> None:
    """Copy this process whenever it is asked to, until what started it has ended and its copies
    have. Nothing is computed here: a copy would lack the threads of what was."""
    for number in SIGNALS:  # its copies are told by those who asked for them
        signal.signal(number, signal.SIG_IGN)
    for name in imported:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # nor is memory written to, and so taken twice, in search of garbage
    heard: list[socket.socket | int] = [listener, sys.stdin.fileno()]
    running: dict[int, tuple[BaseProcess, socket.socket]] = {}
    while running or len(heard) > 1:
        for one in wait([*heard, *running]):
            if one is listener:
                connection, _ = listener.accept()
                if _user(connection) == os.getuid():
                    process = FORK.Process(target=_copy, args=(connection,))
                    process.start()
                    running[process.sentinel] = process, connection
                    _tell(connection, process.pid)
                else:
                    connection.close()
            elif one in running:
                process, connection = running.pop(one)
                process.join()
                _tell(connection, process.exitcode)
                connection.close()
            else:
                heard = [listener]
    os._exit(0)


def _tell(connection: socket.socket, number: int | None) -> None:
    with suppress(OSError):  # whoever asked is gone
        connection.send(NUMBER.pack(number or 0))


def _copy(connection: socket.socket) -> None:
    """What a copy does: take up what it is asked for, and end with whoever asks."""
    global copied
    copied = True
    end_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setpgid(0, 0)  # or a signal to all of a run would come twice
    text, handles, *_ = socket.recv_fds(connection, 1 << 16, 3)
    while not text.endswith(b"\n"):
        more = connection.recv(1 << 16)
        if not more:
            os._exit(1)
        text += more
    asked = json.loads(text)
    for number, handle in enumerate(handles):
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (which multiprocessing has taken away)
    if not asked["nohup"]:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ.clear()
    os.environ |= asked["environment"]
    os.chdir(asked["directory"])
    name, *arguments = asked["arguments"]
    sys.argv = [name, *arguments]

    def watch() -> None:
        with suppress(OSError):
            connection.recv(1)  # nothing more is said: it returns when the other end is gone
        os.kill(os.getpid(), signal.SIGKILL)

    settle()
    threading.Thread(target=watch, daemon=True).start()
    sys.exit(importlib.import_module(name).main(arguments))


def settle() -> None:
    """Have torch make its pool of threads anew, which it does after a fork when it first needs it:
    of two threads that need it at once, as when weights are read, the second would find none."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(torch.get_num_threads())


def use(threads: int) -> None:
    """Have a copy compute with so many threads, as libraries read it from the environment when they
    are imported, which was done before."""
    if copied:
        import threadpoolctl
        import torch

        torch.set_num_threads(threads)
        threadpoolctl.threadpool_limits(threads)


def end_with_parent() -> None:
    """Have the system kill this process, a copy, when the one it was copied from has ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent_process() is None or os.getppid() != parent_process().pid:
        os._exit(1)


if __name__ == "__main__":
    # The module of this name, not this one: what a copy is, others ask there.
    sys.exit(importlib.import_module("lib.book.warm").main(sys.argv[1:]))
