"""A rollout batch as tensors. Shape legend: B rows (responses), T response tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opo_cli.config import Config
from opo_cli.data.sources import MINIBATCH_STREAM
from opo_cli.model.scores import TokenScores
from opo_cli.model.sequences import Sequences
from opo_cli.types import GradedGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Whole groups; rows of a group are neighbours."""

    sequences: Sequences
    groups: Tensor
    """(B,) int64, from 0 within this batch."""
    places: Tensor
    """(B,) int64, of the group within the whole step, of which other ranks may have the rest."""
    num_groups: int
    """Of the whole step."""
    rewards: Tensor
    """(B,) fp32, as the estimator sees them: a punishment of long responses included."""
    correct: Tensor
    """(B,) bool."""
    truncated: Tensor
    """(B,) bool."""
    is_trained: Tensor
    """(B,) bool: rows that count in baseline and loss; the others are only measured."""
    sampler_logprobs: Tensor
    """(B, T) nats, the engine's; zero beyond a row's length, as in all (B, T) fields."""
    reference_logprobs: Tensor | None = None
    """(B, T) under the initial policy, which is also the reference policy; where its KL is in the
    objective."""
    old_logprobs: Tensor | None = None
    """(B, T) at rollout weights. None before an update that is exactly on-policy: there they are
    the update's own, which returns them."""
    old_entropy: Tensor | None = None
    """(B, T) exact entropy, likewise."""
    logit_norms: Tensor | None = None
    """(B, T) see `TokenScores`, likewise."""
    greedy_rewards: Tensor | None = None
    """(B,) of the greedy response to the row's prompt, where the estimator asks for it."""
    values: Tensor | None = None
    """(B, T) the critic's, before the update."""
    advantages: Tensor | None = None
    """(B, T)"""
    returns: Tensor | None = None
    """(B, T) value targets."""

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def lengths(self) -> Tensor:
        return self.sequences.lengths

    @property
    def mask(self) -> Tensor:
        return self.sequences.mask

    @property
    def loss_lengths(self) -> Tensor:
        """(B,) tokens that count in the loss."""
        return self.lengths * self.is_trained

    @property
    def loss_mask(self) -> Tensor:
        """(B, T) bool."""
        return self.mask & self.is_trained[:, None]

    def with_(self, **changes: Tensor | None) -> Batch:
        return replace(self, **changes)

    def with_scores(self, scores: TokenScores) -> Batch:
        """With the policy's scores at rollout weights."""
        return replace(
            self,
            old_logprobs=scores.logprobs,
            old_entropy=scores.entropy,
            logit_norms=scores.logit_norms,
        )

    def first_of_groups(self, count: int) -> Tensor:
        """(b,) the first `count` rows of each group. The responses of a group are exchangeable, so
        they stand for all of them."""
        starts = torch.searchsorted(self.groups, self.groups)
        place = torch.arange(len(self), device=self.groups.device) - starts
        return (place < count).nonzero().squeeze(-1)

    def select(self, rows: Tensor) -> Batch:
        """Some rows, padding cut back to their longest."""
        sequences = self.sequences.select(rows)
        width = sequences.mask.shape[1]
        chosen = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                chosen[field.name] = value[rows, :width] if value.dim() == 2 else value[rows]
        return replace(self, sequences=sequences, **chosen)


def collate(
    graded: Sequence[GradedGroup],
    device: torch.device,
    places: Sequence[int] | None = None,
    num_groups: int | None = None,
) -> Batch:
    """Graded groups -> tensors. Groups are told apart by place, not by their prompt's text.

    Args:
        places, num_groups: see `Batch`; None: these are all of the step.
    """
    rows = [
        (index, group.group.prompt, rollout, grade)
        for index, group in enumerate(graded)
        for rollout, grade in zip(group.group.rollouts, group.grades, strict=True)
    ]
    logprobs = [torch.tensor(rollout.sampler_logprobs) for _, _, rollout, _ in rows]
    places = range(len(graded)) if places is None else places

    def column(values: Iterable[Any], dtype: torch.dtype) -> Tensor:
        return torch.tensor(list(values), dtype=dtype, device=device)

    return Batch(
        sequences=Sequences.pack(
            [prompt.token_ids for _, prompt, _, _ in rows],
            [rollout.token_ids for _, _, rollout, _ in rows],
            device,
        ),
        groups=column((index for index, *_ in rows), torch.long),
        places=column((places[index] for index, *_ in rows), torch.long),
        num_groups=len(graded) if num_groups is None else num_groups,
        rewards=column((grade.reward for *_, grade in rows), torch.float32),
        correct=column((grade.correct for *_, grade in rows), torch.bool),
        truncated=column(
            (rollout.finish_reason == "length" for _, _, rollout, _ in rows), torch.bool
        ),
        is_trained=torch.ones(len(rows), dtype=torch.bool, device=device),
        sampler_logprobs=padded(logprobs).to(device),
    )


