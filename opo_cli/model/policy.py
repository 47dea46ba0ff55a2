"""The policy: a Hugging Face causal LM, and what training asks of it: per-token logprobs and
entropy. Shape legend: B rows, T response tokens, N response tokens of all rows, V vocabulary."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from opo_cli.errors import OpoError
from opo_cli.model.folder import hush_transformers, model_source
from opo_cli.model.sequences import Sequences
from opo_cli.types import Prompt

MAX_LOGITS = 2**25  # Of one forward without gradient: 128 MiB in fp32, and a few copies of it.
PROMPT_ROOM = 1024  # Tokens; no prompt of the benchmarks that we know is longer.


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


def choose_device(asked: str) -> tuple[torch.device, str]:
    """(device, why it).

    Raises:
        OpoError: a GPU was asked for and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise OpoError(
            "runtime.device = 'cuda': torch sees no GPU here", "--set runtime.device=cpu"
        )
    if asked != "auto":
        return torch.device(asked), "asked for"
    return torch.device("cuda" if has_gpu else "cpu"), "auto; " + (
        torch.cuda.get_device_name() if has_gpu else "torch sees no GPU"
    )


def load_policy(path: str, device: torch.device):
    """A causal LM in fp32 (these are the master weights) and its tokenizer.

    Args:
        path: a model folder, or an id on the hub.

    Raises:
        OpoError: no such folder, a broken one, or an architecture that we would score wrongly.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = model_source(path)
    hush_transformers()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokenizer = AutoTokenizer.from_pretrained(source)
            model, info = AutoModelForCausalLM.from_pretrained(
                source, dtype=torch.float32, output_loading_info=True
            )
    except Exception as error:  # Broken files surface as almost any type, by format and library.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OpoError(
            f"model '{path}' does not load: {reason}",
            "check that the folder is complete; for a hub id, that the hub can be reached",
        ) from error
    if info["missing_keys"]:
        raise OpoError(
            f"model '{path}' lacks weights: {sorted(info['missing_keys'])[0]} and "
            f"{len(info['missing_keys']) - 1} more",
            "they would start at random; give a complete model folder",
        )
    model.to(device).eval()
    _check_head(model, path)
    return model, tokenizer


@torch.no_grad()
def _check_head(model, path: str) -> None:
    """We apply the output embedding to response positions only; that must be all the head does."""
    ids = torch.arange(4, device=model.device)[None] % model.config.vocab_size
    expected = model(input_ids=ids, use_cache=False).logits.float()
    ours = _logits(model, _hidden_states(model.base_model, ids)).float()
    if not torch.allclose(ours, expected, atol=1e-3, rtol=1e-3):
        raise OpoError(
            f"model '{path}' ({type(model).__name__}) scales or caps its logits",
            "choose a model whose logits are its output embedding times the last hidden state",
        )


def check_context(model, prompts: Sequence[Prompt], max_new_tokens: int, section: str) -> None:
    """Raises OpoError where prompt and response may exceed the positions that the model knows."""
    most = getattr(model.config, "max_position_embeddings", None)
    longest = max(len(prompt.token_ids) for prompt in prompts)
    if most is None or longest + max_new_tokens <= most:
        return
    if longest >= most:
        raise OpoError(
            f"the longest prompt has {longest} tokens, the model takes {most}",
            "choose a model with a longer context, or (training) lower data.max_prompt_tokens",
        )
    raise OpoError(
        f"{section}.max_new_tokens = {max_new_tokens}: with the longest prompt of {longest} "
        f"tokens that exceeds the {most} tokens that the model takes",
        f"--set {section}.max_new_tokens={most - longest}",
    )


def room_for_response(model, prompts: Sequence[Prompt], most: int) -> int:
    """Tokens that a response may take, at most `most`, where nobody has set a limit.

    Beside `PROMPT_ROOM` for the prompt (a quarter of a small context), so that benchmarks of one
    model share one limit; more only where a prompt is longer.
    """
    context = getattr(model.config, "max_position_embeddings", None)
    if context is None:
        return most
    longest = max(len(prompt.token_ids) for prompt in prompts)
    return max(1, min(most, context - max(longest, min(PROMPT_ROOM, context // 4))))


def end_token_ids(model, tokenizer) -> tuple[int, ...]:
    """The tokens that end a response."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    ids = set(ids if isinstance(ids, list) else [ids]) | {tokenizer.eos_token_id}
    return tuple(sorted(i for i in ids if i is not None))


def _hidden_states(backbone: nn.Module, input_ids: Tensor) -> Tensor:
    return backbone(input_ids=input_ids, use_cache=False).last_hidden_state


