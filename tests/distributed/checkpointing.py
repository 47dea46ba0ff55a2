"""What ranks do with checkpoints; started by torchrun: BASE TASK RUN [TASK RUN]."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import HuggingFaceStorageWriter

from opo_cli.errors import OpoError, OtherRankError
from opo_cli.model import saved
from opo_cli.model.export import save_policy
from opo_cli.model.parallel import joined
from opo_cli.model.sharding import load_to_shard
from opo_cli.presets import resolve
from opo_cli.ranks import is_main, rank, run_to_end
from opo_cli.records import RunFolder
from opo_cli.train.best import load_best, save_best
from opo_cli.train.checkpoint import Checkpoints, checkpoint_path
from opo_cli.train.learner import Learner, new_learner
from opo_cli.train.snapshots import save_snapshot


def learner_of(base: str, algorithm: str = "ppo") -> tuple[Learner, object]:
    """(learner, tokenizer); PPO's critic has a parameter of one element."""
    policy, tokenizer = load_to_shard(base, torch.device("cpu"))
    return new_learner(policy, None, resolve("smoke", algorithm=algorithm)), tokenizer


def move(learner: Learner) -> None:
    """An optimizer step by gradients that depend on the weights, element by element: the same for
    any number of ranks."""
    pairs = (learner.policy, learner.optimizer), (learner.critic, learner.critic_optimizer)
    for module, optimizer in pairs:
        for place, parameter in enumerate(module.parameters()):
            parameter.grad = (parameter.detach() * 3 + 0.01 * (1 + place)).sin()
        optimizer.step()
        optimizer.zero_grad()


def write(base: str, run: RunFolder) -> None:
    """Checkpoints after 0, 2 and 3 moves, in the background; the best weights, a snapshot and the
    model of 3."""
    learner, tokenizer = learner_of(base)
    checkpoints = Checkpoints(run, learner, 3)
    log(run, 1)
    checkpoints.save(1)
    move(learner)
    move(learner)
    checkpoints.finish()
    log(run, 2)
    with writing_held() as go_on:
        checkpoints.save(2)
        move(learner)
        log(run, 3)
        assert not checkpoint_path(run.checkpoints, 2).exists()
        go_on()
        checkpoints.finish()
    assert checkpoint_path(run.checkpoints, 2).exists()
    checkpoints.save(3)
    save_best(run.checkpoints, learner.policy, 3)
    save_snapshot(run, 3, learner, tokenizer, use_moments=True)
    save_policy(learner.policy, tokenizer, run.model)
    checkpoints.finish()
    move(learner)
    load_best(run.checkpoints, learner.policy, 3)
    save_policy(learner.policy, tokenizer, run.path / "best")
    refuse_others(base, run)
    fail_on_one(checkpoints, run)


def log(run: RunFolder, step: int) -> None:
    """The third is the best so far."""
    if is_main():
        run.add_step({"step": step})
        if step == 3:
            run.write_evals([{"policy": "step", "step": 3, "split": "validation", "accuracy": 1.0}])


class writing_held:  # noqa: N801
    """The background writes nothing until it may go on."""

    def __enter__(self) -> Callable[[], None]:
        self._write, may = HuggingFaceStorageWriter.write_data, threading.Event()

        def held(writer, *inputs):
            assert may.wait(60)
            return self._write(writer, *inputs)

        HuggingFaceStorageWriter.write_data = held
        return may.set

    def __exit__(self, *_: object) -> None:
        HuggingFaceStorageWriter.write_data = self._write


def refuse_others(base: str, run: RunFolder) -> None:
    """A learner without a critic."""
    other, _ = learner_of(base, "opo")
    with pytest.raises(OpoError) as caught:
        Checkpoints(run, other, 3).load(needs_best=False)
    assert isinstance(caught.value, OtherRankError) != is_main()
    assert not is_main() or "'critic.backbone." in caught.value.message


def fail_on_one(checkpoints: Checkpoints, run: RunFolder) -> None:
    """A disk that is full for rank 1 alone."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if not is_main():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    with pytest.raises((OSError, OtherRankError)) as caught:
        checkpoints.save(4)
        checkpoints.finish()
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(caught.value, OtherRankError) == is_main()
    target = checkpoint_path(run.checkpoints, 4)
    assert is_main() or caught.value.filename == str(target)
    assert not target.exists()
    checkpoints.finish()  # It is told once.


def go_on(base: str, run: RunFolder) -> None:
    """From step 2, of whoever wrote it, to step 3."""
    learner, _ = learner_of(base)
    move(learner)
    checkpoints = Checkpoints(run, learner, 3)
    assert checkpoints.load(needs_best=False) == 2
    move(learner)
    log(run, 3)
    checkpoints.save(3)
    checkpoints.finish()


def die(base: str, run: RunFolder, victim: int, place: str) -> None:
    """While the checkpoint of step 2 is written, or when its files are, before it is sealed."""
    learner, _ = learner_of(base)
    checkpoints = Checkpoints(run, learner, 3)
    log(run, 1)
    checkpoints.save(1)
    checkpoints.finish()
    move(learner)
    log(run, 2)

    def killed(*_: object) -> None:
        print(f"rank {rank()} dies", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    if rank() == victim and place == "writing":
        HuggingFaceStorageWriter.write_data = killed
    if rank() == victim and place == "sealing":
        saved._seal = killed
    checkpoints.save(2)
    checkpoints.finish()


TASKS = {
    "write": write,
    "go on": go_on,
    "die writing": lambda base, run: die(base, run, 1, "writing"),
    "die sealing": lambda base, run: die(base, run, 0, "sealing"),
}


def main(base: str, *rest: str) -> None:
    torch.set_num_threads(1)
    with joined("cpu", 60):
        for task, folder in zip(rest[::2], rest[1::2], strict=True):
            TASKS[task](base, RunFolder(Path(folder)))


if __name__ == "__main__":
    run_to_end(lambda: main(*sys.argv[1:]))
