"""What training asks of a policy: logprobs and entropy of response tokens, and how far two policies
are apart. `[tokens, vocabulary]` logits never exist whole.

Shape legend: B rows, T response tokens, N response tokens of all rows, H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from opo_cli.model.footprint import MAX_LOGITS
from opo_cli.model.memory import on_device
from opo_cli.model.precision import Precision, logits_of, precision_of, run_layers
from opo_cli.model.sequences import Sequences
from opo_cli.model.sharding import rounds, with_weights


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Of the sampled tokens; zero beyond a row's length."""

    logprobs: Tensor
    """(B, T) nats."""
    entropy: Tensor
    """(B, T) nats, exact over the vocabulary."""
    logit_norms: Tensor
    """(B, T) 1 - 2 pi_t + sum_v pi_v^2: the squared norm of d logprob / d logits."""

    @staticmethod
    def zeros(mask: Tensor) -> TokenScores:
        """Room for (B, T) scores, to be filled row by row."""
        return TokenScores(*(torch.zeros(mask.shape, device=mask.device) for _ in range(3)))

    def put(self, rows: Tensor, part: TokenScores) -> None:
        """Writes the scores of some rows, detached."""
        for field in fields(self):
            values = getattr(part, field.name).detach()
            getattr(self, field.name)[rows, : values.shape[1]] = values


# --- one forward pass ---------------------------------------------------------------------------


def response_hidden(backbone: nn.Module, precision: Precision, sequences: Sequences) -> Tensor:
    """(N, H): the hidden state from which each response token is predicted, row by row.

    Args:
        backbone: a decoder without its head.
    """
    rows, tokens = sequences.mask.nonzero(as_tuple=True)
    output = run_layers(backbone, precision, sequences.input_ids, use_cache=False)
    return output.last_hidden_state[rows, sequences.prompt_lengths[rows] - 1 + tokens]


def _policy_hidden(model, sequences: Sequences) -> Tensor:
    return response_hidden(model.base_model, precision_of(model), sequences)


