"""What a step measures, as sums with counts: averages come last, over microbatches and ranks.

Shape legend: B rows (responses), T response tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from opo_cli.config import Config
from opo_cli.data.sources import PROBE_STREAM, TrainingPrompts
from opo_cli.evaluate import diversity
from opo_cli.metrics import METRICS
from opo_cli.model.parallel import all_sum, gathered, own
from opo_cli.model.scores import divergence, score
from opo_cli.model.sequences import Sequences
from opo_cli.model.sharding import is_sharded
from opo_cli.rl.advantages import opo
from opo_cli.rl.objectives import Sides, k1, k3
from opo_cli.rl.stats import effective_sample_size, group_correlation, group_sum, variance
from opo_cli.rollout.engine import Engine
from opo_cli.rollout.shares import own_groups
from opo_cli.train.batch import Batch
from opo_cli.types import GRADER_FAILURES, GradedGroup, Mean, Sampling


class Meter:
    """Means, sums, maxima and sample sizes by metric name, over the microbatches of a step."""

    def __init__(self):
        self._means: dict[str, Mean] = {}
        self._sums: dict[str, float] = {}
        self._maxima: dict[str, float] = {}
        self._weights: dict[str, list[float]] = {}

    def mean(self, **parts: Mean) -> None:
        for name, part in parts.items():
            self._means[name] = self._means.get(name, Mean(0.0, 0.0)) + part

    def sum(self, **parts: float) -> None:
        for name, part in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + part

    def largest(self, **values: float) -> None:
        for name, value in values.items():
            # Unlike `max`, it lets no number hide that another is none.
            self._maxima[name] = float(np.maximum(self._maxima.get(name, value), value))

    def sample_size(self, **weights: Tensor) -> None:
        """Weights (N,) whose effective sample size is wanted over the whole step."""
        for name, w in weights.items():
            self._add_weights(name, [w.sum().item(), w.square().sum().item(), float(w.numel())])

    def _add_weights(self, name: str, three: list[float]) -> None:
        before = self._weights.get(name, [0.0] * 3)
        self._weights[name] = [a + b for a, b in zip(before, three, strict=True)]

    def _parts(self):
        return self._means, self._sums, self._maxima, self._weights

    def _over_ranks(self) -> Meter:
        together = Meter()
        for means, sums, maxima, weights in gathered(self._parts()):
            together.mean(**means)
            together.sum(**sums)
            together.largest(**maxima)
            for name, three in weights.items():
                together._add_weights(name, three)
        return together

    def values(self) -> dict[str, float | None]:
        """Every metric over all ranks, in `METRICS` order; None where nothing was counted."""
        means, sums, maxima, weights = self._over_ranks()._parts()
        found = {
            **{name: mean.value for name, mean in means.items()},
            **{name: effective_sample_size(*three) for name, three in weights.items()},
            **sums,
            **maxima,
        }
        # None, not NaN, for what a broken step makes: the log stays JSON.
        return {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in ((name, found[name]) for name in METRICS if name in found)
        }


# --- during the update, per microbatch --------------------------------------------------------


def measure_ratio(batch: Batch, ratio: Tensor, sides: Sides, meter: Meter) -> None:
    """(B, T) ratios as the loss sees them, and what was clipped (below, above)."""
    mask, ratio = batch.loss_mask, ratio.detach()
    below, above = (float((side & mask).sum()) for side in sides)
    num_tokens = float(mask.sum())
    meter.mean(
        clip_fraction=Mean(below + above, num_tokens),
        clip_fraction_low=Mean(below, num_tokens),
        clip_fraction_high=Mean(above, num_tokens),
    )
    meter.sample_size(ess_ratio=ratio[mask])


def measure_deviation(batch: Batch, logprobs: Tensor, meter: Meter) -> None:
    """Against the old logprobs, also where the loss's own ratio is 1 by construction: there they
    come from another forward pass at the same weights, if there was one."""
    old = logprobs if batch.old_logprobs is None else batch.old_logprobs
    deviation = (logprobs - old).detach().exp() - 1
    meter.largest(ratio_deviation=(deviation.abs() * batch.loss_mask).max().item())


class HalfBatches:
    """Gradient noise from the two halves of a minibatch's prompts.

    Their shares A and B of the gradient (A + B = g, n_A and n_B prompts of n) give, in
    n_A n_B / n^2 ||A n/n_A - B n/n_B||^2, an unbiased estimate of the trace of g's covariance over
    prompts, as far as prompts are independent: denominators and baselines that span the step tie
    them a little. Before clipping.
    """

    def __init__(self, module):
        self.module = module
        self._first: list[Tensor] = []
        self._num_first = 0

    def _gradients(self) -> list[Tensor]:
        return [own(p.grad) for p in self.module.parameters() if p.grad is not None]

    def end_of_first(self, num_groups: int) -> None:
        self._first = [gradient.clone() for gradient in self._gradients()]
        self._num_first = num_groups

    def noise(self, num_second: int) -> float:
        """Called when both halves are in the gradients."""
        total = self._num_first + num_second
        first, second = total / self._num_first, total / num_second
        squares = [
            (a * first - (g - a) * second).square().sum()
            for a, g in zip(self._first, self._gradients(), strict=True)
        ]
        total_square = torch.stack(squares).sum()
        if is_sharded(self.module):
            total_square = all_sum(total_square)
        return float(total_square) / (first * second)


def measure_critic(batch: Batch, loss: Tensor, meter: Meter) -> None:
    meter.mean(value_loss=Mean(loss.item(), float(batch.loss_lengths.sum())))


# --- once per step ----------------------------------------------------------------------------


def measure_scores(batch: Batch, meter: Meter) -> None:
    """Entropy and the sampler's mismatch, at rollout weights for every algorithm: later weights
    would be scored on samples that are not theirs."""
    num_tokens, num_rows = float(batch.lengths.sum()), len(batch)
    entropy, sampled = batch.old_entropy.sum().item(), -batch.old_logprobs.sum().item()
    mismatch = batch.sampler_logprobs - batch.old_logprobs
    meter.mean(
        entropy=Mean(entropy, num_tokens),
        entropy_sequence=Mean(entropy, num_rows),
        entropy_sampled=Mean(sampled, num_tokens),
        entropy_sampled_sequence=Mean(sampled, num_rows),
        sampler_mismatch_mean=Mean(mismatch.abs().sum().item(), num_tokens),
        sampler_mismatch_k3=Mean(k3(mismatch).sum().item(), num_tokens),
        logit_norm=Mean(batch.logit_norms.sum().item(), num_tokens),
    )
    log_ratios = -mismatch.double().sum(-1)  # Of whole responses, trainer / sampler.
    meter.largest(
        sampler_mismatch=_most(mismatch.abs()),
        sampler_mismatch_sequence=_most(log_ratios.abs()),
    )
    meter.sample_size(ess_sampler=log_ratios.exp())


def _most(x: Tensor) -> float:
    """Of sizes; 0 where there are none."""
    return x.max().item() if x.numel() else 0.0


def measure_grades(graded: Sequence[GradedGroup], meter: Meter) -> None:
    """Of all sampled groups, those that dynamic sampling replaced included."""
    pairs = [
        (rollout, grade)
        for group in graded
        for rollout, grade in zip(group.group.rollouts, group.grades, strict=True)
    ]
    right = [sum(grade.correct for grade in group.grades) for group in graded]

    def share(chosen, among) -> Mean:
        among = list(among)
        return Mean(float(sum(map(chosen, among))), len(among))

    def length(chosen) -> Mean:
        found = [len(rollout.token_ids) for rollout, grade in pairs if chosen(grade)]
        return Mean(float(sum(found)), len(found))

    def is_right(pair) -> bool:
        return pair[1].correct

    finished = {
        reason: [pair for pair in pairs if pair[0].finish_reason == reason]
        for reason in ("stop", "length")
    }
    meter.sum(num_sampled_groups=len(graded))
    meter.mean(
        accuracy=share(is_right, pairs),
        accuracy_completed=share(is_right, finished["stop"]),
        accuracy_truncated=share(is_right, finished["length"]),
        length=length(lambda grade: True),
        length_right=length(lambda grade: grade.correct),
        length_wrong=length(lambda grade: not grade.correct),
        truncated=Mean(float(len(finished["length"])), len(pairs)),
        no_answer=share(lambda pair: pair[1].reason == "no-answer", pairs),
        zero_signal_groups=share(lambda g: len({grade.reward for grade in g.grades}) == 1, graded),
        all_right_groups=share(
            lambda pair: pair[0] == len(pair[1].grades), zip(right, graded, strict=True)
        ),
        all_wrong_groups=share(lambda count: count == 0, right),
        **{
            f"grader_{reason}": share(lambda pair, r=reason: pair[1].reason == r, pairs)
            for reason in GRADER_FAILURES
        },
    )


def measure_cost(graded: Sequence[GradedGroup], meter: Meter) -> None:
    """Of all responses that a step takes, greedy ones included; not those to the probe prompts,
    which are an instrument's."""
    lengths = [len(rollout.token_ids) for group in graded for rollout in group.group.rollouts]
    meter.sum(num_samples=len(lengths), num_tokens=sum(lengths))


