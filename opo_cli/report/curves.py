"""Small curves: one line of block characters per run or mean of runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-=+*%#"  # For terminals and pipes that cannot show the others.


def sparkline(
    values: Sequence[float], width: int, low: float, high: float, blocks: str = BLOCKS
) -> str:
    """`values` over a shared scale [low, high], averaged into at most `width` characters.

    nan is a gap; a character whose values are all gaps is a space.
    """
    span = (high - low) or 1.0

    def character(part: np.ndarray) -> str:
        known = part[~np.isnan(part)]
        if not len(known):
            return " "
        level = round((known.mean() - low) / span * (len(blocks) - 1))
        return blocks[min(max(level, 0), len(blocks) - 1)]

    if not len(values):
        return ""
    return "".join(map(character, np.array_split(np.array(values), min(width, len(values)))))


def mean_curve(curves: Sequence[Sequence[float | None]]) -> list[float]:
    """The mean over runs, as far as the shortest goes; nan where a run has no value."""
    length = min((len(curve) for curve in curves), default=0)
    table = np.array([[np.nan if v is None else v for v in c[:length]] for c in curves], float)
    return table.mean(axis=0).tolist() if length else []
