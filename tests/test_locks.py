"""The lock on a folder: it knows its owner, and dies with it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from opo_cli.errors import OpoError
from opo_cli.locks import locked_by_us
from tests.damage import kill_as_it_says, names

HOLDER = """
import sys, time
from pathlib import Path
from opo_cli.locks import locked_by_us
with locked_by_us(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""
RACER = """
import os, sys
from pathlib import Path
from opo_cli.errors import OpoError
from opo_cli.locks import locked_by_us
folder, won = Path(sys.argv[1]), 0
while won < 60:
    try:
        with locked_by_us(folder / "config.json"):
            os.mkdir(folder / "alone")  # Fails where another is in here, too.
            os.rmdir(folder / "alone")
            won += 1
    except OpoError:
        pass
"""


def test_the_lock_says_whose_it_is_and_goes(tmp_path: Path):
    with locked_by_us(tmp_path / "config.json"):
        owner = json.loads((tmp_path / "lock").read_text())
        assert (owner["pid"], owner["host"]) == (os.getpid(), socket.gethostname())
        with pytest.raises(OpoError) as caught, locked_by_us(tmp_path / "config.json"):
            pass
    told = f"another process (pid {os.getpid()} on host {socket.gethostname()}, since "
    since = owner["since"][:16].replace("T", " ")
    assert caught.value.message == f"{told}{since} UTC) is at work on '{tmp_path}'"
    assert names(tmp_path) == []


def test_the_lock_dies_with_its_owner(tmp_path: Path):
    pid = kill_as_it_says("held", HOLDER, str(tmp_path / "config.json"))
    assert json.loads((tmp_path / "lock").read_text())["pid"] == pid
    with locked_by_us(tmp_path / "config.json"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert names(tmp_path) == []


def test_an_owner_that_does_not_say_so_yet_is_one(tmp_path: Path):
    with locked_by_us(tmp_path / "config.json"):
        (tmp_path / "lock").write_text("")
        with (
            pytest.raises(OpoError, match=r"another process is at work on"),
            locked_by_us(tmp_path / "config.json"),
        ):
            pass


def test_of_many_who_come_and_go_one_at_a_time_is_in(tmp_path: Path):
    racers = [subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path)]) for _ in range(4)]
    assert [racer.wait(timeout=120) for racer in racers] == [0] * 4
    assert names(tmp_path) == []
