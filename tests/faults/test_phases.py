"""Phases by function: every function that is named must be there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import opo_cli
from opo_cli.faults.phases import PHASE_OF, phase_of

PACKAGE = Path(opo_cli.__file__).parent


@pytest.mark.parametrize("name", PHASE_OF)
def test_every_named_function_is_there(name: str):
    file, function = name.split(":")
    tree = ast.parse((PACKAGE / file).read_text())
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert function in defined, f"{file} has no {function}: rename it in PHASE_OF, too"


def stack(*frames: str) -> str:
    lines = [
        f'  File "{file}", line 7 in {function}'
        for file, _, function in (frame.partition(":") for frame in frames)
    ]
    return "\n".join(lines) + "\n"


def test_the_innermost_known_function_of_the_main_thread_counts():
    doomed = f"{PACKAGE}/faults/doomed.py:audit"
    other = stack(f"{PACKAGE}/train/loop.py:_save_model")
    main = stack(
        doomed,
        "/usr/lib/python3/tempfile.py:mkdtemp",
        f"{PACKAGE}/train/loop.py:_keep_rollouts",
        f"{PACKAGE}/train/loop.py:_train",
        f"{PACKAGE}/cli/train.py:command",
        f"{PACKAGE}/faults/doomed.py:<module>",
    )
    dump = f"Thread 0x1 (most recent call first):\n{other}\nCurrent thread 0x2:\n{main}"
    assert phase_of(dump) == "ledger"


def test_no_known_function_is_no_phase():
    unknown = stack("/usr/lib/torch/train/loop.py:_save_model", f"{PACKAGE}/faults/doomed.py:main")
    assert phase_of(f"Thread 0x1:\n{unknown}") is None
    assert phase_of("") is None
