"""What the docs say to type: torchrun takes it, and so does opo."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main
from torch.distributed.run import get_args_parser

from opo_cli.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    """Lines of code blocks, as one where a backslash continues them."""
    texts = [page.read_text().replace("\\\n", " ") for page in PAGES]
    lines = [
        line for text in texts for line in re.findall(r"^torchrun .*-m opo_cli.*$", text, re.M)
    ]
    return list(dict.fromkeys(lines))


@pytest.mark.parametrize("command", commands())
def test_command_is_taken(command):
    arguments = shlex.split(command.replace("$S", ""), comments=True)[1:]
    asked = get_args_parser().parse_args(arguments)
    assert asked.module
    assert asked.training_script == "opo_cli"
    opo = typer.main.get_command(app)
    with opo.make_context("opo", [*asked.training_script_args]) as context:
        name, *rest = [word for word in asked.training_script_args if word != "--"]
        opo.commands[name].make_context(name, rest, parent=context)


def test_all_are_found():
    assert sum("opo_cli -- " in command for command in commands()) == 2
    assert len(commands()) >= 6
