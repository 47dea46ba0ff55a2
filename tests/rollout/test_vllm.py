"""A real vLLM engine on a CPU: weights, caches, what its start leaves behind, and how it ends."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from opo_cli.data.prompts import make_prompts, resolve_template
from opo_cli.data.tiny import CHAINS
from opo_cli.errors import NotFiniteError, OpoError
from opo_cli.model.precision import Precision, set_precision
from opo_cli.model.scores import score
from opo_cli.model.sequences import Sequences
from opo_cli.model.shape import shape_of
from opo_cli.rollout.engine import (
    EngineError,
    EngineSettings,
    choose_engine,
    create_engine,
    vllm_obstacle,
)
from opo_cli.rollout.revival import Revivable, start_engine
from opo_cli.rollout.vllm_start import BATCH_TOKENS
from opo_cli.types import Sampling

OBSTACLE = vllm_obstacle(None, "cpu")
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE[0] if OBSTACLE else "")
SETTINGS = EngineSettings(max_rows=64, max_tokens=256)
SAMPLING = Sampling(num_responses=4, max_new_tokens=24)
GREEDY = Sampling(num_responses=1, max_new_tokens=24, temperature=0)


@pytest.fixture
def prompts(policy_and_tokenizer):
    problems = [tier for name in CHAINS.tiers for tier in CHAINS.tier_problems(name)[:2]]
    tokenizer = policy_and_tokenizer[1]
    template = resolve_template("line", tokenizer, is_embedded=True)
    return make_prompts(problems, template, tokenizer)


@contextmanager
def started(model, tokenizer, settings=SETTINGS) -> Iterator:
    engine = create_engine("vllm", model, tokenizer, settings)
    try:
        yield engine
    finally:
        engine.close()


def change(model, seed: int = 0, scale: float = 0.3) -> None:
    """Random weights near the old ones; norms, which are all 1, too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            spread = parameter.std(correction=0).clamp(min=0.1)
            parameter.add_(scale * spread * noise)


def tokens(groups) -> list[tuple[int, ...]]:
    return [rollout.token_ids for group in groups for rollout in group.rollouts]


def largest_mismatch(engine, model, prompts) -> float:
    groups = engine.generate(prompts, SAMPLING, stream=(0, 1))
    repeated = [g.prompt.token_ids for g in groups for _ in g.rollouts]
    sequences = Sequences.pack(repeated, tokens(groups), torch.device("cpu"))
    sampler = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(r.sampler_logprobs) for g in groups for r in g.rollouts], batch_first=True
    )
    return (score(model, sequences, 10**6).logprobs - sampler).abs().max().item()


def other_model(tokenizer, **changes):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        **changes,
    )
    return Qwen2ForCausalLM(config).eval()


@pytest.mark.parametrize("execution", ["eager", "compiled"])
@pytest.mark.parametrize("is_tied", [True, False])
def test_after_a_sync_it_says_what_transformers_says(
    is_tied, execution, prompts, policy_and_tokenizer
):
    tokenizer = policy_and_tokenizer[1]
    model = other_model(tokenizer, tie_word_embeddings=is_tied)
    settings = EngineSettings(max_rows=64, max_tokens=256, execution=execution)
    reference = create_engine("transformers", model, tokenizer, SETTINGS)
    with started(model, tokenizer, settings) as engine:
        for version in (1, 2):
            change(model, version)
            engine.load_weights(model, version)
            assert tokens(engine.generate(prompts, GREEDY, stream=(0,))) == tokens(
                reference.generate(prompts, GREEDY, stream=(0,))
            )
            assert largest_mismatch(engine, model, prompts) < 1e-4


