"""When a run is killed: points drawn by a seed."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from opo_cli.faults.child import Doom
from opo_cli.faults.doomed import TEAR_PATIENCE

NUM_KILLS = ((1, 2, 3), (7, 2, 1))
"""Kills of one run, and how often each number is drawn, in tenths."""
START_SHARE = 0.1  # Of the kills by time: before the first write, while libraries are imported.
TRAINING_SHARE = 0.6  # Between the first step and the last; the rest between any two writes.
MOST_TORN = 2**16  # Bytes; a line of a log has some thousand, a tiny model some hundred thousand.


@dataclass(frozen=True, slots=True)
class Reference:
    """The uninterrupted run."""

    seconds: float
    writes: Sequence[float]
    """Seconds from its start to each of its writes."""
    training: tuple[float, float]
    """Seconds from its start to the first step's beginning, and to the last one's end."""


def draw_trial(seed: int, number: int, reference: Reference, attempt: int = 0) -> list[Doom]:
    """The kills of one run, each in the process that goes on after the one before.

    Even trials begin with a kill at a write, odd ones with one by time. Where a resumed process has
    less left to do than the first had, it may end before its kill.
    """
    rng = random.Random(f"faults/{seed}/{number}/{attempt}")
    count = rng.choices(*NUM_KILLS)[0]
    by_time = [number % 2 == 1, *(rng.random() < 0.5 for _ in range(count - 1))]
    return [(_by_time if timed else _at_write)(rng, reference) for timed in by_time]


def _at_write(rng: random.Random, reference: Reference) -> Doom:
    """Right before a write, or in the middle of one."""
    if rng.random() < 0.5:
        return Doom(action="die", at=rng.randint(1, len(reference.writes)))
    return Doom(
        action="tear",
        at=rng.randint(1, max(1, len(reference.writes) - TEAR_PATIENCE)),
        tear_bytes=int(math.exp(rng.uniform(0, math.log(MOST_TORN)))),
    )


def _by_time(rng: random.Random, reference: Reference) -> Doom:
    """Relative to the write before it, as another process may be slower."""
    first, last, share = reference.writes[0], reference.writes[-1], rng.random()
    if share < START_SHARE:
        return Doom(action="tell", at=0, delay_seconds=rng.uniform(0, first))
    is_training = share < START_SHARE + TRAINING_SHARE
    when = rng.uniform(*(reference.training if is_training else (first, last)))
    at = bisect_right(reference.writes, when)
    return Doom(action="tell", at=at, delay_seconds=when - reference.writes[at - 1])


def told(doom: Doom) -> str:
    """In words."""
    match doom.action:
        case "tear":
            return f"within write {doom.at}, after {doom.tear_bytes} bytes"
        case "tell":
            return f"{doom.delay_seconds:.2f} s after " + (
                f"write {doom.at}" if doom.at else "the start"
            )
    return f"before write {doom.at}"
