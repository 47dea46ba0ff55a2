"""Memory of a process, and the machine's cores."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from opo_cli.host import num_cores, peak_resident_bytes
from opo_cli.model.device import peak_bytes

SCRIPT = """
from opo_cli import host
before = host.peak_resident_bytes()
block = bytearray(b"x") * 200_000_000
after = host.peak_resident_bytes()
del block
print(before, after, host.peak_resident_bytes())
"""


def test_the_peak_is_the_processes_own_and_stays():
    """Also below a parent that is fatter, as this one is with torch."""
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    before, after, later = map(int, result.stdout.split())
    assert 5e6 < before < 120e6 < peak_resident_bytes()
    assert 190e6 < after - before < 260e6
    assert later == pytest.approx(after, rel=0.01)


def test_on_a_cpu_the_peak_is_all_of_the_process():
    assert peak_bytes(torch.device("cpu")) == peak_resident_bytes()


def test_cores_are_those_that_the_process_may_use():
    assert 1 <= num_cores() <= os.cpu_count()
