"""A SLURM of one node, its daemons (munged, slurmctld, slurmd) in a folder of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")

CONFIGURATION = """\
ClusterName=tilepipe
SlurmctldHost={host}
SlurmctldPort={ctld}
SlurmdPort={slurmd}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
# No cgroups: containers seldom let them be made.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,requeue_delay=1
# More cores than there are: several jobs run side by side on a small machine.
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=3
MinJobAge=10
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory={memory} State=UNKNOWN
PartitionName=short Nodes=ALL Default=YES MaxTime=60 State=UP
"""


def require_slurm() -> None:
    """Skip where SLURM is not installed, or its daemons cannot be started."""
    missing = [p for p in PROGRAMS if shutil.which(p, path=_path()) is None]
    if missing:
        pytest.skip(f"needs SLURM (Debian: slurm-wlm, munge); there is no {missing[0]}")
    if os.geteuid() != 0:
        pytest.skip("starting SLURM's daemons needs root")


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """The variables under which `sbatch` and the like reach it; gone afterwards, with its jobs."""
    # Not in pytest's folder: munge wants every folder above its socket to be open to all.
    folder = Path(tempfile.mkdtemp(prefix="tilepipe-slurm-"))
    folder.chmod(0o755)
    for name, mode in (("munge", 0o755), ("state", 0o700), ("spool", 0o755)):
        (folder / name).mkdir(mode=mode)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 512
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=host, folder=folder, ctld=_free_port(), slurmd=_free_port(), memory=memory
        )
    )
    variables = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> None:
        with (folder / f"{words[0]}.out").open("wb") as log:
            daemons.append(
                subprocess.Popen(words, stdout=log, stderr=log, env=os.environ | variables)
            )

    try:
        start(
            "munged", "--foreground", "--force", f"--key-file={key}",
            f"--socket={folder}/munge/socket", f"--pid-file={folder}/munge/pid",
            f"--seed-file={folder}/munge/seed", "--num-threads=2",
        )  # fmt: skip
        _until(lambda: (folder / "munge" / "socket").exists(), "munged", folder)
        start("slurmctld", "-D", "-c")
        start("slurmd", "-D", "-c")
        _until(lambda: "idle" in ask(variables, "sinfo", "-h", "-o", "%T"), "the node", folder)
        yield variables
    finally:
        ask(variables, "scancel", "--full", "--signal=KILL", "--user=root")
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def ask(variables: dict[str, str], *words: str) -> str:
    """What a command of SLURM prints."""
    done = subprocess.run(
        words, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def jobs(variables: dict[str, str], state: str = "RUNNING") -> list[str]:
    """Numbers of the jobs in a state."""
    return ask(variables, "squeue", "-h", "-t", state, "-o", "%i").split()


def _until(reached: object, what: str, folder: Path) -> None:
    deadline = time.monotonic() + 600
    while not reached():  # type: ignore[operator]
        if time.monotonic() > deadline:
            logs = "\n".join(
                f"{log.name}:\n{log.read_text(errors='replace')[-1000:]}"
                for log in folder.iterdir()
                if log.suffix in (".out", ".log")
            )
            raise AssertionError(f"SLURM: {what} did not come up\n{logs}")
        time.sleep(0.2)


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