def test_keys_of_older_weights_are_dropped(policy_and_tokenizer):
    """A prompt longer than a cache block (128 tokens), as shorter ones are never kept."""
    model, tokenizer = policy_and_tokenizer
    problem = CHAINS.tier_problems("tiny-hard")[0]
    template = resolve_template("line", tokenizer, is_embedded=True)
    prompt = make_prompts([problem], template, tokenizer)[0]
    long = [type(prompt)(problem=problem, text="", token_ids=prompt.token_ids * 10)]
    assert 128 < len(long[0].token_ids) < 230
    with started(model, tokenizer) as engine:
        engine.generate(long, SAMPLING, stream=(0, 0))
        change(model)
        engine.load_weights(model, 1)
        assert largest_mismatch(engine, model, long) < 1e-4
        # The same without the reset: what this test would see of a stale cache.
        reset, engine.llm.reset_prefix_cache = engine.llm.reset_prefix_cache, lambda: True
        engine.generate(long, SAMPLING, stream=(0, 0))
        change(model, seed=1)
        engine.load_weights(model, 2)
        assert largest_mismatch(engine, model, long) > 1e-2
        engine.llm.reset_prefix_cache = reset


@pytest.mark.parametrize("lost", ["model.norm.weight", "lm_head.weight", "model.layers.1.mlp"])
def test_weights_that_do_not_arrive_are_an_error(lost, policy_and_tokenizer):
    """Read back where vLLM leaves them readable; else told by what it says of a fixed text."""
    tokenizer = policy_and_tokenizer[1]
    model = other_model(tokenizer, tie_word_embeddings=False)
    with started(model, tokenizer) as engine:
        call = engine.llm.collective_rpc

        def losing(method, kwargs):
            old = {name: value for name, value in before.items() if name.startswith(lost)}
            weights = {**dict(kwargs["weights_iterator"]), **old}
            return call(method, kwargs={"weights_iterator": iter(weights.items())})

        before = {name: value.clone() for name, value in model.state_dict().items()}
        engine.llm.collective_rpc = losing
        change(model)
        with pytest.raises(EngineError, match="does not hold the trainer's weights after a sync"):
            engine.load_weights(model, 1)


@pytest.mark.parametrize("sampling", [SAMPLING, GREEDY])
def test_nothing_is_drawn_from_logits_that_are_not_finite(sampling, prompts, policy_and_tokenizer):
    """Whether it reads the weights back or has to ask for its logprobs; and told once, without a
    fresh engine, which would do no better."""
    model, tokenizer = policy_and_tokenizer
    engine = Revivable(lambda: create_engine("vllm", model, tokenizer, SETTINGS))
    with closing(engine):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1e25)
        engine.load_weights(model, 3)
        with pytest.raises(NotFiniteError, match="after 3 steps are not finite"):
            engine.generate(prompts, sampling, stream=(0,))


def test_logprobs_that_are_none_are_told(prompts, policy_and_tokenizer):
    """Of an engine whose own weights have overflowed, in a precision that is not the trainer's."""
    model, tokenizer = policy_and_tokenizer

    def overflow(theirs) -> None:
        for parameter in theirs.parameters():
            parameter.data.mul_(1e25)

    with started(model, tokenizer) as engine:
        engine.llm.apply_model(overflow)
        engine.llm.reset_prefix_cache()
        with pytest.raises(NotFiniteError, match="are not finite"):
            engine.generate(prompts, SAMPLING, stream=(0,))


def test_its_start_leaves_the_process_as_it_was(policy_and_tokenizer, capfd):
    def state() -> dict:
        return {
            "environment": {k: v for k, v in os.environ.items() if not k.startswith("VLLM_")},
            "random": torch.get_rng_state().tolist(),
            "threads": torch.get_num_threads(),
            "setter": torch.set_num_threads,
            "signals": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)],
            "cores": os.sched_getaffinity(0),
            "group": torch.distributed.is_initialized(),
            "path": list(sys.path),
            "excepthook": sys.excepthook,
            "frozen": gc.get_freeze_count(),
            "start": multiprocessing.get_start_method(allow_none=True),
        }

    before = state()
    engine = create_engine("vllm", *policy_and_tokenizer, SETTINGS)
    assert state() == before | {"group": True}
    engine.close()
    assert state() == before
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_more_prompts_than_one_forward_pass_takes(prompts, policy_and_tokenizer):
    settings = EngineSettings(max_rows=1024, max_tokens=256)
    many = Sampling(num_responses=121, max_new_tokens=2)
    assert sum(len(prompt.token_ids) for prompt in prompts) * 121 > BATCH_TOKENS
    with started(*policy_and_tokenizer, settings) as engine:
        groups = engine.generate(prompts, many, stream=(0, 0))
    assert [len(group.rollouts) for group in groups] == [121] * len(prompts)


