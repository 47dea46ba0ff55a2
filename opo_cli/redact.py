"""Secrets stay out of what is printed and kept: values of environment variables that are named as
such, wherever they turn up, and what stands before the host of a URL."""

from __future__ import annotations

import os
import re
import sys

SECRET = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.I)
"""How a variable is named whose value is nobody's business: HF_TOKEN, WANDB_API_KEY, ..."""
SHORTEST = 8  # Characters; a shorter value would be found in words that it is not in.
CREDENTIALS = re.compile(r"(\w://)[^/\s@]+@")


def redacted(text: str) -> str:
    """`text` with `$HF_TOKEN` for the value of HF_TOKEN, and `hf://***@` for `hf://user:token@`."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= SHORTEST:
            text = text.replace(value, f"${name}")
    return CREDENTIALS.sub(r"\1***@", text)


def command_line() -> list[str]:
    """The words of the command that runs, as they may be kept."""
    return ["opo", *map(redacted, sys.argv[1:])]
