"""The estimators that train, on the lab's groups: by the very functions of `rl/advantages.py`.

How one is called (on single numbers per response or on tokens, on groups or on whole steps) is
found out by trying it, so that a new row is an arm by being there.

Shape legend: M prompts, D draws, G responses of a group, T tokens, B rows of a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from opo_cli.lab.pool import Groups, Pool
from opo_cli.rl.advantages import ADVANTAGES, Signals

MOST_ROWS = 2**18
"""Of one call of an estimator: bounds memory."""
MOST_TOKENS, LEAST_DRAWS = 2**30, 16
"""Of all calls of an estimator that compares groups by their tokens, so that each draw is a call of
its own: some minutes; and the draws that it has whatever they take."""


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


def trained_advantages(name: str, pool: Pool, groups: Groups) -> np.ndarray:
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


def most_draws(name: str, pool: Pool, size: int) -> int | None:
    """Draws that the row can be tried on in a bearable time; None: as many as there are."""
    kind = kind_of(name)
    if not (kind.needs_step and kind.needs_tokens):
        return None
    longest = max(int(prompt.lengths.max()) for prompt in pool.prompts)
    return max(MOST_TOKENS // (2 * len(pool.prompts) * size * max(longest, 1)), LEAST_DRAWS)


def missing_for(name: str, pool: Pool) -> str:
    """Why the row cannot be computed here, or ""."""
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
