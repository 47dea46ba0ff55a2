"""Weights, gradients and moments against real ones; what is alive when; what to lower."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from opo_cli.config import Config, Embedded, changed
from opo_cli.model.device import Device
from opo_cli.model.lookup import KNOWN, embedded_shape
from opo_cli.model.precision import Precision, set_precision
from opo_cli.model.shape import shape_of
from opo_cli.model.tiny import build_model, build_tokenizer
from opo_cli.presets import resolve
from opo_cli.rollout.engine import create_engine, engine_settings
from opo_cli.train.budget import (
    PHASES,
    evaluation_bytes,
    evaluation_load,
    fits,
    learner_parts,
    load_of,
    memory_parts,
    peak,
    totals,
    what_to_lower,
)
from opo_cli.train.learner import new_learner
from opo_cli.train.rollouts import sampling_of

SMALL = Embedded(hidden_size=128, intermediate_size=512, num_heads=4, num_key_value_heads=2)
DEEP = SMALL.model_copy(update={"num_layers": 12, "vocab_size": 151936, "hidden_size": 64})
CPU = Device(name="here", num_bytes=24 * 10**9, is_gpu=False)
GPU = Device(name="NVIDIA H100 80GB HBM3", num_bytes=80 * 10**9, is_gpu=True)
QWEN = {name.split("-")[-1]: shape_of(known) for name, known in KNOWN.items()}


def config_of(*overrides: str, algorithm: str = "opo") -> Config:
    """A batch as people run it on one GPU, in bf16."""
    settings = [
        "model.compute_dtype=bfloat16",
        "rollout.prompts_per_step=64",
        "rollout.group_size=8",
        "rollout.max_new_tokens=3000",
        "train.microbatch_tokens=16384",
    ]
    return resolve("tiny", algorithm=algorithm, overrides=[*settings, *overrides])


@pytest.mark.parametrize("embedded", [SMALL, DEEP], ids=["small", "deep"])
@pytest.mark.parametrize("algorithm", ["opo", "ppo"])
def test_weights_gradients_and_moments_are_exact(embedded: Embedded, algorithm: str):
    config = resolve("smoke", algorithm=algorithm)
    policy, reference = (build_model(embedded, build_tokenizer(), seed=0) for _ in range(2))
    learner = new_learner(policy, reference, config)
    modules = [(policy, learner.optimizer)]
    if learner.critic is not None:
        modules.append((learner.critic, learner.critic_optimizer))
    held = []
    for module, optimizer in modules:
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        weights = sum(p.nbytes for p in module.parameters())
        gradients = sum(p.grad.nbytes for p in module.parameters())
        moments = sum(
            state[name].nbytes
            for state in optimizer.state.values()
            for name in ("exp_avg", "exp_avg_sq")
        )
        held.append((weights, gradients, moments))
    parts = learner_parts(config, shape_of(policy.config), CPU)
    assert parts["weights, fp32"] == (held[0][0],) * 6
    assert parts["gradients"] == (0, 0, *(held[0][1],) * 3, 0)
    assert parts["AdamW's moments"] == (held[0][2],) * 6
    assert parts["reference policy"] == (held[0][0],) * 6
    at_rest, in_update = parts["critic"][0], parts["critic"][2]
    assert parts["critic"][PHASES.index("eval")] == at_rest
    assert at_rest == (held[1][0] + held[1][2] if algorithm == "ppo" else 0)
    assert in_update == (sum(held[1]) if algorithm == "ppo" else 0)


def test_the_worst_step():
    load = load_of(config_of(), QWEN["1.5B"])
    assert (load.num_rows, load.prompt, load.response) == (512, 1024, 3000)
    assert load.microbatch == 4 * 4024  # As many whole rows as the budget holds.
    assert load.scored == 4 * 3000
    assert load_of(config_of("train.microbatch_tokens=1"), QWEN["1.5B"]).microbatch == 4024
    short = load_of(config_of(), QWEN["1.5B"], longest_prompt=100)
    assert (short.prompt, short.length, short.microbatch) == (100, 3100, 5 * 3100)
    # No prompt is longer than the model's context lets it be.
    assert load_of(config_of("data.max_prompt_tokens=4000"), QWEN["1.5B"]).prompt == 4096 - 3000


def test_the_engines_copy_lives_in_rollout_and_evaluation_on_a_gpu_and_always_on_a_cpu():
    config, weights = config_of("rollout.cache_gigabytes=20"), 2 * 1_543_714_304
    on_gpu = memory_parts(config, QWEN["1.5B"], GPU, "vllm")
    assert on_gpu["vLLM: bfloat16"] == (weights, 0, 0, 0, 0, weights)
    assert on_gpu["vLLM: keys, values"] == (20 * 10**9, 0, 0, 0, 0, 20 * 10**9)
    graphs = on_gpu["vLLM: graphs, scratch"]
    assert graphs == (3 * 2**30, *(2 * 2**30,) * 4, 3 * 2**30)  # Some stays while it sleeps.
    on_cpu = memory_parts(config, QWEN["1.5B"], CPU, "vllm")
    assert on_cpu["vLLM: bfloat16"] == (weights,) * 6


def test_a_cache_of_no_stated_size_takes_what_is_left_beside_all_that_is_alive_with_it():
    config = config_of()
    left = totals(memory_parts(config, QWEN["1.5B"], GPU, "vllm"))
    assert max(left[0], left[-1]) == pytest.approx(0.95 * GPU.num_bytes, abs=10)
    # The reference is always there: an evaluation adds its microbatch.
    assert left[-1] - left[0] == evaluation_bytes(config, QWEN["1.5B"], GPU) > 3 * 10**9
    without = memory_parts(
        config_of("eval.benchmarks=[]", "eval.validation=[]"), QWEN["1.5B"], GPU, "vllm"
    )
    assert totals(without)[0] == pytest.approx(0.95 * GPU.num_bytes, abs=10)
    assert totals(without)[-1] == 0
    few = memory_parts(config_of("rollout.max_rows=8"), QWEN["1.5B"], GPU, "vllm")
    longest = 4096  # Evaluations of this preset are shorter, the model's context is not longer.
    assert few["vLLM: keys, values"][0] <= 8 * (longest + 128) * 28_672


def test_the_transformers_engine_has_no_weights_of_its_own():
    parts = memory_parts(resolve("tiny"), embedded_shape(Embedded()), CPU, "transformers")
    assert not {"vLLM: float32", "sampler: weights"} & set(parts)
    # 192 rows of a prompt of 416 and a response of 96; 3 layers of 64 keys and 64 values in fp32;
    # one layer's keys twice, while they move.
    cache = 192 * 512 * 3 * 2 * 64 * 4
    assert parts["sampler: keys, values"] == (cache + cache // 6, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("vocab_size", [0, 20_000])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_samplers_peak(most_allocated, prompts, dtype: str, vocab_size: int):
    embedded = SMALL.model_copy(update={"num_layers": 6, "vocab_size": vocab_size})
    settings = ["rollout.prompts_per_step=8", "rollout.group_size=8", "rollout.max_new_tokens=64"]
    config = resolve("tiny", overrides=[f"model.compute_dtype={dtype}", *settings])
    tokenizer = build_tokenizer()
    model = build_model(embedded, tokenizer, seed=0).eval()
    set_precision(model, Precision.of(config.model))
    engine = create_engine("transformers", model, tokenizer, engine_settings(config))
    longest = [replace(prompt, token_ids=tuple(range(3, 23)) * 3) for prompt in prompts]
    sampling = replace(sampling_of(config), ignores_end=True)
    most = most_allocated(lambda: engine.generate(longest, sampling, stream=(0, 0)))
    shape = shape_of(model.config)
    load = load_of(config, shape, longest_prompt=60)
    parts = memory_parts(config, shape, CPU, "transformers", load)
    foreseen = sum(part[0] for name, part in parts.items() if name.startswith("sampler"))
    assert foreseen == pytest.approx(most, rel=0.1)


def test_settings_that_save_memory_do():
    plain = config_of()
    before = memory_parts(plain, QWEN["1.5B"], GPU, "vllm")

    def after(key: str, value: object):
        return memory_parts(changed(plain, {key: value}), QWEN["1.5B"], GPU, "vllm")

    less = after("train.use_activation_checkpointing", True)["activations"][3]
    assert less < before["activations"][3] / 8
    assert after("train.use_reference_offload", True)["reference policy"] == (
        *(0, before["weights, fp32"][0]),
        *(0, 0, 0),
        before["weights, fp32"][0],
    )
    assert "gradients, first half" not in after("measure.every", 0)
    assert "reference policy" not in memory_parts(
        changed(
            plain,
            {
                "measure.every": 0,
                "measure.probe_every": 0,
                "eval.benchmarks": (),
                "eval.validation": (),
            },
        ),
        QWEN["1.5B"],
        GPU,
        "vllm",
    )


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
@pytest.mark.parametrize(
    ("overrides", "first"),
    [
        (["train.microbatch_tokens=32768"], "train.microbatch_tokens"),
        (["rollout.max_new_tokens=30000"], "train.use_activation_checkpointing"),
    ],
)
def test_what_to_lower_makes_it_fit(engine: str, overrides: list[str], first: str):
    config = config_of(*overrides, "data.max_prompt_tokens=2000")
    shape = shape_of({**KNOWN["Qwen/Qwen2.5-Math-1.5B"], "max_position_embeddings": 32768})
    assert not fits(memory_parts(config, shape, GPU, engine), GPU)
    settings = what_to_lower(config, shape, GPU, engine)
    assert first in settings
    assert fits(memory_parts(changed(config, settings), shape, GPU, engine), GPU)


def test_a_cache_that_leaves_an_evaluation_no_room_is_left_to_the_engine():
    """70.8 GB while it samples; the evaluation's microbatch and the reference do not fit in."""
    config = resolve("qwen-math", overrides=["rollout.cache_gigabytes=46"])
    parts = memory_parts(config, QWEN["1.5B"], GPU, "vllm")
    assert peak(parts)[1] == "eval"
    assert totals(parts)[0] < 0.95 * GPU.num_bytes < totals(parts)[-1]
    settings = what_to_lower(config, QWEN["1.5B"], GPU, "vllm")
    assert settings == {"rollout.cache_gigabytes": 0}
    assert fits(memory_parts(changed(config, settings), QWEN["1.5B"], GPU, "vllm"), GPU)


