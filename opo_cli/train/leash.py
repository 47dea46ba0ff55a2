"""`python -m opo_cli.train.leash COMMAND ...`: an `opo` command that ends with its parent, however
that ends.

Its stdin is a pipe whose other end the parent holds open and never writes to. The end of the file
is the parent's end, by `kill -9` too, and counts as SIGTERM: a training saves its state.
"""

from __future__ import annotations

import os
import runpy
import signal
import threading


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Even where the parent ignores it.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runpy.run_module("opo_cli", run_name="__main__", alter_sys=True)
