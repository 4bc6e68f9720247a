"""One mutant in one forked process: what came of it, how long it took, how much memory it had.

Everything heavy is imported once, before the first fork; a child inherits it. The child's address
space is limited, so that an allocation of what a file merely claims fails even where the memory
would never be touched.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import tempfile
import time
import traceback
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import tests.fuzz
from tilepipe.errors import TilepipeError

SECONDS = 20
"""After which a mutant counts as a hang. CPU time is what counts on a busy machine."""

GROWTH = 300 * 2**20
"""Bytes of memory that a file of some kilobytes may make a process take beyond what it had."""

ADDRESS_SPACE = 3 * 2**30
"""Bytes of addresses that it may reserve; threads and their stacks take some of them."""

SCRATCH = 2**28
"""Bytes of the largest file that it may write."""


class Wrong(Exception):  # noqa: N818 - what it says is wrong, not the harness
    """A target found that tilepipe did what it should not."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one mutant came to."""

    verdict: str
    """``read``, ``refused``, or ``failed``."""
    reason: str
    """Why it was refused or failed; alike for failures that are the same."""
    seconds: float
    """CPU seconds."""
    growth: int
    """Bytes of memory at its peak, beyond those at its start."""


def isolated(target: Callable[[], str], seconds: float = SECONDS) -> Outcome:
    """Run a target in a child: it returns ``read`` or ``refused``, or raises.

    A `TilepipeError` is a refusal, if it is one line of plain text. Everything else that is raised
    is a failure; so are a hang, a crash, and memory beyond `GROWTH`.
    """
    return _outcomes([target], seconds)[0]


def together(targets: Sequence[Callable[[], str]]) -> list[Outcome]:
    """Outcomes of targets that mostly share a child, which is much less work.

    Each that fails is tried again in a child of its own, and what comes of that counts.
    """
    done: list[Outcome] = []
    while len(done) < len(targets):
        some = _outcomes(targets[len(done) :], SECONDS)
        if some[-1].verdict == "failed":
            some[-1] = isolated(targets[len(done) + len(some) - 1])
        done += some
    return done


def _outcomes(targets: Sequence[Callable[[], str]], seconds: float) -> list[Outcome]:
    """What came of the targets in one child, up to the first that failed."""
    given, taken = os.pipe()
    with tempfile.TemporaryFile() as screen:
        child = os.fork()
        if child == 0:
            os.close(given)
            _be_child(targets, taken, screen.fileno(), seconds)
        os.close(taken)
        reports, hung = _hear(given, child, seconds)
        _, status, usage = os.wait4(child, 0)
        outcomes = [Outcome(*json.loads(report)) for report in reports]
        # On a quiet machine the limit of CPU time ends it before that of wall time does.
        hung = hung or os.waitstatus_to_exitcode(status) == -signal.SIGXCPU
        spent = usage.ru_utime + usage.ru_stime - sum(outcome.seconds for outcome in outcomes)
        if hung:
            outcomes.append(Outcome("failed", f"hang: no end after {seconds:g} s", spent, 0))
        elif len(outcomes) < len(targets) and (not outcomes or outcomes[-1].verdict != "failed"):
            screen.seek(0)
            said = screen.read().decode(errors="replace").strip().splitlines()[-1:]
            code = os.waitstatus_to_exitcode(status)
            cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            outcomes.append(Outcome("failed", f"crash: {cause} {said}", spent, 0))
    return outcomes


def plain(text: str) -> bool:
    """Whether a text is one line without control characters, as a refusal has to be."""
    return not any(unicodedata.category(c) in ("Cc", "Cs") for c in text)


def screen_of(target: Callable[[], object]) -> tuple[object, str, str]:
    """What a target gives, and what it wrote on standard output and error, C libraries too."""
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            result = target()
        finally:
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return result, texts[0], texts[1]


def _be_child(
    targets: Sequence[Callable[[], str]], taken: int, screen: int, seconds: float
) -> None:
    code = 1
    try:
        os.dup2(screen, 1)
        os.dup2(screen, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (SCRATCH, SCRATCH))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = _status("VmSize") + ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        for target in targets:
            outcome = _tried(target, seconds)
            os.write(taken, json.dumps(astuple(outcome)).encode() + b"\n")
            if outcome.verdict == "failed":
                break  # who knows what it left behind
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _tried(target: Callable[[], str], seconds: float) -> Outcome:
    begin = time.process_time()
    limit = int(begin + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = _status("VmRSS")
    try:
        verdict, reason = target(), ""
    except TilepipeError as error:
        verdict, reason = "refused", str(error)
        if not plain(reason) or not 0 < len(reason) < 2000:
            verdict, reason = "failed", f"no line of plain text: {reason[:300]!r}"
    except BaseException as error:
        verdict, reason = "failed", _summary(error)
    growth = _status("VmHWM") - before
    if verdict != "failed" and growth > GROWTH:
        verdict, reason = "failed", f"memory: {growth / 2**20:.0f} MiB ({reason})"
    return Outcome(verdict, reason[:3000], time.process_time() - begin, growth)


def _hear(given: int, child: int, seconds: float) -> tuple[list[bytes], bool]:
    """The lines that the child reports, and whether it had to be killed."""
    data = b""
    with os.fdopen(given, "rb", buffering=0) as pipe:
        while True:
            # Wall time is generous: others may be busy on the machine, and CPU time is limited.
            if not select.select([pipe], [], [], 6 * seconds)[0]:
                os.kill(child, signal.SIGKILL)
                return data.splitlines(), True
            part = pipe.read(65536)
            if not part:
                return data.splitlines(), False
            data += part


def _status(name: str) -> int:
    """A size from /proc/self/status, in bytes."""
    with Path("/proc/self/status").open() as status:
        for line in status:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    raise OSError(f"no {name} in /proc/self/status")


def _summary(error: BaseException) -> str:
    """What was raised and where: the same for the same bug."""
    frames = traceback.extract_tb(error.__traceback__)
    own = str(Path(tests.fuzz.__file__).parent)
    ours = [f for f in frames if "/tilepipe/" in f.filename and not f.filename.startswith(own)]
    places = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in (*ours[-2:], frames[-1])]
    return f"{type(error).__name__}: {str(error)[:200]} at {' < '.join(reversed(places))}"
