"""A running Dask scheduler: whether it answers, and what its workers are and see."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from pathlib import Path
from typing import Any

from tilepipe.diagnosis.disks import Scratch
from tilepipe.diagnosis.findings import Finding
from tilepipe.engine.cluster.cluster_file import SLOTS
from tilepipe.text import count, gigabytes

CONNECT_SECONDS = 3
WORKERS_SECONDS = 20
"""Workers that have not loaded torch yet take a while."""
STRICT = ("python", "dask", "distributed", "msgpack", "cloudpickle")
"""Packages of which client, scheduler and workers should have the same versions: they talk by
them."""
NAMED = 3
"""Workers that are named in one finding."""


def check_scheduler(
    address: str, folder: Path, model: str, image: str | None, scratch: Scratch
) -> list[Finding]:
    """Connect to a scheduler, and ask every worker for what a run would rely on.

    Parameters
    ----------
    address
        Such as ``tcp://head:8786``.
    folder
        Of the output.
    model, image
        As `run` takes them.
    scratch
        Where the folder's marker is made.
    """
    import dask

    # What cannot be reached is a finding; it is not told by Dask as well.
    for name in ("distributed", "distributed.comm", "distributed.client", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with dask.config.set({"distributed.comm.timeouts.connect": CONNECT_SECONDS}):
        return asyncio.run(_ask(address, folder, model, image, scratch))


async def _ask(
    address: str, folder: Path, model: str, image: str | None, scratch: Scratch
) -> list[Finding]:
    from distributed import Client

    # Asynchronous: what does not answer can be left, and no thread of Dask's own waits for it.
    client = Client(address, asynchronous=True, timeout=CONNECT_SECONDS, set_as_default=False)
    try:
        try:
            await asyncio.wait_for(client, 2 * CONNECT_SECONDS)
        except Exception as error:  # whatever answers there, it is no scheduler
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            return [
                Finding("scheduler", "fails", f"{address}: cannot be reached ({reason})",
                        "check the address, that `dask scheduler` runs there, and that no "
                        "firewall is between")
            ]  # fmt: skip
        facts = (await client.scheduler.identity(n_workers=-1))["workers"]
        if not facts:
            advice = f"dask worker {address} --nthreads {SLOTS} --memory-limit 0"
            return [Finding("scheduler", "fails", f"{address}: has no workers", advice)]
        findings = [Finding("scheduler", "ok", f"{address}: {count(len(facts), 'worker')}")]
        findings += _threads(facts)
        try:
            return findings + await asyncio.wait_for(
                _ask_workers(client, folder, model, image, scratch), WORKERS_SECONDS
            )
        except TimeoutError:
            findings.append(
                Finding("workers", "fails", f"did not answer within {WORKERS_SECONDS} s",
                        "look at their logs: they may hang, be busy, or load from a slow disk")
            )  # fmt: skip
            return findings
    finally:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(client._close(fast=True), 1)


async def _ask_workers(
    client: Any, folder: Path, model: str, image: str | None, scratch: Scratch
) -> list[Finding]:
    findings = _versions(await client.get_versions(check=False))
    marker = None
    if folder.is_dir() and os.access(folder, os.W_OK):
        place = scratch.folder(folder).absolute()
        place.chmod(0o777)  # a worker may run as somebody else, who may write in the folder
        marker = str(place / "marker")
        Path(marker).write_text(socket.gethostname())
    where = _absolute(model), None if image is None else str(Path(image).absolute())
    reports = await client.run(look_from_worker, marker, *where, on_error="return")
    return findings + compare_reports(reports, here=_own(*where), folder=folder, asked=marker)


def look_from_worker(marker: str | None, model: str, image: str | None) -> dict[str, Any]:
    """What one worker has and sees; runs on the worker."""
    from tilepipe.engine.hardware import free_memory

    report = _own(model, image)
    if marker is not None:
        path = Path(marker)
        try:
            path.read_text()
            report["sees"] = True
            own = path.with_name(f"{socket.gethostname()}-{os.getpid()}")
            own.write_bytes(b"tilepipe")
            own.unlink()
            report["writes"] = True
        except OSError as error:
            report.setdefault("sees", False)
            report["writes"], report["reason"] = False, error.strerror
    granted = None
    try:
        from distributed import get_worker

        granted = get_worker().memory_manager.memory_limit
    except (ImportError, ValueError, AttributeError):
        pass
    report["granted"] = granted
    report["free"] = free_memory()
    return report


def _own(model: str, image: str | None) -> dict[str, Any]:
    """Versions, device, and the fingerprints of model and image, as this process has them."""
    from importlib.metadata import PackageNotFoundError, version

    from tilepipe.engine.work.environment import choose_device, environment
    from tilepipe.errors import TilepipeError
    from tilepipe.images import open_image
    from tilepipe.models.file import load_model

    report: dict[str, Any] = {"host": socket.gethostname()}
    try:
        report["tilepipe"] = version("tilepipe")
    except PackageNotFoundError:
        report["tilepipe"] = "not installed"
    about = environment(choose_device("auto"), 1)
    report["environment"] = {k: v for k, v in about.items() if k != "threads"}
    try:
        report["model"] = load_model(model).fingerprint
    except TilepipeError as error:
        report["model_error"] = str(error)
    if image is not None:
        try:
            opened = open_image(image)
            report["image"] = opened.fingerprint()
            opened.close()
        except TilepipeError as error:
            report["image_error"] = str(error)
    return report


def compare_reports(
    reports: dict[str, Any], here: dict[str, Any], folder: Path, asked: str | None
) -> list[Finding]:
    """What the workers' reports say, worker by worker compared with this machine and each other.

    Parameters
    ----------
    reports
        Of `look_from_worker`, or the exception it raised, by the worker's address.
    here
        The same of this machine.
    folder
        Of the output.
    asked
        The marker in it that workers had to see, if there was one.
    """
    findings = []
    broken = {a: r for a, r in reports.items() if not isinstance(r, dict)}
    sound = {a: r for a, r in reports.items() if isinstance(r, dict)}
    if broken:
        reason = " ".join(str(next(iter(broken.values()))).split())[:160]
        findings.append(
            Finding("workers", "fails", f"{_names(broken)}: cannot run this version of tilepipe "
                    f"({reason})", "install the same environment on client and workers")
        )  # fmt: skip
    other = {a: r for a, r in sound.items() if r["tilepipe"] != here["tilepipe"]}
    if other:
        found = ", ".join(sorted({r["tilepipe"] for r in other.values()}))
        findings.append(
            Finding("workers", "fails", f"{_names(other)}: tilepipe there is {found}, and here "
                    f"{here['tilepipe']}", "install the same version on client and workers")
        )  # fmt: skip
    if asked is not None:
        blind = {a: r for a, r in sound.items() if not r["sees"]}
        barred = {a: r for a, r in sound.items() if r["sees"] and not r["writes"]}
        if blind:
            findings.append(
                Finding("workers", "fails", f"{_names(blind)}: see no {folder.absolute()}",
                        "put the output on a disk that all share, under the same path")
            )  # fmt: skip
        if barred:
            findings.append(
                Finding("workers", "fails", f"{_names(barred)}: may not write in "
                        f"{folder.absolute()} ({next(iter(barred.values()))['reason']})",
                        "give the workers' user permission")
            )  # fmt: skip
    for what in ("model", "image"):
        lacking = {a: r for a, r in sound.items() if f"{what}_error" in r}
        strange = {
            a: r for a, r in sound.items() if what in r and what in here and r[what] != here[what]
        }
        if lacking:
            reason = next(iter(lacking.values()))[f"{what}_error"]
            findings.append(
                Finding("workers", "fails", f"{_names(lacking)}: cannot open the {what} ({reason})",
                        "put it on a disk that all share, under the same path")
            )  # fmt: skip
        if strange:
            findings.append(
                Finding("workers", "fails", f"{_names(strange)}: see another {what} than this "
                        "machine", "put the same file everywhere, or on a shared disk")
            )  # fmt: skip
    kinds = {tuple(sorted(r["environment"].items())) for r in sound.values()}
    if len(kinds) > 1:
        differ = sorted({k for kind in kinds for k, v in kind
                         if any((k, v) not in other for other in kinds)})  # fmt: skip
        findings.append(
            Finding("workers", "fails", f"the workers differ in {', '.join(differ)}, and so would "
                    "their results in the last digits",
                    "workers of one kind, or --allow-mixed, which promises equal labels up to ties")
        )  # fmt: skip
    least = min((r["free"] if not r["granted"] else min(r["free"], r["granted"])
                 for r in sound.values()), default=0)  # fmt: skip
    limited = {a: r for a, r in sound.items() if r["granted"] and r["granted"] < 0.95 * r["free"]}
    if limited:
        granted = gigabytes(min(r["granted"] for r in limited.values()))
        findings.append(
            Finding("workers", "slow", f"{_names(limited)}: Dask grants {granted}, and ends a "
                    "worker that comes near it; runs allow themselves half",
                    "dask worker --memory-limit 0, and --memory for the run")
        )  # fmt: skip
    if sound and not any(f.level == "fails" for f in findings):
        devices = ", ".join(sorted({r["environment"]["device"] for r in sound.values()}))
        hosts = count(len({r["host"] for r in sound.values()}), "host")
        findings.append(
            Finding("workers", "ok", f"{count(len(sound), 'worker')} on {hosts} ({devices}), "
                    f"at least {gigabytes(least)} free for each"
                    + (", see output and model" if asked is not None else ", see the model"))
        )  # fmt: skip
    return findings


def _versions(found: dict[str, Any]) -> list[Finding]:
    """Packages of which the machines have different versions."""
    by_package: dict[str, set[str]] = {}
    places = [found.get("client"), found.get("scheduler"), *found.get("workers", {}).values()]
    for place in places:
        packages = dict((place or {}).get("packages") or {})
        packages["python"] = str(packages.get("python", "")).rpartition(".")[0]  # 3.12 of 3.12.1...
        for name in STRICT:
            if packages.get(name):
                by_package.setdefault(name, set()).add(str(packages[name]))
    differ = {name: versions for name, versions in by_package.items() if len(versions) > 1}
    if not differ:
        return []
    text = ", ".join(f"{name} {' and '.join(sorted(v))}" for name, v in differ.items())
    return [
        Finding("versions", "slow", f"client, scheduler and workers have different {text}: tasks "
                "may fail to travel", "install the same environment everywhere")
    ]  # fmt: skip


def _threads(facts: dict[str, Any]) -> list[Finding]:
    threads = {address: int(worker["nthreads"]) for address, worker in facts.items()}
    few = {a: n for a, n in threads.items() if n < SLOTS - 1}
    many = {a: n for a, n in threads.items() if n > 2 * SLOTS}
    advice = f"dask worker --nthreads {SLOTS}, and --threads CORES for the run"
    if few:
        return [
            Finding("workers", "slow", f"{_names(few)}: one thread, so that nothing is read while "
                    "a block is computed", advice)
        ]  # fmt: skip
    if many:
        return [
            Finding("workers", "slow", f"{_names(many)}: {max(many.values())} threads, each of "
                    "which keeps a block in memory, and one of which computes", advice)
        ]  # fmt: skip
    return []


def _absolute(model: str) -> str:
    return str(Path(model).absolute()) if Path(model).exists() else model


def _names(workers: dict[str, Any]) -> str:
    names = list(workers)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"worker {', '.join(names[:NAMED])}{more}"
