"""NaN and infinity, caused for real: nothing is learnt from them, drawn from them or hidden."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch

from opo_cli.certificate import off_policy_reasons
from opo_cli.data.sources import TrainingPrompts
from opo_cli.errors import NotFiniteError
from opo_cli.evaluate.run import Evaluator
from opo_cli.grading.pool import Grader
from opo_cli.model.policy import load_policy
from opo_cli.presets import resolve
from opo_cli.rl.objectives import KL_ESTIMATORS
from opo_cli.train.batch import collate
from opo_cli.train.checkpoint import read_policy
from opo_cli.train.learner import Learner, new_learner
from opo_cli.train.measure import Meter
from opo_cli.train.rollouts import shaped
from opo_cli.train.step import score_batch, training_step, with_advantages
from opo_cli.train.update import apply_gradients, update
from opo_cli.train.warmstart import warm_start
from opo_cli.types import Sampling

INFINITE, CPU = float("inf"), torch.device("cpu")


def learner_of(config, model) -> Learner:
    return new_learner(model, copy.deepcopy(model).requires_grad_(False), config)


def scored(graded, config, learner):
    batch = score_batch(shaped(collate(graded, CPU), config), config, learner)
    return with_advantages(batch, config)


def state_of(module, optimizer) -> tuple:
    return copy.deepcopy((module.state_dict(), optimizer.state_dict()["state"]))


def is_same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(is_same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(is_same, a, b))
    return a == b


def spoiled(batch, what: str):
    """One number that is none."""
    values = getattr(batch, what).clone()
    values[3, 0] = math.nan
    return batch.with_(**{what: values})


KL = ("kl_in=loss", "kl_estimator=k2", "kl_coefficient=0.1")


@pytest.mark.parametrize(
    ("algorithm", "what", "changes"),
    [
        ("opo", "advantages", ()),
        ("opo", "reference_logprobs", KL),
        ("ppo", "advantages", ("minibatches_per_step=1",)),
        ("grpo", "old_logprobs", ("minibatches_per_step=2",)),
    ],
)
def test_an_update_that_is_not_finite_leaves_weights_and_optimizer(
    algorithm, what, changes, graded, policy_and_tokenizer
):
    overrides = [f"algorithm.{change}" for change in changes]
    config = resolve("smoke", algorithm=algorithm, overrides=overrides)
    learner = learner_of(config, policy_and_tokenizer[0])
    update(scored(graded, config, learner), 0, config, learner, Meter())  # It has moments now.
    before = state_of(learner.policy, learner.optimizer)
    batch, meter = scored(graded, config, learner), Meter()
    if what == "old_logprobs":  # In every minibatch.
        batch = batch.with_(old_logprobs=batch.old_logprobs * math.nan)
    else:
        batch = spoiled(batch, what)
    update(batch, 1, config, learner, meter, measure_noise=True)
    values = meter.values()
    assert values["num_skipped_updates"] == config.algorithm.minibatches_per_step
    assert values["num_optimizer_steps"] == 0
    assert is_same(state_of(learner.policy, learner.optimizer), before)
    json.dumps(values, allow_nan=False)
    meter = Meter()  # And the next step is as any other.
    update(scored(graded, config, learner), 2, config, learner, meter)
    assert meter.values()["num_skipped_updates"] == 0


def test_the_critics_skipped_updates_count_and_the_policys_go_on(graded, policy_and_tokenizer):
    config, meter = resolve("smoke", algorithm="ppo"), Meter()
    learner = learner_of(config, policy_and_tokenizer[0])
    batch = scored(graded, config, learner)
    policys = state_of(learner.policy, learner.optimizer)
    critics = state_of(learner.critic, learner.critic_optimizer)
    update(batch.with_(returns=batch.returns * INFINITE), 0, config, learner, meter)
    values, count = meter.values(), config.algorithm.minibatches_per_step
    assert (values["num_optimizer_steps"], values["num_skipped_updates"]) == (count, count)
    assert values["value_loss"] is None
    assert is_same(state_of(learner.critic, learner.critic_optimizer), critics)
    assert not is_same(state_of(learner.policy, learner.optimizer), policys)


@pytest.mark.parametrize("loss", [math.nan, INFINITE])
def test_a_loss_that_is_not_finite_is_none_to_learn_from(loss, smoke):
    module = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    for value, moves in ((loss, False), (1.0, True)):
        before = state_of(module, optimizer)
        module(torch.ones(1, 2)).sum().backward()
        norm = apply_gradients(module, optimizer, torch.tensor(value), smoke)
        assert (norm is not None) == moves
        assert is_same(state_of(module, optimizer), before) != moves


@pytest.mark.parametrize("estimator", KL_ESTIMATORS)
@pytest.mark.parametrize("number", [INFINITE, -INFINITE])
def test_an_infinite_kl_leaves_the_reward_finite(number, estimator, graded, policy_and_tokenizer):
    """All else in it is: a grade is 0 or 1, a punishment for length within [-1, 0]."""
    overrides = [f"algorithm.kl_estimator={estimator}", "algorithm.overlong=punish"]
    config = resolve("smoke", algorithm="ppo", overrides=overrides)
    assert config.algorithm.kl_in == "reward"
    learner = learner_of(config, policy_and_tokenizer[0])
    batch = score_batch(shaped(collate(graded, CPU), config), config, learner)
    assert batch.rewards.isfinite().all()
    infinite = torch.full_like(batch.reference_logprobs, number)
    batch = batch.with_(reference_logprobs=infinite.where(batch.mask, infinite.new_zeros(())))
    batch = with_advantages(batch, config)
    assert batch.advantages.isfinite().all()
    assert batch.returns.isfinite().all()


def test_an_update_that_overflows_is_told_at_once(prompts, engine, policy_and_tokenizer):
    config = resolve("smoke")
    learner = learner_of(config, policy_and_tokenizer[0])
    weights = learner.policy.parameters()
    learner.optimizer = torch.optim.SGD(weights, lr=3e38, weight_decay=100)
    source = TrainingPrompts(prompts, config.seed)
    with (
        Grader(config.grading) as grader,
        pytest.raises(NotFiniteError, match=r"the update left model\.\S+ not finite"),
    ):
        training_step(0, source, config, learner, engine, grader)
    assert engine.version == 0


@pytest.mark.parametrize("values", [(1.0, math.nan), (math.nan, 1.0)])
def test_no_maximum_hides_that_a_number_is_none(values, smoke):
    meter = Meter()
    for value in values:
        meter.largest(ratio_deviation=value, sampler_mismatch=0.0)
    record = meter.values() | {"num_optimizer_steps": 1, "masked": 0.0}
    assert record["ratio_deviation"] is None
    assert off_policy_reasons(smoke, 0, {0}, record) == ["ratio"]


# --- nothing is drawn from them -----------------------------------------------------------------


def break_one(model, number: float) -> None:
    with torch.no_grad():
        model.get_input_embeddings().weight[5, 3] = number


def blow_up(model) -> None:
    """Finite weights, and logits that are not."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e25)


