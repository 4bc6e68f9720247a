"""Check a running Dask scheduler: whether it answers, and what its workers can see."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from pathlib import Path
from typing import Any, Literal

from tilepipe.diagnosis.disks import Scratch
from tilepipe.diagnosis.findings import Finding
from tilepipe.engine.cluster.cluster_file import GPU_SLOTS, SLOTS
from tilepipe.text import count, gigabytes

CONNECT_SECONDS = 3
WORKERS_SECONDS = 20
"""Workers that have not loaded torch yet take a while."""
STRICT = ("python", "dask", "distributed", "msgpack", "cloudpickle")
"""Packages that must have the same version on client, scheduler and workers, which communicate
through them."""
NAMED = 3
"""Workers that one finding names."""


def check_scheduler(
    address: str, folder: Path, model: str, image: str | None, scratch: Scratch
) -> list[Finding]:
    """Connect to a scheduler, and check on every worker what a run relies on.

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
    import distributed  # noqa: F401 - loads its defaults, which a setting made first would replace

    # What cannot be reached is a finding; Dask need not log it as well.
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
                        "check their logs: they may hang, be busy, or load from a slow disk")
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
    """Report what a worker has and sees; runs on the worker."""
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
    """Compare the workers' reports with this machine's and with each other.

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
    broken = {a: r for a, r in reports.items() if not isinstance(r, dict)}
    sound = {a: r for a, r in reports.items() if isinstance(r, dict)}
    findings = [*_broken(broken), *_other_tilepipe(sound, here)]
    if asked is not None:
        findings += _without_folder(sound, folder)
    for what in ("model", "image"):
        findings += _without_file(sound, here, what)
    findings += [*_unlike(sound), *_limited(sound)]
    if sound and not any(f.level == "fails" for f in findings):
        findings.append(_all_well(sound, sees_output=asked is not None))
    return findings


def _failing(workers: dict[str, Any], what: str, do: str) -> list[Finding]:
    """A finding for these workers; none where there are none."""
    return [Finding("workers", "fails", f"{_names(workers)}: {what}", do)] if workers else []


def _first(workers: dict[str, Any], key: str) -> Any:
    return next(iter(workers.values()))[key] if workers else ""


def _broken(workers: dict[str, Any]) -> list[Finding]:
    reason = " ".join(str(next(iter(workers.values()), "")).split())[:160]
    return _failing(
        workers, f"cannot run this version of tilepipe ({reason})",
        "install the same environment on client and workers",
    )  # fmt: skip


def _other_tilepipe(workers: dict[str, Any], here: dict[str, Any]) -> list[Finding]:
    other = {a: r for a, r in workers.items() if r["tilepipe"] != here["tilepipe"]}
    found = ", ".join(sorted({r["tilepipe"] for r in other.values()}))
    return _failing(
        other, f"tilepipe there is {found}, and here {here['tilepipe']}",
        "install the same version on client and workers",
    )  # fmt: skip


def _without_folder(workers: dict[str, Any], folder: Path) -> list[Finding]:
    blind = {a: r for a, r in workers.items() if not r["sees"]}
    barred = {a: r for a, r in workers.items() if r["sees"] and not r["writes"]}
    return [
        *_failing(blind, f"see no {folder.absolute()}",
                  "put the output on a disk that all share, under the same path"),
        *_failing(barred, f"may not write in {folder.absolute()} ({_first(barred, 'reason')})",
                  "give the workers' user permission"),
    ]  # fmt: skip


def _without_file(
    workers: dict[str, Any], here: dict[str, Any], what: Literal["model", "image"]
) -> list[Finding]:
    lacking = {a: r for a, r in workers.items() if f"{what}_error" in r}
    strange = {
        a: r for a, r in workers.items() if what in r and what in here and r[what] != here[what]
    }
    return [
        *_failing(lacking, f"cannot open the {what} ({_first(lacking, f'{what}_error')})",
                  "put it on a disk that all share, under the same path"),
        *_failing(strange, f"see another {what} than this machine",
                  "put the same file everywhere, or on a shared disk"),
    ]  # fmt: skip


def _unlike(workers: dict[str, Any]) -> list[Finding]:
    """Whether the workers differ from each other in what results depend on."""
    kinds = {tuple(sorted(r["environment"].items())) for r in workers.values()}
    if len(kinds) < 2:
        return []
    differ = sorted({k for kind in kinds for k, v in kind
                     if any((k, v) not in other for other in kinds)})  # fmt: skip
    return [
        Finding("workers", "fails", f"the workers differ in {', '.join(differ)}, and so would "
                "their results in the last digits",
                "use workers of one kind, or --allow-mixed, which promises equal labels up to ties")
    ]  # fmt: skip


def _limited(workers: dict[str, Any]) -> list[Finding]:
    """Whether Dask would end workers before their memory is used up."""
    limited = {a: r for a, r in workers.items() if r["granted"] and r["granted"] < 0.95 * r["free"]}
    if not limited:
        return []
    granted = gigabytes(min(r["granted"] for r in limited.values()))
    return [
        Finding("workers", "slow", f"{_names(limited)}: Dask grants {granted} and ends a worker "
                "that comes near it; runs allow themselves half",
                "dask worker --memory-limit 0, and --memory for the run")
    ]  # fmt: skip


def _all_well(workers: dict[str, Any], *, sees_output: bool) -> Finding:
    devices = ", ".join(sorted({r["environment"]["device"] for r in workers.values()}))
    hosts = count(len({r["host"] for r in workers.values()}), "host")
    least = min(min(r["free"], r["granted"] or r["free"]) for r in workers.values())
    seen = "see output and model" if sees_output else "see the model"
    return Finding(
        "workers", "ok", f"{count(len(workers), 'worker')} on {hosts} ({devices}), at least "
        f"{gigabytes(least)} free for each, {seen}",
    )  # fmt: skip


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
    many = {a: n for a, n in threads.items() if n > GPU_SLOTS}
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
