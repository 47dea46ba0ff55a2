"""Random projections of gradients that are too long to keep: a count sketch.

Coordinate c goes, with a sign of its own, to place c mod k of its parameter; signs are independent,
so that E[<s, s'>] = <g, g'>, with a standard deviation of at most about |g| |g'| sqrt(2 / k) where
energy spreads over the places. k is a prime: neither rows nor columns of a weight, whose widths
share no factor with it, fall into few places. (Charikar, Chen & Farach-Colton 2002; Weinberger et
al. 2009, arXiv 0902.2206.)

Shape legend: P coordinates of all parameters, k places.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

PLACES = 8209
"""Of the products within a prompt, where gradients are not kept whole: 1.6 % of |g| |g'|."""
SKETCH_PLACES = 1021
"""Of what is kept for products across prompts: 4 %."""


class Projection:
    """The same one wherever sizes, places and seed are; one byte per coordinate."""

    def __init__(self, sizes: Sequence[int], places: int, seed: int, device: torch.device):
        """Args: sizes: coordinates of each parameter."""
        self.places = places
        total = sum(sizes)
        random = np.random.default_rng([seed, places, total])
        bits = np.unpackbits(random.integers(0, 256, (total + 7) // 8, np.uint8), count=total)
        signs = torch.from_numpy(2 * bits.view(np.int8) - 1).to(device)
        self._signs = signs.split(list(sizes))

    def __call__(self, vector: Sequence[Tensor]) -> Tensor:
        """Parts (n,) -> (k,) fp32."""
        result = torch.zeros(self.places, device=vector[0].device)
        for part, signs in zip(vector, self._signs, strict=True):
            signed = part * signs
            whole = len(signed) - len(signed) % self.places
            result += signed[:whole].view(-1, self.places).sum(0)
            result[: len(signed) - whole] += signed[whole:]
        return result