SAMPLINGS = {
    "sampled": Sampling(num_responses=2, max_new_tokens=8),
    "nucleus": Sampling(num_responses=2, max_new_tokens=8, top_p=0.9),
    "greedy": Sampling(num_responses=1, max_new_tokens=8, temperature=0.0),
}


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("broken", [math.nan, INFINITE, None])
def test_nothing_is_drawn(broken, sampling, engine, prompts, policy_and_tokenizer):
    model = policy_and_tokenizer[0]
    if broken is None:
        blow_up(model)
    else:
        with torch.no_grad():
            model.get_output_embeddings().weight[5, 3] = broken
    engine.load_weights(model, 7)
    with pytest.raises(NotFiniteError, match=r"logits of model '.*base-.*' after 7 steps are not"):
        engine.generate(prompts, sampling, stream=(0,))


def test_scores_of_an_evaluation_that_are_not_finite_are_told(
    base, smoke, engine, prompts, policy_and_tokenizer
):
    """Such as those of a trainer whose precision overflows where the engine's does not."""
    policy, tokenizer = policy_and_tokenizer
    with Grader(smoke.grading) as grader:
        graded = grader.grade(engine.generate(prompts, SAMPLINGS["sampled"], stream=(0,)))
        broken = copy.deepcopy(policy)
        blow_up(broken)
        evaluator = Evaluator(
            config=smoke, engine=engine, grader=grader, tokenizer=tokenizer, policy=broken
        )
        with pytest.raises(NotFiniteError, match="are not finite"):
            evaluator._measured(graded)


