"""The gradient of every response's log-probability, one at a time, and the products of them.

Two ways, equal but for rounding: a forward and a backward pass per response, or `torch.func` over
16 responses at once, which small models gain from (`benchmarks/lab_cost.py`). A sum over responses
is never taken, so that none depends on which others are measured with it.

Shape legend: N responses (or tokens) of a prompt, B of a microbatch, S prompt + response tokens, T
response tokens, P coordinates of all measured parameters, k places of a projection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from opo_cli.lab.projection import PLACES, SKETCH_PLACES, Projection
from opo_cli.model.precision import Precision, precision_of
from opo_cli.model.scores import token_scores
from opo_cli.model.sequences import Sequences

TOGETHER = 16
"""Responses of one `torch.func` call; more bring padding, not speed."""
SMALL_MODEL = 2**20
"""Parameters up to which they are taken together: 16 gradients are then 64 MiB."""
WIDE = 2**24
"""Numbers that are held in float64 while products are taken: 128 MiB, however many the rows."""

Parameters = Mapping[str, nn.Parameter]


@dataclass(frozen=True, slots=True)
class Gradient:
    row: int
    parts: Sequence[Tensor]
    """Per parameter (n,) fp32: d sum_t log pi / d parameter."""
    logit_norms: Tensor
    """(T,) see `TokenScores`."""


# --- one gradient per response ------------------------------------------------------------------


def response_gradients(model, parameters: Parameters, sequences: Sequences) -> Iterator[Gradient]:
    """Of each row; those that are empty come with gradients of zero."""
    if takes_together(model):
        yield from gradients_together(model, parameters, sequences)
    else:
        yield from gradients_one_by_one(model, parameters, sequences)


def takes_together(model) -> bool:
    """Small models in float32 on a CPU: others would gain little, and hold 16 gradients."""
    num_parameters = sum(each.numel() for each in model.parameters())
    is_plain = precision_of(model) == Precision() and model.device.type == "cpu"
    return is_plain and num_parameters <= SMALL_MODEL


def gradients_one_by_one(model, parameters: Parameters, sequences: Sequences) -> Iterator[Gradient]:
    leaves = list(parameters.values())
    for row in range(len(sequences)):
        part = sequences.select(torch.tensor([row], device=sequences.lengths.device))
        scores = token_scores(model, part)
        found = torch.autograd.grad(
            scores.logprobs.sum(), leaves, allow_unused=True, materialize_grads=True
        )
        yield Gradient(row, [each.reshape(-1) for each in found], scores.logit_norms[0])


def gradients_together(model, parameters: Parameters, sequences: Sequences) -> Iterator[Gradient]:
    """`torch.func`'s per-sample gradients; rows of a call are near in length."""
    totals = sequences.prompt_lengths + sequences.lengths

    def total(values: dict[str, Tensor], ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(S,) tokens, (S - 1,) whether the next one is of the response."""
        inputs = {"input_ids": ids[None], "use_cache": False}
        logits = functional_call(model, others | values, kwargs=inputs).logits[0, :-1]
        all_logprobs = logits.float().log_softmax(-1)
        chosen = all_logprobs.gather(-1, ids[1:, None]).squeeze(-1)
        squares = all_logprobs.exp().square().sum(-1)
        norms = (1 - 2 * chosen.exp() + squares).clamp(min=0)
        return (chosen * mask).sum(), norms.detach()

    each = vmap(grad(total, has_aux=True), in_dims=(None, 0, 0))
    others = {name: parameter.detach() for name, parameter in model.named_parameters()}
    leaves = {name: others[name] for name in parameters}
    for rows in totals.argsort(stable=True).split(TOGETHER):
        part = sequences.select(rows)
        place = torch.arange(1, part.input_ids.shape[1])
        starts, ends = part.prompt_lengths[:, None], totals[rows][:, None]
        mask = (place >= starts) & (place < ends)
        with sdpa_kernel(SDPBackend.MATH):  # Others have no rule for `vmap`.
            found, norms = each(leaves, part.input_ids, mask.float())
        for place, row in enumerate(rows.tolist()):
            parts = [values[place].reshape(-1) for values in found.values()]
            yield Gradient(row, parts, norms[place][mask[place]])


def token_gradients(model, parameters: Parameters, sequences: Sequences) -> Iterator[Gradient]:
    """Of each token of each row, in order: as many backward passes. `row` counts the tokens."""
    leaves, count = list(parameters.values()), 0
    for row in range(len(sequences)):
        part = sequences.select(torch.tensor([row], device=sequences.lengths.device))
        scores = token_scores(model, part)
        for place in range(int(part.lengths[0])):
            found = torch.autograd.grad(
                scores.logprobs[0, place],
                leaves,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            norms = scores.logit_norms[0, place : place + 1]
            yield Gradient(count, [each.reshape(-1) for each in found], norms)
            count += 1


# --- what is kept of them -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Layout:
    """How vectors of some parameters are kept: a function of sizes and settings alone."""

    sizes: Sequence[int]
    """Coordinates of each parameter."""
    is_whole: bool
    """Whether N whole vectors fit into the memory that was granted."""
    first: Projection
    """P coordinates to `PLACES`."""
    second: Projection
    """Those to `SKETCH_PLACES`."""
    scales: Sequence[Tensor] | None
    """Per parameter (n,): what each coordinate is multiplied by; None: nothing."""
    device: torch.device

    @staticmethod
    def of(
        parameters: Parameters,
        *,
        seed: int,
        is_whole: bool,
        scales: Sequence[Tensor] | None = None,
    ) -> Layout:
        sizes = [each.numel() for each in parameters.values()]
        device = next(iter(parameters.values())).device
        return Layout(
            sizes=sizes,
            is_whole=is_whole,
            first=Projection(sizes, PLACES, seed, device),
            second=Projection([PLACES], SKETCH_PLACES, seed, device),
            scales=scales,
            device=device,
        )


class Vectors:
    """N gradients, one after the other: whole, or projected with their exact norms."""

    def __init__(self, layout: Layout, count: int):
        self.layout = layout
        width = sum(layout.sizes) if layout.is_whole else PLACES
        self._rows = torch.zeros(count, width, device=layout.device)
        self._norms = torch.zeros(count, dtype=torch.float64, device=layout.device)
        self._sketches = torch.zeros(count, SKETCH_PLACES, device=layout.device)

    def add(self, row: int, parts: Sequence[Tensor]) -> None:
        layout = self.layout
        parts = [part.float() for part in parts]
        if layout.scales is not None:
            parts = [part * scale for part, scale in zip(parts, layout.scales, strict=True)]
        projected = layout.first(parts)
        self._sketches[row] = layout.second([projected])
        if layout.is_whole:
            torch.cat(list(parts), out=self._rows[row])
        else:
            self._rows[row] = projected
            norms = [torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts]
            self._norms[row] = torch.stack(norms).square().sum()

    def gram(self) -> np.ndarray:
        """(N, N) float64, symmetric. Of projected vectors the diagonal alone is exact."""
        count = len(self._rows)
        total = torch.zeros(count, count, dtype=torch.float64, device=self._rows.device)
        for columns in self._rows.split(_columns(count), dim=1):
            _add_products(total, columns)
        total.add_(total.T.clone()).div_(2)
        if not self.layout.is_whole:
            total.diagonal().copy_(self._norms)
        return total.cpu().numpy()

    def sketches(self) -> np.ndarray:
        """(N, k) float32."""
        return self._sketches.cpu().numpy()


def _add_products(total: Tensor, rows: Tensor) -> None:
    wide = rows.double()  # Gone when this returns: two of them would be held in a loop.
    total.addmm_(wide, wide.T)


def vector_bytes(num_coordinates: int, count: int, *, is_whole: bool) -> int:
    """Held at once while a prompt is measured, beside weights and activations: the vectors kept,
    their products, signs, and a gradient with its signed copy."""
    width = num_coordinates if is_whole else PLACES
    products = 2 * count**2 * 8 + count * 8 * min(_columns(count), width)
    return count * 4 * (width + SKETCH_PLACES) + products + num_coordinates * (1 + 2 * 4)


def _columns(count: int) -> int:
    """Of so many rows whose products are taken at once."""
    return max(1, WIDE // max(count, 1))
