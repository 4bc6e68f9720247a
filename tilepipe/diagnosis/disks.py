"""Check the disk of an output: space, kind, speed, locks; test files are removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tilepipe.diagnosis.findings import Finding
from tilepipe.text import gigabytes

NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "ceph", "glusterfs", "lustre", "gpfs",
    "beegfs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.rclone", "afpfs",
    "webdav", "davfs", "virtiofs",
}  # fmt: skip
MOST_BYTES = 256 << 20
MOST_SECONDS = 1.0
"""For writing, and again for reading."""
FILES = 200
FILE_BYTES = 16 << 10
"""About what a chunk of a mask takes."""
SLOW_DISK = 50e6
"""Bytes a second below which writing masks slows runs."""
SLOW_FILES = 50
"""Files a second."""


class Scratch:
    """Folders for test files, removed whatever happens."""

    def __init__(self) -> None:
        self._folders: list[Path] = []

    def folder(self, within: Path) -> Path:
        """A new folder within another.

        Raises
        ------
        OSError
            Where none can be made.
        """
        path = Path(tempfile.mkdtemp(prefix=".tilepipe-doctor-", dir=within))
        self._folders.append(path)
        return path

    def clear(self) -> list[Finding]:
        """Remove the folders; files that are still being written vanish with their writer."""
        while self._folders:
            shutil.rmtree(self._folders.pop(), ignore_errors=True)
        return []


@dataclass(frozen=True, slots=True)
class Speeds:
    """Measured speeds of a disk."""

    write: float
    """Bytes a second, until they are on the disk."""
    read: float | None
    """Bytes a second, not from memory; None where that cannot be measured."""
    files: float
    """Small files a second."""


def check_folder(folder: Path) -> list[Finding]:
    """Check that an output can be written in a folder."""
    if not folder.exists():
        return [Finding("output", "fails", f"{folder}: there is no such folder", "create it first")]
    if not folder.is_dir():
        return [Finding("output", "fails", f"{folder}: is not a folder", "choose another one")]
    try:
        handle, name = tempfile.mkstemp(prefix=".tilepipe-doctor-", dir=folder)
    except OSError as error:
        return [Finding("output", "fails", f"{folder}: cannot be written to ({error.strerror})",
                        "choose another folder with -o, or ask for permission")]  # fmt: skip
    os.close(handle)
    Path(name).unlink(missing_ok=True)
    return []


def check_room(folder: Path, needed: int | None = None, free: int | None = None) -> list[Finding]:
    """Check the free space on a folder's disk.

    Parameters
    ----------
    folder
        Of the output.
    needed
        Bytes of the masks before they are compressed, where the image is known.
    free
        Bytes [as the disk reports them].
    """
    free = shutil.disk_usage(folder).free if free is None else free
    entries = os.statvfs(folder)
    what = f"{gigabytes(free)} free"
    if entries.f_files and not entries.f_favail:
        return [Finding("room", "fails", "the disk takes no more files (its inodes are used up)",
                        "remove files, or choose another -o")]  # fmt: skip
    if free < 50e6:
        return [Finding("room", "fails", what, "free space, or choose another -o")]
    if needed is not None and free < needed / 50:
        return [Finding("room", "fails", f"{what}, and the masks are {gigabytes(needed)} before "
                        "they are compressed", "free space, or choose another -o")]  # fmt: skip
    if free < (1e9 if needed is None else needed):
        more = "" if needed is None else (
            f", and the masks are {gigabytes(needed)} before they are compressed, which may make "
            "them much smaller, or not"
        )  # fmt: skip
        return [Finding("room", "slow", what + more, "free space, or choose another -o")]
    return [Finding("room", "ok", what)]


def check_disk(
    folder: Path, scratch: Scratch, kind: str | None = None, speeds: Speeds | None = None
) -> list[Finding]:
    """Check the kind of a folder's disk, its speed, and that locks and renaming work on it.

    Parameters
    ----------
    folder, scratch
        Of the output, and what makes folders in it.
    kind, speeds
        Of the file system [as found, and measured].
    """
    kind = kind or file_system(folder)
    place = scratch.folder(folder)
    findings = _check_locks(place, kind)
    speeds = speeds or measure(place)
    what = f"{kind}: writes {speeds.write / 1e6:,.0f} MB/s"
    what += "" if speeds.read is None else f", reads {speeds.read / 1e6:,.0f} MB/s"
    what += f", {speeds.files:,.0f} small files a second"
    if kind in ("tmpfs", "ramfs"):
        findings.append(
            Finding("disk", "slow", f"{what}; it is held in memory, which --memory does not "
                    "count", "choose an -o on a disk")
        )  # fmt: skip
    elif kind == "overlay":
        findings.append(
            Finding("disk", "slow", f"{what}; it is the container's own layer, which is slow, and "
                    "is lost with the container", "choose an -o on a mounted volume")
        )  # fmt: skip
    elif min(speeds.write, speeds.read or speeds.write) < SLOW_DISK:
        findings.append(
            Finding("disk", "slow", f"{what}", "write to a faster disk, then copy the masks")
        )  # fmt: skip
    elif speeds.files < SLOW_FILES:
        findings.append(
            Finding("disk", "slow", f"{what}: an OME-Zarr is many files", "write the OME-Zarr to a "
                    "local disk; -o NAME.ome.tif or .tif alone also makes one, for a while, beside "
                    "itself")
        )  # fmt: skip
    else:
        note = "; a network file system: locks and renaming work" if kind in NETWORK else ""
        findings.append(Finding("disk", "ok", what + (note if len(findings) == 0 else "")))
    return findings


def file_system(path: Path) -> str:
    """The type of the file system that a path lies on, such as ``ext4`` or ``nfs4``."""
    import psutil

    path = path.resolve()
    mounts = [
        (len(Path(part.mountpoint).parts), part.fstype)
        for part in psutil.disk_partitions(all=True)
        if path.is_relative_to(part.mountpoint)
    ]
    # Of two that are mounted at one place, the later one is seen.
    return max(enumerate(mounts), key=lambda m: (m[1][0], m[0]))[1][1] if mounts else "unknown"


def measure(folder: Path) -> Speeds:
    """Measure how fast a disk writes, reads, and creates small files, within about 3 seconds."""
    content = os.urandom(1 << 20)
    with _unnamed(folder) as file:
        begin, written, step = time.perf_counter(), 0, 1
        while written < MOST_BYTES and time.perf_counter() - begin < MOST_SECONDS:
            for _ in range(step):
                written += os.write(file, content)
            # Step by step, so that a slow disk is not left with seconds of writing at the end.
            os.fsync(file)
            step = min(16, 2 * step)
        write = written / (time.perf_counter() - begin)
        read = None
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.lseek(file, 0, os.SEEK_SET)
            begin, got = time.perf_counter(), 0
            while time.perf_counter() - begin < MOST_SECONDS:
                piece = os.read(file, 1 << 20)
                if not piece:
                    break
                got += len(piece)
            read = got / max(time.perf_counter() - begin, 1e-9)
    small = content[:FILE_BYTES]
    begin, count = time.perf_counter(), 0
    while count < FILES and time.perf_counter() - begin < MOST_SECONDS:
        path = folder / f"{count}.part"
        path.write_bytes(small)
        path.replace(folder / str(count))
        count += 1
    return Speeds(write, read, count / max(time.perf_counter() - begin, 1e-9))


@contextmanager
def _unnamed(folder: Path) -> Iterator[int]:
    """A file that disappears with this process, however it ends."""
    path = folder / "speed"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with contextlib.suppress(OSError):  # file systems that do not let go of open files
            path.unlink()
        yield file
    finally:
        os.close(file)
        path.unlink(missing_ok=True)


def _check_locks(folder: Path, kind: str) -> list[Finding]:
    """Check that locks exclude others and that a file can replace another, as runs require."""
    from filelock import FileLock, Timeout

    findings = []
    try:
        with FileLock(folder / "lock", timeout=2):
            other = FileLock(folder / "lock", timeout=0)
            try:
                other.acquire()
                other.release()
                works = False
            except Timeout:
                works = True
    except (OSError, NotImplementedError, Timeout):
        works = False
    if not works:
        findings.append(
            Finding("locks", "fails", f"locks do not work on this {kind} file system, so two "
                    "runs could write one mask", "choose an -o on another disk, or mount it with "
                    "locking")
        )  # fmt: skip
    one, other_file = folder / "new", folder / "old"
    one.write_bytes(b"new")
    other_file.write_bytes(b"old")
    try:
        one.replace(other_file)
        renamed = other_file.read_bytes() == b"new" and not one.exists()
    except OSError:
        renamed = False
    if not renamed:
        findings.append(
            Finding("locks", "fails", f"a file cannot take the place of another on this {kind} "
                    "file system", "choose an -o on another disk")
        )  # fmt: skip
    return findings
