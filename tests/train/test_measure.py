"""Instruments against what they are meant to measure, on the real tiny model."""

from __future__ import annotations

import copy

import pytest
import torch

from opo_cli.config import Config
from opo_cli.data.sources import TrainingPrompts
from opo_cli.grading.pool import Grader
from opo_cli.metrics import METRICS
from opo_cli.model.scores import divergence, score
from opo_cli.presets import resolve
from opo_cli.train.batch import collate
from opo_cli.train.learner import new_learner
from opo_cli.train.measure import (
    HalfBatches,
    Meter,
    measure_advantages,
    measure_diversity,
    measure_grades,
    measure_kl,
    measure_probe,
    measure_scores,
    measure_shift,
    sample_probe,
)
from opo_cli.train.step import score_batch, training_step, with_advantages
from opo_cli.train.update import halves, update

BUDGET = 512


def config_of(*overrides: str, algorithm: str = "opo") -> Config:
    return resolve("smoke", algorithm=algorithm, overrides=overrides)


@pytest.fixture
def drifted(policy_and_tokenizer):
    """The initial policy, and a policy that has left it a little."""
    initial = policy_and_tokenizer[0]
    policy = copy.deepcopy(initial)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    return policy, initial


def learner_of(config: Config, policy, initial=None):
    return new_learner(policy, initial or copy.deepcopy(policy), config)


def batch_of(graded, config: Config, learner):
    batch = collate(graded, torch.device("cpu"))
    return with_advantages(score_batch(batch, config, learner), config)


def logits_of(model, batch, row: int) -> torch.Tensor:
    """(T, V) the plain way: a forward over one unpadded row."""
    sequences = batch.sequences
    prompt, length = int(sequences.prompt_lengths[row]), int(sequences.lengths[row])
    ids = sequences.input_ids[row : row + 1, : prompt + length]
    return model(ids).logits[0, prompt - 1 : -1]


@torch.no_grad()
def test_exact_kl_and_estimators_against_the_definition(graded, drifted):
    policy, initial = drifted
    batch = collate(graded, torch.device("cpu")).select(torch.arange(6))
    meter = Meter()
    measure_kl(batch.sequences, policy, initial, BUDGET, meter)
    found = meter.values()
    exact, k1, tokens = 0.0, 0.0, 0
    for row in range(6):
        ours, theirs = (logits_of(m, batch, row).log_softmax(-1) for m in (policy, initial))
        exact += float((ours.exp() * (ours - theirs)).sum())
        start = int(batch.sequences.prompt_lengths[row])
        chosen = batch.sequences.input_ids[row, start : start + len(ours)]
        k1 += float((ours - theirs)[torch.arange(len(chosen)), chosen].sum())
        tokens += len(chosen)
    assert found["kl_exact_sequence"] == pytest.approx(exact / 6, rel=1e-4)
    assert found["kl_exact_token"] == pytest.approx(exact / tokens, rel=1e-4)
    assert found["kl_k1_sequence"] == pytest.approx(k1 / 6, rel=1e-3)
    assert found["kl_k1_token"] == pytest.approx(k1 / tokens, rel=1e-3)
    assert found["kl_exact_sequence"] > 0.01


def test_a_policy_has_no_kl_to_itself(graded, policy_and_tokenizer):
    policy = policy_and_tokenizer[0]
    sequences = collate(graded, torch.device("cpu")).sequences
    found = divergence(policy, copy.deepcopy(policy), sequences, BUDGET)
    assert not found.kl.any()
    assert not found.reverse_kl.any()


