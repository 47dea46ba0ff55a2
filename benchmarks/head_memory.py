"""Peak memory and time of logprobs and entropy, forward and backward, against the plain way.

    python benchmarks/head_memory.py [--vocab 8192,32768,151936] [--tokens 256,1024] [--hidden 64]
        [--dtype float32] [--device cpu]

Plain: one product with the head, log-softmax, gather and entropy over all tokens at once. What
counts is what PyTorch's allocator holds beyond the inputs, the head and the gradient's room. On a
CPU the profiler counts it, and tells of its start and stop on stderr.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from opo_cli.model.precision import Precision, logits_of, set_precision
from opo_cli.model.scores import MAX_LOGITS, chunked_scores

MEGABYTE = 10**6


class Head(nn.Module):
    """As much of a policy as the scores ask for."""

    def __init__(self, vocab_size: int, width: int, precision: Precision):
        super().__init__()
        self.lm_head = nn.Linear(width, vocab_size, bias=False)
        set_precision(self, precision)

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head


def plain_scores(head: Head, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logprobs = logits_of(head, hidden).log_softmax(-1)
    drawn = logprobs.gather(-1, targets[:, None]).squeeze(-1)
    return drawn, -(logprobs.exp() * logprobs).sum(-1)


def our_scores(head: Head, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return chunked_scores(head, hidden, targets, entropy_gradient=True)[:2]


def cost(scores: Callable, head: Head, num_tokens: int) -> tuple[int, float]:
    """(bytes, seconds) of a pass forward and backward; the second of two is timed."""
    weight = head.lm_head.weight
    hidden = torch.randn(num_tokens, weight.shape[1], device=weight.device, requires_grad=True)
    targets = torch.randint(weight.shape[0], (num_tokens,), device=weight.device)

    def run() -> None:
        logprobs, entropy = scores(head, hidden, targets)
        (logprobs.sum() + 0.1 * entropy.sum()).backward()
        if weight.is_cuda:
            torch.cuda.synchronize()

    run()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    return peak_bytes(run, weight.device), seconds


def peak_bytes(run: Callable[[], None], device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run()
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", type=numbers, default=[8192, 32768, 151936])
    parser.add_argument("--tokens", type=numbers, default=[256, 1024])
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    dtype, device = getattr(torch, arguments.dtype), arguments.device
    chunk = 4 * MAX_LOGITS[device] / MEGABYTE
    print(
        f"{device}, {arguments.dtype}, width {arguments.hidden}; a chunk's logits: {chunk:.0f} MB"
    )
    print(f"{'vocabulary':>10}{'tokens':>8}{'opo':>10}{'plain':>10}{'opo':>9}{'plain':>9}")
    print(f"{'':>18}{'MB':>10}{'MB':>10}{'s':>9}{'s':>9}")
    for vocab_size in arguments.vocab:
        head = Head(vocab_size, arguments.hidden, Precision(dtype, dtype)).to(device)
        for num_tokens in arguments.tokens:
            ours, plain = (cost(each, head, num_tokens) for each in (our_scores, plain_scores))
            print(
                f"{vocab_size:>10}{num_tokens:>8}{ours[0] / MEGABYTE:>10.0f}"
                f"{plain[0] / MEGABYTE:>10.0f}{ours[1]:>9.2f}{plain[1]:>9.2f}"
            )


if __name__ == "__main__":
    main()
