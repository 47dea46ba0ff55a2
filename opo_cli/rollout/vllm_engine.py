"""Rollouts from vLLM, in our own process: on a GPU it shares the card with the trainer, and weights
go from one to the other in memory.

Shape legend: T tokens.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import torch
from torch import Tensor

from opo_cli.errors import OpoError, first_line
from opo_cli.model.memory import out_of_memory
from opo_cli.model.parallel import gathered, on_all_ranks, whole
from opo_cli.model.policy import end_token_ids
from opo_cli.model.precision import precision_of
from opo_cli.model.scores import score
from opo_cli.model.sequences import Sequences
from opo_cli.model.sharding import device_of
from opo_cli.ranks import rank
from opo_cli.rollout.abreast import Between, abreast
from opo_cli.rollout.delivery import Delivery
from opo_cli.rollout.engine import EngineError, EngineSettings, Progress, not_finite
from opo_cli.rollout.undisturbed import quiet, settings_before_import, undisturbed
from opo_cli.rollout.vllm_start import cache_budget, context_of, start_vllm
from opo_cli.rollout.vllm_weights import Comparison, compare_weights, compared_names, parts_of
from opo_cli.rollout.watch import RESUME_HINT, give_up, in_time
from opo_cli.types import Group, Prompt, Rollout, Sampling

ECHO_TOKENS = 16
ECHO_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.3, "float16": 0.05}
"""Mean |dlogp| of trainer and engine over the echo, nats: well above the rounding that
docs/engines.md measures."""
LOG_HINT = (
    "VLLM_LOGGING_LEVEL=INFO shows vLLM's own log; another run with --engine transformers goes "
    "without vLLM"
)


class VllmEngine:
    """See `engine.Engine`."""

    name = "vllm"

    def __init__(self, model, tokenizer, settings: EngineSettings):
        self.tokenizer, self.settings = tokenizer, settings
        self.is_asleep, self.llm = False, None
        self.ends = list(end_token_ids(model, tokenizer))
        settings_before_import()
        budget = cache_budget(model, settings)
        self.max_tokens = context_of(model, settings, budget)
        try:
            with quiet(), undisturbed(), _failing("does not start"):
                self.llm = start_vllm(model, settings, budget, self.max_tokens)
            self.load_weights(model, 0)
        except BaseException:
            with suppress(Exception):  # What went wrong first is what counts.
                self.close()
            raise

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
        with abreast(self._peers) as between:
            requests = [
                (prompt.token_ids, self._parameters(sampling, (*stream, first_row + row)))
                for row, prompt in enumerate(p for p in prompts for _ in range(count))
            ]
            outputs = self._sample(requests, report, between)
        rollouts = self._rollouts(outputs, sampling)
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
                f"a prompt and its response take up to {longest} tokens, vLLM takes "
                f"{self.max_tokens} here",
                "lower eval.max_new_tokens, raise rollout.cache_gigabytes, or take "
                "--engine transformers",
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

    def _sample(self, requests, report: Progress, between: Between) -> list:
        """The outputs of (prompt tokens, parameters), in order."""
        finished, ids = {}, []
        with self._abandoning(ids):
            for row, (tokens, parameters) in enumerate(requests):
                ids.append(self._call("add_request", str(row), _prompt(tokens), parameters))
            while self.llm.llm_engine.has_unfinished_requests():
                outputs = self._step()
                finished |= {int(o.request_id): o.outputs[0] for o in outputs if o.finished}
                between(partial(report, len(finished), len(requests)))
        return [finished[row] for row in range(len(requests))]

    @property
    def _peers(self):
        """Of a tensor-parallel group, on the CPU; None where the engine is ours alone."""
        if self.settings.tensor_parallel == 1:
            return None
        from vllm.distributed.parallel_state import get_tp_group

        return get_tp_group().cpu_group

    def _step(self) -> list:
        try:
            return self._call("step")
        except OpoError as error:
            if self._peers is not None:  # They wait inside the step, and can be told nothing.
                give_up(error.message, f"{RESUME_HINT}; {error.hint}")
            raise

    def _call(self, method: str, *arguments):
        with _failing("died while sampling", "lower rollout.max_rows or rollout.cache_gigabytes"):
            return getattr(self.llm.llm_engine, method)(*arguments)

    @contextmanager
    def _abandoning(self, ids: Sequence[str]) -> Iterator[None]:
        """Whatever ends a batch early, the engine is left without its requests."""
        try:
            yield
        except BaseException:
            with suppress(Exception):  # It may be what has failed.
                self.llm.llm_engine.abort_request(list(ids), internal=True)
            raise

    def _rollouts(self, outputs, sampling: Sampling) -> list[Rollout]:
        reasons = {output.finish_reason for output in outputs} - {"stop", "length"}
        if reasons:
            raise EngineError(f"vLLM ended responses for the reason {min(reasons)!r}", LOG_HINT)
        if not all(math.isfinite(x) for output in outputs for x in output.logprobs.logprobs):
            raise not_finite(self.model, self.version)
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
                finish_reason=output.finish_reason,
            )
            for tokens, text, output in zip(ids, texts, outputs, strict=True)
        ]

    # --- weights ------------------------------------------------------------------------------

    def sleep(self) -> None:
        """Weights and cache leave the GPU; on a CPU there is nothing to gain."""
        if device_of(self.model).type == "cuda" and not self.is_asleep:
            with _failing("died when put to sleep"):
                self.llm.sleep(level=2)
            self.is_asleep = True

    def load_weights(self, model, version: int) -> None:
        self.model, self.version = model, version
        with (
            in_time("handing weights to vLLM", self.settings.timeout_seconds),
            _failing("does not take the trainer's weights"),
            quiet(),
        ):
            weights = Delivery(model)
            self._wake("weights")
            self.llm.collective_rpc(
                "reload_weights", kwargs={"weights_iterator": self._known(weights)}
            )
            self._wake("kv_cache")
            self.is_asleep = False
            weights.check()
            # What is cached was computed by older weights.
            if not self.llm.reset_prefix_cache():
                raise RuntimeError("its prefix cache cannot be dropped")
            self._verify()

    def _known(self, weights: Delivery) -> Iterator[tuple[str, Tensor]]:
        """By transformers' names, as the state dict has them: `named_parameters()` would name a
        tied head once, and vLLM keep its own as it was. Without the head where vLLM has none."""
        has_head = self.llm.apply_model(lambda theirs: hasattr(theirs, "lm_head"))[0]
        for name, tensor in weights:
            if has_head or not name.startswith("lm_head."):
                yield name, tensor

    def _wake(self, tag: str) -> None:
        if self.is_asleep:
            self.llm.wake_up(tags=[tag])

    def _verify(self) -> None:
        """Raises EngineError where the engine does not hold the policy's weights."""
        weights = self._compared_weights()
        found = on_all_ranks(lambda: self._compare(weights))
        if any(each.repacked for each in found):
            self._verify_echo()

    def _compared_weights(self) -> dict[str, Tensor]:
        names = self.llm.apply_model(compared_names)[0]
        if any(theirs != names for theirs in gathered(names)):
            raise EngineError("vLLM does not hold one model on all ranks", LOG_HINT)
        state = self.model.state_dict()
        wanted = [part for name in names for part in parts_of(name) if part in state]
        return {name: whole(state[name]) for name in wanted}

    def _compare(self, weights: dict[str, Tensor]) -> Comparison:
        size = self.settings.tensor_parallel
        compare = partial(compare_weights, weights, rank() % size, size)
        found = self.llm.apply_model(compare)[0]
        if found.differing or not found.equal:
            name = (found.differing or found.repacked)[0]
            raise EngineError(
                f"vLLM does not hold the trainer's weights after a sync: {name}", LOG_HINT
            )
        return found

    def _verify_echo(self) -> None:
        """On a CPU vLLM repacks most weights and leaves nothing to read: what it says of a fixed
        text has to be what the trainer says."""
        size = self.model.get_input_embeddings().weight.shape[0]
        ids = [i * 7919 % size for i in range(1, ECHO_TOKENS + 1)]
        ours = score(
            self.model,
            Sequences.pack([ids[:1]], [ids[1:]], device_of(self.model)),
            ECHO_TOKENS,
        ).logprobs[0]
        if not all(gathered(bool(ours.isfinite().all()))):
            raise not_finite(self.model, self.version)
        theirs = torch.tensor(self._echo(ids))
        on_all_ranks(lambda: self._check_echo(ours.cpu(), theirs))

    def _check_echo(self, ours: Tensor, theirs: Tensor) -> None:
        difference = float((ours - theirs).abs().mean())
        if not difference < self._tolerance:
            raise EngineError(
                "vLLM does not hold the trainer's weights after a sync: its logprobs of a fixed "
                f"text differ by {difference:.2g} nats",
                LOG_HINT,
            )

    @property
    def _tolerance(self) -> float:
        trainers = str(precision_of(self.model).compute).removeprefix("torch.")
        return max(ECHO_TOLERANCE[dtype] for dtype in (trainers, self.settings.dtype))

    def _echo(self, ids: list[int]) -> list[float]:
        """vLLM's logprobs of `ids` but the first."""
        from vllm import SamplingParams

        parameters = SamplingParams(
            temperature=0, max_tokens=1, prompt_logprobs=0, flat_logprobs=True, detokenize=False
        )
        engine = self.llm.llm_engine
        engine.add_request("echo", _prompt(ids), parameters)
        while engine.has_unfinished_requests():
            outputs = engine.step()
        return list(outputs[0].prompt_logprobs.logprobs)

    def close(self) -> None:
        """Ends the engine and what it started in our process; called again, it does nothing."""
        llm, self.llm = self.llm, None
        if llm is None:
            return
        with quiet(), undisturbed():
            if self.is_asleep:  # vLLM cannot free what is not mapped.
                with suppress(Exception):
                    llm.wake_up()
            with suppress(Exception):
                llm.llm_engine.engine_core.shutdown()
            del llm
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # Else the next engine finds the card full.


def _prompt(tokens: Sequence[int]) -> dict:
    return {"prompt_token_ids": list(tokens)}


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
        raise EngineError(f"vLLM {what}: {first_line(error)}", LOG_HINT) from error


def create(model, tokenizer, settings: EngineSettings) -> VllmEngine:
    return VllmEngine(model, tokenizer, settings)
