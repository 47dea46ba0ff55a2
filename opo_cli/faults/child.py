"""Commands that are watched: started with a doom, ended at its time, and nothing left of them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

MARK = "OPO_FAULTS"
"""Environment variable by which a command's processes are known when their parent is gone."""
KILLED = (-signal.SIGKILL, -signal.SIGXFSZ)
DUMP_SECONDS = 5  # For a stack's dump; then the process is killed without one.
GONE_SECONDS = 15  # For a dead process's helpers to notice, on a busy machine.
BOTTOM = b"_run_module_as_main\n"
"""The last function of the oldest thread, the last of a dump."""


class StoppedError(Exception):
    """The work is over before its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doom:
    """What befalls a command at its `at`-th write (from 1; 0: at its start)."""

    action: str = "none"
    """A method of `_Doomed`: none, die, tell, tear, fill, readonly."""
    at: int = 0
    delay_seconds: float = 0.0
    """From there to its end, of `tell`."""
    tear_bytes: int = 0
    """What a file may still grow by, of `tear`."""
    filler: str = ""
    """The file that fills the disk, of `fill`; the folder, of `readonly`."""
    log: str = ""
    """A file that gets a line for every write: seconds since the start, event, path."""


@dataclass(slots=True)
class Ending:
    """How a command ended."""

    code: int | None
    """Exit code, or minus the signal; None: it had to be killed, as it did not end."""
    stderr: str
    stack: str
    """Of all threads, where it was killed by its doom."""
    seconds: float

    @property
    def was_killed(self) -> bool:
        return self.code in KILLED and bool(self.stack)


@dataclass(slots=True)
class Children:
    """Starts commands, and ends them all at once."""

    running: set[subprocess.Popen] = field(default_factory=set)
    is_stopped: bool = False

    def run(
        self,
        arguments: Sequence[str],
        *,
        folders: Sequence[Path],
        environment: dict[str, str],
        doom: Doom | None = None,
        timeout_seconds: float | None = None,
    ) -> Ending:
        """An `opo` command.

        Args:
            folders: absolute; writes below them count.

        Raises:
            StoppedError: `stop` was called.
        """
        reading, writing = os.pipe()
        spec = asdict(doom or Doom()) | {"folders": [str(f) for f in folders], "pipe": writing}
        started = time.monotonic()
        child = self._start(spec, arguments, environment)
        watch = _Watch(child, reading, doom.delay_seconds if doom else 0.0)
        watch.start()
        try:
            code, talk = _wait(child, timeout_seconds)
        finally:
            child.kill()  # Where the wait itself was interrupted.
            watch.join()
            self.running.discard(child)
        if self.is_stopped:
            raise StoppedError
        stack = watch.stack.decode(errors="replace")
        return Ending(code, talk, stack, time.monotonic() - started)

    def _start(
        self, spec: dict, arguments: Sequence[str], environment: dict[str, str]
    ) -> subprocess.Popen:
        child = subprocess.Popen(
            [sys.executable, "-m", "opo_cli.faults.doomed", json.dumps(spec), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=os.environ | environment,
            pass_fds=(spec["pipe"],),
            start_new_session=True,
        )
        os.close(spec["pipe"])
        self.running.add(child)
        if self.is_stopped:
            child.kill()
        return child

    def stop(self) -> None:
        """Kills what runs; whoever waits for it gets `StoppedError`."""
        self.is_stopped = True
        for child in list(self.running):
            child.kill()


def _wait(child: subprocess.Popen, seconds: float | None) -> tuple[int | None, str]:
    """Its exit code and its talk. Leaves stdin open, whose end would be the parent's."""
    talk: list[str] = []

    def read() -> None:
        with child.stderr:
            talk.append(child.stderr.read())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        code = child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        code = None
    reader.join(GONE_SECONDS)  # A process that outlives the child may hold the pipe.
    child.stdin.close()
    return code, "".join(talk)


class _Watch(threading.Thread):
    """Reads the child's pipe; once the child tells that it is time, waits, has it dump its stack,
    and kills it."""

    def __init__(self, child: subprocess.Popen, reading: int, delay_seconds: float):
        super().__init__(daemon=True)
        self.child, self.reading, self.delay_seconds = child, reading, delay_seconds
        self.stack = b""

    def run(self) -> None:
        is_told = False
        while select.select([self.reading], [], [], DUMP_SECONDS if is_told else None)[0]:
            part = os.read(self.reading, 2**16)
            if not part:
                break
            if part == b"." and not is_told:
                is_told = True
                time.sleep(self.delay_seconds)
                self.child.send_signal(signal.SIGUSR1)
                continue
            self.stack += part
            if is_told and self.stack.endswith(BOTTOM):
                self.child.kill()
        if is_told:
            self.child.kill()
        os.close(self.reading)


def new_mark() -> str:
    return uuid.uuid4().hex


def orphans(mark: str) -> list[str]:
    """Command lines of the processes that carry a mark and do not end by themselves."""
    deadline = time.monotonic() + GONE_SECONDS
    while (found := _marked(f"{MARK}={mark}".encode())) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _marked(wanted: bytes) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                found.append(f"{process.name}: {words.decode(errors='replace').strip()}")
        except OSError:  # Gone, or another user's.
            continue
    return found
