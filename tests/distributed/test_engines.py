"""Engines under a real torchrun with two ranks on a CPU; `engines_on_ranks.py` runs there."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from opo_cli.config import Config
from opo_cli.data.prompts import make_prompts, resolve_template
from opo_cli.data.tiny import CHAINS
from opo_cli.errors import OpoError
from opo_cli.model.scores import score
from opo_cli.model.sequences import Sequences
from opo_cli.model.shape import shape_of
from opo_cli.presets import resolve
from opo_cli.rollout.delivery import sum_of_bits
from opo_cli.rollout.engine import (
    EngineSettings,
    check_tensor_parallel,
    create_engine,
    vllm_obstacle,
)
from opo_cli.rollout.watch import RESUME_HINT
from opo_cli.types import Group, Sampling
from tests.distributed import launch

PROGRAM = Path(__file__).parent / "engines_on_ranks.py"
OBSTACLE = vllm_obstacle(None, "cpu")
SAMPLING = Sampling(num_responses=4, max_new_tokens=24)
STREAM = (0, 1)  # As there.
MARK = "OPO_TEST_OF_ENGINES"  # A variable that children inherit.


@pytest.fixture
def prompts(policy_and_tokenizer):
    problems = [tier for name in CHAINS.tiers for tier in CHAINS.tier_problems(name)[:2]]
    tokenizer = policy_and_tokenizer[1]
    return make_prompts(problems, resolve_template("line", tokenizer, is_embedded=True), tokenizer)


@pytest.fixture
def on_ranks(tmp_path, base, prompts):
    """Runs a check on two ranks; (what it printed, what each has found)."""

    def run(check: str, seconds: int) -> tuple[subprocess.CompletedProcess[str], list[dict]]:
        (tmp_path / "inputs.pkl").write_bytes(pickle.dumps((str(base), prompts, SAMPLING)))
        result = subprocess.run(
            launch.command(str(PROGRAM), check, str(tmp_path)),
            env=os.environ | {"PYTHONPATH": str(PROGRAM.parents[2]), MARK: str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert still_running(str(tmp_path)) == []
        found = sorted(tmp_path.glob("[01].pkl"))
        return result, [pickle.loads(path.read_bytes()) for path in found]

    return run


def still_running(mark: str) -> list[str]:
    """What was started under it, whatever it has started in turn."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # It may end meanwhile.
            if f"{MARK}={mark}".encode() in path.read_bytes().split(b"\0"):
                found.append((path.parent / "cmdline").read_text())
    return found


def tokens(groups: list[Group]) -> list[tuple[int, ...]]:
    return [rollout.token_ids for group in groups for rollout in group.rollouts]


