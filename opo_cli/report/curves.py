"""Small curves: one line of block characters per run or mean of runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-=+*%#"  # For terminals and pipes that cannot show the others.


def sparkline(
    values: Sequence[float], width: int, low: float, high: float, blocks: str = BLOCKS
) -> str:
    """`values` over a shared scale [low, high], averaged into at most `width` characters."""
    parts = np.array_split(np.asarray(values, float), min(width, len(values)))
    span = (high - low) or 1.0
    levels = [(np.nanmean(part) - low) / span * (len(blocks) - 1) for part in parts if len(part)]
    return "".join(blocks[int(np.clip(round(level), 0, len(blocks) - 1))] for level in levels)


def mean_curve(curves: Sequence[Sequence[float | None]]) -> list[float]:
    """The mean over runs, as far as the shortest goes; nan where a run has no value."""
    length = min((len(curve) for curve in curves), default=0)
    table = np.array([[np.nan if v is None else v for v in c[:length]] for c in curves], float)
    return table.mean(axis=0).tolist() if length else []
