"""Cluster files: the Dask cluster that a run starts for itself.

    cluster: slurm          # a short name (`KINDS`), or the path of a class: package.module.Class
    workers: 8              # or adapt: {minimum: 1, maximum: 40}
    arguments: {...}        # of the class, as its documentation names them
    environment: {...}      # variables of the workers' processes
    prologue: [...]         # lines of shell before a worker starts, in the script of its job
    wait: 10min             # for the first worker, and again if all are lost

The file names code to run, so it is trusted like a program of the user's own.
"""

from __future__ import annotations

import inspect
import logging
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from tilepipe.errors import InputError
from tilepipe.options import Options, option, read_yaml
from tilepipe.quantities import parse_duration

SLOTS = 3
"""Blocks a worker has in hand: one read, one computed, one written."""
GPU_SLOTS = 8
"""The same for a worker with a GPU, for which reading and writing a block takes several times as
long as computing it."""
WAIT_SECONDS = 600.0
CLOSE_SECONDS = 60.0

UNSEEN = "127.0.0.1:0"
"""Address of Dask's dashboard if nobody asks for one; it cannot be switched off."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A cluster class with a short name."""

    path: str
    """Module and name of the class."""
    package: str
    """Package to install for it."""
    style: Literal["local", "cuda", "ssh", "queue", "kubernetes", "other"]
    """Which arguments set slots, workers and environment variables."""