def measure_advantages(batch: Batch, meter: Meter) -> None:
    """Of the trained groups: rewards, advantages and what length weights would make of them."""
    num_rows, lengths = len(batch), batch.lengths.float()
    loss_lengths, groups = batch.loss_lengths.float(), batch.groups
    gap = opo(batch.rewards, loss_lengths, groups)
    counted, squares = group_sum(loss_lengths, groups), group_sum(loss_lengths.square(), groups)
    size = group_sum((loss_lengths > 0).float(), groups)
    share = (counted.square() / (squares * size).clamp(min=1))[loss_lengths > 0]
    per_row = batch.advantages.sum(-1) / lengths.clamp(min=1)
    meter.mean(
        reward=Mean(batch.rewards.sum().item(), num_rows),
        advantage=Mean(per_row.sum().item(), num_rows),
        advantage_abs=Mean(batch.advantages.abs().sum().item(), float(loss_lengths.sum())),
        baseline_gap=Mean(gap.sum().item(), float((loss_lengths > 0).sum())),
        ess_lengths=Mean(share.sum().item(), len(share)),
        masked=Mean(float((loss_lengths == 0).sum()), num_rows),
    )
    # Of all ranks together, not a mean over them.
    meter.mean(
        length_reward_corr=Mean(
            group_correlation(lengths, batch.rewards, groups, all_sum).item(), 1
        )
    )
    if batch.returns is not None:
        mask = batch.loss_mask
        target = variance(batch.returns[mask], all_sum)
        if target > 0:
            error = variance((batch.returns - batch.values)[mask], all_sum)
            meter.mean(explained_variance=Mean(1 - error / target, 1))


