"""The command line: parse, call one function of the core, print. Every heavy import stands inside a
command's body, so that help and errors answer at once."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from collections.abc import Sequence

import typer
from typer.exceptions import TyperException

from opo_cli import __version__
from opo_cli.cli import check, compare, doctor, eval, grade, lab, list, prepare, replay, show, train
from opo_cli.console import complain, give_way
from opo_cli.errors import OpoError, OtherRankError
from opo_cli.interrupt import Interrupts

USER_ERROR = 2
AGAIN = "then give the same command again, with --resume if a run of opo train had begun"
FILE_ERRORS = {
    errno.ENOENT: "nothing can be made there, or it was removed; choose another with --out",
    errno.EFBIG: f"files may not grow larger here (ulimit -f); raise that, {AGAIN}",
    errno.EIO: f"the disk, or what it hangs on, fails; look at it, {AGAIN}",
    errno.ESTALE: f"the network file system has lost it; look at that, {AGAIN}",
    errno.EMFILE: f"too many files are open (ulimit -n); raise that, {AGAIN}",
    errno.ENOSPC: f"free some space, {AGAIN}",
    errno.EDQUOT: f"your quota is used up; free some space, {AGAIN}",
    errno.EROFS: "the disk is read-only; choose another folder with --out (cache: OPO_CACHE)",
    errno.EACCES: "choose a folder that you may write, with --out (cache: OPO_CACHE)",
    errno.EPERM: "choose a folder that you may write, with --out (cache: OPO_CACHE)",
    errno.EEXIST: "something is in the way; choose another folder with --out (cache: OPO_CACHE)",
    errno.ENOTEMPTY: "another process has written there; choose another folder with --out",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of the path is a file; choose another",
    errno.EISDIR: "it is a folder; choose another name",
    errno.ELOOP: "its links lead in a circle; choose another name",
}

app = typer.Typer(
    name="opo",
    help="Train one model with OPO, GRPO or PPO on verifiable math rewards, and compare them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (prepare, train, eval, grade, show, replay, compare, lab, list, doctor, check):
    app.command(module.NAME)(module.command)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"opo {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Train one model with OPO, GRPO or PPO on verifiable math rewards, and compare them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line; returns its exit code: 0, 2 for what the user can mend, 128 + signal."""
    arguments = sys.argv[1:] if arguments is None else arguments
    code = 0
    with Interrupts().installed() as interrupts:
        try:
            code = _main(arguments)
            if code == 128 + signal.SIGINT and interrupts.first:
                code = 128 + interrupts.first  # Typer has the same answer to all of them.
            sys.stdout.flush()
        except (KeyboardInterrupt, typer.Abort):
            return 128 + (interrupts.first or signal.SIGINT)
        except OSError as error:
            if interrupts.first is None and not isinstance(error, BrokenPipeError):
                raise
            # The terminal has gone, or the reader of our pipe has seen enough.
            _drop_output()
            return code if interrupts.first is None else 128 + interrupts.first
    return code


def _has_no_reader(stream: int) -> bool:
    """Of a pipe."""
    poll = select.poll()
    poll.register(stream, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _drop_output() -> None:
    """Else Python fails at its end, when it writes what is left."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _main(arguments: Sequence[str]) -> int:
    try:
        _check_arguments(arguments)
        return app(args=arguments, prog_name="opo", standalone_mode=False) or 0
    except OtherRankError:
        give_way()
    except OpoError as error:
        complain(error.message, error.hint)
    except SystemExit as ended:  # Typer's way to take it that the reader of a pipe has gone.
        if isinstance(ended.__context__, BrokenPipeError) and not _has_no_reader(2):
            raise ended.__context__ from None
        raise  # Of our talk, too, as behind `2>&1`: then work was cut short.
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # Its message is the help text.
            print(error.format_message())
            return USER_ERROR
        context = getattr(error, "ctx", None)
        complain(
            error.format_message().splitlines()[0].rstrip(".") + _given(error, arguments),
            f"{context.command_path if context else _command_of(arguments)} --help",
        )
    except OSError as error:
        if error.errno not in FILE_ERRORS:
            raise
        where = f" '{error.filename}'" if error.filename else ""
        complain(f"cannot open or write{where}: {error.strerror}", FILE_ERRORS[error.errno])
    return USER_ERROR


def _check_arguments(arguments: Sequence[str]) -> None:
    """Raises OpoError for an empty argument: what a shell makes of a variable that is not set would
    be taken for an option that was not given."""
    for before, argument in zip(("opo", *arguments), arguments, strict=False):
        name, equals, value = argument.partition("=")
        if not argument or (name.startswith("-") and equals and not value):
            shown = argument or f"{before} ''"
            raise OpoError(f"an argument is empty: {shown}", "give it a value, or leave it out")


def _command_of(arguments: Sequence[str]) -> str:
    names = {command.name for command in app.registered_commands}
    return f"opo {arguments[0]}" if arguments and arguments[0] in names else "opo"


def _given(error: TyperException, arguments: Sequence[str]) -> str:
    """The offending value, which Typer's own message leaves out."""
    names = getattr(getattr(error, "param", None), "opts", [])
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names and (equals or place + 1 < len(arguments)):
            return f": '{value if equals else arguments[place + 1]}'"
    return ""
