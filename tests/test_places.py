"""A home or cache folder that is missing or cannot be written is told before any long work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from opo_cli.errors import OpoError
from opo_cli.records import cache_folder, check_cache

COMMANDS = (
    ("train", "--preset", "smoke", "--out", "run"),
    ("prepare", "--preset", "smoke"),
    ("lab", "--preset", "smoke", "--prompts", "4", "--responses", "16", "--group-size", "8"),
)
NOBODY = 54321  # A user that no file knows.


def opo(*arguments: str, **environment: str) -> list[str]:
    """The last two lines of a command that ends with exit code 2."""
    kept = {k: v for k, v in os.environ.items() if k not in ("HOME", "OPO_CACHE", "XDG_CACHE_HOME")}
    result = subprocess.run(
        [sys.executable, "-m", "opo_cli", *arguments],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert "prepare the base model" not in result.stderr
    return result.stderr.splitlines()[-2:]


@pytest.fixture
def read_only(in_tmp: Path) -> Iterator[Path]:
    """A real file system that nobody can write, root neither."""
    folder = in_tmp / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "none", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a read-only file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_cache_that_is_a_file(command, in_tmp):
    Path("taken").write_text("")
    error, hint = opo(*command, OPO_CACHE="taken/below")
    assert error == "error: cannot write the cache 'taken/below': 'taken' is no folder".replace(
        "'taken' ", f"'{in_tmp / 'taken'}' "
    )
    assert "OPO_CACHE=" in hint
    assert not Path("run").exists()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_cache_on_a_read_only_file_system(command, read_only):
    error, hint = opo(*command, OPO_CACHE=str(read_only / "cache"))
    assert error == (
        f"error: cannot write the cache '{read_only / 'cache'}': '{read_only}' is not yours to "
        "write"
    )
    assert "OPO_CACHE=" in hint


def test_an_evaluation_needs_the_cache_too(read_only, base):
    arguments = ("eval", "tiny-easy", "--limit", "2", "--model", str(base))
    error, _ = opo(*arguments, OPO_CACHE=str(read_only))
    assert error == (
        f"error: cannot write the cache '{read_only}': '{read_only}' is not yours to write"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run a process as a user unknown here")
def test_a_user_without_a_home(in_tmp):
    """As in a container that is given any user id."""
    script = (
        "import os\n"
        "from opo_cli.errors import OpoError\n"
        "from opo_cli.records import cache_folder\n"
        f"os.setuid({NOBODY})\n"
        "try:\n    cache_folder()\n"
        "except OpoError as error:\n    print(error.message, '|', error.hint)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "OPO_CACHE")}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == (
        "the cache '~/.cache/opo': there is no such home folder | "
        "export OPO_CACHE=FOLDER, one that you may write\n"
    )


def test_which_folder_it_is(monkeypatch, tmp_path):
    for name in ("OPO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/opo")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_folder() == Path("/var/cache/opo")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # Which does not count, by its own rules.
    assert cache_folder() == Path("/home/someone/.cache/opo")
    monkeypatch.setenv("OPO_CACHE", "")  # Nor does what a script has left empty.
    assert cache_folder() == Path("/home/someone/.cache/opo")
    monkeypatch.setenv("OPO_CACHE", "~/elsewhere")
    assert cache_folder() == Path("/home/someone/elsewhere")
    monkeypatch.setenv("OPO_CACHE", "~no-such-user/cache")
    with pytest.raises(OpoError, match="the cache '~no-such-user/cache': there is no such home"):
        cache_folder()
    monkeypatch.setenv("OPO_CACHE", str(tmp_path / "not" / "yet"))
    check_cache()
    assert not (tmp_path / "not").exists()


def test_a_model_of_no_users_home_is_told(in_tmp):
    error, _ = opo("eval", "tiny-easy", "--model", "~no-such-user/model", HOME=str(in_tmp))
    assert "'~no-such-user/model'" in error
