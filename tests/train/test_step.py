"""The training step on the real tiny model: what must hold whatever the algorithm."""

from __future__ import annotations

import copy

import pytest
import torch

from opo_cli.algorithms import ALGORITHMS
from opo_cli.config import Config
from opo_cli.data import tiny
from opo_cli.data.prompts import make_prompts
from opo_cli.grading.pool import Grader
from opo_cli.metrics import METRICS
from opo_cli.presets import resolve
from opo_cli.rl.stats import group_sum
from opo_cli.rollout.engine import create_engine
from opo_cli.train.batch import Batch, collate
from opo_cli.train.measure import Meter
from opo_cli.train.step import (
    Learner,
    minibatches,
    new_learner,
    policy_loss,
    score_batch,
    step_counts,
    training_step,
    update,
    with_advantages,
)
from opo_cli.types import Grade, GradedGroup

NUM_PROMPTS, GROUP_SIZE = 8, 8


def config_of(algorithm: str, *overrides: str) -> Config:
    return resolve("smoke", algorithm=algorithm, overrides=overrides)


@pytest.fixture
def prompts(policy_and_tokenizer):
    problems = tiny.training_problems(resolve("smoke").data)[:NUM_PROMPTS]
    return make_prompts(problems, "line", policy_and_tokenizer[1])


@pytest.fixture
def graded(policy_and_tokenizer, prompts) -> list[GradedGroup]:
    """Real rollouts; every third is called right, so that no group is without signal."""
    from opo_cli.train.step import sampling_of

    engine = create_engine("transformers", *policy_and_tokenizer, max_rows=512)
    groups = engine.generate(prompts, sampling_of(config_of("opo")), stream=(0, 0))
    right = Grade(reward=1.0, correct=True, extracted="1", reason="correct")
    wrong = Grade(reward=0.0, correct=False, extracted="0", reason="wrong")
    return [
        GradedGroup(
            group=group,
            grades=tuple(
                right if (i + place) % 3 == 0 else wrong for i in range(len(group.rollouts))
            ),
        )
        for place, group in enumerate(groups)
    ]


def learner_of(config: Config, model) -> Learner:
    return new_learner(model, copy.deepcopy(model).requires_grad_(False), config)


def scored(graded, config: Config, learner: Learner) -> Batch:
    batch = collate(graded, torch.device("cpu"))
    return with_advantages(score_batch(batch, config, learner), config)


def gradients(batch: Batch, config: Config, learner: Learner) -> torch.Tensor:
    learner.policy.zero_grad()
    counts = step_counts(batch, config)
    for rows in batch.sequences.microbatches(config.train.microbatch_tokens):
        policy_loss(batch.select(rows), counts, config, learner, Meter()).backward()
    return torch.cat([p.grad.flatten() for p in learner.policy.parameters()])


REDUCTIONS = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant")


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_gradients_do_not_depend_on_microbatches_or_order(
    algorithm, reduction, graded, policy_and_tokenizer
):
    changes = (
        f"algorithm.reduction={reduction}",
        "algorithm.allow_mismatched_reduction=true",
        "algorithm.entropy_coefficient=0.01",
    )
    config = config_of(algorithm, *changes)
    learner = learner_of(config, policy_and_tokenizer[0])
    batch = scored(graded, config, learner)
    whole = gradients(
        batch, config_of(algorithm, *changes, "train.microbatch_tokens=1000000"), learner
    )
    shuffled = batch.select(torch.randperm(len(batch), generator=torch.Generator().manual_seed(0)))
    for budget in (1, 100, 700):
        small = config_of(algorithm, *changes, f"train.microbatch_tokens={budget}")
        for rows in (batch, shuffled):
            other = gradients(rows, small, learner)
            assert (whole - other).norm() < 1e-4 * whole.norm()
    assert whole.norm() > 0


def test_opo_is_the_score_function_estimator(graded, policy_and_tokenizer):
    """The gradient of OPO's step, from the definition: -sum A grad log pi / tokens."""
    model, config = policy_and_tokenizer[0], config_of("opo")
    learner = learner_of(config, model)
    batch = scored(graded, config, learner)
    ours = gradients(batch, config, learner)

    model.zero_grad()
    total, num_tokens = 0.0, 0
    for group in graded:
        lengths = [len(rollout.token_ids) for rollout in group.group.rollouts]
        rewards = [grade.reward for grade in group.grades]
        baseline = sum(n * r for n, r in zip(lengths, rewards, strict=True)) / sum(lengths)
        for rollout, reward in zip(group.group.rollouts, rewards, strict=True):
            prompt = group.group.prompt.token_ids
            ids = torch.tensor([[*prompt, *rollout.token_ids]])
            logprobs = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            chosen = logprobs[torch.arange(len(rollout.token_ids)), list(rollout.token_ids)]
            total = total - (reward - baseline) * chosen.sum()
            num_tokens += len(rollout.token_ids)
    (total / num_tokens).backward()
    plain = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert (ours - plain).norm() < 1e-4 * plain.norm()


def test_opo_weighted_advantages_sum_to_zero(graded, policy_and_tokenizer):
    config = config_of("opo")
    batch = scored(graded, config, learner_of(config, policy_and_tokenizer[0]))
    per_row = batch.advantages.sum(-1)  # = l A, the advantage being the same on each token
    assert group_sum(per_row, batch.groups).abs().max() < 1e-4
    assert per_row.abs().max() > 0.5