def _targets(sequences: Sequences) -> Tensor:
    """(N,) the response tokens, row by row."""
    rows, tokens = sequences.mask.nonzero(as_tuple=True)
    return sequences.input_ids[rows, sequences.prompt_lengths[rows] + tokens]


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """(N,) -> (B, T), zero where masked; gradients pass."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def _logprobs(model, hidden: Tensor) -> Tensor:
    """(N, H) -> (N, V) in fp32: the distribution from which each token comes."""
    return logits_of(model, hidden).log_softmax(-1)


def in_chunks(
    compute: Callable[..., tuple[Tensor, ...]], vocab_size: int, *inputs: Tensor
) -> tuple[Tensor, ...]:
    """`compute` over tokens, so many at a time as keep their logits below `MAX_LOGITS`; gradients
    flow. With more than one chunk, the backward pass computes the logits again, chunk by chunk.

    Args:
        compute: tensors (n, ...) -> tensors (n,).
        inputs: (N, ...).

    Returns:
        Tensors (N,).
    """
    size = max(1, MAX_LOGITS[inputs[0].device.type] // vocab_size)
    if len(inputs[0]) <= size:
        return compute(*inputs)
    recomputed = partial(checkpoint, compute, use_reentrant=False, preserve_rng_state=False)
    run = recomputed if torch.is_grad_enabled() else compute
    parts = [run(*part) for part in zip(*(each.split(size) for each in inputs), strict=True)]
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))


def token_scores(model, sequences: Sequences, *, entropy_gradient: bool = False) -> TokenScores:
    """Scores of each response token, one forward pass.

    Gradients flow through the logprobs, and through the entropy if asked for. Only response
    positions reach the head.
    """

    def compute(sequences: Sequences) -> tuple[Tensor, ...]:
        hidden, targets = _policy_hidden(model, sequences), _targets(sequences)
        return chunked_scores(model, hidden, targets, entropy_gradient=entropy_gradient)

    columns = with_weights(model, compute, sequences)
    return TokenScores(*(spread(values, sequences.mask) for values in columns))


def chunked_scores(
    model, hidden: Tensor, targets: Tensor, *, entropy_gradient: bool
) -> tuple[Tensor, ...]:
    """(N, H) hidden states, (N,) tokens -> logprobs, entropy, logit norms (N,)."""

    def compute(hidden: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        return _scores(_logprobs(model, hidden), targets, entropy_gradient)

    return in_chunks(compute, _vocab_size(model), hidden, targets)


def _vocab_size(model) -> int:
    return model.get_output_embeddings().weight.shape[0]


def _scores(all_logprobs: Tensor, targets: Tensor, entropy_gradient: bool) -> tuple[Tensor, ...]:
    """(N, V), (N,) -> logprobs, entropy, logit norms (N,); see `TokenScores`."""
    logprobs = all_logprobs.gather(-1, targets[:, None]).squeeze(-1)
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        probabilities = all_logprobs.exp()
        entropy = -(probabilities * all_logprobs).sum(-1)
    with torch.no_grad():
        squares = probabilities.square().sum(-1)
        norms = (1 - 2 * logprobs.exp() + squares).clamp(min=0)  # Rounding may leave it below 0.
    return logprobs, entropy, norms


# --- any number of rows, without gradient -------------------------------------------------------


@torch.no_grad()
def by_microbatch(
    model: nn.Module,
    compute: Callable[[Sequences], tuple[Tensor, ...]],
    sequences: Sequences,
    token_budget: int,
) -> tuple[Tensor, ...]:
    """Runs `compute` (Sequences -> tensors (b, t)) over microbatches, rows back in order.

    Args:
        model: what `compute` evaluates; where it is in shards, all ranks come along to the last
            microbatch of any.

    Returns:
        (B, T) tensors, zero where masked.
    """
    outputs: list[Tensor] = []
    for rows in rounds(model, sequences.microbatches(token_budget)):
        if rows is None:
            parts = compute(Sequences.filler(sequences.lengths.device))
        else:
            parts = compute(sequences.select(rows))
        outputs = outputs or [part.new_zeros(sequences.mask.shape) for part in parts]
        if rows is not None:
            for whole, part in zip(outputs, parts, strict=True):
                whole[rows, : part.shape[1]] = part
    return tuple(outputs)


def score(model, sequences: Sequences, token_budget: int) -> TokenScores:
    """`token_scores` without gradient over any number of rows. A model that is kept elsewhere comes
    to the sequences' device for that long."""

    def compute(part: Sequences) -> tuple[Tensor, ...]:
        scores = token_scores(model, part)
        return scores.logprobs, scores.entropy, scores.logit_norms

    with on_device(model, sequences.input_ids.device):
        return TokenScores(*by_microbatch(model, compute, sequences, token_budget))


@dataclass(frozen=True, slots=True)
class Divergence:
    """Exact over the vocabulary, (B, T) nats at each response token."""

    kl: Tensor
    """KL(model || other): summed over responses drawn from `model`, unbiased for that of whole
    responses, with less variance than any estimator from the drawn tokens alone."""
    reverse_kl: Tensor
    """KL(other || model), at the model's own states."""
    entropy: Tensor
    """Of `model`."""
    log_ratio: Tensor
    """log model - log other of the token that was drawn."""


def divergence(model, other, sequences: Sequences, token_budget: int) -> Divergence:
    """Without gradient, over any number of rows; devices as in `score`."""

    def compared(ours: Tensor, theirs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        return _compared(_logprobs(model, ours), _logprobs(other, theirs), targets)

    def columns(part: Sequences) -> tuple[Tensor, ...]:
        hidden = [_policy_hidden(each, part) for each in (model, other)]
        return in_chunks(compared, _vocab_size(model), *hidden, _targets(part))

    def compute(part: Sequences) -> tuple[Tensor, ...]:
        found = with_weights(model, with_weights, other, columns, part)
        return tuple(spread(values, part.mask) for values in found)

    device = sequences.input_ids.device
    with on_device(model, device), on_device(other, device):
        return Divergence(*by_microbatch(model, compute, sequences, token_budget))


def _compared(ours: Tensor, theirs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """(N, V) logprobs, (N,) -> the fields of `Divergence`, (N,)."""
    kl = (ours.exp() * (ours - theirs)).sum(-1)
    reverse = (theirs.exp() * (theirs - ours)).sum(-1)
    entropy = -(ours.exp() * ours).sum(-1)
    drawn = targets[:, None]
    log_ratio = (ours.gather(-1, drawn) - theirs.gather(-1, drawn)).squeeze(-1)
    return kl, reverse, entropy, log_ratio
