"""Arms: what each estimator would have made of a group, computed from the measured responses.

Every row of `rl/advantages.py` that needs no critic is one (`trained.py`). What only a lab can have
(the exact norms, the best constant) is added here.

Shape legend: M prompts, N responses of a prompt, D draws, G responses of a group, T tokens, F folds
of a baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from opo_cli.choose import choose
from opo_cli.lab.pool import Groups, Pool
from opo_cli.lab.trained import kind_of, missing_for, most_draws, trained_advantages
from opo_cli.rl.advantages import ADVANTAGES, group_advantage

LEAST_FOLD = 4
"""Responses from which an oracle's baseline is made, in each of two folds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """An estimator in the lab."""

    estimate: Callable[[Pool, Groups], np.ndarray]
    """-> (F, D, M, G) advantages of responses, or (1, D, M, G, T) of their tokens. Two folds are
    two advantages with independent baselines, whose products are free of the baselines' noise."""
    formula: str
    missing: Callable[[Pool, int], str] = lambda pool, size: ""
    """(pool, group size) -> why it cannot be computed here, or ""."""
    most_draws: Callable[[Pool, int], int | None] = lambda pool, size: None
    """(pool, group size) -> how many draws it is tried on; None: all."""
    is_unbiased: bool = False
    """Under a sum over tokens: its expectation is then that of `rloo`, whatever the policy."""
    is_practical: bool = True
    """False: it needs what training does not have."""
    is_token_level: bool = False
    needs_step: bool = False
    """It compares groups, so that it has to see all prompts at once."""


def _rows() -> dict[str, Arm]:
    """`length-power` needs an exponent, so that its arms are named by theirs, below."""
    return {
        name: Arm(
            estimate=partial(trained_advantages, name),
            formula=row.formula,
            missing=lambda pool, _, name=name: missing_for(name, pool),
            most_draws=partial(most_draws, name),
            is_unbiased=row.is_unbiased,
            is_token_level=kind_of(name).is_token_level,
            needs_step=kind_of(name).needs_step,
        )
        for name, row in ADVANTAGES.items()
        if not row.needs_critic and name != "length-power"
    }


def _weighted(pool: Pool, groups: Groups, *, of, leave_one_out: bool) -> np.ndarray:
    """A baseline weighted by `of(pool)`, per prompt (N,); all draws at once, as each group is a
    world of its own."""
    columns = ([p.rewards for p in pool.prompts], [p.lengths for p in pool.prompts], of(pool))
    rewards, lengths, weights = (
        torch.tensor(groups.take(column).reshape(-1)).double() for column in columns
    )
    ids = torch.arange(len(rewards)) // groups.rows.shape[2]
    found = group_advantage(rewards, lengths, ids, weights, leave_one_out=leave_one_out)
    return found.numpy().reshape(1, *groups.rows.shape)


def _oracle(pool: Pool, groups: Groups, *, of) -> np.ndarray:
    """(2, D, M, G): r - b, b = sum w r / sum w over each half of the responses outside both groups.

    With b_1 and b_2 independent of the group and of each other, E[w (r - b_1)(r - b_2)] is
    E[w (r - E b)^2]: the noise of estimating b, which an oracle does not have, drops out, and what
    is left is the square of a ratio's bias, O(1/N^2).
    """
    folds = []
    for fold in range(2):
        columns = []
        for prompt, weights, rest in zip(pool.prompts, of(pool), groups.rest, strict=True):
            half = rest[:, fold::2]
            usable = np.isfinite(prompt.rewards) & (prompt.lengths > 0)
            rewards, weights = np.where(usable, prompt.rewards, 0.0), weights * usable
            total = weights[half].sum(1)
            columns.append((weights * rewards)[half].sum(1) / np.where(total > 0, total, 1))
        folds.append(np.stack(columns, axis=1)[..., None])
    rewards = groups.take([prompt.rewards for prompt in pool.prompts])
    lengths = groups.take([prompt.lengths for prompt in pool.prompts])
    usable = np.isfinite(rewards) & (lengths > 0)
    return np.stack([np.where(usable, rewards - fold, 0.0) for fold in folds])


def _too_few(pool: Pool, size: int) -> str:
    least = min(len(prompt.rewards) for prompt in pool.prompts)
    needed = 2 * size + 2 * LEAST_FOLD
    return "" if least >= needed else f"it takes {needed} responses per prompt, not {least}"


def _norms(pool: Pool) -> list[np.ndarray]:
    return pool.norms


def _logit_norms(pool: Pool) -> list[np.ndarray]:
    return [prompt.logit_norms for prompt in pool.prompts]


def _length_powers(pool: Pool, exponent: float | None) -> list[np.ndarray]:
    """None: the exponent that fits the other prompts."""
    exponents = pool.exponents if exponent is None else [exponent] * len(pool.prompts)
    return [np.maximum(p.lengths, 1.0) ** c for p, c in zip(pool.prompts, exponents, strict=True)]


def _ones(pool: Pool) -> list[np.ndarray]:
    return [np.ones(len(prompt.rewards)) for prompt in pool.prompts]


ARMS: dict[str, Arm] = {
    **_rows(),
    "logit-proxy-loo": Arm(
        estimate=partial(_weighted, of=_logit_norms, leave_one_out=True),
        formula="A = r - sum(W r)/sum(W) of the others, W = sum_t(1 - 2 pi_t + sum_v pi_v^2)",
        is_unbiased=True,
    ),
    **{
        f"length-power-{exponent or 'fit'}{'-loo' if leave_one_out else ''}": Arm(
            estimate=partial(
                _weighted,
                of=partial(_length_powers, exponent=exponent),
                leave_one_out=leave_one_out,
            ),
            formula="A = r - sum(l^c r)/sum(l^c)"
            f"{' of the others' if leave_one_out else ''}, "
            f"c = {exponent or 'as fits the other prompts'}",
            is_unbiased=leave_one_out,
        )
        for exponent in (0.5, 1.6, None)
        for leave_one_out in (False, True)
    },
    "exact": Arm(
        estimate=partial(_weighted, of=_norms, leave_one_out=False),
        formula="A = r - sum(w r)/sum(w), w = ||g||^2",
        is_practical=False,
    ),
    "exact-loo": Arm(
        estimate=partial(_weighted, of=_norms, leave_one_out=True),
        formula="A = r - sum(w r)/sum(w) of the others, w = ||g||^2",
        is_unbiased=True,
        is_practical=False,
    ),
    "oracle-mean": Arm(
        estimate=partial(_oracle, of=_ones),
        formula="A = r - E[r]",
        missing=_too_few,
        is_unbiased=True,
        is_practical=False,
    ),
    "oracle": Arm(
        estimate=partial(_oracle, of=_norms),
        formula="A = r - E[w r]/E[w], w = ||g||^2: the best constant",
        missing=_too_few,
        is_unbiased=True,
        is_practical=False,
    ),
}

REFERENCE = "rloo"
"""Whose noise all others are told relative to."""


def chosen(
    names: Sequence[str] | None, pool: Pool, size: int
) -> tuple[dict[str, Arm], dict[str, str]]:
    """(arms by name, the reference first; name -> why it is left out).

    Args:
        names: None or empty: all.

    Raises:
        OpoError: an unknown name.
    """
    wanted = dict.fromkeys([REFERENCE, *(names or ARMS)])
    table = {name: choose(name, ARMS, "estimator of the lab") for name in wanted}
    reasons = {name: arm.missing(pool, size) for name, arm in table.items()}
    known = {name: arm for name, arm in table.items() if not reasons[name]}
    return known, {name: reason for name, reason in reasons.items() if reason}