KINDS = {
    "local": Kind("distributed.LocalCluster", "distributed", "local"),
    "cuda": Kind("dask_cuda.LocalCUDACluster", "dask-cuda", "cuda"),
    "ssh": Kind("distributed.SSHCluster", "asyncssh", "ssh"),
    "kubernetes": Kind("dask_kubernetes.operator.KubeCluster", "dask-kubernetes", "kubernetes"),
    **{
        name: Kind(f"dask_jobqueue.{cls}", "dask-jobqueue", "queue")
        for name, cls in (
            ("slurm", "SLURMCluster"), ("pbs", "PBSCluster"), ("lsf", "LSFCluster"),
            ("sge", "SGECluster"), ("oar", "OARCluster"), ("moab", "MoabCluster"),
            ("htcondor", "HTCondorCluster"),
        )
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """The content of a cluster file."""

    path: str
    """Path of the file, for messages."""
    kind: Kind
    workers: int | None
    """None if `adapt` or the arguments (the hosts of SSH) determine it."""
    adapt: dict[str, Any] | None
    arguments: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    prologue: tuple[str, ...] = ()
    wait: float = WAIT_SECONDS
    """Seconds."""

    @property
    def most(self) -> int:
        """The most workers at once."""
        if self.adapt is not None:
            return int(self.adapt["maximum"])
        if self.workers is not None:
            return self.workers
        hosts = self.arguments.get("hosts")
        return max(1, len(hosts) - 1) if isinstance(hosts, list) else 1

    @property
    def threads(self) -> int | None:
        """CPU threads per pass, if the file sets the cores of a worker."""
        cores = self.arguments.get("cores")
        if self.kind.style != "queue" or not isinstance(cores, int):
            return None
        return max(1, cores // int(self.arguments.get("processes") or 1))

    @property
    def has_dashboard(self) -> bool:
        """Whether the file asks for a dashboard."""
        options = self.arguments.get("scheduler_options") or {}
        return "dashboard_address" in {**self.arguments, **options}

    def full_arguments(self, allowed_failures: int = 3) -> dict[str, Any]:
        """The arguments of the class, with what a run needs where the file gives none.

        Parameters
        ----------
        allowed_failures
            Deaths of workers after which the task that they had in hand is given up.
        """
        given = dict(self.arguments)
        if self.kind.style == "other":
            return given
        if self.kind.style == "kubernetes":
            if "custom_cluster_spec" not in given:  # which replaces everything beside it
                given.setdefault("n_workers", self._at_first)
            return self._with_environment(given)
        given.setdefault("silence_logs", logging.CRITICAL)
        if self.kind.style in ("local", "cuda"):
            return self._on_this_machine(given, allowed_failures)
        scheduler = {
            **self._scheduler_options(allowed_failures),
            **(given.get("scheduler_options") or {}),
        }
        if self.kind.style == "ssh":
            given["worker_options"] = {"nthreads": SLOTS, **given.get("worker_options", {})}
            given["scheduler_options"] = {"port": 0, **scheduler}
            return given
        given["scheduler_options"] = scheduler
        return self._in_jobs(given)

    def _on_this_machine(self, given: dict[str, Any], allowed_failures: int) -> dict[str, Any]:
        given.setdefault("n_workers", self._at_first)
        slots = GPU_SLOTS if self.kind.style == "cuda" else SLOTS
        given.setdefault("threads_per_worker", slots)
        own = of_this_user_only(allowed_failures)
        if self.has_dashboard:
            own["scheduler_kwargs"].pop("dashboard")
        own["scheduler_kwargs"] |= given.pop("scheduler_kwargs", {})
        return self._with_environment(own | given)

    def _in_jobs(self, given: dict[str, Any]) -> dict[str, Any]:
        # Dask would take as many blocks in hand as there are cores; the cores are for a pass.
        extra = list(given.get("worker_extra_args") or [])
        if "--nthreads" not in extra:
            extra += ["--nthreads", str(SLOTS)]
        given["worker_extra_args"] = extra
        variables = [f"export {n}={shlex.quote(str(v))}" for n, v in self.environment.items()]
        prologue = [*(given.get("job_script_prologue") or []), *variables, *self.prologue]
        if prologue:
            given["job_script_prologue"] = prologue
        return given

    def _with_environment(self, given: dict[str, Any]) -> dict[str, Any]:
        if self.environment:
            given.setdefault("env", {name: str(v) for name, v in self.environment.items()})
        return given

    def _scheduler_options(self, allowed_failures: int) -> dict[str, Any]:
        options: dict[str, Any] = {"allowed_failures": allowed_failures}
        if not self.has_dashboard:
            options |= {"dashboard": False, "dashboard_address": UNSEEN}
        return options

    @property
    def _at_first(self) -> int:
        """Workers to start with: one, if they come and go by themselves."""
        return self.workers if self.workers is not None else 1

    def factory(self) -> Callable[..., Any]:
        """The class (or function) that makes the cluster.

        Raises
        ------
        InputError
            When it cannot be imported, or is not a Dask cluster.
        """
        from distributed.deploy import Cluster

        module, _, name = self.kind.path.rpartition(".")
        try:
            found = getattr(import_module(module), name)
        except ImportError as error:
            package = f"; pip install {self.kind.package}" if self.kind.package else ""
            raise InputError(
                f"{self.path}: cluster: {self.kind.path} cannot be imported ({error}){package}"
            ) from error
        except AttributeError as error:
            raise InputError(f"{self.path}: cluster: there is no {name} in {module}") from error
        of_dask = inspect.isclass(found) and issubclass(found, Cluster)
        if not of_dask and self.kind.style != "ssh":  # which is a function
            raise InputError(
                f"{self.path}: cluster: {self.kind.path} is not a Dask cluster; use one of "
                f"{', '.join(KINDS)}, or the path of a class that derives from "
                "distributed.deploy.Cluster"
            )
        return found  # type: ignore[no-any-return]


def read_cluster_file(path: str) -> ClusterFile:
    """Read a cluster file and check what can be checked without starting anything.

    Raises
    ------
    InputError
        Naming the key at fault.
    """
    document = read_yaml(path)
    if not isinstance(document.get("cluster"), str):
        raise InputError(
            f"{path}: cluster must be one of {', '.join(KINDS)}, or the path of a class"
        )
    given = _Content.read(document, path)
    kind, workers, adapt = _kind(path, given["cluster"]), given.get("workers"), given.get("adapt")
    if adapt:
        adapt = _Adapt.read(adapt, f"{path}: adapt")
        if adapt.get("maximum", 0) < max(1, adapt.get("minimum", 1)):
            raise InputError(f"{path}: adapt: maximum is required, and must not be below minimum")
    if workers is None and not adapt and kind.style != "ssh":
        workers = 1
    file = ClusterFile(
        path,
        kind,
        workers,
        adapt or None,
        given.get("arguments") or {},
        given.get("environment") or {},
        given.get("prologue", ()),
        given.get("wait", WAIT_SECONDS),
    )
    if fault := _contradiction(file, given["cluster"]):
        raise InputError(f"{path}: {fault}")
    return file


@dataclass(frozen=True, slots=True)
class _Content(Options):
    """The keys of a cluster file."""

    cluster: str = option(..., "Short name or class of the cluster")
    workers: int | None = option(None, "Number of workers", least=1)
    adapt: dict[str, Any] | None = option(None, "Bounds between which workers come and go")
    arguments: dict[str, Any] | None = option(None, "Arguments of the class")
    environment: dict[str, Any] | None = option(None, "Environment variables of the workers")
    prologue: tuple[str, ...] = option(
        (), "Lines of shell", parse=lambda text: text.splitlines() if type(text) is str else text
    )
    wait: float = option(WAIT_SECONDS, "Time to wait for workers", parse=parse_duration, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adapt(Options):
    """The keys of `adapt`: arguments of `distributed.deploy.Cluster.adapt`."""

    minimum: int = option(1, "Fewest workers", least=0)
    maximum: int = option(..., "Most workers", least=0)
    interval: str | float = option(..., "Time between checks")
    wait_count: int = option(..., "Checks before a worker is retired")
    target_duration: str | float = option(..., "Time in which the work should be done")


def _kind(path: str, name: str) -> Kind:
    kind = KINDS.get(name) or next((k for k in KINDS.values() if k.path == name), None)
    if kind is None and "." not in name:
        raise InputError(
            f"{path}: cluster {name} is not known; there are {', '.join(KINDS)}, and paths of "
            "classes, such as dask_jobqueue.SLURMCluster"
        )
    return kind or Kind(name, "", "other")


def _contradiction(file: ClusterFile, name: str) -> str:
    """Why the keys of a file do not go together; empty where they do."""
    style, arguments = file.kind.style, file.arguments
    hosts = arguments.get("hosts")
    if file.environment and style not in ("local", "queue", "kubernetes"):
        return f"environment: {name} cannot set variables; set them on the hosts"
    if file.environment and "custom_cluster_spec" in arguments:
        return "environment: custom_cluster_spec replaces it; set `env` there"
    if file.prologue and style != "queue":
        return f"prologue: {name} runs no script; only batch systems do"
    if file.workers is not None and file.adapt is not None:
        return "workers and adapt exclude each other"
    if style == "ssh" and (file.workers is not None or file.adapt is not None):
        key = "adapt" if file.adapt else "workers"
        return f"{key}: the hosts determine the workers; the first of them runs the scheduler"
    if style == "ssh" and (not isinstance(hosts, list) or len(hosts) < 2):
        return (
            "arguments: hosts must be a list of at least two hosts; the first runs the scheduler, "
            "and may be repeated as a worker"
        )
    if "n_workers" in arguments:
        return "arguments: n_workers: use `workers:` instead, beside `cluster:`"
    return ""


def of_this_user_only(allowed_failures: int) -> dict[str, Any]:
    """Arguments of a `distributed.LocalCluster` that other users of this machine cannot access.

    Connections need a key that is made for the cluster and known only to its own processes.
    """
    return {
        "security": True,
        "dashboard_address": UNSEEN,
        "scheduler_kwargs": {"dashboard": False, "allowed_failures": allowed_failures},
    }


def start_cluster(file: ClusterFile, allowed_failures: int, workers: int | None = None) -> Any:
    """Start the cluster of a file, with ``workers`` in place of the file's number if given.

    Raises
    ------
    InputError
        When its arguments are wrong, software is missing, or the queue refuses a job.
    """
    factory, arguments = file.factory(), file.full_arguments(allowed_failures)
    if workers is not None and "n_workers" in arguments:
        arguments["n_workers"] = workers
    try:
        cluster = factory(**arguments)
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        raise InputError(f"{file.path}: {file.kind.path}: {what_went_wrong(error)}") from error
    from distributed.deploy import Cluster

    if not isinstance(cluster, Cluster):
        raise InputError(f"{file.path}: cluster: {file.kind.path} does not make a Dask cluster")
    try:
        if "n_workers" not in arguments and file.kind.style != "ssh":
            _scale(cluster, workers or file._at_first)
        if file.adapt is not None and workers is None:
            # One stays: a run plans with it, and must not lose it before its first block.
            cluster.adapt(**{**file.adapt, "minimum": max(1, file.adapt.get("minimum", 1))})
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        close_cluster(cluster)
        raise InputError(f"{file.path}: {file.kind.path}: {what_went_wrong(error)}") from error
    return cluster


def close_cluster(cluster: Any) -> str:
    """Close a cluster and its workers; returns a one-line error, or an empty text."""
    try:
        cluster.close(timeout=CLOSE_SECONDS)
    except AssertionError:
        return ""  # raised by Dask for a worker that never started
    except Exception as error:
        return what_went_wrong(error)
    return ""


def renew(cluster: Any) -> str:
    """Restart workers that a cluster has lost (a job at its walltime, a host that died).

    Returns a one-line error, or an empty text.
    """
    correct = getattr(cluster, "_correct_state", None)
    if correct is None:  # a Kubernetes operator restarts its workers itself
        return ""
    try:
        cluster.sync(correct)
    except Exception as error:
        return what_went_wrong(error)
    return ""


def _scale(cluster: Any, workers: int) -> None:
    """Request workers, and raise errors of the batch system, which `Cluster.scale` only logs."""
    if not hasattr(cluster, "worker_spec"):
        cluster.scale(workers)
        return
    while len(cluster.worker_spec) < workers:
        cluster.worker_spec.update(cluster.new_worker_spec())
    cluster.sync(cluster._correct_state)


def what_went_wrong(error: BaseException) -> str:
    """One line for an error of a cluster class: the output of a failed command, if any."""
    while error.__cause__ is not None:  # the cause of "Nanny failed to start" tells more
        error = error.__cause__
    text = str(error)
    if "stderr:" in text:
        said = [line.strip() for line in text.partition("stderr:")[2].splitlines() if line.strip()]
        if said:
            return " ".join(said)
    if isinstance(error, FileNotFoundError) and error.filename:
        return (
            f"{error.filename} is not installed here; run on a machine that has it (a login node)"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
