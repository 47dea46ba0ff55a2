"""Runs `opo` in this process and sends it a signal where its files change.

`python signalled.py FOLDER NUMBER PLACES COUNT -- ARGUMENTS`: signal NUMBER (0: none) before the
n-th change below FOLDER or the cache, for each n of PLACES (5,6); the file COUNT takes how many
changes there were.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")


def main() -> None:
    folder, number, places, count = sys.argv[1:5]
    roots = (str(Path(folder).absolute()), os.environ["OPO_CACHE"])
    places = {int(place) for place in places.split(",") if place}
    num_changes = 0

    def hook(event: str, args: tuple) -> None:
        nonlocal num_changes
        is_written = event == "open" and isinstance(args[2], int) and args[2] & 3
        if not is_written and event not in CHANGES:
            return
        path = args[0]
        if not isinstance(path, str | os.PathLike):
            return
        if not os.path.abspath(os.fspath(path)).startswith(roots):
            return
        num_changes += 1
        if num_changes in places:
            os.kill(os.getpid(), int(number))

    sys.addaudithook(hook)
    sys.argv[1:] = sys.argv[6:]
    from opo_cli.cli import main as opo

    code = opo()
    places = set()
    Path(count).write_text(str(num_changes))
    sys.exit(code)


if __name__ == "__main__":
    main()
