"""The cache, and the hub behind it."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.parse import urlsplit

from rich.filesize import decimal

from opo_cli.doctor.findings import Finding, ok
from opo_cli.doctor.machine import LITTLE_DISK, write_obstacle
from opo_cli.errors import OpoError, first_line
from opo_cli.files import MANIFEST, check_seal, nearest_existing
from opo_cli.records import cache_folder

HUB_SECONDS = 3.0  # All that a network may take.
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
TRUE = ("1", "ON", "YES", "TRUE")
ELSEWHERE = "export OPO_CACHE=A_FOLDER_THAT_YOU_MAY_WRITE"


def check_cache() -> Iterator[Finding]:
    folder = cache_folder()
    there = nearest_existing(folder)
    obstacle = write_obstacle(there)
    if obstacle is not None:
        yield Finding("cache", "problem", obstacle, ELSEWHERE)
        return
    free = shutil.disk_usage(there).free
    told = f"{folder}, {_size(folder)}, {decimal(free)} free"
    if free < LITTLE_DISK[0]:
        yield Finding("cache", "problem", told, f"free some space there, or {ELSEWHERE}")
        return
    damaged = list(_damaged(folder))
    yield from damaged
    if not damaged:
        yield ok("cache", f"{told}, none altered")


def _size(folder: Path) -> str:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return f"{decimal(sum(sizes))} in {len(sizes)} files" if sizes else "empty"


def _damaged(folder: Path) -> Iterator[Finding]:
    """Folders that are not what was written; all of them are read."""
    for manifest in sorted(folder.rglob(MANIFEST)):
        try:
            check_seal(manifest.parent)
        except OpoError as error:
            mend = f"{shlex.join(['rm', '-r', str(manifest.parent)])}; it is made anew when needed"
            yield Finding("cache", "problem", error.message, mend)


def check_hub() -> Iterator[Finding]:
    """One short request, unless the settings say that there is no network. Never the token."""
    from huggingface_hub import constants, get_token

    token = "a token is set" if get_token() else "no token"
    offline = [name for name in OFFLINE if os.environ.get(name, "").upper() in TRUE]
    if offline:
        yield ok("hub", f"not checked: {offline[0]} is set; {token}")
        return
    address = urlsplit(constants.ENDPOINT)
    host = address.netloc.rpartition("@")[2]  # What stands before it may be a password.
    error = _unreachable(f"{address.scheme}://{host}")
    if error is None:
        yield ok("hub", f"{host} answers; {token}")
    else:
        told = f"{host} cannot be reached: {error}; {token}"
        mend = (
            "embedded tasks and local files need no hub (export HF_HUB_OFFLINE=1 says so); a "
            "mirror: export HF_ENDPOINT=https://..."
        )
        yield Finding("hub", "warning", told, mend)


def _unreachable(endpoint: str) -> str | None:
    """Why there is no answer; None: there is one. In a thread: a name server has no time limit."""
    outcome = [f"no answer within {HUB_SECONDS:g} s"]

    def ask() -> None:
        from urllib.request import Request, urlopen

        try:
            urlopen(Request(endpoint, method="HEAD"), timeout=HUB_SECONDS).close()
        except HTTPError:
            outcome.append("")
        except Exception as error:
            outcome.append(first_line(getattr(error, "reason", None) or error))
        else:
            outcome.append("")

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return outcome[-1] or None
