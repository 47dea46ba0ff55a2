"""`python -m opo_cli.faults.doomed DOOM COMMAND ...`: an `opo` command to which something happens.

DOOM is JSON, see `opo_cli.faults.child.Doom`. The command is the real one, in this
process. Python's audit events tell of its writes: files opened for writing, renames, removals, new
folders. Writes of C code (pyarrow, safetensors) raise none; a bound on the size of files tears
those, too.

Its stdin is a pipe whose other end the parent holds: it never outlives the parent.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import threading
import time

DIR_FD = {
    "open": None,
    "os.truncate": None,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.mkdir": 2,
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 1,
}
"""Audit event -> where among its arguments the folder's descriptor stands, if it has one."""
MAKING = ("open", "os.mkdir")
"""Of a folder that is there they change nothing."""
TWO_PATHS = ("os.rename", "os.link")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TEAR_PATIENCE = 8  # Writes after which a file that stayed below the bound is waited for no longer.
BLOCK = 2**16


class _Doomed:
    """What is to happen, and how far the command has come."""

    def __init__(self, doom: dict):
        self.doom, self.num_writes, self.is_acting = doom, 0, False
        self.path = ""  # Of the last write.
        self.started = time.monotonic()
        os.set_inheritable(doom["pipe"], False)

    def audit(self, event: str, arguments: tuple) -> None:
        if event not in DIR_FD or self.is_acting:
            return
        if event == "open" and not arguments[2] & WRITING:
            return
        path = next(filter(self._is_ours, _paths(event, arguments)), None)
        if path is None or (event in MAKING and os.path.isdir(path)):
            return
        self.is_acting = True  # What follows writes, too.
        self._met(event, path)
        self.is_acting = False

    def _is_ours(self, path: str) -> bool:
        return any(f"{path}/".startswith(f"{folder}/") for folder in self.doom["folders"])

    def _met(self, event: str, path: str) -> None:
        self.num_writes, self.path = self.num_writes + 1, path
        if self.doom["log"]:
            with open(self.doom["log"], "a") as log:
                print(f"{time.monotonic() - self.started:.4f}", event, path, file=log)
        past = self.num_writes - self.doom["at"]
        if past == 0:
            getattr(self, self.doom["action"])()
        elif past == TEAR_PATIENCE and self.doom["action"] == "tear":
            self.die()

    def none(self) -> None:
        pass

    def tell(self) -> None:
        """To the parent, who kills us a moment later."""
        os.write(self.doom["pipe"], b".")

    def die(self) -> None:
        faulthandler.dump_traceback(self.doom["pipe"], all_threads=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def tear(self) -> None:
        """The kernel ends us in the middle of the write that goes beyond the bound."""
        there = os.path.getsize(self.path) if os.path.isfile(self.path) else 0
        most = there + self.doom["tear_bytes"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    def fill(self) -> None:
        """The disk, to the last byte."""
        descriptor, size = os.open(self.doom["filler"], os.O_WRONLY | os.O_CREAT), BLOCK
        while size:
            try:
                os.write(descriptor, bytes(size))
            except OSError:
                size //= 2
        os.close(descriptor)

    def readonly(self) -> None:
        """The folder is mounted over itself; what is open for writing already stays so."""
        for options in (["--bind", self.doom["filler"]], ["-o", "remount,bind,ro"]):
            subprocess.run(["mount", *options, self.doom["filler"]], check=True)


def _paths(event: str, arguments: tuple) -> list[str]:
    """The absolute paths that an event is about; none for a descriptor."""
    names = arguments[: 2 if event in TWO_PATHS else 1]
    place = DIR_FD[event]
    descriptor = -1 if place is None else arguments[place]
    folder = os.readlink(f"/proc/self/fd/{descriptor}") if descriptor >= 0 else ""
    return [
        os.path.abspath(os.path.join(folder, os.fsdecode(name)))
        for name in names
        if isinstance(name, str | bytes | os.PathLike)
    ]


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def _install(doom: dict) -> None:
    doomed, pipe = _Doomed(doom), doom["pipe"]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it.
    faulthandler.register(signal.SIGXFSZ, file=pipe, all_threads=True, chain=True)
    faulthandler.register(signal.SIGUSR1, file=pipe, all_threads=True, chain=False)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.addaudithook(doomed.audit)
    if doom["at"] == 0:
        getattr(doomed, doom["action"])()


if __name__ == "__main__":
    _install(json.loads(sys.argv.pop(1)))
    runpy.run_module("opo_cli", run_name="__main__", alter_sys=True)