def logprobs(groups: list[Group]) -> torch.Tensor:
    rows = [torch.tensor(r.sampler_logprobs) for g in groups for r in g.rollouts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def largest_mismatch(model, groups: list[Group]) -> float:
    """Against the trainer, nats per token."""
    repeated = [group.prompt.token_ids for group in groups for _ in group.rollouts]
    rows = Sequences.pack(repeated, tokens(groups), torch.device("cpu"))
    return (score(model, rows, 10**6).logprobs - logprobs(groups)).abs().max().item()


def test_a_copy_samples_as_the_policy_would_in_one_process(
    on_ranks, tmp_path, prompts, policy_and_tokenizer
):
    result, found = on_ranks("transformers", 240)
    assert result.returncode == 0, result.stderr
    model, tokenizer = policy_and_tokenizer
    alone = create_engine("transformers", model, tokenizer, EngineSettings(max_rows=64))
    whole = alone.generate(prompts, SAMPLING, stream=STREAM)
    shares = [groups for each in found for groups in each["before"]]
    assert [group.prompt for group in shares] == prompts
    assert tokens(shares) == tokens(whole)
    assert (logprobs(shares) - logprobs(whole)).abs().max() < 1e-5

    model.load_state_dict(torch.load(tmp_path / "weights-1.pt"))
    alone.load_weights(model, 1)
    whole = alone.generate(prompts, SAMPLING, stream=STREAM)
    after = [groups for each in found for groups in each["after"]]
    assert tokens(after) == tokens(whole)
    assert tokens(after) != tokens(shares)
    assert {group.policy_version for group in after} == {1}
    for each in found:
        assert all(each["equal"].values())
        assert "lm_head.weight" in each["equal"]
        assert each["tied"]
        assert each["asleep"] == ("cpu", tokens(each["after"]))
        assert each["emptied"] == {"meta"}
        assert all(each["refilled"][0].values())
        assert each["refilled"][1] == tokens(each["after"])


def test_a_tensor_that_arrives_otherwise_than_it_was_ends_the_run(on_ranks):
    """Of all ranks, though one alone has seen it; with its name."""
    result, found = on_ranks("corrupted", 240)
    assert result.returncode == 0, result.stderr
    name = "model.layers.1.mlp.up_proj.weight"
    for fact in ("corrupted", "not revived"):
        error, message, hint = found[1][fact]
        assert error == "EngineError"
        assert message.startswith(f"{name} did not arrive as the ranks had it")
        assert hint.startswith(RESUME_HINT) == (fact == "not revived")
        assert found[0][fact][0] == "OtherRankError"
    assert [each["mended"] for each in found] == [None, None]


def test_bits_are_counted_whatever_their_type():
    assert sum_of_bits(torch.tensor([1.0, 1.0])).item() == 2 * 0x3F800000
    assert sum_of_bits(torch.tensor([-0.0])).item() == -(2**31)
    assert sum_of_bits(torch.tensor([1.0], dtype=torch.bfloat16)).item() == 0x3F80
    assert sum_of_bits(torch.empty(0, 4)).item() == 0
    whole = torch.randn(5, 3)
    assert sum_of_bits(whole) == sum_of_bits(whole[:2]) + sum_of_bits(whole[2:])
    assert sum_of_bits(whole.T) == sum_of_bits(whole)


def test_a_sync_that_hangs_is_told_and_ends_all_ranks(on_ranks):
    result, found = on_ranks("late", 120)
    assert (result.returncode, found) == (1, [])
    lines = result.stderr.splitlines()
    place = lines.index("error: handing weights to the engine is not over after 3 s")
    hint = f"hint: {RESUME_HINT}; --set runtime.timeout_seconds=N waits longer"
    assert lines[place + 1] == hint


HANGING = """
import time
from opo_cli.model.parallel import joined
from opo_cli.rollout.undisturbed import quiet, settings_before_import
from opo_cli.rollout.watch import in_time

settings_before_import()
with joined("cpu", 60):
    with in_time("a thing in time", 60):
        pass
    with in_time("a thing", 2), quiet():
        print("dropped", flush=True)
        time.sleep(60)
"""


def test_the_end_is_told_where_talk_is_dropped():
    result = launch.run_ranked(HANGING)
    assert result.returncode == 2
    assert result.stdout + result.stderr == (
        "error: a thing is not over after 2 s\n"
        f"hint: {RESUME_HINT}; --set runtime.timeout_seconds=N waits longer\n"
    )


@pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE[0] if OBSTACLE else "")
def test_vllm_beside_shards_alone_and_shared(on_ranks, tmp_path, prompts, policy_and_tokenizer):
    result, found = on_ranks("vllm", 420)
    assert result.returncode == 0, result.stderr
    model, _ = policy_and_tokenizer
    for each in found:
        assert len(each["process"]) == 4
        assert all(process["ranks"] == 2 and process["sum"] == 3 for process in each["process"])
        before, *later = each["process"]
        assert later[0] == before
        # Sampling draws from torch's generator, as in a process of its own.
        assert all(process | {"random": before["random"]} == before for process in later)
        assert each["shared memory"] == []
    before, after = ([g for each in found for g in each[f"alone {x}"]] for x in ("before", "after"))
    assert [group.prompt for group in before] == prompts
    assert largest_mismatch(model, before) < 1e-5
    assert tokens(before) != tokens(after)

    model.load_state_dict(torch.load(tmp_path / "weights-1.pt"))
    assert largest_mismatch(model, after) < 1e-5
    for each in found:
        assert tokens(each["alone all"]) == tokens(after)
        assert tokens(each["shared after"]) == tokens(after)
        assert (logprobs(each["shared after"]) - logprobs(after)).abs().max() < 1e-5
    model.load_state_dict(torch.load(tmp_path / "weights-2.pt"))
    first, second = (each["shared later"] for each in found)
    assert largest_mismatch(model, first) < 1e-5
    assert (tokens(first), logprobs(first).tolist()) == (tokens(second), logprobs(second).tolist())
    assert {group.policy_version for group in first} == {2}

    for fact in ("alone lost", "shared lost"):
        for name, (error, message, _) in found[0][fact].items():
            assert error == "EngineError"
            assert message.startswith("vLLM does not hold the trainer's weights after a sync: ")
            assert name in message or "its logprobs of a fixed text differ by" in message
        assert {error for error, *_ in found[1][fact].values()} == {"OtherRankError"}
    assert (found[0]["stopped"][0], found[1]["stopped"][1]) == ("OtherRankError", "enough")
    for each in found:
        assert each["whole after that"]
        assert each["signals"] == [signal.SIGTERM] * 3
        assert each["whole after signals"]
        assert each["not finite"][0] is None
        assert each["not finite"][1][0] == "NotFiniteError"
        error, message, hint = each["auto"]
        assert (error, hint) == ("EngineError", "--engine transformers goes without vLLM")
        assert message.startswith("vLLM does not start: ")
    assert found[0]["broken"] is None
    error, message, hint = found[1]["broken"]
    assert message == "vLLM died while sampling: the kernel was lost"
    assert hint.startswith(RESUME_HINT)


@pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE[0] if OBSTACLE else "")
def test_a_shared_vllm_that_dies_on_one_rank_ends_all(on_ranks):
    """The other one waits within a step."""
    result, found = on_ranks("dying", 300)
    assert (result.returncode, found) == (1, [])
    lines = result.stderr.splitlines()
    place = lines.index("error: rank 1: vLLM died while sampling: the kernel was lost")
    assert lines[place + 1].startswith(f"hint: {RESUME_HINT}; ")
    assert sum(line.startswith("error: ") for line in lines) == 1


# --- what can be shared ---------------------------------------------------------------------------


def sharing(size: int) -> Config:
    return resolve("smoke", overrides=[f"rollout.tensor_parallel={size}"])


@pytest.mark.parametrize(
    ("size", "num_ranks", "engine", "message", "hint"),
    [
        (2, 1, "vllm", "there is one rank", "torchrun --nproc-per-node=2 -m opo_cli train"),
        (2, 2, "transformers", "the transformers engine has no parts", "tensor_parallel=1"),
        (2, 3, "vllm", "the 3 ranks cannot be shared out evenly", "tensor_parallel=1"),
        (4, 4, "vllm", "the 2 key/value heads cannot be shared out evenly", "tensor_parallel=2"),
    ],
)
def test_ranks_that_cannot_share_a_vllm_are_refused(
    size, num_ranks, engine, message, hint, policy_and_tokenizer
):
    shape = replace(shape_of(policy_and_tokenizer[0].config), num_heads=4)
    with pytest.raises(OpoError) as caught:
        check_tensor_parallel(sharing(size), shape, num_ranks, engine)
    assert caught.value.message.startswith(f"rollout.tensor_parallel = {size}: {message}")
    assert hint in caught.value.hint


def test_ranks_that_can_share_a_vllm(policy_and_tokenizer):
    shape = shape_of(policy_and_tokenizer[0].config)
    check_tensor_parallel(sharing(2), shape, 4, "vllm")
    check_tensor_parallel(sharing(2), None, 2)
    check_tensor_parallel(sharing(1), shape, 1, "transformers")
