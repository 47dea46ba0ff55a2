"""The training step on the real tiny model: what must hold whatever the algorithm."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch

from opo_cli.algorithms import ALGORITHMS
from opo_cli.certificate import KEY
from opo_cli.config import Config
from opo_cli.data.sources import TrainingPrompts
from opo_cli.errors import OpoError
from opo_cli.grading.extract import last_box
from opo_cli.grading.pool import Grader
from opo_cli.metrics import METRICS
from opo_cli.model.precision import Precision, set_precision
from opo_cli.model.scores import score
from opo_cli.presets import resolve
from opo_cli.rl.advantages import ADVANTAGES
from opo_cli.rl.objectives import LOSSES, REDUCTIONS
from opo_cli.rl.stats import group_sum
from opo_cli.rollout.engine import EngineSettings, create_engine
from opo_cli.train.batch import Batch, collate
from opo_cli.train.clock import Clock
from opo_cli.train.learner import Learner, make_reference, new_learner
from opo_cli.train.measure import Meter, measure_scores
from opo_cli.train.rollouts import (
    greedy_answers,
    has_both_outcomes,
    sample_groups,
    shaped,
    with_greedy_rewards,
)
from opo_cli.train.step import score_batch, training_step, with_advantages
from opo_cli.train.update import minibatches, policy_loss, step_counts, update
from opo_cli.types import Grade, GradedGroup

NUM_PROMPTS, GROUP_SIZE = 8, 8


def config_of(algorithm: str, *overrides: str) -> Config:
    return resolve("smoke", algorithm=algorithm, overrides=overrides)


def learner_of(config: Config, model) -> Learner:
    return new_learner(model, copy.deepcopy(model).requires_grad_(False), config)


def scored(graded, config: Config, learner: Learner) -> Batch:
    batch = shaped(collate(graded, torch.device("cpu")), config)
    batch = batch.with_(greedy_rewards=torch.full_like(batch.rewards, 0.5))
    return with_advantages(score_batch(batch, config, learner), config)


def gradients(batch: Batch, config: Config, learner: Learner) -> torch.Tensor:
    learner.policy.zero_grad()
    counts = step_counts(batch, config)
    for rows in batch.sequences.microbatches(config.train.microbatch_tokens):
        policy_loss(batch.select(rows), counts, config, learner, Meter())[0].backward()
    return torch.cat([p.grad.flatten() for p in learner.policy.parameters()])


VARIANTS = [
    *((name, "") for name in ALGORITHMS),
    *((name, f"algorithm.reduction={r}") for name in ("opo", "ppo") for r in REDUCTIONS),
    *(("opo", f"algorithm.advantage={name}") for name, row in ADVANTAGES.items()),
    *(("grpo", f"algorithm.loss={name}") for name in LOSSES),
    *(("opo", f"algorithm.overlong={how}") for how in ("mask", "punish")),
    *(("grpo", f"algorithm.tis={kind}") for kind in ("token", "sequence")),
]


@pytest.mark.parametrize(("algorithm", "change"), VARIANTS)
def test_gradients_do_not_depend_on_microbatches_or_order(
    algorithm, change, graded, policy_and_tokenizer
):
    changes = (
        *([change] if change else []),
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
    batch = update(scored(graded, config, learner), 0, config, learner, meter)
    measure_scores(batch, meter)
    values = meter.values()
    assert values["ratio_deviation"] == 0
    assert values["clip_fraction"] == 0
    assert values["ess_ratio"] == 1
    assert values["surrogate_loss"] == pytest.approx(0, abs=1e-6)  # sum l A = 0
    assert values["num_optimizer_steps"] == 1
    assert values["sampler_mismatch"] < 1e-4


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_off_policy_the_ratio_leaves_one(algorithm, graded, policy_and_tokenizer):
    config, meter = config_of(algorithm, "optim.learning_rate=0.01"), Meter()
    learner = learner_of(config, policy_and_tokenizer[0])
    update(scored(graded, config, learner), 0, config, learner, meter)
    values = meter.values()
    assert values["ratio_deviation"] > 0.01
    assert values["clip_fraction"] > 0
    sides = values["clip_fraction_low"] + values["clip_fraction_high"]
    assert values["clip_fraction"] == pytest.approx(sides)
    assert 0 < values["ess_ratio"] < 1
    assert values["num_optimizer_steps"] == config.algorithm.minibatches_per_step


def test_minibatches_are_whole_groups_each_once(graded, policy_and_tokenizer):
    config = config_of("grpo")
    batch = scored(graded, config, learner_of(config, policy_and_tokenizer[0]))
    parts = [set(part.groups.tolist()) for part, _ in minibatches(batch, 3, config)]
    assert len(parts) == config.algorithm.minibatches_per_step
    assert sorted(group for part in parts for group in part) == list(range(NUM_PROMPTS))
    assert sum(len(part) for part, _ in minibatches(batch, 3, config)) == len(batch)
    again = [set(part.groups.tolist()) for part, _ in minibatches(batch, 3, config)]
    other = [set(part.groups.tolist()) for part, _ in minibatches(batch, 4, config)]
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
def test_a_whole_step_of_every_algorithm(algorithm, prompts, engine, policy_and_tokenizer):
    """Every logged key is in the table, no value is NaN, the weights move."""
    config, model = config_of(algorithm), policy_and_tokenizer[0]
    learner = learner_of(config, model)
    before = model.get_input_embeddings().weight.clone()
    source = TrainingPrompts(prompts, config.seed)
    with Grader(config.grading) as grader:
        result = training_step(0, source, config, learner, engine, grader)
    record = result.record
    assert set(record) - {KEY} <= set(METRICS)
    assert engine.version == 1
    assert all(value is None or value == value for value in record.values())
    assert result.batch.advantages.isfinite().all()
    assert not torch.equal(before, model.get_input_embeddings().weight)
    assert (record["exact_on_policy"] == 1) == (config.algorithm.minibatches_per_step == 1)
    assert bool(record[KEY]) != bool(record["exact_on_policy"])
    assert ("value_loss" in record) == (algorithm == "ppo")


# --- overlong responses, TIS ------------------------------------------------------------------


def test_masked_rows_are_as_if_never_there(graded, policy_and_tokenizer):
    """Baseline, denominators and gradient are those of the other rows alone."""
    config = config_of("opo", "algorithm.overlong=mask")
    learner = learner_of(config, policy_and_tokenizer[0])
    batch = collate(graded, torch.device("cpu"))
    cut = torch.arange(len(batch)) % 5 == 0
    batch = shaped(batch.with_(truncated=cut), config)
    masked = with_advantages(score_batch(batch, config, learner), config)
    assert not masked.advantages[cut].any()
    kept = (~cut).nonzero().squeeze(-1)
    rest = batch.select(kept)
    plain = with_advantages(score_batch(rest, config, learner), config)
    width = plain.advantages.shape[1]
    assert torch.allclose(masked.advantages[kept, :width], plain.advantages)
    ours, theirs = gradients(masked, config, learner), gradients(plain, config, learner)
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_a_group_that_is_masked_whole_moves_nothing(graded, policy_and_tokenizer):
    config = config_of("opo", "algorithm.overlong=mask")
    learner = learner_of(config, policy_and_tokenizer[0])
    batch = collate(graded, torch.device("cpu"))
    batch = shaped(batch.with_(truncated=torch.ones(len(batch), dtype=torch.bool)), config)
    batch = with_advantages(score_batch(batch, config, learner), config)
    meter = Meter()
    before = copy.deepcopy(policy_and_tokenizer[0].state_dict())
    update(batch, 0, config, learner, meter, measure_noise=True)
    assert meter.values()["gradient_norm"] == 0
    after = policy_and_tokenizer[0].state_dict()
    assert all(torch.equal(value, before[key]) for key, value in after.items())


def test_long_responses_are_punished_before_the_estimator_sees_them(graded):
    config = config_of("opo", "algorithm.overlong=punish", "algorithm.overlong_buffer=0.5")
    raw = collate(graded, torch.device("cpu"))
    batch = shaped(raw, config)
    expected = ((16 - raw.lengths) / 16).clamp(-1, 0)  # 16 of 32 tokens are the buffer.
    assert torch.allclose(batch.rewards - raw.rewards, expected)
    assert expected.min() < 0


def test_tis_weights_come_from_the_sampler(graded, policy_and_tokenizer):
    """A sampler that is sure of everything by a factor of 2 halves the gradient."""
    config = config_of("opo", "algorithm.tis=token")
    learner = learner_of(config, policy_and_tokenizer[0])
    batch = scored(graded, config, learner)
    exact = gradients(batch, config, learner)
    doubled = batch.with_(sampler_logprobs=batch.sampler_logprobs + math.log(2) * batch.mask)
    halved = gradients(doubled, config, learner)
    assert (halved - exact / 2).norm() < 1e-4 * exact.norm()
    capped = batch.with_(sampler_logprobs=batch.sampler_logprobs - math.log(8) * batch.mask)
    most = gradients(capped, config, learner)
    assert (most - 2 * exact).norm() < 1e-4 * exact.norm()


# --- what must not be blown up, or go unseen --------------------------------------------------


@pytest.mark.parametrize("algorithm", ["reinforce++", "reinforce++-baseline", "ppo", "rloo"])
def test_a_kl_penalty_alone_stays_as_small_as_it_is(algorithm, graded, policy_and_tokenizer):
    """Every response is wrong: whitening would make the penalty look like a reward."""
    wrong = Grade(reward=0.0, correct=False, extracted=None, reason="no-answer")
    same = [GradedGroup(group=g.group, grades=(wrong,) * GROUP_SIZE) for g in graded]
    config = config_of(algorithm, "algorithm.kl_in=reward", "algorithm.kl_coefficient=0.001")
    learner = learner_of(config, policy_and_tokenizer[0])
    with torch.no_grad():
        for parameter in learner.reference.parameters():
            parameter.mul_(0.9)
    batch = scored(same, config, learner)
    assert 0 < batch.advantages.abs().max() < 0.1


def test_whitening_looks_at_trained_rows_alone(graded, policy_and_tokenizer):
    """One masked row of another reward is no signal."""
    config = config_of("ppo", "algorithm.kl_coefficient=0")
    learner = learner_of(config, policy_and_tokenizer[0])
    batch = collate(graded, torch.device("cpu"))
    is_trained = torch.arange(len(batch)) > 0
    batch = batch.with_(rewards=(~is_trained).float(), is_trained=is_trained)
    batch = with_advantages(score_batch(batch, config, learner), config)
    assert not batch.advantages.any()


def test_a_trainer_that_differs_from_its_own_scores_is_seen(graded, policy_and_tokenizer):
    """Where the old logprobs come from a pass of their own, the ratio is held against them."""
    config, meter = config_of("otb"), Meter()
    learner = learner_of(config, policy_and_tokenizer[0])
    batch = scored(graded, config, learner)
    update(batch.with_(old_logprobs=batch.old_logprobs * 1.5), 0, config, learner, meter)
    assert meter.values()["ratio_deviation"] > 0.1
    exact = Meter()
    update(scored(graded, config, learner), 0, config, learner, exact)
    assert exact.values()["ratio_deviation"] < 1e-4


def test_a_step_without_a_loss_token_has_no_certificate(prompts, engine, policy_and_tokenizer):
    config = config_of("opo", "algorithm.overlong=mask", "rollout.max_new_tokens=2")
    learner = learner_of(config, policy_and_tokenizer[0])
    source = TrainingPrompts(prompts, 0)
    with Grader(config.grading) as grader:
        record = training_step(0, source, config, learner, engine, grader).record
    assert record["masked"] == 1
    assert record[KEY] == ["all masked"]
    assert record["gradient_norm"] == 0


def test_the_kl_term_of_the_loss_is_logged(graded, policy_and_tokenizer):
    config, meter = config_of("reinforce++-baseline", "algorithm.kl_coefficient=0.5"), Meter()
    learner = learner_of(config, policy_and_tokenizer[0])
    with torch.no_grad():
        for parameter in learner.reference.parameters():
            parameter.mul_(0.9)
    batch = scored(graded, config, learner)
    log_ratio = score(learner.policy, batch.sequences, 512).logprobs - batch.reference_logprobs
    expected = 0.5 * (log_ratio.square() / 2).sum() / batch.lengths.sum()
    update(batch, 0, config, learner, meter)
    assert meter.values()["kl_loss"] == pytest.approx(float(expected), rel=1e-4)
    assert expected > 0.01


# --- dynamic sampling, the greedy baseline ----------------------------------------------------


def sampled_by(config: Config, prompts, engine, seed: int = 0):
    with Grader(config.grading) as grader:
        return sample_groups(seed, TrainingPrompts(prompts, seed), config, engine, grader, Clock())


def test_dynamic_sampling_replaces_groups_without_both_outcomes(prompts, engine):
    plain, _ = sampled_by(config_of("opo"), prompts, engine)
    assert not all(map(has_both_outcomes, plain))
    config = config_of("opo", "algorithm.max_sampling_rounds=20")
    groups, sampled = sampled_by(config, prompts, engine)
    assert len(groups) == len(plain) == config.rollout.prompts_per_step
    assert all(map(has_both_outcomes, groups))
    assert len(sampled) > len(groups)
    assert sampled[: len(plain)] == plain  # The first round is the step that all algorithms see.
    again, _ = sampled_by(config, prompts, engine)
    assert again == groups
    assert len({group.group.prompt.problem.id for group in sampled}) == len(prompts)
    streams = {rollout.token_ids for group in sampled for rollout in group.group.rollouts}
    assert len(streams) > len(sampled) * 3  # Replacements draw from streams of their own.


def test_dynamic_sampling_gives_up_and_fills_up(prompts, engine):
    config = config_of("opo", "algorithm.max_sampling_rounds=2")
    unsolvable = [
        replace(prompt, problem=replace(prompt.problem, answer="99999")) for prompt in prompts
    ]
    groups, sampled = sampled_by(config, unsolvable, engine)
    assert len(groups) == config.rollout.prompts_per_step
    assert len(sampled) == 2 * len(groups)
    assert groups == sampled[: len(groups)]


def test_the_greedy_reward_is_that_of_the_most_probable_tokens(
    prompts, engine, graded, policy_and_tokenizer
):
    """Graded against itself, the greedy response earns 1; against another answer, 0."""
    model, tokenizer = policy_and_tokenizer
    config = config_of("remax")
    answers = []
    for prompt in prompts:
        ids = list(prompt.token_ids)
        for _ in range(config.rollout.max_new_tokens):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        text = tokenizer.decode(ids[len(prompt.token_ids) :], skip_special_tokens=True)
        answers.append(last_box(text) if ids[-1] == tokenizer.eos_token_id else None)
    assert any(answers)
    groups = [
        replace(
            group,
            group=replace(
                group.group,
                prompt=replace(
                    group.group.prompt,
                    problem=replace(group.group.prompt.problem, answer=answer or "nothing"),
                ),
            ),
        )
        for group, answer in zip(graded, answers, strict=True)
    ]
    batch = collate(groups, torch.device("cpu"))
    with Grader(config.grading) as grader:
        greedy = greedy_answers(groups, config, engine, grader, Clock())
    batch = with_greedy_rewards(batch, greedy, config)
    assert [len(group.group.rollouts) for group in greedy] == [1] * NUM_PROMPTS
    per_group = batch.greedy_rewards.view(NUM_PROMPTS, GROUP_SIZE)
    assert per_group[:, 0].tolist() == [float(answer is not None) for answer in answers]
    assert (per_group == per_group[:, :1]).all()


# --- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            (),
            "--set train.use_activation_checkpointing=true, or --set train.microbatch_tokens=256",
        ),
        (("train.use_activation_checkpointing=true",), "--set train.microbatch_tokens=256"),
        (
            ("train.use_activation_checkpointing=true", "train.microbatch_tokens=8"),
            "another run with --set rollout.max_new_tokens=16",
        ),
    ],
)
def test_an_update_out_of_memory_says_what_to_lower(
    changes, expected, prompts, engine, policy_and_tokenizer
):
    """The learner's policy is not the engine's, and asks for an exabyte once gradients are on."""
    off = ("measure.every=0", "measure.probe_every=0", "rollout.max_new_tokens=32")
    config = config_of("opo", *off, "train.microbatch_tokens=512", *changes)
    learner = learner_of(config, copy.deepcopy(policy_and_tokenizer[0]))

    def ask(*_) -> None:
        if torch.is_grad_enabled():
            torch.empty(2**60, dtype=torch.uint8)

    learner.policy.base_model.register_forward_pre_hook(ask)
    with Grader(config.grading) as grader, pytest.raises(OpoError) as told:
        training_step(0, TrainingPrompts(prompts, 0), config, learner, engine, grader)
    assert told.value.message.startswith("out of host memory in the update: ")
    assert told.value.hint == expected


def test_a_reference_is_made_where_something_needs_it(policy_and_tokenizer):
    model = policy_and_tokenizer[0]
    off = ("measure.every=0", "measure.probe_every=0", "eval.benchmarks=[]", "eval.validation=[]")
    needs = {
        off: False,
        (*off[1:], "measure.every=1"): True,
        (off[0], *off[2:], "measure.probe_every=3"): True,
        off[:3]: True,
        (*off[:2], off[3], 'eval.benchmarks=["tiny-easy"]'): True,
        (*off[:2], off[3], 'eval.benchmarks=["tiny-easy"]', "eval.temperature=0"): False,
        (*off, "algorithm.kl_in=loss", "algorithm.kl_coefficient=0.1"): True,
    }
    for changes, is_needed in needs.items():
        reference = make_reference(model, config_of("opo", *changes))
        assert (reference is not None) == is_needed, changes
        if is_needed:
            assert not any(p.requires_grad for p in reference.parameters())


def test_a_step_goes_without_a_reference_and_with_recomputed_layers(
    prompts, engine, policy_and_tokenizer
):
    found = []
    for setting in ("false", "true"):
        config = config_of(
            "opo",
            "measure.every=0",
            "measure.probe_every=0",
            f"train.use_activation_checkpointing={setting}",
        )
        model = copy.deepcopy(policy_and_tokenizer[0])
        engine.load_weights(model, 0)
        learner = new_learner(model, None, config)
        with Grader(config.grading) as grader:
            training_step(0, TrainingPrompts(prompts, 0), config, learner, engine, grader)
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(*found, atol=1e-7)


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce++-baseline"])
def test_a_step_in_bfloat16_keeps_float32_weights(algorithm, prompts, policy_and_tokenizer):
    """Sampler, critic and reference compute in it, too; the sampler's logprobs are the trainer's up
    to the rounding of products over other shapes."""
    config = config_of(algorithm, "model.compute_dtype=bfloat16")
    model, tokenizer = policy_and_tokenizer
    set_precision(model, Precision.of(config.model))
    engine = create_engine("transformers", model, tokenizer, EngineSettings())
    learner = learner_of(config, model)
    with Grader(config.grading) as grader:
        record = training_step(
            0, TrainingPrompts(prompts, 0), config, learner, engine, grader
        ).record
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert record["num_optimizer_steps"] == config.algorithm.minibatches_per_step
    assert 1e-4 < record["sampler_mismatch"] < 0.3
    assert record["sampler_mismatch_mean"] < 0.02
    assert record["ess_sampler"] > 0.9
