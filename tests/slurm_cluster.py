"""A real SLURM of two nodes on this machine: its own key, ports, state and logs in one folder.

    with two_nodes(folder) as cluster:
        subprocess.run(["sbatch", ...], env=cluster.env)

Needs Debian's slurm-wlm and munge, but no service, no root and nothing under /etc or /var;
`missing()` says what is not there. All processes of a place, the controller's or a node's, jobs
included, have a SLURM_CONF of their own in their environment, by which they are found and killed.
The nodes share this machine's memory, cores, files and host name. Each has one GPU, which is none.
"""

import contextlib
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

NODES = ("n0", "n1")
SERVICES = {
    "munge": "munged -Ff --socket=munge --key-file=key --seed-file=seed --pid-file=munge.pid",
    "controller": "slurmctld -D",
    **{node: f"slurmd -D -N {node}" for node in NODES},
}
COMMANDS = ("munged", "slurmctld", "slurmd", "scontrol", "sinfo", "squeue", "sbatch", "srun")

# Tests see in seconds what takes a cluster minutes: a node that does not answer is down after about
# 12 (SlurmdTimeout, MessageTimeout), its job runs again 6 later (cred_expire). Memory is watched
# once a second, which needs no cgroups. Time limits are looked at twice a minute whatever one sets.
# Finished jobs stay known (MinJobAge), as Snakemake asks squeue for them.
CONFIG = """
ClusterName=two
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[controller]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdTimeout=5
MessageTimeout=3
KillWait=2
MinJobAge=86400
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
"""
NODE = (
    "NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cores} "
    "RealMemory={memory_mb} Gres=gpu:1\n"
)
# Snakemake takes SLURM_CONF away from the srun that it calls within a job.
SRUN = """#!/bin/sh
export SLURM_CONF="${{SLURM_CONF:-{folder}/$SLURMD_NODENAME.conf}}"
exec {srun} "$@"
"""


@dataclass(frozen=True)
class Finished:
    """One end of a job. A job that was queued again has several."""

    job: int
    name: str
    comment: str  # Snakemake's rule and wildcards
    node: str  # empty if it never ran: cancelled before, or refused by sbatch
    state: str  # COMPLETED, FAILED, TIMEOUT, CANCELLED, NODE_FAIL, ...
    exit_code: int
    signal: int
    start: datetime | None
    end: datetime | None