def test_an_abandoned_batch_leaves_an_engine_that_works(prompts, policy_and_tokenizer):
    with started(*policy_and_tokenizer) as engine:
        whole = tokens(engine.generate(prompts, SAMPLING, stream=(0, 0)))

        def stop(done: int, total: int) -> None:
            if done:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            engine.generate(prompts, SAMPLING, stream=(0, 0), progress=stop)
        assert tokens(engine.generate(prompts, SAMPLING, stream=(0, 0))) == whole


class Broken(torch.nn.Module):
    def forward(self, *arguments, **keys):
        raise RuntimeError("the kernel was lost")


def break_model(engine) -> None:
    engine.llm.apply_model(lambda model: setattr(model, "model", Broken()))


def name_of_compiled(engine) -> str:
    """Under which vLLM keeps what it compiles, for the next start."""
    return engine.llm.llm_engine.vllm_config.compute_hash()


def test_a_dead_engine_is_replaced_and_the_batch_is_the_same(prompts, policy_and_tokenizer, capfd):
    model, tokenizer = policy_and_tokenizer
    engine = Revivable(lambda: create_engine("vllm", model, tokenizer, SETTINGS))
    change(model)
    engine.load_weights(model, 3)
    whole = engine.generate(prompts, SAMPLING, stream=(0, 0))
    compiled = name_of_compiled(engine._engine)
    break_model(engine._engine)
    again = engine.generate(prompts, SAMPLING, stream=(0, 0))
    assert tokens(again) == tokens(whole)
    assert name_of_compiled(engine._engine) == compiled
    assert {group.policy_version for group in again} == {3}
    assert capfd.readouterr().err == (
        "warning: vLLM died while sampling: the kernel was lost; a fresh engine takes over\n"
    )
    engine.close()


def test_an_engine_that_dies_twice_ends_the_batch(prompts, policy_and_tokenizer):
    def broken():
        engine = create_engine("vllm", *policy_and_tokenizer, SETTINGS)
        break_model(engine)
        return engine

    with closing(Revivable(broken)) as engine:
        with pytest.raises(EngineError, match="vLLM died while sampling: the kernel was lost"):
            engine.generate(prompts, SAMPLING, stream=(0, 0))


def test_a_fresh_engine_that_does_not_start_is_told_and_closed(prompts, policy_and_tokenizer):
    made = []

    def once():
        if made:
            raise EngineError("vLLM does not start: no memory", "look")
        made.append(create_engine("vllm", *policy_and_tokenizer, SETTINGS))
        return made[0]

    with closing(Revivable(once)) as engine:
        break_model(made[0])
        with pytest.raises(EngineError, match="does not start: no memory"):
            engine.generate(prompts, SAMPLING, stream=(0, 0))
    assert made[0].llm is None


def test_a_failed_sync_is_told_by_the_next_batch(prompts, policy_and_tokenizer):
    """The step behind it is a whole one."""
    made = []

    def make():
        if made:
            raise EngineError("vLLM does not start: no memory", "look")
        made.append(create_engine("vllm", *policy_and_tokenizer, SETTINGS))
        return made[0]

    with closing(Revivable(make)) as engine:
        made[0].llm.reset_prefix_cache = lambda: False
        engine.load_weights(policy_and_tokenizer[0], 1)
        with pytest.raises(EngineError, match="does not start: no memory"):
            engine.generate(prompts, SAMPLING, stream=(0, 0))


def test_auto_makes_way_where_vllm_cannot_take_the_model(policy_and_tokenizer, capfd):
    """vLLM knows the class, and not this tree of its weights."""
    model, tokenizer = policy_and_tokenizer
    model.register_parameter("extra", torch.nn.Parameter(torch.zeros(3)))
    engine = start_engine("vllm", "auto", model, tokenizer, lambda: SETTINGS)
    assert engine.name == "transformers"
    assert "warning: vLLM does not take the trainer's weights: " in capfd.readouterr().err
    with pytest.raises(EngineError, match="does not take the trainer's weights"):
        start_engine("vllm", "vllm", model, tokenizer, lambda: SETTINGS)


