"""Snapshots: the policy after every so many steps, as ordinary Hugging Face folders that stay when
the run is finished. The estimator lab goes along them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from opo_cli.files import is_whole, make_folder
from opo_cli.records import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

    from opo_cli.train.learner import Learner

MOMENTS = "second_moments.pt"


def list_snapshots(folder: RunFolder) -> dict[int, Path]:
    """Step -> folder, in order."""
    found = sorted(folder.snapshot(0).parent.glob("step-*"))
    return {int(path.name.partition("-")[2]): path for path in found}


def save_snapshot(
    folder: RunFolder, step: int, learner: Learner, tokenizer, *, use_moments: bool
) -> None:
    """`snapshots/step-000010/`, sealed; one that is there and whole is kept: it is the same."""
    target = folder.snapshot(step)
    if is_whole(target):
        return

    def fill(scratch: Path) -> None:
        from opo_cli.train.best import write_state

        learner.policy.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        if use_moments:
            names = [name for name, _ in learner.policy.named_parameters()]
            write_state(second_moments(learner.optimizer.state_dict(), names), scratch / MOMENTS)

    make_folder(target, fill)


def second_moments(optimizer: dict[str, Any], names: list[str]) -> dict[str, Tensor]:
    """Parameter's name -> AdamW's running mean of squared gradients, bias-corrected.

    Args:
        optimizer: an AdamW's state dict.
        names: of its parameters, in their order.
    """
    group = optimizer["param_groups"][0]
    beta2 = group["betas"][1]
    return {
        name: optimizer["state"][place]["exp_avg_sq"]
        / (1 - beta2 ** float(optimizer["state"][place]["step"]))
        for name, place in zip(names, group["params"], strict=True)
    }