def test_scores_against_autograd(graded, policy_and_tokenizer):
    """Entropy exactly, and the squared norm of d log p / d logits."""
    policy = policy_and_tokenizer[0]
    batch = collate(graded, torch.device("cpu")).select(torch.arange(3))
    scores = score(policy, batch.sequences, BUDGET)
    for row in range(3):
        logits = logits_of(policy, batch, row).detach().requires_grad_()
        start = int(batch.sequences.prompt_lengths[row])
        chosen = batch.sequences.input_ids[row, start : start + len(logits)]
        logprobs = logits.log_softmax(-1)
        logprobs[torch.arange(len(chosen)), chosen].sum().backward()
        norms, length = logits.grad.square().sum(-1), len(chosen)
        entropy = -(logprobs.exp() * logprobs).sum(-1).detach()
        assert torch.allclose(scores.logit_norms[row, :length], norms, atol=1e-5)
        assert torch.allclose(scores.entropy[row, :length], entropy, atol=1e-4)
        assert not scores.logit_norms[row, length:].any()


def test_an_update_returns_its_scores_at_rollout_weights(graded, policy_and_tokenizer):
    """On policy they come from the update's own forward passes, before the weights move."""
    policy, config = policy_and_tokenizer[0], config_of()
    learner = learner_of(config, policy)
    batch = batch_of(graded, config, learner)
    expected = score(policy, batch.sequences, BUDGET)
    assert batch.old_logprobs is None
    batch = update(batch, 0, config, learner, Meter(), measure_noise=True)
    assert torch.allclose(batch.old_logprobs, expected.logprobs, atol=1e-5)
    assert torch.allclose(batch.old_entropy, expected.entropy, atol=1e-4)
    assert torch.allclose(batch.logit_norms, expected.logit_norms, atol=1e-5)


def test_policy_shift_is_zero_until_the_weights_move(graded, policy_and_tokenizer):
    policy, config = policy_and_tokenizer[0], config_of("optim.learning_rate=0.001")
    learner = learner_of(config, policy)
    batch = batch_of(graded, config, learner)
    scores = score(policy, batch.sequences, BUDGET)
    still = batch.with_(old_logprobs=scores.logprobs)
    before, after = Meter(), Meter()
    measure_shift(still, policy, BUDGET, before)
    assert before.values()["policy_shift_token"] == pytest.approx(0, abs=1e-9)
    batch = update(batch, 0, config, learner, Meter())
    measure_shift(batch, policy, BUDGET, after)
    assert after.values()["policy_shift_token"] > 1e-4
    per_row = after.values()["policy_shift_sequence"] / after.values()["policy_shift_token"]
    assert per_row == pytest.approx(float(batch.lengths.float().mean()), rel=1e-5)


# --- gradient noise ---------------------------------------------------------------------------


def test_noise_of_two_halves_by_hand():
    """A = (2, 0) from one prompt and B = (0, 3) from two: 1*2/9 |3 A - 1.5 B|^2."""
    module = torch.nn.Linear(2, 1, bias=False)
    noise = HalfBatches(module)
    module.weight.grad = torch.tensor([[2.0, 0.0]])
    noise.end_of_first(1)
    module.weight.grad += torch.tensor([[0.0, 3.0]])
    assert noise.noise(2) == pytest.approx(2 / 9 * (6.0**2 + 4.5**2))


def test_noise_is_unbiased_for_the_variance_of_the_sum():
    """Gradients of n prompts drawn at random: E noise = n x the variance of one."""
    generator, module = torch.Generator().manual_seed(0), torch.nn.Linear(3, 1, bias=False)
    found = []
    for _ in range(4000):
        each = 2 + torch.randn(5, 1, 3, generator=generator)
        noise = HalfBatches(module)
        module.weight.grad = each[:2].sum(0)
        noise.end_of_first(2)
        module.weight.grad = each.sum(0)
        found.append(noise.noise(3))
    mean = sum(found) / len(found)
    assert mean == pytest.approx(5 * 3, rel=0.05)  # 5 prompts, 3 coordinates of variance 1.