def test_a_lower_precision_of_the_trainer_is_allowed_for(policy_and_tokenizer):
    """Its own rounding is no sign of weights that did not arrive."""
    model, tokenizer = policy_and_tokenizer
    set_precision(model, Precision(torch.bfloat16, torch.bfloat16))
    with started(model, tokenizer) as engine:
        change(model)
        engine.load_weights(model, 1)


def test_a_cache_that_cannot_hold_a_group_is_refused(policy_and_tokenizer):
    settings = EngineSettings(max_rows=64, max_tokens=256, cache_gigabytes=0.01, group_size=36)
    per_token = shape_of(policy_and_tokenizer[0].config).cache_bytes_per_token("float32")
    assert per_token == 2 * 3 * 64 * 4
    with pytest.raises(OpoError) as caught:
        create_engine("vllm", *policy_and_tokenizer, settings)
    assert caught.value.message == (
        "rollout.cache_gigabytes = 0.01: cannot hold one group of 9216 tokens"
    )
    assert caught.value.hint.startswith("--set rollout.cache_gigabytes=0.02, or lower")


def test_a_response_beyond_the_cache_is_refused(prompts, policy_and_tokenizer):
    """It takes what is foreseen, and more as far as model and cache reach."""
    with started(*policy_and_tokenizer, EngineSettings(max_rows=1, max_tokens=100)) as engine:
        engine.generate(prompts, Sampling(num_responses=1, max_new_tokens=100), stream=(0,))
        with pytest.raises(OpoError, match="vLLM takes 128 here"):
            engine.generate(prompts, Sampling(num_responses=1, max_new_tokens=120), stream=(0,))
    with started(*policy_and_tokenizer, EngineSettings(max_rows=8, max_tokens=64)) as engine:
        engine.generate(prompts, Sampling(num_responses=1, max_new_tokens=200), stream=(0,))


def test_a_cache_beyond_the_memory_is_refused(policy_and_tokenizer):
    settings = EngineSettings(max_rows=8, max_tokens=64, cache_gigabytes=9000)
    with pytest.raises(OpoError, match=r"rollout.cache_gigabytes = 9000: [\d.]+ GB are free"):
        create_engine("vllm", *policy_and_tokenizer, settings)


def test_an_architecture_that_vllm_does_not_know_is_told(policy_and_tokenizer):
    shape = shape_of(policy_and_tokenizer[0].config)
    assert shape.architecture == "Qwen2ForCausalLM"
    assert vllm_obstacle(shape, "cpu") is None
    unknown = replace(shape, architecture="BioGptForCausalLM")
    name, why = choose_engine("auto", unknown, "cpu")
    assert (name, why) == ("transformers", "auto; vLLM 0.32 does not know BioGptForCausalLM")
    with pytest.raises(OpoError, match=r"vLLM 0.32 does not know BioGptForCausalLM"):
        choose_engine("vllm", unknown, "cpu")


def test_lower_precision_is_close_and_no_more(prompts, policy_and_tokenizer):
    model, tokenizer = policy_and_tokenizer
    settings = EngineSettings(max_rows=64, max_tokens=256, dtype="bfloat16")
    with started(model, tokenizer, settings) as engine:
        assert 1e-4 < largest_mismatch(engine, model, prompts) < 1


def test_a_whole_run_samples_with_vllm_and_leaves_no_process(tmp_path, base):
    command = [sys.executable, "-m", "opo_cli", "train", "--preset", "smoke", "--engine", "vllm"]
    environment = os.environ | {"OPO_CACHE": os.environ["OPO_CACHE"]}
    result = subprocess.run(
        [*command, "--steps", "3", "--out", "run"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        start_new_session=True,
    )
    assert result.returncode == 0, result.stderr
    assert "vllm (asked for; 0.32" in result.stdout
    from opo_cli.records import RunFolder

    run = RunFolder(tmp_path / "run")
    steps = run.steps()
    assert [step["exact_on_policy"] for step in steps] == [1, 1, 1]
    assert max(step["sampler_mismatch"] for step in steps) < 1e-4
    assert {record["settings"]["engine"] for record in run.evals()} == {"vllm"}
    assert run.environment()["engine"] == "vllm"
    for noise in ("WARNING", "INFO", "Warning", "it/s"):
        assert noise not in result.stderr