@dataclass
class Cluster:
    """`env` is the environment of whatever shall use it; nothing else of this process changes."""

    folder: Path
    env: dict[str, str] = field(repr=False)
    _services: dict[str, subprocess.Popen] = field(default_factory=dict, repr=False)

    def slurm(self, *words: str) -> str:
        """What one of SLURM's commands prints. RuntimeError with its message if it fails."""
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(words)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def nodes(self) -> dict[str, str]:
        """State by node: idle, mix, alloc, down, ...; with a * while the node does not answer."""
        return dict(line.split() for line in self.slurm("sinfo", "-hNo", "%N %t").splitlines())

    def queued(self) -> list[int]:
        """Jobs that wait or run."""
        return [int(job) for job in self.slurm("squeue", "-ho", "%A").split()]

    def running(self) -> dict[int, str]:
        """Node by job. A job runs from here on; its processes may come a moment later."""
        lines = self.slurm("squeue", "-ht", "running", "-o", "%A %N").splitlines()
        return {int(job): node for job, node in (line.split() for line in lines)}

    def accounted(self) -> list[Finished]:
        """Every end of every job so far, in order."""
        asked = self.slurm("squeue", "--states=all", "-ho", "%A|%k").splitlines()
        known = [line.split("|", 1) for line in asked]
        comments = {int(job): "" if text == "(null)" else text for job, text in known}
        lines = (self.folder / "completed").read_text().splitlines()
        return [_finished(line, comments) for line in lines]

    def kill_node(self, node: str) -> None:
        """SIGKILL to all of it at once, jobs included, as when the power goes."""
        self._kill(node)

    def kill_daemon(self, node: str) -> None:
        """SIGKILL to the node's daemon alone: SLURM loses sight of its jobs, which go on."""
        self._services[node].kill()
        self._services[node].wait()

    def start_node(self, node: str) -> None:
        """Starts the node's daemon again, and waits until it answers."""
        begun = int(time.time())
        self._start(node)

        def registered() -> bool:
            told = self.slurm("scontrol", "show", "node", node)
            since = re.search(r"SlurmdStartTime=(\S+)", told)[1]
            return "T" in since and datetime.fromisoformat(since).timestamp() >= begun

        self.wait_until(registered, f"node {node} to register")

    def kill_job(self, job: int) -> None:
        """SIGKILL to all processes of a job that runs, but not to SLURM's own that watch them."""
        on_nodes = {process for node in NODES for process in self.processes(node)}
        _sigkill(on_nodes & set(_with_variable(f"SLURM_JOB_ID={job}")))

    def kill_controller(self) -> None:
        self._kill("controller")

    def start_controller(self) -> None:
        """Starts it again with its saved state, and waits until it answers."""
        self._start("controller")
        self.wait_until(lambda: "UP" in self.slurm("scontrol", "ping"), "the controller to answer")

    def processes(self, place: str) -> list[int]:
        """Ids of what runs on a node or as another of the SERVICES; `slurm`: what runs in `env`."""
        return _with_variable(f"SLURM_CONF={self.folder}/{place}.conf")

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float = 20) -> None:
        """Waits for something to hold. RuntimeError with the logs' last lines if it does not."""
        limit, problem = time.monotonic() + seconds, ""
        while time.monotonic() < limit:
            try:
                if holds():
                    return
            except RuntimeError as error:
                problem = f" ({error})"
            time.sleep(0.1)
        logs = sorted(self.folder.glob("logs/*.log"))
        lines = {log.stem: log.read_text(errors="replace").splitlines() for log in logs}
        ends = [f"{name}: {line}" for name, whole in lines.items() for line in whole[-5:]]
        raise RuntimeError("\n".join([f"waited {seconds} s for {what}{problem}", *ends]))

    def _start(self, place: str) -> None:
        with open(self.folder / "logs" / f"{place}.log", "a") as log:
            self._services[place] = subprocess.Popen(
                SERVICES[place].split(),
                cwd=self.folder,
                env=self.env | {"SLURM_CONF": f"{self.folder}/{place}.conf"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _kill(self, *places: str) -> None:
        """Again and again, as what dies may just have started something."""
        while left := [process for place in places for process in self.processes(place)]:
            _sigkill(left)
            for place in places:
                if place in self._services:
                    self._services[place].wait()
            time.sleep(0.02)


def missing() -> str | None:
    """Why there can be no cluster here, if so."""
    absent = [name for name in COMMANDS if shutil.which(name, path=_path()) is None]
    return f"no {', '.join(absent)} here: apt-get install slurm-wlm munge" if absent else None


@contextlib.contextmanager
def two_nodes(folder: Path, cores: int = 1, memory_mb: int = 8000) -> Iterator[Cluster]:
    """Two idle nodes with so much each, whatever the machine has. All is killed at the end, also
    what was started with the cluster's environment.

    `folder` is made where it is not there, and keeps logs and records. ValueError if its path is
    too long for sockets; RuntimeError if the nodes do not become idle.
    """
    folder = folder.resolve()
    if len(str(folder)) > 75:
        raise ValueError(f"{folder}: sockets in it need a path of at most 75 characters")
    for name in ("state", "logs", "bin", *NODES):
        (folder / name).mkdir(parents=True)
    host = socket.gethostname().split(".")[0]
    ports = dict(zip(("controller", *NODES), _free_ports(1 + len(NODES)), strict=True))
    user = pwd.getpwuid(os.getuid()).pw_name
    own = {"folder": folder, "host": host, "user": user, "ports": ports}
    size = {"host": host, "cores": cores, "memory_mb": memory_mb}
    nodes = [NODE.format(node=node, port=ports[node], **size) for node in NODES]
    partition = f"PartitionName=main Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE\n"
    (folder / "slurm.conf").write_text(CONFIG.format(**own) + "".join([*nodes, partition]))
    # Nothing uses cgroups here; where none are mounted this kind does not miss them.
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (folder / "gres.conf").write_text("AutoDetect=off\nName=gpu File=/dev/null\n")
    for place in SERVICES:
        (folder / f"{place}.conf").symlink_to("slurm.conf")
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_bytes(os.urandom(1024))
    srun = folder / "bin" / "srun"
    srun.write_text(SRUN.format(folder=folder, srun=shutil.which("srun", path=_path())))
    srun.chmod(0o755)
    outside = ("SLURM", "SBATCH_", "SRUN_")  # of a job on another cluster that this may run in
    env = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
    env |= {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": f"{folder}/bin:{_path()}"}
    cluster = Cluster(folder, env)
    try:
        cluster._start("munge")
        cluster.wait_until((folder / "munge").exists, "munge")
        cluster.start_controller()
        for node in NODES:
            cluster._start(node)
        idle = dict.fromkeys(NODES, "idle")
        cluster.wait_until(lambda: cluster.nodes() == idle, "two idle nodes")
        yield cluster
    finally:
        cluster._kill("slurm", *SERVICES)


def _path() -> str:
    """Where to look for commands: daemons are where only root's PATH leads."""
    return f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"


def _with_variable(variable: str) -> list[int]:
    """Processes that were started with this in their environment. The dead have none."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if variable.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def _sigkill(processes: Iterable[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _finished(line: str, comments: dict[int, str]) -> Finished:
    told = dict(re.findall(r"(\w+)=(.*?)(?= \w+=|\s*$)", line))
    code, by = told["ExitCode"].split(":")
    start, end = (
        datetime.fromisoformat(told[key]) if "T" in told[key] else None
        for key in ("StartTime", "EndTime")
    )
    job, name, state = int(told["JobId"]), told["Name"], told["JobState"]
    node = told["NodeList"] if told["NodeList"] in NODES else ""
    comment = comments.get(job, "")
    return Finished(job, name, comment, node, state, int(code), int(by), start, end)
