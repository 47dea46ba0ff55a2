"""Started by `test_engines.py` under torchrun: engines beside a policy in shards.

    torchrun ... engines_on_ranks.py CHECK FOLDER

FOLDER holds `inputs.pkl` (base, prompts, sampling) and gets `RANK.pkl`, what this rank has found.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from pathlib import Path
from threading import Timer

import torch
import torch.distributed as dist

from opo_cli.errors import OpoError, OtherRankError
from opo_cli.interrupt import Interrupted, Interrupts
from opo_cli.model.parallel import joined, num_ranks, share_of
from opo_cli.model.policy import FLOAT32
from opo_cli.model.scores import token_scores
from opo_cli.model.sequences import Sequences
from opo_cli.model.sharding import load_to_shard, put_away, shard, whole_state
from opo_cli.ranks import rank, run_to_end
from opo_cli.rollout import delivery
from opo_cli.rollout.engine import EngineSettings, create_engine
from opo_cli.rollout.replica import empty
from opo_cli.rollout.revival import Revivable, start_engine
from opo_cli.types import Group

CPU = torch.device("cpu")
SETTINGS = EngineSettings(max_rows=64, max_tokens=256, timeout_seconds=120)
STREAM = (0, 1)


class Check:
    def __init__(self, folder: Path):
        self.base, self.prompts, self.sampling = pickle.loads((folder / "inputs.pkl").read_bytes())
        self.model, self.tokenizer = load_to_shard(self.base, CPU, FLOAT32)
        shard(self.model, self.model.base_model, CPU, FLOAT32)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.folder, self.facts = folder, {}

    def create(self, name: str, **changes):
        settings = EngineSettings(**{f: getattr(SETTINGS, f) for f in SETTINGS.__slots__} | changes)
        return create_engine(name, self.model, self.tokenizer, settings)

    def train(self) -> None:
        """One step on all ranks."""
        responses = [(5 + rank(), 7, 9, 11)] * 2
        rows = Sequences.pack([p.token_ids for p in self.prompts[:2]], responses, CPU)
        token_scores(self.model, rows).logprobs.mean().neg().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in whole_state(self.model)}

    def save_weights(self, version: int) -> None:
        weights = self.weights()
        if rank() == 0:
            torch.save(weights, self.folder / f"weights-{version}.pt")

    def share(self, engine) -> list[Group]:
        """Of this rank."""
        rows = share_of(len(self.prompts), rank(), num_ranks())
        first = rows.start * self.sampling.num_responses
        prompts = self.prompts[rows.start : rows.stop]
        return engine.generate(prompts, self.sampling, stream=STREAM, first_row=first)

    def all(self, engine) -> list[Group]:
        return engine.generate(self.prompts, self.sampling, stream=STREAM)


def error_of(compute) -> tuple[str, str, str] | None:
    try:
        compute()
    except OpoError as error:
        return type(error).__name__, error.message, error.hint
    return None


# --- transformers ---------------------------------------------------------------------------------


def transformers(check: Check) -> None:
    engine = check.create("transformers")
    check.facts["before"] = check.share(engine)
    check.train()
    engine.load_weights(check.model, 1)
    check.save_weights(1)
    check.facts["after"] = check.share(engine)
    check.facts["equal"] = equal(check, engine)
    head = engine.replica.get_output_embeddings().weight
    embedding = engine.replica.get_input_embeddings().weight
    check.facts["tied"] = head is embedding
    engine.sleep()
    check.facts["asleep"] = engine.replica.device.type, tokens(check.share(engine))
    empty(engine.replica)  # As on a GPU.
    check.facts["emptied"] = {p.device.type for p in engine.replica.parameters()}
    engine.load_weights(check.model, 2)
    check.facts["refilled"] = equal(check, engine), tokens(check.share(engine))
    engine.close()


def equal(check: Check, engine) -> dict[str, bool]:
    """Bit for bit, by name."""
    theirs = engine.replica.state_dict()
    ours = check.weights()
    assert list(theirs) == list(ours)
    return {name: torch.equal(theirs[name], tensor) for name, tensor in ours.items()}


def tokens(groups: list[Group]) -> list[tuple[int, ...]]:
    return [rollout.token_ids for group in groups for rollout in group.rollouts]


def corrupted(check: Check) -> None:
    """One bit of a tensor on rank 1, after it was put together."""
    engine = check.create("transformers")

    def flipping(model):
        for name, tensor in whole_state(model):
            if name == "model.layers.1.mlp.up_proj.weight" and rank() == 1:
                tensor.view(torch.int32)[3, 5] ^= 1
            yield name, tensor

    delivery.whole_state = flipping
    check.facts["corrupted"] = error_of(lambda: engine.load_weights(check.model, 3))
    revivable = Revivable(lambda: engine)
    check.facts["not revived"] = error_of(lambda: revivable.load_weights(check.model, 3))
    delivery.whole_state = whole_state
    check.facts["mended"] = error_of(lambda: engine.load_weights(check.model, 3))


# --- vLLM -----------------------------------------------------------------------------------------


def vllm(check: Check) -> None:
    check.facts["process"] = [process()]
    alone = check.create("vllm")
    check.facts["process"].append(process())
    check.facts["alone before"] = check.share(alone)
    check.train()
    alone.load_weights(check.model, 1)
    check.save_weights(1)
    check.facts["alone after"] = check.share(alone)
    check.facts["alone all"] = check.all(alone)
    lost(check, alone, "alone")
    broken(check, alone)
    alone.close()
    check.facts["process"].append(process())

    shared = check.create("vllm", tensor_parallel=2)
    check.facts["shared memory"] = [name for name in os.listdir("/dev/shm") if "cpushm" in name]
    check.facts["shared after"] = check.all(shared)
    check.train()
    shared.load_weights(check.model, 2)
    check.save_weights(2)
    check.facts["shared later"] = check.all(shared)
    lost(check, shared, "shared")
    ended(check, shared)
    not_finite(check, shared)
    shared.close()
    check.facts["process"].append(process())

    check.model.config.architectures = ["NobodyForCausalLM"]
    check.facts["auto"] = error_of(
        lambda: start_engine("vllm", "auto", check.model, check.tokenizer, lambda: SETTINGS)
    )


def process() -> dict:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")
    summed = torch.tensor(rank() + 1)
    dist.all_reduce(summed)
    return {
        "variables": {name: os.environ[name] for name in names},
        "ranks": dist.get_world_size(),
        "sum": summed.item(),
        "random": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
    }


def lost(check: Check, engine, name: str) -> None:
    """Weights that vLLM keeps as they were, read back or told by the echo."""
    call, errors = engine.llm.collective_rpc, {}
    for names in (("model.norm.weight",), ("model.embed_tokens", "lm_head"), ("model.layers.1.",)):
        before = {n: w for n, w in check.weights().items() if n.startswith(names)}
        scale(check.model, 2.0)

        def losing(method, kwargs, before=before):
            stream = ((n, before.get(n, w)) for n, w in kwargs["weights_iterator"])
            return call(method, kwargs={"weights_iterator": stream})

        engine.llm.collective_rpc = losing
        errors[names[0]] = error_of(lambda: engine.load_weights(check.model, 1))
        engine.llm.collective_rpc = call
        scale(check.model, 0.5)
    check.facts[f"{name} lost"] = errors
    engine.load_weights(check.model, 1)


def scale(model, factor: float) -> None:
    put_away(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)


def broken(check: Check, engine) -> None:
    """On rank 1 alone."""

    class Broken(torch.nn.Module):
        def forward(self, *arguments, **keys):
            raise RuntimeError("the kernel was lost")

    if rank() == 1:
        engine.llm.apply_model(lambda model: setattr(model, "model", Broken()))
    check.facts["broken"] = error_of(lambda: check.all(Revivable(lambda: engine)))


def ended(check: Check, engine) -> None:
    """By one of the two that share the engine; it works on afterwards."""

    def stop(done: int, total: int) -> None:
        if done and rank() == 1:
            raise OpoError("enough", "none")

    def generate(progress=None):
        return engine.generate(check.prompts, check.sampling, stream=STREAM, progress=progress)

    whole = generate()
    check.facts["stopped"] = error_of(lambda: generate(stop))
    check.facts["whole after that"] = generate() == whole
    signals = []
    with Interrupts().installed():
        for _ in range(3):
            if rank() == 0:  # At some moment within a batch of 24 steps.
                Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
            try:
                while True:
                    generate()
            except Interrupted as error:
                signals.append(error.number)
            Interrupts._active.first = None
    check.facts["signals"] = signals
    check.facts["whole after signals"] = generate() == whole


def not_finite(check: Check, engine) -> None:
    """Told by the next batch, of all ranks: the step behind these weights is a whole one."""
    scale(check.model, 1e25)
    revivable = Revivable(lambda: engine)
    told = error_of(lambda: revivable.load_weights(check.model, 3))
    check.facts["not finite"] = told, error_of(lambda: check.all(revivable))


def dying(check: Check) -> None:
    """One of two that share a vLLM."""
    engine = check.create("vllm", tensor_parallel=2)
    check.all(engine)
    broken(check, engine)


# --- time -----------------------------------------------------------------------------------------


def late(check: Check) -> None:
    """Rank 1 does not come to the sync."""
    engine = check.create("transformers", timeout_seconds=3)
    if rank() == 1:
        time.sleep(300)
    engine.load_weights(check.model, 1)


CHECKS = {f.__name__: f for f in (transformers, corrupted, vllm, dying, late)}


def main(name: str, folder: str) -> int:
    try:
        with joined("cpu", 120):
            check = Check(Path(folder))
            CHECKS[name](check)
            (check.folder / f"{rank()}.pkl").write_bytes(pickle.dumps(check.facts))
    except OtherRankError:
        return 2
    return 0


if __name__ == "__main__":
    run_to_end(lambda: main(*sys.argv[1:]))