def test_on_policy_the_ratio_is_one(graded, policy_and_tokenizer):
    config, meter = config_of("opo"), Meter()
    learner = learner_of(config, policy_and_tokenizer[0])
    update(scored(graded, config, learner), 0, config, learner, meter)
    values = meter.values()
    assert values["ratio_deviation"] == 0
    assert values["clip_fraction"] == 0
    assert values["num_optimizer_steps"] == 1
    assert values["sampler_mismatch"] < 1e-4
    assert values["kl_k3_token"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_off_policy_the_ratio_leaves_one(algorithm, graded, policy_and_tokenizer):
    config, meter = config_of(algorithm, "optim.learning_rate=0.01"), Meter()
    learner = learner_of(config, policy_and_tokenizer[0])
    update(scored(graded, config, learner), 0, config, learner, meter)
    values = meter.values()
    assert values["ratio_deviation"] > 0.01
    assert values["clip_fraction"] > 0
    assert values["num_optimizer_steps"] == config.algorithm.minibatches_per_step


def test_minibatches_are_whole_groups_each_once(graded, policy_and_tokenizer):
    config = config_of("grpo")
    batch = scored(graded, config, learner_of(config, policy_and_tokenizer[0]))
    parts = [set(part.groups.tolist()) for part in minibatches(batch, 3, config)]
    assert len(parts) == config.algorithm.minibatches_per_step
    assert sorted(group for part in parts for group in part) == list(range(NUM_PROMPTS))
    assert sum(len(part) for part in minibatches(batch, 3, config)) == len(batch)
    again = [set(part.groups.tolist()) for part in minibatches(batch, 3, config)]
    other = [set(part.groups.tolist()) for part in minibatches(batch, 4, config)]
    assert parts == again != other


def test_ppo_puts_the_kl_into_the_reward(graded, policy_and_tokenizer):
    """With gamma = lambda = 1 and a zero value head, the return is the reward-to-go."""
    config = config_of("ppo", "algorithm.kl_coefficient=0.1", "algorithm.whiten_advantages=false")
    model = policy_and_tokenizer[0]
    learner = learner_of(config, model)
    with torch.no_grad():
        for parameter in learner.reference.parameters():
            parameter.mul_(0.9)
    batch = scored(graded, config, learner)
    assert not batch.values.any()
    penalty = 0.1 * (batch.old_logprobs - batch.reference_logprobs)
    expected = (batch.rewards - penalty.sum(-1)).double()
    assert torch.allclose(batch.returns[:, 0].double(), expected, atol=1e-4)
    assert penalty.abs().max() > 0.01


def test_ppo_whitens_over_tokens(graded, policy_and_tokenizer):
    config = config_of("ppo")
    batch = scored(graded, config, learner_of(config, policy_and_tokenizer[0]))
    kept = batch.advantages[batch.mask]
    assert kept.mean().item() == pytest.approx(0, abs=1e-5)
    assert kept.std().item() == pytest.approx(1, abs=1e-3)


def test_the_critic_learns_and_leaves_the_policy_alone(graded, policy_and_tokenizer):
    config = config_of("ppo", "algorithm.critic_learning_rate=0.003")
    learner = learner_of(config, policy_and_tokenizer[0])
    assert not any(a is b for a in learner.critic.parameters() for b in learner.policy.parameters())
    losses = []
    for step in range(6):
        meter = Meter()
        update(scored(graded, config, learner), step, config, learner, meter)
        losses.append(meter.values()["value_loss"])
    assert losses[-1] < losses[0]


def test_a_batch_of_equal_rewards_moves_nothing_by_itself(graded, policy_and_tokenizer):
    wrong = Grade(reward=0.0, correct=False, extracted=None, reason="no-answer")
    same = [GradedGroup(group=g.group, grades=(wrong,) * GROUP_SIZE) for g in graded]
    for algorithm in ("opo", "grpo"):
        config = config_of(algorithm, "algorithm.kl_coefficient=0")
        learner = learner_of(config, policy_and_tokenizer[0])
        batch = scored(same, config, learner)
        assert not batch.advantages.any()
        assert gradients(batch, config, learner).norm() == 0


def test_a_gradient_that_is_not_finite_is_skipped(graded, policy_and_tokenizer):
    model, config, meter = policy_and_tokenizer[0], config_of("opo"), Meter()
    learner = learner_of(config, model)
    batch = scored(graded, config, learner)
    before = copy.deepcopy(model.state_dict())
    spoiled = batch.with_(advantages=batch.advantages * float("inf"))
    update(spoiled, 0, config, learner, meter)
    assert meter.values()["num_skipped_updates"] == 1
    assert meter.values()["num_optimizer_steps"] == 0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_key_of_a_step_is_in_the_table(algorithm, prompts, policy_and_tokenizer):
    config = config_of(algorithm)
    model, tokenizer = policy_and_tokenizer
    learner = learner_of(config, model)
    engine = create_engine("transformers", model, tokenizer, max_rows=512)
    before = model.get_input_embeddings().weight.clone()
    with Grader(config.grading) as grader:
        record = training_step(0, prompts, config, learner, engine, grader)
    assert set(record) <= set(METRICS)
    assert engine.version == 1
    assert all(value is None or value == value for value in record.values())
    assert not torch.equal(before, model.get_input_embeddings().weight)
    if algorithm == "ppo":
        assert {"value_loss"} <= set(record)
