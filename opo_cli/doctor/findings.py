"""What a check finds."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from typing import Literal
from urllib.parse import unquote, urlsplit

from opo_cli.errors import OpoError, first_line

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    state: State
    found: str
    mend: str = ""
    """What to do about it; empty where nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Check:
    what: str
    run: Callable[[], Iterator[Finding]]
    takes_seconds: bool = False


def ok(what: str, found: str) -> Finding:
    return Finding(what, "ok", found)


def findings(check: Check) -> Iterator[Finding]:
    """Of one check; one that fails itself is a problem, and the next ones go on."""
    try:
        yield from check.run()
    except OpoError as error:
        yield Finding(check.what, "problem", error.message, error.hint)
    except (Exception, SystemExit) as error:
        told = f"cannot be checked: {type(error).__name__}: {first_line(error)}"
        yield Finding(check.what, "problem", told, reinstall())


def pip_install(*requirements: str) -> str:
    """A command for the environment that runs now."""
    return shlex.join([sys.executable, "-m", "pip", "install", *requirements])


def reinstall() -> str:
    checkout = _checkout()
    return pip_install("--force-reinstall", *(("--editable", checkout) if checkout else ("opo",)))


def _checkout() -> str | None:
    """The folder of an editable install: an index may have another package of that name."""
    try:
        text = distribution("opo").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    origin = json.loads(text or "{}")
    is_editable = origin.get("dir_info", {}).get("editable", False)
    return unquote(urlsplit(origin["url"]).path) if is_editable else None