def test_measuring_noise_changes_no_gradient(graded, policy_and_tokenizer):
    weights, norms = [], []
    for measure_noise in (False, True):
        policy, config = copy.deepcopy(policy_and_tokenizer[0]), config_of()
        learner = learner_of(config, policy)
        meter = Meter()
        batch = batch_of(graded, config, learner)
        update(batch, 0, config, learner, meter, measure_noise=measure_noise)
        weights.append(torch.cat([p.detach().flatten() for p in policy.parameters()]))
        norms.append(meter.values()["gradient_norm"])
        assert ("gradient_noise" in meter.values()) == measure_noise
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert (weights[0] - weights[1]).abs().max() < 1e-4
    assert meter.values()["gradient_noise"] > 0
    share = meter.values()["gradient_noise"] / norms[1] ** 2
    assert meter.values()["gradient_noise_share"] == pytest.approx(share)


def test_halves_are_whole_groups(graded, policy_and_tokenizer):
    config = config_of()
    batch = batch_of(graded, config, learner_of(config, policy_and_tokenizer[0]))
    parts = halves(batch, torch.arange(batch.num_groups))
    assert [count for _, count in parts] == [4, 4]
    assert sorted(torch.cat([rows for rows, _ in parts]).tolist()) == list(range(len(batch)))
    one_group = batch.select((batch.groups == 3).nonzero().squeeze(-1))
    assert len(halves(one_group, one_group.places.unique())) == 1


# --- counts -----------------------------------------------------------------------------------


def test_grades_are_counted_by_group_and_finish_reason(graded):
    meter = Meter()
    measure_grades(graded, meter)
    found = meter.values()
    pairs = [
        (rollout.finish_reason, grade.correct)
        for group in graded
        for rollout, grade in zip(group.group.rollouts, group.grades, strict=True)
    ]
    done = [right for reason, right in pairs if reason == "stop"]
    assert found["accuracy"] == pytest.approx(sum(right for _, right in pairs) / len(pairs))
    assert found["accuracy_completed"] == pytest.approx(sum(done) / len(done))
    assert found["truncated"] == pytest.approx(1 - len(done) / len(pairs))
    assert found["all_right_groups"] == found["all_wrong_groups"] == 0
    assert found["zero_signal_groups"] == 0
    assert found["num_sampled_groups"] == len(graded)


def test_the_gap_between_mean_and_length_weighted_baseline(graded, policy_and_tokenizer):
    config, meter = config_of(), Meter()
    batch = batch_of(graded, config, learner_of(config, policy_and_tokenizer[0]))
    measure_advantages(batch, meter)
    gaps, shares = [], []
    for group in range(8):
        rows = batch.groups == group
        r, lengths = batch.rewards[rows], batch.lengths[rows].float()
        gaps.append(float(r.mean() - (lengths * r).sum() / lengths.sum()))
        shares.append(float(lengths.sum() ** 2 / lengths.square().sum() / len(lengths)))
    found = meter.values()
    assert found["baseline_gap"] == pytest.approx(sum(gaps) / 8, abs=1e-6)
    assert found["advantage"] == pytest.approx(found["baseline_gap"], abs=1e-6)  # OPO's own.
    assert found["ess_lengths"] == pytest.approx(sum(shares) / 8, rel=1e-5)


def test_a_constant_reward_has_no_correlation_with_length(graded, policy_and_tokenizer):
    config, meter = config_of(), Meter()
    batch = batch_of(graded, config, learner_of(config, policy_and_tokenizer[0]))
    measure_advantages(batch.with_(rewards=torch.ones_like(batch.rewards)), meter)
    assert meter.values()["length_reward_corr"] is None


def test_mismatch_is_measured_raw(graded, policy_and_tokenizer):
    config, meter = config_of(), Meter()
    learner = learner_of(config, policy_and_tokenizer[0])
    batch = update(batch_of(graded, config, learner), 0, config, learner, meter)
    batch = batch.with_(sampler_logprobs=(batch.old_logprobs + 3.0) * batch.mask)
    measure_scores(batch, meter)
    found = meter.values()
    assert found["sampler_mismatch"] == pytest.approx(3, abs=1e-4)
    assert found["sampler_mismatch_mean"] == pytest.approx(3, abs=1e-4)
    k3 = torch.tensor(-3.0).expm1() + 3
    assert found["sampler_mismatch_k3"] == pytest.approx(float(k3), rel=1e-4)
    longest = int(batch.lengths.max())
    assert found["sampler_mismatch_sequence"] == pytest.approx(3 * longest, rel=1e-4)


