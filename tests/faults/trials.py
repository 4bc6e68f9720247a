"""One function for each kind of fault: it disturbs a run, and says what came of it.

A trial draws its moment from a generator of its own, so that its number tells it all. What is
wrong goes into the outcome; nothing is raised, so that one finding does not end the suite.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
import tifffile

from tests.faults.scene import (
    NO_ANSWER,
    Case,
    Reference,
    Scene,
    labels_of,
    permitted,
    tiles_of,
    wait_for,
)
from tests.making import digest
from tests.zygote import LONGEST, Run, Zygote
from tilepipe.engine.state.folder import FOLDER
from tilepipe.engine.state.ledger import read_ledger

MEGABYTE = 1 << 20


@dataclass
class Outcome:
    """What came of one trial."""

    kind: str
    case: str
    number: int
    codes: list[int] = field(default_factory=list)
    """Exit status of each run, the disturbed one first."""
    same: bool = False
    """Whether the same command ended with the bytes of an undisturbed run."""
    named: bool = False
    """Whether a run ended with exit code 3 and named its blocks."""
    wrong: int = 0
    """Pixels that had an answer at any time that is not the reference's."""
    lost: int = 0
    """Pixels without an answer beyond those whose window touches unreadable input."""
    kills: int = 0
    faults: list[str] = field(default_factory=list)
    """What should not have been."""
    seconds: float = 0.0


class Trial:
    """One fault on one case, in a folder of its own."""

    def __init__(
        self, scene: Scene, zygote: Zygote, case: Case, kind: str, number: int, folder: Path
    ) -> None:
        self.scene, self.zygote, self.case = scene, zygote, case
        self.reference: Reference = scene.reference(zygote, case)
        self.random = Random(f"{kind} {case.name} {number}")
        self.outcome = Outcome(kind, case.name, number)
        self.folder = folder
        self.image = scene.folder / case.image
        self.plain = False

    @property
    def store(self) -> Path:
        return self.folder / self.case.store

    @property
    def state(self) -> Path:
        return self.store / FOLDER

    def start(self, fault: dict[str, Any] | None = None, *more: str) -> Run:
        """Give the command."""
        log = self.beside(f"{len(self.outcome.codes)}.log")
        command = [*self.scene.command(self.case, self.folder, self.image), *more]
        return self.zygote.start(command, log, fault, plain=self.plain)

    def beside(self, suffix: str) -> Path:
        """A path that is not among the outputs."""
        return self.folder.with_name(f"{self.folder.name}.{suffix}")

    def ended(self, run: Run, *allowed: int) -> int:
        """Wait for a run, and take note of its end."""
        code = run.wait()
        self.outcome.codes.append(code)
        if code not in allowed:
            self.complain(f"ended with {code}, not {allowed}: {run.said[-400:]}")
        if "Traceback" in run.said:
            self.complain(f"a traceback: {run.said[-800:]}")
        self._leave_nobody(run)
        return code

    def complain(self, what: str) -> None:
        self.outcome.faults.append(what)

    def done(self) -> int:
        """Records in the ledger."""
        return sum(1 for _ in read_ledger(self.state / "ledger"))

    def moment(self, run: Run) -> bool:
        """Wait for a random moment of the run, all its parts drawn; False: it ended before."""
        draw = self.random.random()
        if draw < 0.3:  # any time, planning too
            end = time.monotonic() + self.random.uniform(0, 1.05) * self.reference.seconds
            return wait_for(run, lambda: time.monotonic() > end)
        if draw < 0.8:
            wanted = self.random.randint(1, self.reference.records)
            return wait_for(run, lambda: self.done() >= wanted)
        if draw < 0.9:
            level = self.store / str(self.random.randint(1, 2)) / "c"
            return wait_for(run, level.exists)
        return wait_for(run, lambda: any(self.folder.glob("*.part")))

    def complete(self, *more: str) -> None:
        """The same command, undisturbed: it must end with the same bytes."""
        run = self.start(None, *more)
        self.ended(run, 0)
        self.compare()

    def compare(self) -> None:
        """Compare all bytes with those of the undisturbed run."""
        ours = digest(self.folder)
        self.outcome.same = ours == self.reference.digest
        if not self.outcome.same:
            differing = [
                name
                for name in ours.keys() | self.reference.digest.keys()
                if ours.get(name) != self.reference.digest.get(name)
            ]
            self.complain(f"other bytes: {sorted(differing)[:6]}")
        self.look()

    def look(self, allowed: np.ndarray | None = None, *, whole: bool = True) -> None:
        """Count wrong and lost pixels of the mask as it lies there."""
        path = self.folder / self.case.outputs[0]
        metadata = path / "0" / "zarr.json"
        if not path.exists() or (path.suffix == ".zarr" and not metadata.exists()):
            return
        labels = labels_of(path)
        differs = labels != self.reference.labels
        self.outcome.wrong += int((differs & (labels != NO_ANSWER)).sum())
        if whole:
            lost = differs & (labels == NO_ANSWER)
            self.outcome.lost += int((lost & ~allowed).sum() if allowed is not None else lost.sum())

    def named(self, run: Run) -> list[int]:
        """The blocks that a run of exit code 3 named; they must be those with lost pixels."""
        record = next(self.folder.glob("*.run.json"), None)
        if record is None:
            self.complain("there is no run record")
            return []
        blocks = json.loads(record.read_text())["blocks"]["incomplete"]
        numbers = [block["number"] for block in blocks]
        self.outcome.named = bool(numbers) and all(
            re.search(rf"block {number}\b", run.said) for number in numbers
        )
        if not self.outcome.named:
            self.complain(f"blocks {numbers} not named in: {run.said[-400:]}")
        path = self.folder / self.case.outputs[0]
        missing = (labels_of(path) == NO_ANSWER) & (self.reference.labels != NO_ANSWER)
        for block in blocks:
            y, x = block["window"]["y"], block["window"]["x"]
            missing[y : y + block["window"]["height"], x : x + block["window"]["width"]] = False
        if missing.any():
            self.complain(f"{missing.sum()} pixels without an answer in blocks that are not named")
        return numbers

    def _leave_nobody(self, run: Run) -> None:
        """No process of a dead client may stay about."""
        end = time.monotonic() + LONGEST
        while time.monotonic() < end:
            alive = [p for p in psutil.process_iter(["status"]) if _in_group(p, run.pid)]
            if not alive:
                return
            time.sleep(0.02)
        self.complain(f"{len(alive)} processes outlived their client by {LONGEST:.0f} s")
        run.kill(everyone=True)


