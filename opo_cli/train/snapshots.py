"""Snapshots: the policy after every so many steps, as ordinary Hugging Face folders that stay when
the run is finished. The estimator lab goes along them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from opo_cli.files import STEP_PREFIX, is_whole, step_of
from opo_cli.records import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

    from opo_cli.train.learner import Learner

MOMENTS = "moments/second.safetensors"
"""In a folder of its own: engines take each safetensors file beside the weights for weights."""


def list_snapshots(folder: RunFolder) -> dict[int, Path]:
    """Step -> folder, in order."""
    found = sorted(folder.snapshot(0).parent.glob(f"{STEP_PREFIX}*"))
    return {step_of(path): path for path in found}


def save_snapshot(
    folder: RunFolder, step: int, learner: Learner, tokenizer, *, use_moments: bool
) -> None:
    """`snapshots/step-000010/`, sealed; one that is there and whole is kept: it is the same. Every
    rank has to come along."""
    from opo_cli.model.export import save_policy
    from opo_cli.model.parallel import from_main

    target = folder.snapshot(step)
    if from_main(lambda: is_whole(target)):
        return
    moments = second_moments(learner) if use_moments else {}

    def write_moments(scratch: Path) -> None:
        from safetensors.torch import save_file

        if moments:
            (scratch / MOMENTS).parent.mkdir()
            save_file(moments, scratch / MOMENTS)

    save_policy(learner.policy, tokenizer, target, write_moments)


def second_moments(learner: Learner) -> dict[str, Tensor]:
    """Policy's parameter -> AdamW's running mean of squared gradients, bias-corrected, in host
    memory; of those that it has moved. Every rank has to come along; rank 0 gets them."""
    from opo_cli.model.parallel import whole
    from opo_cli.model.sharding import put_away
    from opo_cli.ranks import is_main

    put_away(learner.policy)
    beta2 = learner.optimizer.param_groups[0]["betas"][1]
    found = {}
    for name, parameter in learner.policy.named_parameters():
        if state := learner.optimizer.state.get(parameter):
            square = whole(state["exp_avg_sq"])
            if is_main():
                found[name] = unbiased(square.cpu(), state["step"], beta2)
    return found


def unbiased(square: Tensor, step: Tensor, beta2: float) -> Tensor:
    """An `exp_avg_sq` without its bias towards zero (arXiv 1412.6980)."""
    return square / (1 - beta2 ** float(step))