def test_sequence_ratios_of_sampler_and_trainer_by_hand(graded, policy_and_tokenizer):
    """Ratios 2, 1 and 1/4 of three responses, each spread over two tokens: the sample size is
    (13/4)^2 / (3 (4 + 1 + 1/16))."""
    config, meter = config_of(), Meter()
    batch = batch_of(graded, config, learner_of(config, policy_and_tokenizer[0]))
    rows = (batch.lengths >= 2).nonzero().squeeze(-1)[:3]
    zeros = torch.zeros(batch.mask.shape)
    batch = batch.with_(old_logprobs=zeros, old_entropy=zeros, logit_norms=zeros).select(rows)
    shifts = torch.tensor([2.0, 1.0, 0.25]).log() / 2
    sampler = torch.zeros(batch.mask.shape)
    sampler[:, :2] = -shifts[:, None]
    measure_scores(batch.with_(sampler_logprobs=sampler), meter)
    found = meter.values()
    assert found["sampler_mismatch_sequence"] == pytest.approx(1.386294, rel=1e-5)  # ln 4
    assert found["ess_sampler"] == pytest.approx(0.695473, rel=1e-5)


def test_diversity_of_one_response_many_times(graded):
    first = graded[0].group
    same = type(first)(prompt=first.prompt, rollouts=(first.rollouts[0],) * 8, policy_version=0)
    meter = Meter()
    measure_diversity([type(graded[0])(group=same, grades=graded[0].grades)], meter)
    assert meter.values()["self_bleu"] == pytest.approx(1)
    assert meter.values()["distinct_2"] <= 1 / 8


# --- the whole step ---------------------------------------------------------------------------


def test_the_probe_sees_the_same_prompts_for_every_seed(prompts):
    first, second = (TrainingPrompts(prompts, seed) for seed in (0, 1))
    assert first.probe(5) == second.probe(5)
    assert first.of_step(0, 5) != second.of_step(0, 5)
    assert len({prompt.problem.id for prompt in first.probe(5)}) == 5


def test_probe_entropy_and_kl(prompts, engine, drifted):
    policy, initial = drifted
    config, source = config_of(), TrainingPrompts(prompts, 0)
    engine.load_weights(policy, 1)

    def measured() -> dict:
        meter, sequences = Meter(), sample_probe(source, 7, config, engine, torch.device("cpu"))
        measure_probe(sequences, policy, initial, BUDGET, meter)
        return meter.values()

    found = measured()
    assert found["probe_kl_token"] > 0.001
    assert found["probe_reverse_kl_token"] > 0.001
    assert found["probe_kl_sequence"] == pytest.approx(
        found["probe_kl_token"] * found["probe_length"], rel=1e-6
    )
    assert measured() == found


@pytest.mark.parametrize("algorithm", ["opo", "grpo", "ppo"])
def test_instruments_follow_their_settings(algorithm, prompts, engine, policy_and_tokenizer):
    source = TrainingPrompts(prompts, 0)
    records = []
    for every in (0, 1):
        config = config_of(
            f"measure.every={every}", f"measure.probe_every={every}", algorithm=algorithm
        )
        learner = learner_of(config, copy.deepcopy(policy_and_tokenizer[0]))
        engine.load_weights(learner.policy, 0)
        with Grader(config.grading) as grader:
            records.append(training_step(0, source, config, learner, engine, grader).record)
    bare, full = records
    extra = set(full) - set(bare)
    assert {"kl_exact_token", "policy_shift_token", "gradient_noise", "self_bleu"} <= extra
    assert {"probe_kl_token", "probe_entropy"} <= extra
    for name in set(bare) - {"tokens_per_second", "memory_gigabytes"}:
        if METRICS.get(name) and not name.endswith("_seconds") and bare[name] is not None:
            assert full[name] == pytest.approx(bare[name], rel=1e-3, abs=1e-5), name
