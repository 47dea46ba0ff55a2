"""The policy: a Hugging Face causal LM. Loading it, and what it takes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from opo_cli.errors import NotFiniteError, OpoError
from opo_cli.files import MANIFEST, check_seal
from opo_cli.model.attention import mend_attention
from opo_cli.model.folder import hush_transformers, model_source
from opo_cli.model.parallel import own
from opo_cli.model.precision import Precision, logits_of, run_layers, set_precision
from opo_cli.model.shape import PROMPT_ROOM
from opo_cli.model.trust import refusal, trusted_config
from opo_cli.types import Prompt

FLOAT32 = Precision()
BROKEN = "the folder is damaged, or its training diverged: give another model"


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


def load_policy(path: str, device: torch.device, precision: Precision = FLOAT32):
    """A causal LM in fp32 (these are the master weights) and its tokenizer.

    Args:
        path: a model folder, or an id on the hub.
        precision: in which it computes, wherever it is evaluated.

    Raises:
        OpoError: no such folder, a broken one, one of ours that was altered, or an architecture
            that we would score wrongly.
        NotFiniteError: its weights, or what they say of a few tokens, are not finite.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = model_source(path)
    if (Path(source) / MANIFEST).is_file():
        check_seal(Path(source))
    hush_transformers()
    mend_attention()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = trusted_config(source)
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            model, info = AutoModelForCausalLM.from_pretrained(
                source,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except OpoError:
        raise
    except Exception as error:  # Broken files surface as almost any type, by format and library.
        refused = refusal(error, path)
        if refused is not None:
            raise refused from None
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = " ".join(lines[:2]) if lines[0].endswith((":", ": ")) else lines[0]
        if "ignore_mismatched_sizes" in reason:  # It says no more, but in a log that is hushed.
            reason = "its weights have other shapes than its config.json says"
        raise OpoError(
            f"model '{path}' does not load: {reason}",
            "check that the folder is complete; for a hub id, that the hub can be reached",
        ) from error
    if not tokenizer.encode("1", add_special_tokens=False):
        raise OpoError(
            f"the tokenizer of model '{path}' reads no text",
            "give a complete model folder (config.json, tokenizer.json, model.safetensors)",
        )
    if info["missing_keys"]:
        raise OpoError(
            f"model '{path}' lacks weights: {sorted(info['missing_keys'])[0]} and "
            f"{len(info['missing_keys']) - 1} more",
            "they would start at random; give a complete model folder",
        )
    model.to(device).eval()
    if (name := name_of_not_finite(model)) is not None:
        raise NotFiniteError(f"model '{path}': {name} is not finite", BROKEN)
    _check_head(model, path)
    set_precision(model, precision)
    return model, tokenizer


def load_tokenizer(path: str):
    """Of a model that `load_policy` has loaded elsewhere."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_source(path), trust_remote_code=False)


def name_of_not_finite(module: torch.nn.Module) -> str | None:
    """The first weight with a NaN or an infinity in it, in this rank's part."""
    named = list(module.named_parameters())
    is_finite = torch.stack([own(p.detach()).isfinite().all() for _, p in named]).tolist()
    return next((n for (n, _), good in zip(named, is_finite, strict=True) if not good), None)


@torch.no_grad()
def _check_head(model, path: str) -> None:
    """We apply the output embedding to response positions only; that must be all the head does.
    Called before a lower precision is set, so that rounding hides nothing."""
    ids = torch.arange(4, device=model.device)[None] % model.config.vocab_size
    expected = model(input_ids=ids, use_cache=False).logits.float()
    if not expected.isfinite().all():
        raise NotFiniteError(f"model '{path}': its logits are not finite", BROKEN)
    output = run_layers(model.base_model, FLOAT32, ids, use_cache=False)
    ours = logits_of(model, output.last_hidden_state)
    if not torch.allclose(ours, expected, atol=1e-3, rtol=1e-3):
        raise OpoError(
            f"model '{path}' ({type(model).__name__}) scales or caps its logits",
            "choose a model whose logits are its output embedding times the last hidden state",
        )


def check_context(model, prompts: Sequence[Prompt], max_new_tokens: int, section: str) -> None:
    """Raises OpoError where prompt and response may exceed the positions that the model knows."""
    most = getattr(model.config, "max_position_embeddings", None)
    longest_prompt = max(prompts, key=lambda prompt: len(prompt.token_ids))
    longest, which = len(longest_prompt.token_ids), longest_prompt.problem.id
    if most is None or longest + max_new_tokens <= most:
        return
    if longest >= most:
        shorten = "--set data.max_prompt_tokens=" + str(most // 2)
        leave_out = shorten if section == "rollout" else f"leave problem {which} out of the data"
        raise OpoError(
            f"the longest prompt, of problem '{which}', has {longest} tokens, the model takes "
            f"{most}",
            f"{leave_out}, or choose a model with a longer context",
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
