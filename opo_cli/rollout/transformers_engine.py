"""Rollouts from any Hugging Face causal LM, with a sampling loop of our own.

What makes it faster than `generate` (`benchmarks/step_cost.py` says by how much): each prompt is
prefilled once for its whole group, keys and values are written into slots reserved ahead instead of
concatenated per token, and finished rows leave the batch.

Shape legend: R rows of the batch, B of them still being written, T tokens, S slots, V vocabulary.

Prompts are padded on the left, so that all rows write the same cache slot at each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from inspect import signature

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from opo_cli.model.memory import out_of_memory
from opo_cli.model.policy import end_token_ids
from opo_cli.model.precision import logits_of, precision_of, run_layers
from opo_cli.model.sharding import device_of, is_sharded
from opo_cli.rollout.engine import EngineSettings, Progress, not_finite
from opo_cli.rollout.replica import empty, fill, replica_of
from opo_cli.rollout.sizes import SLOT_BLOCK
from opo_cli.rollout.watch import in_time
from opo_cli.types import Group, Prompt, Rollout, Sampling

COMPACT_BELOW = 7 / 8  # Share of rows still alive at which the finished ones are dropped.
NOISE_BLOCK = 64  # Tokens whose random numbers are drawn at a time.


class SlotLayer(DynamicLayer):
    """One layer's keys and values (B, heads, S, width), written in place; see `reserve`."""

    def __init__(self):
        super().__init__()
        self.length = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.dtype, self.device = _attention_dtype(key_states), key_states.device
            self.keys, self.values = key_states.to(self.dtype), value_states.to(self.dtype)
            self.length, self.is_initialized = key_states.shape[-2], True
            return self.keys, self.values
        start, self.length = self.length, self.length + key_states.shape[-2]
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_seq_length(self) -> int:
        return self.length

    def reserve(self, rows: Tensor, num_slots: int) -> None:
        """Keeps `rows` (B',), which may repeat, and makes room for `num_slots` in all."""
        self.keys = self._moved(self.keys, rows, num_slots)
        self.values = self._moved(self.values, rows, num_slots)

    def _moved(self, states: Tensor, rows: Tensor, num_slots: int) -> Tensor:
        _, heads, _, width = states.shape
        moved = states.new_empty(len(rows), heads, num_slots, width)
        moved[:, :, : self.length] = states[:, :, : self.length].index_select(0, rows)
        return moved


def _attention_dtype(states: Tensor) -> torch.dtype:
    """Attention casts to autocast's dtype what it gets; cached so, it is cast once."""
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype


@dataclass(slots=True)
class _Rows:
    """The rows still being written."""

    index: Tensor
    """(B,) which response each row is, counted from the batch's first."""
    attention: Tensor
    """(B, S) 1 for a real token."""
    positions: Tensor
    """(B,) position of the last token."""
    logits: Tensor
    """(B, V) for the next token."""
    noise: Tensor
    """(B, NOISE_BLOCK) uniform numbers of the current block of tokens."""

    def take(self, kept: Tensor) -> _Rows:
        return _Rows(*(getattr(self, field.name)[kept] for field in fields(self)))


@dataclass(slots=True)
class _Written:
    """What all R rows of the batch have written so far."""

    tokens: Tensor
    """(R, T) int64."""
    logprobs: Tensor
    """(R, T) fp32."""
    lengths: Tensor
    """(R,) T until the row stops."""
    has_stopped: Tensor
    """(R,) bool."""

    def add(self, step: int, index: Tensor, tokens: Tensor, logprobs: Tensor, ends: Tensor):
        """Writes one token (B,) of the rows `index`; returns which of them (B,) go on."""
        self.tokens[index, step], self.logprobs[index, step] = tokens, logprobs
        stopping = index[torch.isin(tokens, ends) & ~self.has_stopped[index]]
        self.has_stopped[stopping], self.lengths[stopping] = True, step + 1
        return ~self.has_stopped[index]


