"""`opo lab` under a real torchrun: two ranks on a CPU make the files of one process."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from opo_cli.cli import main
from tests.distributed import launch
from tests.processes import PATIENCE, children_of, is_alive, starting, wait_for

SMALL = [
    *("lab", "--preset", "smoke", "--prompts", "7", "--responses", "8", "--group-size", "2,4"),
    *("--set", "rollout.max_rows=16", "--estimators", "opo"),
]


@pytest.fixture
def on_ranks(base, in_tmp):
    """Starts a command; what a failed test leaves is ended."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with starting() as start:
        yield lambda *arguments: start(launch.command("-m", "opo_cli", *arguments), environment)


def files_of(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder, "prompts").glob("*.np?"))}


def test_ranks_make_the_files_of_one_process(on_ranks, capsys):
    """Stopped in the middle and gone on with; chunks of two prompts, a number that does not divide
    by two, single tokens, which travel between ranks, and an answer like that of one process."""
    asked = [*SMALL, "--token-gradients", "--format", "json"]
    assert main([*asked, "--out", "one"]) == 0
    told = capsys.readouterr().out
    first = on_ranks(*asked, "--out", "two")
    wait_for(lambda: len(files_of("two")) >= 4, first)  # Each prompt has two files.
    ranks = children_of(first.pid)
    os.kill(ranks[1], signal.SIGKILL)
    first.communicate(timeout=PATIENCE)
    assert first.returncode != 0
    assert not any(map(is_alive, ranks))
    kept = files_of("two")
    assert 0 < len(kept) < len(files_of("one"))
    second = on_ranks(*asked, "--out", "two")
    out, talk = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0, talk
    assert files_of("two") == files_of("one")
    assert kept.items() <= files_of("two").items()
    assert json.loads(out) == json.loads(told)  # Told once.
    assert talk.count("on each of 2 ranks") == talk.count("measured: two") == 1
