"""Wrong inputs over every command, option, setting, data file, model folder and run folder: two
lines that name the value and a way out, exit code 2, nothing touched. The rows are in `wrong/`."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest
import typer.main

from opo_cli.cli import app, main
from opo_cli.presets import check_key
from tests.wrong import arguments, data, models, runs, settings
from tests.wrong.places import Wrong, filled, make_workplace

ROWS = [row for part in (arguments, settings, data, models, runs) for row in part.ROWS]
QUICK = [row for row in ROWS if not row.needs_torch]
COMMANDS = typer.main.get_command(app).commands


def name_of(row: Wrong) -> str:
    return row.line[:60] + (f"-{row.error[:30]}" if row.makes else "")


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    make_workplace(folder)
    return folder


@pytest.fixture
def workplace(template: Path, in_tmp: Path) -> Path:
    shutil.copytree(template, in_tmp, dirs_exist_ok=True)
    return in_tmp


def state(*roots: Path) -> dict[str, tuple]:
    """Every file's bytes and time, every folder and link."""
    found: dict[str, tuple] = {}
    for path in (path for root in roots for path in root.rglob("*")):
        is_file = path.is_file() and not path.is_symlink()
        found[str(path)] = (path.read_bytes(), path.stat().st_mtime_ns) if is_file else ()
    return found


@contextmanager
def given_up_after(seconds: float):
    """Where what was to be refused is taken, it trains for hours; the command ends in order."""
    timer = Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@pytest.mark.parametrize("row", ROWS, ids=map(name_of, ROWS))
def test_a_wrong_input_gets_its_two_lines(row: Wrong, workplace, cache, request, capfd):
    base = Path(request.getfixturevalue("base")) if row.needs_torch else cache
    for make in row.makes:
        make(workplace, base)
    places = {"here": str(workplace), "cache": str(cache)}
    before = state(workplace, cache)
    capfd.readouterr()
    with given_up_after(seconds=120):
        code = main(row.arguments(**places))
    assert code == 2
    printed = capfd.readouterr()
    expected = [f"error: {filled(row.error, **places)}", f"hint: {filled(row.hint, **places)}"]
    assert printed.err.splitlines() == expected
    if not row.needs_torch:  # The plan of a run stands on stdout before its model is loaded.
        assert printed.out == ""
    assert state(workplace, cache) == before


ALONE = """
import json, os, sys
from opo_cli.cli import main
for folder, arguments in json.load(open(sys.argv[1])):
    os.chdir(folder)
    code = main(arguments)
    has_torch = {"torch", "transformers"} & set(sys.modules)
    print(code, "imports torch" if has_torch else "", flush=True)
    if has_torch:
        break
"""


def test_what_needs_no_model_imports_no_torch(template, tmp_path):
    """One after the other in a process that nothing else has imported it into."""
    jobs = []
    for number, row in enumerate(QUICK):
        here = tmp_path / str(number)
        shutil.copytree(template, here)
        for make in row.makes:
            make(here, here)
        jobs.append([str(here), row.arguments(here=str(here), cache=os.environ["OPO_CACHE"])])
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    child = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path / "jobs.json")],
        capture_output=True,
        text=True,
        timeout=600,
    )
    told = [line.strip() for line in child.stdout.splitlines()]
    wrong = [(row.line, line) for row, line in zip(QUICK, told, strict=False) if line != "2"]
    assert wrong == []
    assert len(told) == len(QUICK), child.stderr


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("train --preset tinny", "unknown preset 'tinny'"),
        ("eval --data d\udcff.jsonl", "unknown benchmark 'd\\udcff.jsonl'"),
        ("show run --problem [bold]x", "no problem '[bold]x' in steps 1 to 2 of the ledger"),
        ("grade occupied", "'occupied' is a folder, not a file"),
    ],
)
def test_a_real_process_says_the_same(line, error, workplace):
    """`\\udcff` stands for a byte that is no UTF-8."""
    command = [sys.executable, "-m", "opo_cli", *line.split()]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == 2
    lines = child.stderr.splitlines()
    assert (lines[0], len(lines), child.stdout) == (f"error: {error}", 2, "")
    assert lines[1].startswith("hint: ")


def test_every_command_has_wrong_inputs():
    asked = {row.arguments()[0] for row in ROWS}
    assert COMMANDS.keys() - {"check", "doctor"} <= asked  # These have tests of their own.


PARTS = re.compile(
    r"opo (?P<command>[a-z]+)(?![=\w])|--set '?(?P<key>[\w.]+)=|(?P<option>--[a-z][a-z-]*)"
)


@pytest.mark.parametrize("row", ROWS, ids=map(name_of, ROWS))
def test_a_hint_names_what_there_is(row: Wrong):
    """Its commands, their options (else of the row's own command), and the keys of its settings."""
    commands = [COMMANDS[name] for name in row.arguments()[:1] if name in COMMANDS]
    for found in PARTS.finditer(row.hint):
        if found["command"]:
            commands.append(COMMANDS[found["command"]])
        elif found["key"]:
            check_key(found["key"])
        elif found["option"] != "--help":
            known = {o for command in commands for each in command.params for o in each.opts}
            assert found["option"] in known, row.hint


def test_the_message_names_the_value():
    """What a row gives an argument, an option or a setting; of a file's content its own row says
    what is told."""
    silent = [row.line for row in ROWS if not row.makes and not names_a_value(row)]
    assert silent == ["eval tiny-easy"]  # What is missing there is a run.


def names_a_value(row: Wrong) -> bool:
    given = shlex.split(row.line)[1:]
    words = {word for part in given for word in re.split(r"[=,\n]", part) if word}
    words |= {word for part in given for word in part.split(".") if word}
    has_value = any(part and not part.startswith("--") for part in given)
    return not has_value or any(word.strip("[]'\"{} ")[:40] in row.error for word in words)
