"""How the process of a rank ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.distributed.launch import run_ranked

SCRIPT = """
import atexit
import sys
from opo_cli.model.parallel import joined
from opo_cli.ranks import run_to_end


class Kept:
    def __del__(self):
        print("Python ends")


kept = Kept()
atexit.register(lambda: print("at exit"))


def main():
    {body}


run_to_end(main)
"""


def said(body: str) -> tuple[int, str, str]:
    """By the only rank: (exit code, output, errors)."""
    result = run_ranked(SCRIPT.format(body=body))
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("body", "code"), [("return 3", 3), ("return None", 0), ("sys.exit(4)", 4), ("sys.exit()", 0)]
)
def test_what_is_to_be_done_at_exit_is_done_and_no_more(body: str, code: int):
    assert said(body) == (code, "at exit\n", "")


def test_after_an_error_among_ranks_nothing_waits_for_them():
    code, out, errors = said("with joined('cpu', 60): raise ValueError('lost')")
    assert (code, out) == (1, "")
    assert errors.startswith("[rank0]: Traceback")  # By torch.
    assert errors.endswith("ValueError: lost\n")


def test_without_torchrun_python_ends_as_ever():
    script = SCRIPT.format(body="return 3")
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (3, "at exit\nPython ends\n")
