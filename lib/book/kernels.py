"""The kernel of a notebook as a copy of this process, where this one has everything imported
(`lib.book.warm`): made before papermill begins, it waits to be told what jupyter_client would start
as a process of its own."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

from lib.book import warm

NAME = "copy"


class Copy:
    """As jupyter_client looks at a process, `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self) -> None:
        self._tell, told = Pipe()
        self._process = warm.FORK.Process(target=_kernel, args=(told,))
        self._process.start()
        told.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self, command: list[str], environment: dict[str, str], directory: str) -> None:
        self._tell.send((command, environment, directory))

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Copied(LocalProvisioner):
    """Hands jupyter_client the copy that waits."""

    ready: Copy

    async def launch_kernel(self, cmd: list[str], **given: Any) -> KernelConnectionInfo:
        self.process = Copied.ready
        self.process.begin(cmd, given["env"], str(given.get("cwd") or Path.cwd()))
        self.pid = self.pgid = self.process.pid
        return self.connection_info


@contextmanager
def ready() -> Iterator[None]:
    """Kernels started meanwhile, one at most, are copies of this process, if it is one itself."""
    if not warm.copied:
        yield
        return
    factory = KernelProvisionerFactory.instance()
    where = f"{Copied.__module__}:{Copied.__name__}"
    factory.provisioners[NAME] = EntryPoint(NAME, where, factory.GROUP_NAME)
    factory.default_provisioner_name = NAME
    Copied.ready = Copy()
    try:
        yield
    finally:
        Copied.ready.kill()
        Copied.ready.wait()


def _kernel(told: Connection) -> None:
    warm.end_with_parent()
    os.setsid()
    for number in warm.SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    try:
        command, environment, directory = told.recv()
    except EOFError:
        return
    os.environ.clear()
    os.environ |= environment | {"JPY_PARENT_PID": str(os.getppid())}
    os.chdir(directory)
    Path("/proc/self/comm").write_text("kernel")
    from ipykernel import kernelapp

    kernelapp.launch_new_instance(argv=command[command.index("-f") :])
