"""Imports go strictly downwards, and the quick paths never import torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "opo_cli"
LAYERS = {
    "errors": 0,
    "host": 0,
    "interrupt": 0,
    "ranks": 0,
    "redact": 0,
    "types": 0,
    "metrics": 0,
    "rl": 0,
    "choose": 1,
    "files": 1,
    "lines": 1,
    "locks": 1,
    "algorithms": 1,
    "ledger": 1,
    "records": 1,
    "shapes": 1,
    "console": 1,
    "config": 2,
    "certificate": 2,
    "presets": 2,
    "report": 2,
    "data": 3,
    "grading": 3,
    "model": 3,
    "rollout": 4,
    "evaluate": 5,
    "train": 6,
    "lab": 6,
    "faults": 6,
    "doctor": 6,
    "cli": 7,
}
TOP = ("__init__", "__main__")


def imports_of(path: Path) -> set[str]:
    """Names below `opo_cli` that a file imports, anywhere in it but under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("opo_cli.")}


def layer_name(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = [path for path in PACKAGE.rglob("*.py") if layer_name(path) not in TOP]


def test_every_module_has_a_layer():
    assert {layer_name(path) for path in FILES} == set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(path: Path):
    own = layer_name(path)
    for name in imports_of(path) - {own, "__version__"}:
        assert LAYERS[name] <= LAYERS[own], f"{own} imports {name}"
        if LAYERS[name] == LAYERS[own]:
            assert own not in imports_of_package(name), f"{own} and {name} import each other"


def imports_of_package(name: str) -> set[str]:
    return {found for path in FILES if layer_name(path) == name for found in imports_of(path)}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["list", "algorithms"],
        ["list", "runs"],
        ["check", "resum"],
        ["doctor", "--help"],
        ["train", "--preset", "tinny"],
        ["train", "--algorithm", "opoo"],
        ["train", "--set", "algorithm.advantage=rlo"],
        ["eval", "AIME42"],
        ["eval", "tiny-easy", "--run", "nowhere"],
        ["show", "nowhere"],
        ["replay", "nowhere"],
        ["replay", "nowhere", "--as", "gropo"],
        ["compare", "--preset", "tiny", "--curves", "rewards"],
    ],
    ids=" ".join,
)
def test_quick_paths_import_no_torch(arguments: list[str], tmp_path: Path):
    script = (
        "import sys; from opo_cli.cli import main; main(sys.argv[1:]); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
