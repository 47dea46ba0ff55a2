"""A rollout batch as tensors. Shape legend: B rows (responses), T response tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from opo_cli.model.sequences import Sequences
from opo_cli.types import GradedGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Whole groups; rows of a group are neighbours."""

    sequences: Sequences
    groups: Tensor
    """(B,) int64, from 0 within this batch."""
    rewards: Tensor
    """(B,) fp32."""
    correct: Tensor
    """(B,) bool."""
    sampler_logprobs: Tensor
    """(B, T) nats, the engine's; zero beyond a row's length, as in all (B, T) fields."""
    reference_logprobs: Tensor | None = None
    """(B, T) under the initial policy, which is also the reference policy."""
    old_logprobs: Tensor | None = None
    """(B, T) under the policy at rollout time; None when the update is exactly on-policy, where
    they are the update's own."""
    old_entropy: Tensor | None = None
    """(B, T) exact entropy under the same; None likewise."""
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

    def with_(self, **changes: Tensor | None) -> Batch:
        return replace(self, **changes)

    def select(self, rows: Tensor) -> Batch:
        """Some rows, padding cut back to their longest."""
        sequences = self.sequences.select(rows)
        width = int(sequences.lengths.max())
        chosen = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                chosen[field.name] = value[rows, :width] if value.dim() == 2 else value[rows]
        return replace(self, sequences=sequences, **chosen)


def collate(graded: Sequence[GradedGroup], device: torch.device) -> Batch:
    """Graded groups -> tensors. Groups are told apart by place, not by their prompt's text."""
    rows = [
        (index, group.group.prompt, rollout, grade)
        for index, group in enumerate(graded)
        for rollout, grade in zip(group.group.rollouts, group.grades, strict=True)
    ]
    logprobs = [torch.tensor(rollout.sampler_logprobs) for _, _, rollout, _ in rows]
    return Batch(
        sequences=Sequences.pack(
            [prompt.token_ids for _, prompt, _, _ in rows],
            [rollout.token_ids for _, _, rollout, _ in rows],
            device,
        ),
        groups=torch.tensor([index for index, *_ in rows], device=device),
        rewards=torch.tensor([grade.reward for *_, grade in rows], device=device),
        correct=torch.tensor([grade.correct for *_, grade in rows], device=device),
        sampler_logprobs=torch.nn.utils.rnn.pad_sequence(logprobs, batch_first=True).to(device),
    )
