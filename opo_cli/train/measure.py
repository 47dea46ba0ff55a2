"""What a step measures, as sums with counts: averages come last, over microbatches and ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from opo_cli.metrics import METRICS
from opo_cli.model.parallel import all_max, all_sum
from opo_cli.model.policy import TokenScores
from opo_cli.rl.objectives import k1, k3
from opo_cli.train.batch import Batch
from opo_cli.types import GRADER_FAILURES, GradedGroup, Mean


class Meter:
    """Means, sums and maxima by metric name, over the microbatches of a step."""

    def __init__(self):
        self._means: dict[str, Mean] = {}
        self._sums: dict[str, float] = {}
        self._maxima: dict[str, float] = {}

    def mean(self, **parts: Mean) -> None:
        for name, part in parts.items():
            self._means[name] = self._means.get(name, Mean(0.0, 0.0)) + part

    def sum(self, **parts: float) -> None:
        for name, part in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + part

    def largest(self, **values: float) -> None:
        for name, value in values.items():
            self._maxima[name] = max(self._maxima.get(name, value), value)

    def values(self) -> dict[str, float | None]:
        """Every metric over all ranks, in `METRICS` order; None where nothing was counted."""
        pairs = [(mean.total, mean.count) for mean in self._means.values()]
        means = all_sum(torch.tensor(pairs, dtype=torch.float64)).tolist()
        sums = all_sum(torch.tensor(list(self._sums.values()), dtype=torch.float64)).tolist()
        maxima = all_max(torch.tensor(list(self._maxima.values()), dtype=torch.float64)).tolist()
        found = {
            **{name: Mean(*pair).value for name, pair in zip(self._means, means, strict=True)},
            **dict(zip(self._sums, sums, strict=True)),
            **dict(zip(self._maxima, maxima, strict=True)),
        }
        # None, not NaN, for what a broken step makes: the log stays JSON.
        return {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in ((name, found[name]) for name in METRICS if name in found)
        }


def measure_scores(
    batch: Batch, scores: TokenScores, ratio: Tensor, clipped: Tensor, meter: Meter
) -> None:
    """Per microbatch of the update, from its forward pass. (B, T) tensors."""
    mask, num_tokens = batch.mask, float(batch.lengths.sum())
    logprobs = scores.logprobs.detach()
    deviation = ((ratio.detach() - 1).abs() * mask).max()
    meter.mean(clip_fraction=Mean(clipped.sum().item(), num_tokens))
    meter.largest(ratio_deviation=deviation.item())
    if batch.old_logprobs is None:  # These scores are the ones at rollout time.
        measure_rollout_scores(batch, logprobs, scores.entropy.detach(), meter)


def measure_rollout_scores(batch: Batch, logprobs: Tensor, entropy: Tensor, meter: Meter) -> None:
    """Entropy, KL to the initial policy and sampler mismatch, at rollout weights for every
    algorithm: later weights would be scored on samples that are not theirs."""
    num_tokens, num_rows = float(batch.lengths.sum()), len(batch)
    k1_sum = k1(logprobs, batch.reference_logprobs).sum().item()
    k3_sum = k3(logprobs, batch.reference_logprobs).sum().item()
    mismatch = (logprobs - batch.sampler_logprobs).abs().max()
    meter.mean(
        entropy=Mean(entropy.sum().item(), num_tokens),
        entropy_sampled=Mean(-logprobs.sum().item(), num_tokens),
        kl_k1_token=Mean(k1_sum, num_tokens),
        kl_k3_token=Mean(k3_sum, num_tokens),
        kl_k1_sequence=Mean(k1_sum, num_rows),
        kl_k3_sequence=Mean(k3_sum, num_rows),
    )
    meter.largest(sampler_mismatch=mismatch.item())


def measure_critic(batch: Batch, loss: Tensor, meter: Meter) -> None:
    meter.mean(value_loss=Mean(loss.item(), float(batch.lengths.sum())))


def measure_batch(batch: Batch, graded: Sequence[GradedGroup], meter: Meter) -> None:
    """Once per step, from the whole batch."""
    grades = [grade for group in graded for grade in group.grades]
    rollouts = [rollout for group in graded for rollout in group.group.rollouts]
    num_rows, lengths = len(grades), batch.lengths.float()

    def share(count: float) -> Mean:
        return Mean(float(count), num_rows)

    def length_of(rows: Tensor) -> Mean:
        return Mean(lengths[rows].sum().item(), float(rows.sum()))

    constant = sum(len({grade.reward for grade in group.grades}) == 1 for group in graded)
    meter.sum(num_tokens=lengths.sum().item())
    meter.mean(
        reward=share(batch.rewards.sum()),
        accuracy=share(batch.correct.sum()),
        length=share(lengths.sum()),
        length_right=length_of(batch.correct),
        length_wrong=length_of(~batch.correct),
        truncated=share(sum(rollout.finish_reason == "length" for rollout in rollouts)),
        no_answer=share(sum(grade.reason == "no-answer" for grade in grades)),
        zero_signal_groups=Mean(constant, len(graded)),
        advantage=share((batch.advantages.sum(-1) / lengths.clamp(min=1)).sum()),
        **{
            f"grader_{reason}": share(sum(grade.reason == reason for grade in grades))
            for reason in GRADER_FAILURES
        },
    )
    if batch.old_logprobs is not None:
        measure_rollout_scores(batch, batch.old_logprobs, batch.old_entropy, meter)
    if batch.returns is not None:
        target, error = batch.returns[batch.mask], (batch.returns - batch.values)[batch.mask]
        variance = target.var().item()
        if variance > 0:
            meter.mean(explained_variance=Mean(1 - error.var().item() / variance, 1))
