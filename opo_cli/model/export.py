"""Policies as sealed Hugging Face folders, which transformers loads, from one process or from the
shards of many ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from opo_cli.files import make_folder
from opo_cli.model.parallel import from_main, whole
from opo_cli.model.sharding import is_sharded, put_away
from opo_cli.ranks import is_main


def save_policy(
    policy, tokenizer, target: Path, beside: Callable[[Path], object] | None = None
) -> None:
    """Makes the folder (see `make_folder`). Every rank has to come along; rank 0 writes, from its
    host memory, which has to hold all weights.

    Args:
        beside: writes other files into it.
    """
    weights = _weights(policy) if is_sharded(policy) else None

    def fill(scratch: Path) -> None:
        policy.save_pretrained(scratch, state_dict=weights)
        tokenizer.save_pretrained(scratch)
        if beside is not None:
            beside(scratch)

    from_main(lambda: make_folder(target, fill))


def _weights(policy) -> dict[str, Tensor | None]:
    """Its state on rank 0, tied weights as one tensor; on others, which help, names alone."""
    put_away(policy)
    state = policy.state_dict(keep_vars=True)
    found: dict[int, Tensor | None] = {}
    for tensor in state.values():
        if id(tensor) not in found:
            gathered = whole(tensor.detach())
            found[id(tensor)] = gathered.cpu() if is_main() else None
    return {name: found[id(tensor)] for name, tensor in state.items()}
