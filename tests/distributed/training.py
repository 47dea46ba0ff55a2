"""Started by torchrun, or by Python alone: trains in FOLDER, one run per task, one after the other.

... -m tests.distributed.training FOLDER STEPS NAME=ALGORITHM[,SECTION.KEY=VALUE]... ...
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from opo_cli.model.parallel import joined
from opo_cli.presets import resolve
from opo_cli.ranks import run_to_end
from opo_cli.records import RunFolder
from opo_cli.report.live import TrainView
from opo_cli.train.loop import train

PLAIN = ("eval.benchmarks=[]", "eval.validation=[]")


def main(folder: str, steps: str, *tasks: str) -> None:
    with joined("cpu", 120):
        for task in tasks:
            name, _, words = task.partition("=")
            algorithm, *overrides = words.split(",")
            config = resolve(
                "smoke",
                algorithm=algorithm,
                named={"train": {"steps": int(steps)}},
                overrides=(*PLAIN, *overrides),
            )
            run = RunFolder(Path(folder) / name)
            train(config, run, TrainView(Console(quiet=True)))


if __name__ == "__main__":
    run_to_end(lambda: main(*sys.argv[1:]))
