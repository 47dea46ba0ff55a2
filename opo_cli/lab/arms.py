"""Arms: what each estimator would have made of a group, computed from the measured responses.

Every row of `rl/advantages.py` that needs no critic is an arm, by the very function that trains.
How it is called (on single numbers per response or on tokens, on groups or on whole steps) is found
out by trying it, so that a new row is an arm by being there. What only a lab can have (the exact
norms, the best constant) is added here.

Shape legend: M prompts, N responses of a prompt, D draws, G responses of a group, T tokens, F folds
of a baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch

from opo_cli.choose import choose
from opo_cli.lab.pool import Groups, Pool
from opo_cli.rl.advantages import ADVANTAGES, Signals, group_advantage, length_power

LEAST_FOLD = 4
"""Responses from which an oracle's baseline is made, in each of two folds."""
MOST_ROWS = 2**18
"""Of one call of an estimator: bounds memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """An estimator in the lab."""

    estimate: Callable[[Pool, Groups], np.ndarray]
    """-> (F, D, M, G) advantages of responses, or (1, D, M, G, T) of their tokens. Two folds are
    two advantages with independent baselines, whose products are free of the baselines' noise."""
    formula: str
    missing: Callable[[Pool, int], str] = lambda pool, size: ""
    """(pool, group size) -> why it cannot be computed here, or ""."""
    is_unbiased: bool = False
    """Under a sum over tokens: its expectation is then that of `rloo`, whatever the policy."""
    is_practical: bool = True
    """False: it needs what training does not have."""
    is_token_level: bool = False


# --- the estimators that train ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """How an estimator has to be called."""

    is_token_level: bool
    """Its advantage differs between the tokens of a response."""
    needs_tokens: bool
    """It looks at tokens, if only to count them: a response is not one number to it."""
    needs_step: bool
    """It compares groups, so that each draw is a call of its own."""


def _probe(lengths: Sequence[int], width: int) -> Signals:
    """Groups of four, the third of equal rewards, as some estimators count those; a response of one
    token stands for each where `width` is 1."""
    rng, count = np.random.default_rng(7), len(lengths)
    rewards = torch.tensor([1.0, 0, 0.5, 0, 1, 1, 0, 2, 1, 1, 1, 1][:count], dtype=torch.float64)
    norms = torch.tensor(rng.uniform(0.2, 1.5, (count, max(lengths))))
    lengths = torch.tensor(lengths)
    norms = norms * (torch.arange(norms.shape[1]) < lengths[:, None])
    return _signals(
        rewards=rewards,
        lengths=lengths,
        groups=torch.arange(count) // 4,
        norms=norms if width > 1 else norms.sum(-1, keepdim=True),
        greedy=torch.full((count,), 0.25, dtype=torch.float64),
        width=width,
    )


@cache
def kind_of(name: str) -> Kind:
    """Of a row of `ADVANTAGES`."""
    estimate, lengths = ADVANTAGES[name].estimate, (1, 2, 3, 5, 2, 4, 1, 3, 2, 2, 1, 4)
    full = _probe(lengths, max(lengths))
    wide, narrow = estimate(full), estimate(_probe(lengths, 1))[:, 0]
    is_token_level = not torch.allclose(wide, wide[:, :1] * full.mask)
    both, alone = (estimate(_probe(part, 5))[:4, 0] for part in (lengths, (1, 2, 3, 5)))
    needs_tokens = is_token_level or not torch.allclose(wide[:, 0], narrow)
    return Kind(is_token_level, needs_tokens, not torch.allclose(both, alone))


def _signals(*, rewards, lengths, groups, norms, greedy, width: int) -> Signals:
    """Tensors (B,), norms (B, width) -> what an estimator may look at; `width` 1: each response is
    one token, whose length is still the response's."""
    place = torch.arange(width)
    spans = lengths if width > 1 else lengths.clamp(max=1)
    mask, is_last = place < spans[:, None], place == spans[:, None] - 1
    zero = rewards.new_zeros(())
    graded = rewards[(lengths > 0) & rewards.isfinite()]
    return Signals(
        rewards=rewards,
        lengths=lengths.to(rewards.dtype),
        groups=groups,
        mask=mask,
        token_rewards=rewards[:, None].where(is_last, zero),
        logit_norms=norms,
        greedy_rewards=greedy,
        is_constant=not (len(graded) and bool(graded.max() > graded.min())),
    )


