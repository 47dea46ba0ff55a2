"""The responses that were measured, and the groups that are drawn from them.

Shape legend: M prompts, N responses of a prompt, D draws, G responses of a group, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from opo_cli.choose import choose
from opo_cli.errors import OpoError
from opo_cli.lab.store import LabData, PromptData

REDUCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "token-sum": lambda lengths: (lengths > 0).astype(float),
    "seq-mean": lambda lengths: (lengths > 0) / np.maximum(lengths, 1),
}
"""Lengths -> what the loss multiplies each response's score by. `token-sum` stands for token-mean
over a large step and for a constant divisor too, which differ from it by one factor."""
NUM_DRAWS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """All prompts, with the products of the gradients that the reduction makes of the scores."""

    prompts: Sequence[PromptData]
    reduction: str
    grams: Sequence[np.ndarray]
    """Per prompt (N, N)."""
    scales: Sequence[np.ndarray]
    """Per prompt (N,)."""
    exponents: np.ndarray
    """(M,) slope of log ||g||^2 on log l, fitted on the other prompts alone: whatever is tuned here
    has not seen the prompt that it is tried on."""

    @property
    def norms(self) -> list[np.ndarray]:
        """Per prompt (N,): ||g||^2."""
        return [np.diagonal(gram) for gram in self.grams]

    def only(self, x: int) -> Pool:
        """One prompt of it."""
        place = slice(x, x + 1)
        return replace(
            self,
            prompts=self.prompts[place],
            grams=self.grams[place],
            scales=self.scales[place],
            exponents=self.exponents[place],
        )


def make_pool(data: LabData, reduction: str) -> Pool:
    """Raises: OpoError: an unknown reduction, or a lab without two prompts."""
    scale_of = choose(reduction, REDUCTIONS, "reduction")
    if len(data.prompts) < 2:
        hint = "measure at least 2 prompts; 64 or more tell something"
        raise OpoError(f"a lab of {len(data.prompts)} prompts has no spread between them", hint)
    scales = [scale_of(prompt.lengths) for prompt in data.prompts]
    grams = [p.gram * np.outer(s, s) for p, s in zip(data.prompts, scales, strict=True)]
    return Pool(
        prompts=data.prompts,
        reduction=reduction,
        grams=grams,
        scales=scales,
        exponents=_exponents_elsewhere(data.prompts, [np.diagonal(gram) for gram in grams]),
    )


def _exponents_elsewhere(prompts: Sequence[PromptData], norms: Sequence[np.ndarray]) -> np.ndarray:
    """(M,) the least-squares slope with an intercept per prompt; 0 where lengths do not vary."""
    sums = np.zeros((len(prompts), 2))
    for place, (prompt, norm) in enumerate(zip(prompts, norms, strict=True)):
        known = (prompt.lengths > 0) & (norm > 0)
        if known.sum() > 1:
            x, y = np.log(prompt.lengths[known]), np.log(norm[known])
            x = x - x.mean()
            sums[place] = x @ y, x @ x
    others = sums.sum(0) - sums
    return np.where(others[:, 1] > 1e-12, others[:, 0] / np.maximum(others[:, 1], 1e-12), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """One group of each prompt in each draw: the D steps of training that an arm is tried on."""

    rows: np.ndarray
    """(D, M, G) places among the prompt's responses."""
    rest: Sequence[np.ndarray]
    """Per prompt (D, N - 2 G): the responses that are in neither group of the draw."""

    def take(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """Per prompt (N,) -> (D, M, G)."""
        return np.stack([each[self.rows[:, x]] for x, each in enumerate(values)], axis=1)

    def only(self, x: int) -> Groups:
        """One prompt's."""
        return Groups(rows=self.rows[:, x : x + 1], rest=self.rest[x : x + 1])


def draw(pool: Pool, size: int, *, seed: int, num_draws: int = NUM_DRAWS) -> tuple[Groups, Groups]:
    """Two disjoint groups of each prompt per draw, so that they are independent samples.

    A prompt's draws hang on (seed, size, its place) alone.

    Raises:
        OpoError: a group size that is below 2, or that some prompt's responses do not hold twice.
    """
    least = min(len(prompt.rewards) for prompt in pool.prompts)
    if size < 2:
        raise OpoError(f"a group of {size} has no baseline of its own", "--group-size 2 or more")
    if 2 * size > least:
        hint = f"--group-size {least // 2} or less, or measure with --responses {2 * size} or more"
        text = f"group size {size} needs {2 * size} responses per prompt, this lab has {least}"
        raise OpoError(text, hint)
    orders = []
    for place, prompt in enumerate(pool.prompts):
        rng = np.random.default_rng([seed, size, place])
        orders.append(rng.random((num_draws, len(prompt.rewards))).argsort(1))
    rest = [order[:, 2 * size :] for order in orders]
    rows = np.stack([order[:, : 2 * size] for order in orders], axis=1)
    first, second = rows[..., :size], rows[..., size:]
    return Groups(rows=first, rest=rest), Groups(rows=second, rest=rest)