def _logits(model, hidden: Tensor) -> Tensor:
    return model.get_output_embeddings()(hidden)


def response_hidden(backbone: nn.Module, sequences: Sequences, mask: Tensor) -> Tensor:
    """(N, H): the hidden state from which each response token is predicted, row by row.

    Args:
        backbone: a decoder without its head.
        mask: (B, T) `sequences.mask`.
    """
    rows, tokens = mask.nonzero(as_tuple=True)
    hidden = _hidden_states(backbone, sequences.input_ids)
    return hidden[rows, sequences.prompt_lengths[rows] - 1 + tokens]


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """(N,) -> (B, T), zero where masked; gradients pass."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def _logprobs(model, hidden: Tensor) -> Tensor:
    """(N, H) -> (N, V) in fp32: the distribution from which each token comes."""
    return _logits(model, hidden).float().log_softmax(-1)


def _slices(model, num_tokens: int) -> list[slice]:
    """Tokens that meet the head at once: all where gradients are wanted; else so many that their
    logits stay small, which for a long response of a large vocabulary are gigabytes."""
    if torch.is_grad_enabled():
        return [slice(None)]
    size = max(1, MAX_LOGITS // model.get_output_embeddings().weight.shape[0])
    return [slice(start, start + size) for start in range(0, max(1, num_tokens), size)]


def _targets(sequences: Sequences) -> Tensor:
    """(N,) the response tokens, row by row."""
    rows, tokens = sequences.mask.nonzero(as_tuple=True)
    return sequences.input_ids[rows, sequences.prompt_lengths[rows] + tokens]


def token_scores(model, sequences: Sequences, *, entropy_gradient: bool = False) -> TokenScores:
    """Scores of each response token, one forward pass.

    Gradients flow through the logprobs, and through the entropy if asked for. Only response
    positions reach the head, in fp32.
    """
    hidden = response_hidden(model.base_model, sequences, sequences.mask)
    targets = _targets(sequences)
    parts = [
        _scores(_logprobs(model, hidden[part]), targets[part], entropy_gradient)
        for part in _slices(model, len(targets))
    ]
    columns = (torch.cat(values) for values in zip(*parts, strict=True))
    return TokenScores(*(spread(values, sequences.mask) for values in columns))


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


@torch.no_grad()
def by_microbatch(
    compute: Callable[[Sequences], tuple[Tensor, ...]], sequences: Sequences, token_budget: int
) -> tuple[Tensor, ...]:
    """Runs `compute` (Sequences -> tensors (b, t)) over microbatches, rows back in order.

    Returns:
        (B, T) tensors, zero where masked.
    """
    outputs: list[Tensor] = []
    for rows in sequences.microbatches(token_budget):
        parts = compute(sequences.select(rows))
        outputs = outputs or [part.new_zeros(sequences.mask.shape) for part in parts]
        for whole, part in zip(outputs, parts, strict=True):
            whole[rows, : part.shape[1]] = part
    return tuple(outputs)


def score(model, sequences: Sequences, token_budget: int) -> TokenScores:
    """`token_scores` without gradient over any number of rows."""

    def compute(part: Sequences) -> tuple[Tensor, ...]:
        scores = token_scores(model, part)
        return scores.logprobs, scores.entropy, scores.logit_norms

    return TokenScores(*by_microbatch(compute, sequences, token_budget))


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
    """Without gradient, over any number of rows."""

    def compute(part: Sequences) -> tuple[Tensor, ...]:
        ours, theirs = (response_hidden(m.base_model, part, part.mask) for m in (model, other))
        targets = _targets(part)
        parts = [
            _compared(_logprobs(model, ours[at]), _logprobs(other, theirs[at]), targets[at])
            for at in _slices(model, len(targets))
        ]
        columns = (torch.cat(values) for values in zip(*parts, strict=True))
        return tuple(spread(values, part.mask) for values in columns)

    return Divergence(*by_microbatch(compute, sequences, token_budget))


def _compared(ours: Tensor, theirs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """(N, V) logprobs, (N,) -> the fields of `Divergence`, (N,)."""
    kl = (ours.exp() * (ours - theirs)).sum(-1)
    reverse = (theirs.exp() * (theirs - ours)).sum(-1)
    entropy = -(ours.exp() * ours).sum(-1)
    drawn = targets[:, None]
    log_ratio = (ours.gather(-1, drawn) - theirs.gather(-1, drawn)).squeeze(-1)
    return kl, reverse, entropy, log_ratio
