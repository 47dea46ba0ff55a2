"""Rollouts from vLLM, in our own process: on a GPU it shares the card with the trainer, and weights
go from one to the other in memory.

Shape legend: T tokens.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from opo_cli.errors import OpoError
from opo_cli.model.device import GIGABYTE, available_bytes
from opo_cli.model.memory import out_of_memory
from opo_cli.model.policy import end_token_ids
from opo_cli.model.scores import score
from opo_cli.model.sequences import Sequences
from opo_cli.model.shape import BYTES, shape_of
from opo_cli.rollout.engine import EngineError, EngineSettings, Progress
from opo_cli.rollout.sizes import VLLM_CPU_SHARE, VLLM_RESERVE, vllm_cache
from opo_cli.rollout.undisturbed import quiet, settings_before_import, undisturbed
from opo_cli.types import Group, Prompt, Rollout, Sampling

OPTIMIZER_BYTES = 8  # Per parameter: AdamW's moments in fp32, which stay while we sample.
BATCH_TOKENS = 8192  # Of one forward pass, prompts included.
ECHO_TOKENS = 16
ECHO_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3, "float16": 0.05}
"""Mean |dlogp| of trainer and engine over the echo, nats: well above rounding (README)."""
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
LOG_HINT = "VLLM_LOGGING_LEVEL=INFO shows vLLM's own log; --engine transformers goes without vLLM"


class VllmEngine:
    """See `engine.Engine`."""

    name = "vllm"

    def __init__(self, model, tokenizer, settings: EngineSettings):
        self.tokenizer, self.settings, self.max_rows = tokenizer, settings, settings.max_rows
        self.is_asleep = False
        self.ends = list(end_token_ids(model, tokenizer))
        self.max_tokens = _context(model, settings)
        self._owns_process_group = not torch.distributed.is_initialized()
        settings_before_import()
        budget = cache_budget(model, settings, self.max_tokens)
        with quiet(), undisturbed(), _failing("does not start"):
            self.llm = _start(model, settings, budget, self.max_tokens)
        self.load_weights(model, 0)

    # --- sampling -----------------------------------------------------------------------------

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        stream: Sequence[int],
        first_row: int = 0,
        progress: Progress | None = None,
    ) -> list[Group]:
        count, report = sampling.num_responses, progress or (lambda done, total: None)
        self._check_length(prompts, sampling)
        requests = [
            (prompt.token_ids, self._parameters(sampling, (*stream, first_row + row)))
            for row, prompt in enumerate(p for p in prompts for _ in range(count))
        ]
        rollouts = self._rollouts(self._sample(requests, report), sampling)
        return [
            Group(
                prompt=prompt,
                rollouts=tuple(rollouts[place * count : (place + 1) * count]),
                policy_version=self.version,
            )
            for place, prompt in enumerate(prompts)
        ]

    def _check_length(self, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        longest = max(len(prompt.token_ids) for prompt in prompts) + sampling.max_new_tokens
        if longest > self.max_tokens:
            raise OpoError(
                f"a prompt and its response take up to {longest} tokens, vLLM was started for "
                f"{self.max_tokens}",
                "lower max_new_tokens (of rollout or eval), or choose a model with a longer "
                "context",
            )

    def _parameters(self, sampling: Sampling, key: tuple[int, ...]):
        from vllm import SamplingParams

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            stop_token_ids=None if sampling.ignores_end else self.ends,
            ignore_eos=sampling.ignores_end,
            seed=_seed(key),
            logprobs=0,  # The sampled token's alone.
            flat_logprobs=True,
            detokenize=False,
        )

    def _sample(self, requests, report: Progress) -> list:
        """The outputs of (prompt tokens, parameters), in order."""
        engine, finished, ids = self.llm.llm_engine, {}, []
        with _failing("died while sampling", "lower rollout.max_rows or rollout.cache_gigabytes"):
            for row, (tokens, parameters) in enumerate(requests):
                prompt = {"prompt_token_ids": list(tokens)}
                ids.append(engine.add_request(str(row), prompt, parameters))
            while engine.has_unfinished_requests():
                outputs = engine.step()
                finished |= {int(o.request_id): o.outputs[0] for o in outputs if o.finished}
                with self._abandoning(ids):
                    report(len(finished), len(requests))
        return [finished[row] for row in range(len(requests))]

    @contextmanager
    def _abandoning(self, ids: Sequence[str]) -> Iterator[None]:
        """Where the caller wants no more, the engine is left without requests."""
        try:
            yield
        except BaseException:
            self.llm.llm_engine.abort_request(list(ids), internal=True)
            raise

    def _rollouts(self, outputs, sampling: Sampling) -> list[Rollout]:
        ids = [list(output.token_ids) for output in outputs]
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        is_greedy = sampling.temperature == 0  # All mass on one token.
        return [
            Rollout(
                token_ids=tuple(tokens),
                sampler_logprobs=(
                    (0.0,) * len(tokens) if is_greedy else tuple(output.logprobs.logprobs)
                ),
                text=text,
                finish_reason="stop" if output.finish_reason == "stop" else "length",
            )
            for tokens, text, output in zip(ids, texts, outputs, strict=True)
        ]

    # --- weights ------------------------------------------------------------------------------

    def sleep(self) -> None:
        """Weights and cache leave the GPU; on a CPU there is nothing to gain."""
        if self.model.device.type == "cuda" and not self.is_asleep:
            with _failing("died when put to sleep"):
                self.llm.sleep(level=2)
            self.is_asleep = True

    def load_weights(self, model, version: int) -> None:
        self.model, self.version = model, version
        # Not named_parameters(): a tied head, which this repeats, would be kept as it was.
        weights = model.state_dict()
        with _failing("died when given new weights"), quiet():
            self._wake("weights")
            self.llm.collective_rpc(
                "reload_weights", kwargs={"weights_iterator": iter(weights.items())}
            )
            self._wake("kv_cache")
            self.is_asleep = False
            # What is cached was computed by older weights.
            if not self.llm.reset_prefix_cache():
                raise RuntimeError("its prefix cache cannot be dropped")
        self._verify(weights)

    def _wake(self, tag: str) -> None:
        if self.is_asleep:
            torch.cuda.empty_cache()  # What the trainer has freed is still torch's.
            self.llm.wake_up(tags=[tag])

    def _verify(self, weights: dict[str, Tensor]) -> None:
        """Raises EngineError where the engine does not hold `weights`."""
        found = self.llm.apply_model(partial(compare_weights, weights))[0]
        if found.differing or not found.equal:
            name = (found.differing or found.repacked)[0]
            raise EngineError(
                f"vLLM does not hold the trainer's weights after a sync: {name}", LOG_HINT
            )
        if found.repacked:
            self._verify_echo()

    def _verify_echo(self) -> None:
        """On a CPU vLLM repacks most weights and leaves nothing to read: what it says of a fixed
        text has to be what the trainer says."""
        size = self.model.get_input_embeddings().weight.shape[0]
        ids = [i * 7919 % size for i in range(1, ECHO_TOKENS + 1)]
        ours = score(
            self.model,
            Sequences.pack([ids[:1]], [ids[1:]], self.model.device),
            ECHO_TOKENS,
        ).logprobs[0]
        difference = float((ours.cpu() - torch.tensor(self._echo(ids))).abs().mean())
        if not difference < ECHO_TOLERANCE[self.settings.dtype]:
            raise EngineError(
                "vLLM does not hold the trainer's weights after a sync: its logprobs of a fixed "
                f"text differ by {difference:.2g} nats",
                LOG_HINT,
            )

    def _echo(self, ids: list[int]) -> list[float]:
        """vLLM's logprobs of `ids` but the first."""
        from vllm import SamplingParams

        parameters = SamplingParams(
            temperature=0, max_tokens=1, prompt_logprobs=0, flat_logprobs=True, detokenize=False
        )
        engine = self.llm.llm_engine
        with _failing("died after a sync"):
            engine.add_request("echo", {"prompt_token_ids": ids}, parameters)
            while engine.has_unfinished_requests():
                outputs = engine.step()
        return list(outputs[0].prompt_logprobs.logprobs)

    def close(self) -> None:
        """Ends the engine and what it started in our process."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        with quiet(), undisturbed():
            self.llm.llm_engine.engine_core.shutdown()
            del self.llm
            if self._owns_process_group:
                cleanup_dist_env_and_memory()
            gc.collect()


# --- start ------------------------------------------------------------------------------------


def _start(model, settings: EngineSettings, cache_bytes: int, max_tokens: int):
    is_cpu = model.device.type == "cpu"
    is_eager = settings.execution == "eager" or (is_cpu and settings.execution == "auto")
    if is_cpu:
        _skip_compiled_helpers()
    from vllm import LLM

    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)  # All that vLLM reads: weights come from the trainer.
        return LLM(
            model=folder,
            skip_tokenizer_init=True,
            load_format="dummy",
            dtype=settings.dtype,
            hf_overrides=(
                {"head_dtype": settings.head_dtype}
                if settings.head_dtype != settings.dtype
                else None
            ),
            max_model_len=max_tokens,
            max_num_seqs=settings.max_rows,
            kv_cache_memory_bytes=cache_bytes,
            logprobs_mode="processed_logprobs",
            enforce_eager=is_eager,
            max_num_batched_tokens=max(BATCH_TOKENS, max_tokens),
            # A prompt that is cut makes vLLM rewind the request's generator, which on a CPU fails.
            enable_chunked_prefill=not is_cpu,
            enable_prefix_caching=True,
            disable_log_stats=True,
            seed=0,
            **({} if is_cpu else _colocated(model, settings, cache_bytes)),
        )


def _skip_compiled_helpers() -> None:
    """Small helpers that vLLM compiles for 20 s at their first use. Not a public setting."""
    from vllm.platforms import current_platform

    if hasattr(type(current_platform), "simple_compile_backend"):
        type(current_platform).simple_compile_backend = "eager"


def _colocated(model, settings: EngineSettings, cache_bytes: int) -> dict:
    """What lets trainer and engine share a GPU. vLLM refuses to start unless this share of the card
    is free: its weights, the cache and its own reserve."""
    _, total = torch.cuda.mem_get_info(model.device)
    needed = _weight_bytes(model, settings) + cache_bytes + VLLM_RESERVE
    return {"enable_sleep_mode": True, "gpu_memory_utilization": round(needed / total, 4)}


def _context(model, settings: EngineSettings) -> int:
    """Longest prompt plus response, tokens."""
    known = [settings.max_tokens, shape_of(model.config).max_positions]
    return min(filter(None, known), default=4096)


def _weight_bytes(model, settings: EngineSettings) -> int:
    return sum(p.numel() for p in model.parameters()) * BYTES[settings.dtype]


def cache_budget(model, settings: EngineSettings, max_tokens: int) -> int:
    """Bytes of the key/value cache, see `CacheSize`.

    Raises:
        OpoError: it cannot hold one group.
    """
    size = vllm_cache(shape_of(model.config), settings, max_tokens, _room(model, settings))
    if size.budget < size.group:
        stated, budget = settings.cache_gigabytes, size.budget / GIGABYTE
        room = "" if stated else f"there is room for {budget:.2g} GB, which "
        raise OpoError(
            f"rollout.cache_gigabytes = {stated:g}: {room}cannot hold one group of "
            f"{size.group_tokens} tokens",
            f"--set rollout.cache_gigabytes={size.group / GIGABYTE + 0.01:.2f}, or lower "
            "rollout.max_new_tokens or rollout.group_size",
        )
    return size.budget


def _room(model, settings: EngineSettings) -> int:
    if model.device.type == "cpu":
        return int(VLLM_CPU_SHARE * available_bytes())
    free, _ = torch.cuda.mem_get_info(model.device)
    optimizer = sum(p.numel() for p in model.parameters()) * OPTIMIZER_BYTES
    return max(0, free - optimizer - _weight_bytes(model, settings) - VLLM_RESERVE)


def _seed(key: tuple[int, ...]) -> int:
    """63 bits: torch's generators take signed ones."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def _failing(what: str, memory_hint: str = "lower rollout.cache_gigabytes") -> Iterator[None]:
    """vLLM's exceptions, of almost any type, as ours."""
    try:
        with out_of_memory(f"rollouts (vLLM {what})", memory_hint):
            yield
    except OpoError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EngineError(f"vLLM {what}: {reason}", LOG_HINT) from error


