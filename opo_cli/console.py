"""The two consoles: data on stdout, talk on stderr. Rich honours NO_COLOR and COLUMNS, and drops
colour by itself when the stream is no terminal."""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from opo_cli.ranks import is_joined, is_main, local_rank, rank
from opo_cli.redact import redacted

PIPE_WIDTH = 100  # Columns of a table that goes into a pipe, where no terminal says its width.
PLAIN_MARKS = 4  # Lines of progress where there is no terminal to draw a bar on.
TURN_SECONDS = 10.0  # How long a rank lets another tell of an error and end first.


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich's own ends the process, as if all were well."""
        raise  # Rich calls it where the error is handled.


def _console(*, stderr: bool) -> Console:
    console = _Console(stderr=stderr, highlight=False, quiet=not (stderr or is_main()))
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


out = _console(stderr=False)
err = _console(stderr=True)


def visible(text: str, encoding: str = "utf-8") -> str:
    """`text` with what could steer a terminal, or what `encoding` lacks, escaped; newlines stay."""

    def is_harmless(char: str) -> bool:
        return char == "\n" or char.isprintable() or unicodedata.category(char) == "Zs"

    shown = "".join(c if is_harmless(c) else c.encode("unicode_escape").decode() for c in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def inert(text: str, console: Console) -> str:
    """`text` for the console as it is: neither Rich's markup nor the terminal's codes."""
    return escape(visible(text, console.encoding))


def _line(text: str) -> str:
    """Of talk. Names and data within it begin no line of their own, and no secret is told."""
    return inert(redacted(text).strip("\n").replace("\n", "\\n"), err)


def note(message: str, *, is_of_every_rank: bool = False) -> None:
    """One plain line of talk, of rank 0."""
    if is_main() or is_of_every_rank:
        err.print(_line(message), soft_wrap=True)


def warn(message: str) -> None:
    """Something that the user should know and that does not stop the work; of rank 0."""
    if is_main():
        err.print(f"[yellow]warning:[/] {_line(message)}", soft_wrap=True)


def complain(message: str, hint: str) -> None:
    """The two lines of an error. Unwrapped, so that a script can read them."""
    if not is_joined() and local_rank():
        give_way()  # So far all ranks of a machine find the same; if not, ours is told.
    who = f"rank {rank()}: " if rank() else ""
    err.print(f"[bold red]error:[/] {_line(who + message)}", soft_wrap=True)
    err.print(f"[bold cyan]hint:[/] {_line(hint)}", soft_wrap=True)


def give_way() -> None:
    """Lets the rank that tells of an error end first: torchrun, which then ends this one, blames
    whoever ends first, and would end the other before it has told anything."""
    time.sleep(TURN_SECONDS)


Update = Callable[[float, str], None]
"""Called with (done, a word on how it goes)."""


@contextmanager
def progress(description: str, total: float) -> Iterator[Update]:
    """A bar on stderr; a few plain lines where stderr is no terminal."""
    started = time.monotonic()
    if not is_main():
        yield lambda done, word="": None
        return
    if err.is_terminal:
        columns = ("{task.description}", BarColumn(), "{task.percentage:>3.0f}%")
        with Progress(
            *(TextColumn(c) if isinstance(c, str) else c for c in columns),
            TimeRemainingColumn(),
            TextColumn("{task.fields[word]}"),
            console=err,
            transient=True,
        ) as bar:
            task = bar.add_task(_line(description), total=total, word="")
            yield lambda done, word="": bar.update(task, completed=done, word=_line(word))
    else:
        marks = iter([total * i / PLAIN_MARKS for i in range(1, PLAIN_MARKS)])
        following = next(marks, total)

        def update(done: float, word: str = "") -> None:
            nonlocal following
            if following <= done < total:
                note(f"{description}: {100 * done / total:.0f}% {word}".rstrip())
                following = next((mark for mark in marks if mark > done), total)

        note(f"{description} ...")
        yield update
    note(f"{description}: done in {time.monotonic() - started:.0f} s")
