"""How ranks share the prompts of a lab, so that what is measured does not depend on their number.

Rounding may depend on who shares a sampling batch: chunks of prompts are the same for any number of
ranks, and each is sampled by one of them. What is measured of a prompt depends on no other, so that
the prompts of the chunks that are sampled at a time are dealt anew, one to each rank a turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch.distributed as dist

from opo_cli.model.parallel import num_ranks
from opo_cli.ranks import rank

Value = TypeVar("Value")


def rounds(num_prompts: int, size: int, missing: set[int]) -> list[list[range]]:
    """Chunks of `size` rows in which something is missing, as many at a time as there are ranks."""
    starts = range(0, num_prompts, size)
    chunks = [range(start, min(start + size, num_prompts)) for start in starts]
    chunks = [chunk for chunk in chunks if not missing.isdisjoint(chunk)]
    return [chunks[i : i + num_ranks()] for i in range(0, len(chunks), num_ranks())]


def turns(weights: Mapping[int, int]) -> list[list[int]]:
    """Rows, one for each rank at a time, in the last turn perhaps for fewer. A turn takes as long
    as its longest prompt, so that like ones go together."""
    rows = sorted(weights, key=lambda row: -weights[row])
    return [rows[i : i + num_ranks()] for i in range(0, len(rows), num_ranks())]


def own_of(shares: Sequence[Value]) -> Value | None:
    """This rank's, of what is dealt in the order of ranks; None: there is none for it."""
    place = rank() if num_ranks() > 1 else 0
    return shares[place] if place < len(shares) else None


def most_of_a_rank(num_prompts: int, size: int) -> tuple[int, int]:
    """(prompts that a rank samples, prompts that it measures) at most."""
    num_rounds = math.ceil(math.ceil(num_prompts / size) / num_ranks())
    return min(num_prompts, size * num_rounds), math.ceil(num_prompts / num_ranks())


def to_main(value: Value, sender: int) -> Value | None:
    """What rank `sender` gives, on rank 0; None elsewhere. One at a time is in rank 0's memory."""
    if sender == 0 or num_ranks() == 1:
        return value if own_of([True]) else None
    box = [value]
    if rank() == sender:
        dist.send_object_list(box, 0)
    elif rank() == 0:
        dist.recv_object_list(box, sender)
        return box[0]
    return None