# --- what the engine holds --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of a few tensors of vLLM's model, the first and the last of each kind."""

    equal: list[str]
    differing: list[str]
    repacked: list[str]
    """In a form of its own that nobody can read."""


def compare_weights(weights: dict[str, Tensor], model) -> Comparison:
    """vLLM's `model` against the trainer's `weights`, bit for bit in vLLM's dtype."""
    chosen = {}
    for name, parameter in model.named_parameters():
        kind = "".join(character for character in name if not character.isdigit())
        chosen.setdefault((kind, "first"), (name, parameter))
        chosen[kind, "last"] = name, parameter
    found = Comparison([], [], [])
    for name, theirs in dict(chosen.values()).items():
        parts = [weights[part] for part in parts_of(name) if part in weights]
        if not theirs.numel() or len(parts) != len(parts_of(name)):
            found.repacked.append(name)
            continue
        ours = torch.cat(parts).to(theirs.dtype)
        theirs = theirs[: len(ours)].detach()  # Beyond it: rows that pad the vocabulary.
        (found.equal if torch.equal(ours, theirs) else found.differing).append(name)
    return found


def parts_of(name: str) -> list[str]:
    """The trainer's names of what vLLM keeps as one tensor."""
    for fused, parts in FUSED.items():
        if f".{fused}." in name:
            return [name.replace(fused, part) for part in parts]
    return [name]


def create(model, tokenizer, settings: EngineSettings) -> VllmEngine:
    return VllmEngine(model, tokenizer, settings)
