"""The worst-case step: it is the worst, and it changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from opo_cli.grading.pool import Grader
from opo_cli.presets import resolve
from opo_cli.records import RunFolder
from opo_cli.train.check import PeakMemory, Unending, unchanged, worst_prompts, worst_step
from opo_cli.train.learner import make_reference, new_learner


def learner_of(config, policy):
    return new_learner(policy, make_reference(policy, config), config)


def steps_of(folder: Path) -> list[dict]:
    """Without what the clock says, and the memory."""
    records = RunFolder(folder).steps()
    times = ("_seconds", "_per_second", "_gigabytes")
    return [{k: v for k, v in record.items() if not k.endswith(times)} for record in records]


def bits_of(learner) -> list[torch.Tensor]:
    modules = [learner.policy, *([learner.critic] if learner.critic else [])]
    return [p.detach().clone().view(torch.int32) for m in modules for p in m.parameters()]


def test_worst_prompts_are_as_long_as_the_longest_and_share_nothing(prompts):
    longest = max(len(prompt.token_ids) for prompt in prompts)
    worst = worst_prompts(prompts, 5)
    assert {len(prompt.token_ids) for prompt in worst} == {longest}
    assert len({prompt.token_ids for prompt in worst}) == 5
    assert len({prompt.problem.id for prompt in worst}) == 5
    assert worst_prompts(prompts, 5) == worst


@pytest.mark.parametrize("algorithm", ["opo", "ppo"])
def test_the_worst_step_changes_nothing(algorithm, policy_and_tokenizer, prompts, engine):
    config = resolve("smoke", algorithm=algorithm)
    learner = learner_of(config, policy_and_tokenizer[0])
    before, random_state = bits_of(learner), torch.get_rng_state()
    with Grader(config.grading) as grader:
        found = worst_step(config, prompts, learner, engine, grader)
    assert all(map(torch.equal, bits_of(learner), before))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not learner.optimizer.state
    assert all(parameter.grad is None for parameter in learner.policy.parameters())
    assert [g["lr"] for g in learner.optimizer.param_groups] == [config.optim.learning_rate]
    # Every response went to the limit, and an optimizer step was made.
    assert found.record["length"] == config.rollout.max_new_tokens
    assert found.record["truncated"] == 1
    assert found.record["num_optimizer_steps"] == config.algorithm.minibatches_per_step
    assert found.load.num_rows == config.num_rows
    assert found.load.prompt == max(len(prompt.token_ids) for prompt in prompts)
    assert found.peak_bytes > found.predicted_bytes > 10**6
    assert engine.version == 0


def test_a_sleeping_engines_tensors_are_counted_by_torch_and_are_not_there():
    """Weights and cache of 35 beside 20 that always stay; the update takes 30 more."""
    found = PeakMemory(torch.device("cpu"))
    found.add(20 + 35 + 4, absent=35)  # Awake: a batch of 4 comes and goes.
    assert found.num_bytes == 59
    found.add(20 + 35 + 30)  # Asleep: torch counts 85, of which 50 are there.
    assert found.num_bytes == 59
    found.add(20 + 35 + 10)  # Awake again, with what the sync takes.
    assert found.num_bytes == 65
    found.add(1, absent=35)
    found.add(20 + 35 + 80)
    assert found.num_bytes == 100


@pytest.mark.skipif("not torch.cuda.is_available()", reason="torch sees no GPU")
def test_the_peak_of_a_gpu_is_told_stretch_by_stretch():
    gpu = torch.device("cuda")
    kept = torch.cuda.memory_allocated(gpu)
    peak = PeakMemory(gpu)
    engine = torch.empty(2**26, dtype=torch.uint8, device=gpu)
    peak.cut(absent=engine.nbytes)
    torch.empty(2**25, dtype=torch.uint8, device=gpu)
    assert peak.measured() == kept + 2**26


def test_an_engine_without_end_passes_on_what_it_is_told(policy_and_tokenizer, engine):
    unending = Unending(engine, PeakMemory(torch.device("cpu")))
    unending.sleep()
    unending.load_weights(policy_and_tokenizer[0], 7)
    assert engine.version == 7
    assert unending.name == "transformers"


def test_a_step_with_a_gradient_changes_nothing_either(policy_and_tokenizer):
    """The worst step's rewards are all alike; those of others are not."""
    config = resolve("smoke")
    learner = learner_of(config, policy_and_tokenizer[0])
    before = bits_of(learner)
    with unchanged(learner):
        for parameter in learner.policy.parameters():
            parameter.grad = torch.randn_like(parameter)
        learner.optimizer.step()
        assert learner.optimizer.state
    assert all(map(torch.equal, bits_of(learner), before))
    assert not learner.optimizer.state
    for parameter in learner.policy.parameters():
        parameter.grad = torch.randn_like(parameter)
    learner.optimizer.step()
    assert not all(map(torch.equal, bits_of(learner), before))


def test_a_checked_run_is_the_run_without(base, tmp_path: Path, run_opo):
    for name, more in (("plain", []), ("checked", ["--check"])):
        result = run_opo("train", "--preset", "smoke", *more, "--out", name)
        assert result.returncode == 0, result.stderr
    assert "checked  64 rows of" in result.stdout
    assert "predicted for tensors" in result.stdout
    plain, checked = (steps_of(tmp_path / name) for name in ("plain", "checked"))
    assert len(plain) == 6
    assert plain == checked
    plain, checked = (
        (tmp_path / name / "model/model.safetensors").read_bytes() for name in ("plain", "checked")
    )
    assert plain == checked


def test_a_check_alone_leaves_nothing_behind(base, tmp_path: Path, run_opo):
    result = run_opo("train", "--preset", "smoke", "--dry-run", "--check")
    assert result.returncode == 0, result.stderr
    assert "checked  64 rows of" in result.stdout
    assert "tokens/s" in result.stdout
    assert not list(tmp_path.iterdir())