class TransformersEngine:
    """See `engine.Engine`. It shares the policy's weights, so a sync is only a new version; where
    they lie in shards it has a copy of its own."""

    name = "transformers"

    def __init__(self, model, tokenizer, settings: EngineSettings):
        self.tokenizer, self.max_rows = tokenizer, settings.max_rows
        self.timeout_seconds = settings.timeout_seconds
        self.replica: torch.nn.Module | None = None
        self.load_weights(model, 0)

    def load_weights(self, model, version: int) -> None:
        self.model, self.version = self._copied(model) if is_sharded(model) else model, version
        device = device_of(self.model)
        self.ends = torch.tensor(end_token_ids(self.model, self.tokenizer), device=device)
        self.precision = precision_of(self.model)
        self.cache_argument = _cache_argument(self.model.base_model)

    def _copied(self, policy) -> torch.nn.Module:
        with (
            out_of_memory("rollouts (a whole copy of the policy)", "--engine vllm, or more memory"),
            in_time("handing weights to the engine", self.timeout_seconds),
        ):
            self.replica = self.replica or replica_of(policy)
            fill(self.replica, policy)
        return self.replica

    def sleep(self) -> None:
        """A copy leaves the GPU; the policy's own weights stay where they are."""
        if self.replica is not None and self.replica.device.type == "cuda":
            empty(self.replica)
            torch.cuda.empty_cache()

    def close(self) -> None:
        """A copy is freed; there is nothing else."""
        if self.replica is not None:
            self.model = self.replica = None

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        stream: Sequence[int],
        first_row: int = 0,
        progress: Progress | None = None,
    ) -> list[Group]:
        groups: list[Group] = []
        count = sampling.num_responses
        chunk = max(1, self.max_rows // count)
        for start in range(0, len(prompts), chunk):
            part = prompts[start : start + chunk]

            def report(finished: int, done: int = start * count) -> None:
                if progress is not None:
                    progress(done + finished, len(prompts) * count)

            keys = [(*stream, first_row + start * count + row) for row in range(len(part) * count)]
            with out_of_memory("rollouts", _what_to_lower(len(keys), sampling)):
                groups += self._generate_chunk(part, sampling, keys, report)
        return groups

    def _generate_chunk(self, prompts, sampling: Sampling, keys, report) -> list[Group]:
        with self.precision.autocast(device_of(self.model)):  # So that weights are cast once.
            written = self._write(prompts, sampling, keys, report)
        return self._groups(prompts, written, sampling.num_responses)

    def _write(self, prompts, sampling: Sampling, keys, report) -> _Written:
        num_rows, num_tokens = len(keys), sampling.max_new_tokens
        cache, rows = self._prefill(prompts, sampling)
        written = _Written(
            tokens=rows.index.new_zeros(num_rows, num_tokens),
            logprobs=rows.logits.new_zeros(num_rows, num_tokens),
            lengths=rows.index.new_full((num_rows,), num_tokens),
            has_stopped=torch.zeros_like(rows.index, dtype=torch.bool),
        )
        ends = self.ends[:0] if sampling.ignores_end else self.ends
        for step in range(num_tokens):
            if step % NOISE_BLOCK == 0:
                self._check(written)
                rows.noise = _uniforms(keys, rows.index, step // NOISE_BLOCK)
            tokens, logprobs = sample(rows.logits, rows.noise[:, step % NOISE_BLOCK], sampling)
            going_on = written.add(step, rows.index, tokens, logprobs, ends)
            num_alive = int(going_on.sum())
            report(num_rows - num_alive)
            if num_alive == 0 or step + 1 == num_tokens:
                break
            is_full = step > 0 and step % SLOT_BLOCK == 0
            if is_full or num_alive < COMPACT_BELOW * len(tokens):
                kept = going_on.nonzero().squeeze(-1)
                _reserve(cache, kept, SLOT_BLOCK - step % SLOT_BLOCK)
                rows, tokens = rows.take(kept), tokens[kept]
            self._decode(cache, rows, tokens)
        self._check(written)
        return written

    def _check(self, written: _Written) -> None:
        if not written.logprobs.isfinite().all():
            raise not_finite(self.model, self.version)

    def _prefill(self, prompts: Sequence[Prompt], sampling: Sampling) -> tuple[Cache, _Rows]:
        """One forward over the prompts; then each row of the cache once per response."""
        device, count = device_of(self.model), sampling.num_responses
        width = max(len(prompt.token_ids) for prompt in prompts)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        attention = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt.token_ids) :] = torch.tensor(prompt.token_ids)
            attention[row, width - len(prompt.token_ids) :] = 1
        ids, attention = ids.to(device), attention.to(device)
        positions = (attention.cumsum(-1) - 1).clamp(min=0)
        num_layers = self.model.config.get_text_config().num_hidden_layers
        cache = Cache(layers=[SlotLayer() for _ in range(num_layers)])
        logits = self._next_logits(ids, attention, positions, cache)
        repeat = torch.arange(len(prompts), device=device).repeat_interleave(count)
        _reserve(cache, repeat, SLOT_BLOCK)
        whole = attention.new_ones(len(prompts), width + sampling.max_new_tokens)
        whole[:, :width] = attention
        return cache, _Rows(
            index=torch.arange(len(repeat), device=device),
            attention=whole[repeat],
            positions=positions[repeat, -1],
            logits=logits[repeat],
            noise=logits.new_empty(len(repeat), 0),
        )

    def _decode(self, cache: Cache, rows: _Rows, chosen: Tensor) -> None:
        """Feeds the chosen tokens (B,) and leaves the next logits in `rows`."""
        rows.positions = rows.positions + 1
        attention = rows.attention[:, : cache.get_seq_length() + 1]
        rows.logits = self._next_logits(chosen[:, None], attention, rows.positions[:, None], cache)

    def _next_logits(self, ids: Tensor, attention: Tensor, positions: Tensor, cache) -> Tensor:
        """(B, V) fp32: the policy's own, in its own precision."""
        output = run_layers(
            self.model.base_model,
            self.precision,
            ids,
            attention_mask=attention,
            position_ids=positions,
            use_cache=True,
            **{self.cache_argument: cache},
        )
        return logits_of(self.model, output.last_hidden_state[:, -1])

    def _groups(self, prompts, written: _Written, count: int) -> list[Group]:
        lengths, has_stopped = written.lengths.tolist(), written.has_stopped.tolist()
        ids = [row[:n] for row, n in zip(written.tokens.tolist(), lengths, strict=True)]
        logprobs = [row[:n] for row, n in zip(written.logprobs.tolist(), lengths, strict=True)]
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        rollouts = [
            Rollout(
                token_ids=tuple(ids[row]),
                sampler_logprobs=tuple(logprobs[row]),
                text=texts[row],
                finish_reason="stop" if has_stopped[row] else "length",
            )
            for row in range(len(ids))
        ]
        return [
            Group(
                prompt=prompt,
                rollouts=tuple(rollouts[place * count : (place + 1) * count]),
                policy_version=self.version,
            )
            for place, prompt in enumerate(prompts)
        ]