def test_nothing_to_lower_where_it_fits_and_nothing_helps_where_it_cannot():
    small = config_of("train.microbatch_tokens=4096", "rollout.max_rows=64")
    assert what_to_lower(small, QWEN["1.5B"], GPU, "transformers") == {}
    assert what_to_lower(config_of(), QWEN["7B"], GPU, "vllm") is None
    assert peak(memory_parts(config_of(), QWEN["7B"], GPU, "vllm"))[0] > 10 * 7_615_616_512


# --- evaluations --------------------------------------------------------------------------------


def test_what_is_scored_of_an_evaluation():
    load = evaluation_load(config_of("eval.max_new_tokens=2048"), QWEN["1.5B"])
    assert (load.prompt, load.response) == (1024, 2048)
    assert load.microbatch == 16384 // 3072 * 3072
    # Without a limit, what benchmark (96, the embedded ones') or else context let it be.
    assert evaluation_load(config_of(), QWEN["1.5B"]).response == 96
    longest = evaluation_load(config_of('eval.benchmarks=["AIME24"]'), QWEN["1.5B"])
    assert (longest.prompt, longest.response) == (1024, 4096 - 1024)
    # No more rows than are decoded at once, but always one problem's.
    few = config_of("rollout.max_rows=1", "eval.samples=3", "eval.k=[]")
    assert evaluation_load(few, QWEN["1.5B"]).microbatch == 3 * (1024 + 96)
    assert (
        evaluation_load(config_of("eval.benchmarks=[]", "eval.validation=[]"), QWEN["1.5B"]) is None
    )


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_nothing_is_held_for_an_evaluation_where_there_is_none(engine: str):
    config = config_of(
        "eval.benchmarks=[]", "eval.validation=[]", "train.use_reference_offload=true"
    )
    assert totals(memory_parts(config, QWEN["1.5B"], GPU, engine))[-1] == 0
    assert evaluation_bytes(config, QWEN["1.5B"], GPU) == 0