def measure_diversity(graded: Sequence[GradedGroup], meter: Meter) -> None:
    """Within each group; a mean over groups (Rep-n, Self-BLEU: over responses)."""
    for group in graded:
        meter.mean(**diversity.of_group(group))


def measure_kl(sequences: Sequences, policy, initial, token_budget: int, meter: Meter) -> None:
    """KL(policy || initial) on responses of the policy: exact over the vocabulary, and by the
    estimators from the drawn tokens."""
    found = divergence(policy, initial, sequences, token_budget)
    values = {"exact": found.kl, "k1": k1(found.log_ratio), "k3": k3(found.log_ratio)}
    num_tokens, num_rows = float(sequences.lengths.sum()), len(sequences)
    for name, per_token in values.items():
        total = per_token.sum().item()
        meter.mean(
            **{
                f"kl_{name}_token": Mean(total, num_tokens),
                f"kl_{name}_sequence": Mean(total, num_rows),
            }
        )


def measure_shift(batch: Batch, policy, token_budget: int, meter: Meter) -> None:
    """KL(policy at rollout || policy after the update), on responses of the former."""
    new = score(policy, batch.sequences, token_budget).logprobs
    total = k3(batch.old_logprobs - new).sum().item()
    meter.mean(
        policy_shift_token=Mean(total, float(batch.lengths.sum())),
        policy_shift_sequence=Mean(total, len(batch)),
    )


def sample_probe(
    prompts: TrainingPrompts, step: int, config: Config, engine: Engine, device: torch.device
) -> Sequences:
    """This rank's share of the responses of the current weights to fixed prompts: the same prompts
    for every algorithm and seed, whatever the step trains on."""
    sampling = Sampling(num_responses=1, max_new_tokens=config.rollout.max_new_tokens)
    probe = prompts.probe(config.measure.probe_prompts)
    groups = own_groups(
        probe,
        sampling,
        engine,
        stream=(PROBE_STREAM, step),
        ranks_per_engine=config.rollout.tensor_parallel,
    )
    return Sequences.pack(
        [group.prompt.token_ids for group in groups],
        [group.rollouts[0].token_ids for group in groups],
        device,
    )


def measure_probe(sequences: Sequences, policy, initial, token_budget: int, meter: Meter) -> None:
    """Exact entropy and KL(policy || initial) on the responses of `sample_probe`."""
    num_tokens, num_rows = float(sequences.lengths.sum()), len(sequences)
    found = divergence(policy, initial, sequences, token_budget)
    kl, entropy = found.kl.sum().item(), found.entropy.sum().item()
    meter.mean(
        probe_entropy=Mean(entropy, num_tokens),
        probe_entropy_sequence=Mean(entropy, num_rows),
        probe_kl_token=Mean(kl, num_tokens),
        probe_kl_sequence=Mean(kl, num_rows),
        probe_reverse_kl_token=Mean(found.reverse_kl.sum().item(), num_tokens),
        probe_length=Mean(num_tokens, num_rows),
    )