def _what_to_lower(num_rows: int, sampling: Sampling) -> str:
    if num_rows > sampling.num_responses:
        return f"--set rollout.max_rows={max(sampling.num_responses, num_rows // 2)}"
    half = max(1, sampling.max_new_tokens // 2)  # At least one group is decoded at once.
    return f"another run with --set rollout.max_new_tokens={half}"


def _cache_argument(backbone) -> str:
    """transformers 5.24 renamed it; vLLM 0.32 still needs an older one."""
    return "cache" if "cache" in signature(backbone.forward).parameters else "past_key_values"


def _reserve(cache: Cache, rows: Tensor, num_new_slots: int) -> None:
    """Keeps `rows` of every layer, with room for `num_new_slots` more tokens."""
    for layer in cache.layers:
        layer.reserve(rows, layer.length + num_new_slots)


def _uniforms(keys: Sequence[tuple[int, ...]], index: Tensor, block: int) -> Tensor:
    """(B, NOISE_BLOCK) in [0, 1): each row's own stream, a function of its key and the block."""
    draws = [np.random.default_rng([*keys[i], block]).random(NOISE_BLOCK) for i in index.tolist()]
    return torch.from_numpy(np.stack(draws)).to(index.device)


def sample(logits: Tensor, uniform: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Tokens by inversion of the cumulative distribution: one random number per row.

    Args:
        logits: (B, V) fp32.
        uniform: (B,) in [0, 1).

    Returns:
        tokens (B,) and their logprobs (B,) under the distribution that was sampled from, after
        temperature and top-p; greedy decoding puts all mass on one token, logprob 0. NaN where a
        logit is NaN or infinity.
    """
    if sampling.temperature == 0:
        highest, tokens = logits.max(-1)  # NaN counts as the highest.
        return tokens, highest - highest
    logprobs = (logits / sampling.temperature).log_softmax(-1)
    if sampling.top_p < 1:
        logprobs = _nucleus(logprobs, sampling.top_p)
    cumulative = logprobs.double().exp().cumsum(-1)
    threshold = uniform.double() * cumulative[:, -1]
    tokens = torch.searchsorted(cumulative, threshold[:, None], right=True).squeeze(-1)
    tokens = tokens.clamp(max=logits.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens[:, None]).squeeze(-1)


def _nucleus(logprobs: Tensor, top_p: float) -> Tensor:
    """(B, V) renormalised over the smallest set of tokens whose mass reaches top_p."""
    ordered, order = logprobs.sort(-1, descending=True)
    mass_before = ordered.exp().cumsum(-1) - ordered.exp()
    ordered = ordered.masked_fill(mass_before >= top_p, float("-inf"))
    return logprobs.scatter(-1, order, ordered).log_softmax(-1)


def create(model, tokenizer, settings: EngineSettings) -> TransformersEngine:
    return TransformersEngine(model, tokenizer, settings)