def padded(rows: Sequence[Tensor]) -> Tensor:
    """(B, T), zero beyond a row's end; (0, 0) of no rows."""
    if not rows:
        return torch.zeros(0, 0)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def minibatch_places(num_groups: int, step: int, config: Config) -> list[Tensor]:
    """Places of the groups of each minibatch, in order: whole groups, shuffled by (seed, step), one
    minibatch per optimizer step."""
    count = config.algorithm.minibatches_per_step
    if count == 1:
        return [torch.arange(num_groups)]
    order = np.random.default_rng([MINIBATCH_STREAM, config.seed, step]).permutation(num_groups)
    return [places.sort().values for places in torch.from_numpy(order).chunk(count)]


def merged_columns(parts: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """The ranks' `ledger_columns`, by group and row."""
    columns = {name: [v for part in parts for v in part[name]] for name in parts[0]}
    rows = range(len(columns["row"]))
    order = sorted(rows, key=lambda i: (columns["group"][i], columns["row"][i]))
    return {name: [values[i] for i in order] for name, values in columns.items()}


def ledger_columns(
    step: int, batch: Batch, graded: Sequence[GradedGroup], piece: Callable[[int], str]
) -> dict[str, list[Any]]:
    """A trained batch as the columns of the rollout ledger.

    Args:
        step: from 1, as in the log.
        piece: a token's own text.
    """
    rows = [
        (row, group.group, rollout, grade)
        for group in graded
        for row, (rollout, grade) in enumerate(zip(group.group.rollouts, group.grades, strict=True))
    ]
    lengths = batch.lengths.tolist()

    def per_token(values: Tensor | None) -> list[Any]:
        if values is None:
            return [None] * len(rows)
        return [row[:n] for row, n in zip(values.cpu().numpy(), lengths, strict=True)]

    greedy = batch.greedy_rewards
    return {
        "step": [step] * len(rows),
        "group": batch.places.tolist(),
        "row": [row for row, *_ in rows],
        "policy_version": [group.policy_version for *_, group, _, _ in rows],
        "problem_id": [group.prompt.problem.id for *_, group, _, _ in rows],
        "prompt": [group.prompt.text for *_, group, _, _ in rows],
        "answer": [group.prompt.problem.answer for *_, group, _, _ in rows],
        "text": [rollout.text for *_, rollout, _ in rows],
        "extracted": [grade.extracted for *_, grade in rows],
        "grade_reason": [grade.reason for *_, grade in rows],
        "finish_reason": [rollout.finish_reason for *_, rollout, _ in rows],
        "correct": [grade.correct for *_, grade in rows],
        "is_trained": batch.is_trained.tolist(),
        "length": lengths,
        "reward": batch.rewards.tolist(),
        "greedy_reward": [None] * len(rows) if greedy is None else greedy.tolist(),
        "advantage": (batch.advantages.sum(-1) / batch.lengths.clamp(min=1)).tolist(),
        "tokens": [rollout.token_ids for *_, rollout, _ in rows],
        "pieces": [[piece(token) for token in rollout.token_ids] for *_, rollout, _ in rows],
        "sampler_logprobs": per_token(batch.sampler_logprobs),
        "logprobs": per_token(batch.old_logprobs),
        "reference_logprobs": per_token(batch.reference_logprobs),
        "entropy": per_token(batch.old_entropy),
        "logit_norms": per_token(batch.logit_norms),
        "values": per_token(batch.values),
        "advantages": per_token(batch.advantages),
    }