def test_an_evaluations_kl_takes_the_reference_policy():
    offload = "train.use_reference_offload=true"
    weights = 4 * 1_543_714_304
    held = [
        memory_parts(config_of(*more), QWEN["1.5B"], GPU, "transformers").get("reference policy")[
            -1
        ]
        for more in ([], [offload], [offload, "eval.temperature=0.5"])
    ]
    assert held == [weights, weights, 0]
    here, away = (evaluation_bytes(config_of(*more), QWEN["1.5B"], GPU) for more in ([], [offload]))
    assert away - here == weights


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_peak_of_an_evaluations_scores(most_allocated, temperature: float):
    """What scores allocate: with KL and without, in fp32, several chunks of logits."""
    from opo_cli.model.scores import divergence, score
    from opo_cli.model.sequences import Sequences

    shape = SMALL.model_copy(update={"num_layers": 6, "vocab_size": 100_000})
    settings = ["train.microbatch_tokens=2048", "eval.max_new_tokens=192"]
    config = resolve("tiny", overrides=[*settings, f"eval.temperature={temperature}"])
    model, initial = (build_model(shape, build_tokenizer(), seed=i).eval() for i in range(2))
    load = evaluation_load(config, shape_of(model.config))
    rows = load.microbatch // load.length
    sequences = Sequences.pack(
        [[3] * load.prompt] * rows, [[4] * load.response] * rows, torch.device("cpu")
    )

    def run():
        if temperature == 1:
            return divergence(model, initial, sequences, load.microbatch)
        return score(model, sequences, load.microbatch)

    foreseen = evaluation_bytes(config, shape_of(model.config), CPU)
    assert foreseen == pytest.approx(most_allocated(run), rel=0.1)


# --- several ranks --------------------------------------------------------------------------------

EIGHT = "runtime.num_gpus=8"


