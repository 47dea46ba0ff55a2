"""Started by torchrun: a training in which rank 1 fails at PLACE, `rollout` or `update`."""

from __future__ import annotations

import sys

from opo_cli.cli import main
from opo_cli.errors import OpoError
from opo_cli.ranks import rank, run_to_end
from opo_cli.report.live import TrainView


def fail(place: str) -> None:
    if rank() == 1:
        raise OpoError(f"no {place} today", "another day")


if __name__ == "__main__":
    where, out = sys.argv[1:]
    if where == "rollout":
        TrainView.rollout = lambda view, finished, total: fail(where)
    else:
        TrainView.updating = lambda view: fail(where)
    arguments = ["train", "--preset", "smoke", "--set", "eval.benchmarks=[]", "--out", out]
    run_to_end(lambda: main(arguments))