@pytest.fixture
def broken_folders(policy_and_tokenizer, in_tmp) -> dict[str, str]:
    """Model folders, and what is said of each."""
    model, tokenizer = policy_and_tokenizer
    for name, change in (("nan", math.nan), ("inf", INFINITE)):
        broken = copy.deepcopy(model)
        break_one(broken, change)
        broken.save_pretrained(name)
        tokenizer.save_pretrained(name)
    blow_up(model)
    model.save_pretrained("huge")
    tokenizer.save_pretrained("huge")
    weight = "model.embed_tokens.weight is not finite"
    return {"nan": weight, "inf": weight, "huge": "are not finite"}


def test_a_model_folder_of_such_weights_is_refused_by_every_command(broken_folders, capfd):
    from opo_cli.cli import main

    commands = (
        ["train", "--preset", "smoke", "--out", "run"],
        ["eval", "tiny-easy", "--limit", "2"],
        ["lab", "--prompts", "4", "--responses", "16", "--group-size", "8"],
    )
    for folder, told in broken_folders.items():
        for command in commands:
            assert main([*command, "--model", folder]) == 2
            error, hint = capfd.readouterr().err.splitlines()[-2:]
            assert error.startswith("error: ")
            assert f"model '{folder}'" in error
            assert error.endswith(told)
            assert hint.endswith("another model")
        if told.endswith("weight is not finite"):
            assert not Path("run").exists()
            assert not Path("labs").exists()


def test_a_warm_start_that_diverges_makes_no_base(smoke):
    stage = smoke.warmstart.stages[0].model_copy(update={"learning_rate": 1e30})
    settings = smoke.warmstart.model_copy(update={"stages": (stage,)})
    config = smoke.model_copy(update={"warmstart": settings})
    with pytest.raises(NotFiniteError, match="warm start's loss or gradient") as error:
        warm_start(config, lambda tokens, loss: None)
    assert "1e+30" in error.value.hint


# --- runs ---------------------------------------------------------------------------------------

RUN = ("train", "--preset", "smoke", "--set", "eval.benchmarks=[]", "--set", "eval.validation=[]")


def steps_of(folder: Path) -> list[dict]:
    lines = (folder / "steps.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=lambda name: pytest.fail(name)) for line in lines]


def newest_checkpoint(folder: Path) -> str:
    return max(path.stem for path in (folder / "checkpoints").iterdir())


def test_a_run_stops_after_so_many_steps_without_an_update(base, in_tmp, run_opo):
    """An entropy bonus whose gradient overflows, at weights and samples that are as ever."""
    arguments = ("--set", "algorithm.entropy_coefficient=1e38", "--out", "run")
    result = run_opo(*RUN, *arguments)
    assert result.returncode == 2
    error, hint = result.stderr.splitlines()[-2:]
    assert error == (
        "error: step 3: no loss and gradient was finite, so no weight was updated, in 3 steps in "
        "a row"
    )
    assert "another run, for example with --set optim.learning_rate=2e-05" in hint
    assert "warning: step 2: " in result.stderr
    assert "Traceback" not in result.stderr
    steps = steps_of(in_tmp / "run")
    assert [step["num_skipped_updates"] for step in steps] == [1, 1, 1]
    assert newest_checkpoint(in_tmp / "run") == "step-000003"
    trained, _ = load_policy(str(base), CPU)
    kept = read_policy(in_tmp / "run/checkpoints/step-000003")
    assert is_same(kept, dict(trained.named_parameters()))

    again = run_opo("train", "--resume", "--out", "run")  # The count goes on.
    assert again.returncode == 2
    assert "error: step 4: no loss and gradient was finite" in again.stderr
    assert "in 4 steps in a row" in again.stderr
    shown = run_opo("show", "run")
    assert shown.returncode == 0, shown.stderr


def test_a_run_that_diverges_stops_and_says_so(base, in_tmp, run_opo):
    wild = ("--set", "optim.learning_rate=1e30", "--set", "checkpoint.snapshot_every=1")
    result = run_opo(*RUN, *wild, "--out", "wild")
    assert result.returncode == 2
    error, hint = result.stderr.splitlines()[-2:]
    assert error.startswith("error: step 2: the logits of model '")
    assert error.endswith("after 1 steps are not finite")
    assert "optim.learning_rate=1e+29 (here 1e+30)" in hint
    assert "Traceback" not in result.stderr
    assert len(steps_of(in_tmp / "wild")) == 1
    assert newest_checkpoint(in_tmp / "wild") == "step-000001"
    assert not (in_tmp / "wild" / "model").exists()