def _in_group(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.Error):
        return False


def kill_client(trial: Trial) -> None:
    run = trial.start()
    if trial.moment(run):
        run.kill()
        trial.outcome.kills += 1
    trial.ended(run, -signal.SIGKILL, 0)
    trial.look(whole=False)
    trial.complete()


def kill_writer(trial: Trial) -> None:
    """A process ends in the middle of writing a chunk of the mask or of its pyramid."""
    chunks = len([n for n in trial.reference.digest if "/c/" in n]) or trial.reference.records
    share = 2 if "--workers" in trial.case.more else 1
    run = trial.start({"kill_in_write": trial.random.randint(1, max(1, chunks // share))})
    # One of two workers may have written less than it takes.
    code = trial.ended(run, -signal.SIGKILL, *((4, 0) if share == 2 else ()))
    trial.outcome.kills += code != 0
    trial.look(whole=False)
    trial.complete()


def kill_worker(trial: Trial) -> None:
    """One worker process dies; the run goes on by itself, or says so and is resumed."""
    run = trial.start({"slow_write": 0.02})
    wanted = trial.random.randint(1, trial.reference.records * 2 // 3)
    if wait_for(run, lambda: trial.done() >= wanted):
        workers = _workers(run.pid)
        if workers:
            trial.random.choice(workers).kill()
            trial.outcome.kills += 1
    if trial.ended(run, 0, 4):
        trial.look(whole=False)
        trial.complete()
    else:
        trial.compare()


def _workers(client: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(client).children(recursive=True):
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return sorted(found, key=lambda process: process.pid)


def terminate(trial: Trial) -> None:
    """SIGTERM or SIGINT, as a batch system and Ctrl-C send them."""
    run = trial.start()
    sent = trial.moment(run)
    if sent:
        run.kill(trial.random.choice([signal.SIGTERM, signal.SIGINT]))
    code = trial.ended(run, 130, 0)
    if sent and code == 130 and "interrupted" not in run.said:
        trial.complain(f"it does not say how to go on: {run.said[-300:]}")
    trial.look(whole=False)
    trial.complete()


def disk_full(trial: Trial) -> None:
    """The disk has no more room at some moment; then it has."""
    # The lock, the plan and the metadata of the mask take about 100 kB.
    need = sum(f.stat().st_size for f in trial.reference.folder.rglob("*") if f.is_file())
    room = int(trial.random.uniform(0.02, 1.0) * need)
    with _tmpfs(trial.folder, room):
        run = trial.start()
        code = trial.ended(run, 4, 0)
        if code == 4 and "make room" not in run.said:
            trial.complain(f"it does not say what to do: {run.said[-300:]}")
        trial.look(whole=False)
        subprocess.run(
            ["mount", "-o", f"remount,size={64 * MEGABYTE}", str(trial.folder)], check=True
        )
        trial.complete()


@contextmanager
def _tmpfs(folder: Path, size: int) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def no_permission(trial: Trial) -> None:
    """The right to write is taken from the whole output folder; then given again."""
    trial.plain = os.geteuid() == 0
    run = trial.start({"slow_write": 0.01})
    stopped = trial.moment(run)
    if stopped:
        _set_modes(trial.folder, writable=False)
    code = trial.ended(run, 4, 2, 0)
    if code and "permission" not in run.said and "may not write" not in run.said:
        trial.complain(f"it does not say what to do: {run.said[-300:]}")
    trial.look(whole=False)
    _set_modes(trial.folder, writable=True)
    trial.complete()


def _set_modes(folder: Path, *, writable: bool) -> None:
    """Of folders; again and again, as the run makes new ones meanwhile."""
    for _ in range(3):
        for path, _, _ in os.walk(folder):
            if not path.endswith(FOLDER):
                Path(path).chmod(0o755 if writable else 0o555)


def unreadable_tile(trial: Trial) -> None:
    """Bad sectors under some tiles of the image: reading them gives EIO."""
    tiles = trial.random.sample(tiles_of(trial.image), trial.random.randint(1, 3))
    ranges = [[offset, offset + count] for offset, count, _, _ in tiles]
    _unreadable(trial, tiles, {"read_error": ranges})
    trial.complete()


def _unreadable(trial: Trial, tiles: list[Any], fault: dict[str, Any] | None) -> None:
    """A run ends with exit code 3, blocks named, and loses what it must and nothing else."""
    run = trial.start(fault)
    trial.ended(run, 3)
    bad = [(rows, columns) for _, _, rows, columns in tiles]
    trial.look(permitted(trial.reference.labels.shape, bad, trial.scene.reach))
    trial.named(run)


def reads_fail_for_a_while(trial: Trial) -> None:
    """All reads fail for a moment, as of a network that is away; retries may bridge it."""
    flag = trial.beside("flag")
    everything = [[0, 1 << 62]]
    run = trial.start({"read_error": everything, "while": str(flag), "slow_read": 0.002})
    if trial.moment(run):
        flag.touch()
        time.sleep(trial.random.uniform(0.05, 1.0))
    flag.unlink(missing_ok=True)
    if trial.ended(run, 0, 2, 3) == 3:
        trial.named(run)
    trial.look(whole=False)
    trial.complete()


def reads_hang(trial: Trial) -> None:
    """A read that never returns: the run can be stopped, and goes on when reads return again."""
    flag = trial.beside("flag")
    flag.touch()
    offset, count, _, _ = trial.random.choice(tiles_of(trial.image))
    more = ("--timeout", "0.1") if trial.random.random() < 0.5 else ()
    run = trial.start({"hang": [[offset, offset + count]], "while": str(flag)}, *more)
    before, since, patience = -1, time.monotonic(), 3 * trial.reference.seconds
    while run.poll() is None and time.monotonic() - since < patience:
        if (now := trial.done()) != before:
            before, since = now, time.monotonic()
            if now:
                patience = 30.0 if more else 3.0
        time.sleep(0.05)
    run.kill(signal.SIGTERM)
    end = time.monotonic() + LONGEST
    while run.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    if run.poll() is None:
        trial.complain(f"SIGTERM did not stop a run whose read hangs within {LONGEST:.0f} s")
        run.kill(everyone=True)
    code = trial.ended(run, 130, 4) if more else trial.ended(run, 130)
    if code == 4 and "no block finished for" not in run.said:
        trial.complain(f"it does not say what hangs: {run.said[-300:]}")
    flag.unlink()
    trial.look(whole=False)
    trial.complete()


def damaged_tile(trial: Trial) -> None:
    """Bytes of compressed tiles are altered; then the image is repaired."""
    whole = trial.image
    trial.image = trial.beside(whole.name)
    content = bytearray(whole.read_bytes())
    tiles = trial.random.sample(tiles_of(whole), trial.random.randint(1, 3))
    for offset, count, _, _ in tiles:
        start = offset + trial.random.randrange(count)
        length = trial.random.randint(1, min(64, offset + count - start))
        for place in range(start, start + length):
            content[place] ^= trial.random.randint(1, 255)
    trial.image.write_bytes(content)
    _unreadable(trial, tiles, None)
    shutil.copyfile(whole, trial.image)
    trial.complete()


def cut_image(trial: Trial) -> None:
    """The end of the image is missing, as of a copy that was broken off; then it is there."""
    whole = trial.image
    trial.image = trial.beside(whole.name)
    shutil.copyfile(whole, trial.image)
    keep = int(trial.random.uniform(0.3, 0.999) * whole.stat().st_size)
    os.truncate(trial.image, keep)
    tiles = [t for t in tiles_of(whole) if t[0] + t[1] > keep]
    run = trial.start()
    if trial.ended(run, 2, 3) == 3:
        bad = [(rows, columns) for _, _, rows, columns in tiles]
        trial.look(permitted(trial.reference.labels.shape, bad, trial.scene.reach))
        trial.named(run)
    shutil.copyfile(whole, trial.image)
    trial.complete()


def _stopped(trial: Trial) -> None:
    """A run that was killed at a random moment, or ended: something lies there."""
    run = trial.start()
    trial.moment(run)
    run.kill()
    trial.outcome.kills += trial.ended(run, -signal.SIGKILL, 0) != 0


def damaged_ledger(trial: Trial) -> None:
    """The ledger is cut at any byte, a byte of it altered, or it is gone."""
    _stopped(trial)
    ledger = trial.state / "ledger"
    content = bytearray(ledger.read_bytes()) if ledger.exists() else bytearray()
    if content:
        place, how = trial.random.randrange(len(content)), trial.random.randrange(3)
        if how == 0:
            os.truncate(ledger, place)
        elif how == 1:
            content[place] ^= trial.random.randint(1, 255)
            ledger.write_bytes(content)
        else:
            ledger.unlink()
    trial.complete()


def damaged_plan(trial: Trial) -> None:
    """The plan is cut, or gone: one sentence that says what to do, or a new beginning."""
    _stopped(trial)
    plan = trial.state / "plan.json"
    if plan.exists():
        if trial.random.random() < 0.5:
            os.truncate(plan, trial.random.randrange(plan.stat().st_size))
        else:
            plan.unlink()
    run = trial.start()
    if trial.ended(run, 0, 2):
        if "--overwrite" not in run.said or len(run.said.strip().splitlines()) != 1:
            trial.complain(f"no clear sentence: {run.said[-300:]}")
        trial.complete("--overwrite")
    else:
        trial.compare()


def damaged_run_file(trial: Trial) -> None:
    """What says which run may write is cut, or gone."""
    _stopped(trial)
    file = trial.state / "run.json"
    if file.exists():
        if trial.random.random() < 0.5:
            os.truncate(file, trial.random.randrange(file.stat().st_size))
        else:
            file.unlink()
    trial.complete()


def damaged_mask(trial: Trial) -> None:
    """A file of the mask, its pyramid or its exports is cut or gone between two runs."""
    _stopped(trial)
    files = [
        path
        for path in trial.folder.rglob("*")
        if path.is_file()
        and FOLDER not in path.parts
        and (path.name.isdigit() or path.name in trial.case.outputs)
    ]
    if files:
        file = trial.random.choice(sorted(files))
        if trial.random.random() < 0.5:
            os.truncate(file, trial.random.randrange(file.stat().st_size))
        else:
            file.unlink()
    run = trial.start()
    if trial.ended(run, 0, 2):  # an export alone, without the mask it was made of
        if "--overwrite" not in run.said or trial.store.exists():
            trial.complain(f"no clear sentence: {run.said[-300:]}")
        trial.complete("--overwrite")
    else:
        trial.compare()


def _chunks(trial: Trial, levels: str = "*") -> list[Path]:
    """The chunks of the mask as it lies there."""
    found = [*trial.store.glob(f"{levels}/c/*/*"), *trial.store.glob(f"overviews/{levels}/c/*/*")]
    return sorted(path for path in found if path.name.isdigit())


def _scrubbed(trial: Trial, *, damaged: bool) -> None:
    """`verify --scrub` finds what is damaged in a finished mask; the run then mends it."""
    mask = trial.folder / trial.case.outputs[0]
    log = trial.beside("scrub.log")
    image = ["--image", str(trial.image)]
    run = trial.zygote.start(["verify", str(mask), "--windows", "1", "--scrub", *image], log)
    if trial.ended(run, 5 if damaged else 0, 2) == 2 and "Error" in run.said:
        trial.complain(f"no clear sentence: {run.said[-300:]}")
    run = trial.start()
    if trial.ended(run, 0, 2):  # an export alone, without the mask it was made of
        if "--overwrite" not in run.said or trial.store.exists():
            trial.complain(f"no clear sentence: {run.said[-300:]}")
        trial.complete("--overwrite")
    else:
        trial.compare()


def flipped_bit(trial: Trial) -> None:
    """One bit of a chunk of any level, or of an export, is another between two runs."""
    _stopped(trial)
    files = _chunks(trial) + [f for n in trial.case.outputs if (f := trial.folder / n).is_file()]
    if files:
        file = trial.random.choice(files)
        content = bytearray(file.read_bytes())
        content[trial.random.randrange(len(content))] ^= 1 << trial.random.randrange(8)
        file.write_bytes(content)
    _scrubbed(trial, damaged=bool(files))


def swapped_chunks(trial: Trial) -> None:
    """Two chunks of level 0, each whole, lie in each other's place between two runs."""
    _stopped(trial)
    chunks = _chunks(trial, "0")
    damaged = len(chunks) > 1
    if damaged:
        one, other = trial.random.sample(chunks, 2)
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)
        damaged = first != second
    _scrubbed(trial, damaged=damaged)


def edited_documents(trial: Trial) -> None:
    """A number or word of the plan, or of the metadata, is another between two runs."""
    _stopped(trial)
    files = [f for f in (*trial.store.rglob("zarr.json"), trial.state / "plan.json") if f.exists()]
    files = sorted(file for file in files if file.parent != trial.state or file.name != "zarr.json")
    planned = (trial.state / "plan.json").exists()
    edited = trial.random.choice(files) if files else None
    if edited is not None:
        text = edited.read_text()
        places = [match for match in re.finditer(r"\d+", text) if match[0] != "0"]
        if places:
            place = trial.random.choice(places)
            other = str(int(place[0]) + trial.random.randint(1, 9))
            edited.write_text(text[: place.start()] + other + text[place.end() :])
    run = trial.start()
    refused = planned and edited is not None and edited.name == "plan.json"
    if trial.ended(run, 2 if refused else 0):
        if "--overwrite" not in run.said or len(run.said.strip().splitlines()) != 1:
            trial.complain(f"no clear sentence: {run.said[-300:]}")
        trial.complete("--overwrite")
    else:
        trial.compare()


def overwritten_image(trial: Trial) -> None:
    """Another image is written over the first while the run reads it; then the first is back."""
    whole = trial.image
    trial.image = trial.beside(whole.name)
    shutil.copyfile(whole, trial.image)
    # The same image upside down: as large, with as many tiles, and nothing wrong with it.
    other = trial.beside(f"other.{whole.name}")
    with tifffile.TiffFile(whole) as file:
        pixels, page = file.asarray(), file.pages.first
        tile = page.tilelength, page.tilewidth
    tifffile.imwrite(other, pixels[::-1], tile=tile, compression="zlib", metadata=None)
    run = trial.start({"slow_read": 0.001})
    if wait_for(run, (trial.state / "plan.json").exists) and trial.moment(run):
        trial.image.write_bytes(other.read_bytes())
    if trial.ended(run, 0, 2) == 0:
        trial.compare()
        return
    shutil.copyfile(whole, trial.image)
    trial.complete()


def two_clients(trial: Trial) -> None:
    """A second run of the same output is refused, and the first is not disturbed."""
    first = trial.start({"slow_write": 0.05})
    if wait_for(first, lambda: trial.done() >= 1):
        log = trial.beside("second.log")
        command = trial.scene.command(trial.case, trial.folder, trial.image)
        more = trial.random.choice([(), ("--overwrite",)])
        second = trial.zygote.start([*command, *more], log)
        code = second.wait()
        if code != 2 and first.poll() is None:
            trial.complain(f"a second run was not refused, but ended with {code}: {second.said}")
        if code == 2 and "another run is writing it" not in second.said:
            trial.complain(f"the second run says: {second.said}")
    trial.ended(first, 0)
    trial.compare()


def killed_overwrite(trial: Trial) -> None:
    """A run that replaces an older mask is killed; what it prints or said leads to the new one."""
    for path in trial.reference.folder.iterdir():
        copy = shutil.copytree if path.is_dir() else shutil.copyfile
        copy(path, trial.folder / path.name)
    run = trial.start(None, "--overwrite")
    if trial.moment(run):
        run.kill()
        trial.outcome.kills += 1
    trial.ended(run, -signal.SIGKILL, 0)
    trial.complete("--overwrite")


KINDS: dict[str, Callable[[Trial], None]] = {
    "kill -9 the client": kill_client,
    "kill -9 in the middle of writing a chunk": kill_writer,
    "kill -9 a worker process": kill_worker,
    "SIGTERM or SIGINT": terminate,
    "disk full": disk_full,
    "write permission revoked": no_permission,
    "reads of some tiles fail (EIO)": unreadable_tile,
    "all reads fail for a while": reads_fail_for_a_while,
    "a read hangs": reads_hang,
    "damaged tiles in the image": damaged_tile,
    "image cut off": cut_image,
    "ledger cut, altered or gone": damaged_ledger,
    "plan cut or gone": damaged_plan,
    "run.json cut or gone": damaged_run_file,
    "a file of the mask cut or gone": damaged_mask,
    "a bit of a chunk or an export flipped": flipped_bit,
    "two chunks swapped": swapped_chunks,
    "plan or metadata edited": edited_documents,
    "image overwritten during the run": overwritten_image,
    "two clients at once": two_clients,
    "kill -9 an --overwrite": killed_overwrite,
}


def needs(kind: str) -> str | None:
    """Why a kind cannot be tried here, or None."""
    if kind != "disk full":
        return None
    if os.geteuid() != 0:
        return "mounting a small disk needs root"
    probe = Path(f"/tmp/tilepipe-probe-{os.getpid()}")
    probe.mkdir()
    try:
        with _tmpfs(probe, MEGABYTE):
            return None
    except (OSError, subprocess.CalledProcessError):
        return "a small disk cannot be mounted here"
    finally:
        probe.rmdir()


def attempt(
    scene: Scene, zygote: Zygote, case: Case, kind: str, number: int, keep: Path | None = None
) -> Outcome:
    """Try one fault; a folder of what went wrong is kept under ``keep``."""
    folder = scene.folder / f"trial {case.name} {kind.replace('/', ' ')} {number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    begin = time.monotonic()
    trial = Trial(scene, zygote, case, kind, number, folder)
    try:
        KINDS[kind](trial)
    except Exception as error:  # of the trial's own; the others go on
        trial.complain(f"{type(error).__name__}: {error}")
    outcome = trial.outcome
    outcome.seconds = time.monotonic() - begin
    if not outcome.faults or keep is None:
        shutil.rmtree(folder, ignore_errors=True)
        for path in scene.folder.glob(folder.name + ".*"):
            path.unlink()
    return outcome