def _table_arm(name: str, pool: Pool, groups: Groups) -> np.ndarray:
    """(1, D, M, G), or (1, D, M, G, T), from the function that trains."""
    kind, (num_draws, num_prompts, size) = kind_of(name), groups.rows.shape
    lengths = groups.take([prompt.lengths for prompt in pool.prompts])
    # Of all responses, drawn or not: token-level advantages are laid over the whole pool.
    longest = max(int(prompt.lengths.max()) for prompt in pool.prompts)
    width = longest if kind.needs_tokens else 1
    rewards = groups.take([prompt.rewards for prompt in pool.prompts])
    norms = _norms_of(pool, groups, width, kind.needs_tokens)
    greedy = np.array(
        [np.nan if p.greedy_reward is None else p.greedy_reward for p in pool.prompts]
    )
    chunk = 1 if kind.needs_step else max(1, MOST_ROWS // (num_prompts * size * width))
    found = []
    for start in range(0, num_draws, chunk):
        part = slice(start, start + chunk)
        count = len(rewards[part]) * num_prompts
        signals = _signals(
            rewards=torch.tensor(rewards[part].reshape(-1)),
            lengths=torch.tensor(lengths[part].reshape(-1)),
            groups=torch.arange(count).repeat_interleave(size),
            norms=torch.tensor(norms(part)),
            greedy=torch.tensor(np.tile(np.repeat(greedy, size), len(rewards[part]))),
            width=width,
        )
        values = ADVANTAGES[name].estimate(signals).numpy()
        found.append(values if kind.is_token_level else values[:, 0].copy())  # Not all of (B, T).
    return np.concatenate(found).reshape(1, num_draws, num_prompts, size, *found[0].shape[1:])


def _norms_of(pool: Pool, groups: Groups, width: int, needs_tokens: bool):
    """A function: slice of draws -> (B, width) logit norms; zeros where an estimator that looks at
    tokens needs none."""
    if not needs_tokens:
        sums = groups.take([prompt.logit_norms for prompt in pool.prompts])
        return lambda part: sums[part].reshape(-1, 1)
    padded = [_padded_norms(prompt, width) for prompt in pool.prompts]

    def of(part: slice) -> np.ndarray:
        rows = groups.rows[part]
        stacked = np.stack([each[rows[:, x]] for x, each in enumerate(padded)], axis=1)
        return stacked.reshape(-1, width)

    return of


def _padded_norms(prompt, width: int) -> np.ndarray:
    """(N, width) logit norms of tokens, zero past a response's end, or where there are none."""
    found = np.zeros((len(prompt.lengths), width))
    if prompt.token_norms is not None:
        found[np.arange(width) < prompt.lengths[:, None]] = prompt.token_norms
    return found


def _missing(name: str, pool: Pool, size: int) -> str:
    row, kind = ADVANTAGES[name], kind_of(name)
    if row.needs_greedy and not all(_has_greedy(prompt) for prompt in pool.prompts):
        return "not every prompt has a greedy response with a reward"
    if kind.is_token_level and any(prompt.token_gram is None for prompt in pool.prompts):
        return "gradients of single tokens were not measured (--token-gradients)"
    is_lacking = any(prompt.token_norms is None for prompt in pool.prompts)
    if kind.needs_tokens and row.needs_logit_norms and is_lacking:
        return "logit norms of single tokens were not measured (--token-gradients)"
    return ""


def _has_greedy(prompt) -> bool:
    return prompt.greedy_reward is not None and bool(np.isfinite(prompt.greedy_reward))


def _rows() -> dict[str, Arm]:
    """`length-power` needs an exponent, so that its arms are named by theirs, below."""
    return {
        name: Arm(
            estimate=partial(_table_arm, name),
            formula=row.formula,
            missing=partial(_missing, name),
            is_unbiased=row.is_unbiased,
            is_token_level=kind_of(name).is_token_level,
        )
        for name, row in ADVANTAGES.items()
        if not row.needs_critic and name != "length-power"
    }


# --- what only the lab has ----------------------------------------------------------------------


def _flat(pool: Pool, groups: Groups) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(B,) rewards, lengths and groups of all draws at once, for estimators that see one group."""
    rewards = groups.take([prompt.rewards for prompt in pool.prompts])
    lengths = groups.take([prompt.lengths for prompt in pool.prompts])
    count, size = rewards.shape[0] * rewards.shape[1], rewards.shape[2]
    ids = torch.arange(count).repeat_interleave(size)
    return torch.tensor(rewards.reshape(-1)), torch.tensor(lengths.reshape(-1)).double(), ids


def _weighted(pool: Pool, groups: Groups, *, of, leave_one_out: bool) -> np.ndarray:
    """A baseline weighted by `of(pool)`, per prompt (N,)."""
    rewards, lengths, ids = _flat(pool, groups)
    weights = torch.tensor(groups.take(of(pool)).reshape(-1))
    found = group_advantage(rewards, lengths, ids, weights, leave_one_out=leave_one_out)
    return found.numpy().reshape(1, *groups.rows.shape)


def _power(pool: Pool, groups: Groups, *, exponent: float | None) -> np.ndarray:
    """None: the exponent that fits the other prompts."""
    rewards, lengths, ids = _flat(pool, groups)
    if exponent is None:
        num_draws, _, size = groups.rows.shape
        exponent = torch.tensor(np.tile(np.repeat(pool.exponents, size), num_draws))
    found = length_power(rewards, lengths, ids, exponent)
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
        f"length-power-{exponent or 'fit'}": Arm(
            estimate=partial(_power, exponent=exponent),
            formula=f"A = r - sum(l^c r)/sum(l^c), c = {exponent or 'as fits the other prompts'}",
        )
        for exponent in (0.5, 1.6, None)
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