def test_a_rank_of_eight_has_an_eighth_of_weights_gradients_and_moments():
    whole = learner_parts(config_of(algorithm="ppo"), QWEN["7B"], GPU)
    parts = learner_parts(config_of(EIGHT, algorithm="ppo"), QWEN["7B"], GPU)
    assert parts["weights, fp32"] == (7_615_616_512 // 2,) * 6
    for name, part in parts.items():
        assert [8 * n for n in part] == pytest.approx(whole[name], rel=1e-6), name


def test_a_rank_of_eight_has_an_eighth_of_the_groups():
    load = load_of(config_of(EIGHT, "rollout.prompts_per_step=60"), QWEN["7B"])
    assert load.num_rows == 8 * 8  # Eight of 60 groups fall to some ranks, seven to others.
    assert load.microbatch == load_of(config_of(), QWEN["7B"]).microbatch


def test_what_is_gathered_for_a_while():
    """The layers in bf16, embedding, norm and head in fp32."""
    parts = memory_parts(config_of(EIGHT), QWEN["7B"], GPU, "vllm")
    layer = (7_615_616_512 - 2 * 152064 * 3584 - 3584) // 28
    root = 4 * (2 * 152064 * 3584 + 3584)
    assert "bfloat16 weights" not in parts
    # Policy and reference are compared: the latter's root arrives beside the former's.
    assert parts["gathered: the rest"] == (0, 3 * root, root, root, 0, 3 * root)
    assert parts["gathered: layers"][2] == 2 * layer
    assert parts["gathered: layers"][3] == (2 * 2 + 4) * layer


def test_the_transformers_engines_copy_sleeps_on_a_gpu():
    copy = 4 * 7_615_616_512
    casts = 2 * QWEN["7B"].num_multiplied
    on_gpu = memory_parts(config_of(EIGHT), QWEN["7B"], GPU, "transformers")
    assert on_gpu["sampler: weights"] == (copy + casts, 0, 0, 0, 0, copy)
    on_cpu = memory_parts(config_of(EIGHT), QWEN["7B"], CPU, "transformers")
    assert on_cpu["sampler: weights"] == (copy + casts, *(copy,) * 5)


def test_ranks_that_share_an_engine_have_a_part_of_it():
    overrides = [EIGHT, "rollout.max_rows=8"]
    alone = memory_parts(config_of(*overrides), QWEN["7B"], GPU, "vllm")
    shared = memory_parts(
        config_of(*overrides, "rollout.tensor_parallel=4"), QWEN["7B"], GPU, "vllm"
    )
    for name in ("vLLM: bfloat16", "vLLM: keys, values"):
        assert [4 * n for n in shared[name]] == pytest.approx(alone[name])
    stated = config_of(*overrides, "rollout.tensor_parallel=4", "rollout.cache_gigabytes=20")
    parts = memory_parts(stated, QWEN["7B"], GPU, "vllm")
    assert parts["vLLM: keys, values"][0] == 20 * 10**9  # It is each rank's.


def test_offload_takes_what_is_trained_off_the_gpu_and_leaves_what_is_gathered():
    kept = memory_parts(config_of(EIGHT), QWEN["7B"], GPU, "vllm")
    settings = [EIGHT, "train.use_cpu_offload=true"]
    parts = memory_parts(config_of(*settings), QWEN["7B"], GPU, "vllm")
    assert not {"weights, fp32", "AdamW's moments", "gradients", "AdamW's scratch"} & set(parts)
    for name in ("reference policy", "activations", "gathered: layers"):
        assert parts[name] == kept[name]
    on_cpu = memory_parts(config_of(*settings), QWEN["7B"], CPU, "vllm")
    assert on_cpu["weights, fp32"] == kept["weights, fp32"]  # It is host memory, there.
    alone = learner_parts(config_of(settings[1]), QWEN["7B"], GPU)
    assert alone["weights, fp32"][0] == 4 * 7_615_616_512  # Without torchrun nothing is offloaded.


def test_offload_is_proposed_where_nothing_else_helps_and_only_to_several_ranks():
    two = config_of("runtime.num_gpus=2", "rollout.max_rows=64")
    settings = what_to_lower(two, QWEN["7B"], GPU, "vllm")
    assert settings["train.use_cpu_offload"] is True
    assert fits(memory_parts(changed(two, settings), QWEN["7B"], GPU, "vllm"), GPU)
    assert what_to_lower(config_of(), QWEN["7B"], GPU, "vllm") is None
    eight = what_to_lower(config_of(EIGHT), QWEN["7B"], GPU, "vllm")
    assert eight is not None
    assert "train.use_cpu_offload" not in eight


def test_torchruns_ranks_count_where_it_has_started_us(monkeypatch):
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "16"), ("RANK", "3")):
        monkeypatch.setenv(name, value)
    parts = learner_parts(config_of(EIGHT), QWEN["7B"], GPU)
    assert parts["weights, fp32"][0] == 7_615_616_512 // 4
