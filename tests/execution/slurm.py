"""A SLURM cluster of this machine alone, in a temporary folder, without root or systemd."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "srun")
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/builtin
SchedulerParameters=sched_min_interval=100000
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# more cores and memory than there may be: a job is not held to what it asks for


@contextlib.contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Start the daemons and yield the environment in which commands find them."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    if not all(shutil.which(command, path=path) for command in COMMANDS):
        pytest.skip("needs SLURM: apt-get install slurm-wlm munge (its daemons need not run)")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp")))
        for name in ("state", "spool"):
            (folder / name).mkdir()
        _write_key(folder / "key")
        host, user = socket.gethostname().partition(".")[0], getpass.getuser()
        text = CONF.format(folder=folder, host=host, user=user, ports=_free_ports(2))
        (folder / "slurm.conf").write_text(text)
        env = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
        env.pop("SLURM_JOB_ID", None)
        files = {"key-file": "key", "socket": "munge", "log-file": "log", "seed-file": "seed"}
        files["pid-file"] = "pid"
        words = [f"--{option}={folder / name}" for option, name in files.items()]
        for command in (["munged", "-F", "-f", *words], ["slurmctld", "-D"], ["slurmd", "-D"]):
            log = stack.enter_context((folder / f"{command[0]}.out").open("w"))
            daemon = subprocess.Popen(command, env=env, stdout=log, stderr=log)
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
            while command[0] == "munged" and not (folder / "munge").exists():
                assert daemon.poll() is None, (folder / "munged.out").read_text()
                time.sleep(0.05)
        stack.callback(_end_jobs, env)
        _await_node(env, folder)
        yield env


def ask(env: dict[str, str], *words: str) -> str:
    """Return what a command of SLURM says."""
    return subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout


def await_jobs(env: dict[str, str], longest_s: float = 300) -> None:
    """Wait until no job waits or runs."""
    until = time.monotonic() + longest_s
    while said := ask(env, "squeue", "-h"):
        assert time.monotonic() < until, said
        time.sleep(0.2)


def state(env: dict[str, str], job: str) -> str:
    """Return how a job has ended, such as ``COMPLETED``."""
    said = ask(env, "scontrol", "-o", "show", "job", job)
    return said.partition("JobState=")[2].partition(" ")[0]


def _write_key(path: Path) -> None:
    path.touch(mode=0o600)
    path.write_bytes(secrets.token_bytes(128))


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _await_node(env: dict[str, str], folder: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        said = subprocess.run(["sinfo", "-h", "-o", "%t"], env=env, capture_output=True, text=True)
        if said.stdout.strip() == "idle":
            return
        time.sleep(0.1)
    logs = [(folder / f"{name}.out").read_text()[-2000:] for name in ("slurmctld", "slurmd")]
    pytest.fail("\n".join(["SLURM does not start:", *logs]))


def _end_jobs(env: dict[str, str]) -> None:
    subprocess.run(["scancel", "--me"], env=env, check=False)
    with contextlib.suppress(AssertionError, subprocess.CalledProcessError):
        await_jobs(env, 20)
