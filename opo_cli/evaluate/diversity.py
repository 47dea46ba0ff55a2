"""How different the responses to one prompt are. Items are model tokens (ids), EOS left out.

Shape legend: N responses of a group. Pure Python over tuples; no torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

from opo_cli.types import GradedGroup, Mean

Tokens = Sequence[int]


def of_group(group: GradedGroup) -> dict[str, Mean]:
    """Diversity within one group, keyed as `METRICS`."""
    responses = [
        rollout.token_ids[: -1 if rollout.finish_reason == "stop" else None]
        for rollout in group.group.rollouts
    ]
    return {
        "distinct_2": distinct(responses, 2),
        "rep_4": repetition(responses, 4),
        "self_bleu": self_bleu(responses),
        "answer_entropy": answer_entropy([grade.extracted for grade in group.grades]),
    }


def ngrams(tokens: Tokens, n: int) -> list[tuple[int, ...]]:
    return list(zip(*(tokens[start:] for start in range(n)), strict=False))


def distinct(responses: Sequence[Tokens], n: int) -> Mean:
    """distinct-n over the pool: different n-grams / n-grams. Li et al. 2016, arXiv 1510.03055.

    It falls with the size of the pool, so that only groups of one size compare. Nothing is counted
    where no response has n tokens.
    """
    found = [gram for tokens in responses for gram in ngrams(tokens, n)]
    return Mean(len(set(found)) / len(found), 1) if found else Mean(0, 0)


def repetition(responses: Sequence[Tokens], n: int) -> Mean:
    """Rep-n: mean over responses of 1 - different n-grams / n-grams. Welleck et al., 1908.04319.

    A response of fewer than n tokens is left out. It rises with length.
    """
    found = [grams for tokens in responses if (grams := ngrams(tokens, n))]
    return Mean(sum(1 - len(set(grams)) / len(grams) for grams in found), len(found))


def self_bleu(responses: Sequence[Tokens], max_n: int = 4) -> Mean:
    """Self-BLEU: mean over responses of BLEU against all others of the group; higher: less diverse.

    Zhu et al. 2018, arXiv 1802.01886. Orders 1 to `max_n` with equal weights, counts clipped by the
    most that any one reference holds, 1 added to both counts above order 1 (Lin and Och 2004),
    brevity against the reference of the closest length (the shorter of two). 0 where not one
    token is shared. It rises with the number of references. Nothing is counted for fewer than two
    responses; empty ones are left out.
    """
    pool = [tuple(tokens) for tokens in responses if len(tokens)]
    if len(pool) < 2:
        return Mean(0, 0)
    logs = [0.0] * len(pool)
    for n in range(1, max_n + 1):
        counts = [Counter(ngrams(tokens, n)) for tokens in pool]
        for row, (matched, total) in enumerate(_clipped_matches(counts)):
            if n > 1:
                matched, total = matched + 1, total + 1
            logs[row] += math.log(matched / total) / max_n if matched else -math.inf
    lengths = [len(tokens) for tokens in pool]
    scores = [
        math.exp(log) * _brevity(length, lengths[:row] + lengths[row + 1 :])
        for row, (log, length) in enumerate(zip(logs, lengths, strict=True))
    ]
    return Mean(sum(scores), len(scores))


def _clipped_matches(counts: Sequence[Counter]) -> list[tuple[int, int]]:
    """(matches with any one other, n-grams) per response.

    The two largest counts of each n-gram say what the most among the *others* is, so that the work
    is linear in the responses and not quadratic.
    """
    largest: dict[tuple, tuple[int, int, int]] = {}  # n-gram -> most, whose, second most
    for row, own in enumerate(counts):
        for gram, count in own.items():
            most, whose, second = largest.get(gram, (0, -1, 0))
            if count > most:
                largest[gram] = (count, row, most)
            elif count > second:
                largest[gram] = (most, whose, count)
    found = []
    for row, own in enumerate(counts):
        matched = 0
        for gram, count in own.items():
            most, whose, second = largest[gram]
            matched += min(count, second if whose == row else most)
        found.append((matched, sum(own.values())))
    return found


def _brevity(length: int, others: Sequence[int]) -> float:
    closest = min(others, key=lambda other: (abs(other - length), other))
    return 1.0 if length > closest else math.exp(1 - closest / length)


def answer_entropy(answers: Sequence[Hashable | None]) -> Mean:
    """Entropy, nats, of the answers that were given, "none" being one of them."""
    counts = Counter(answers).values()
    total = sum(counts)
    return Mean(sum(c / total * math.log(total / c) for c in counts), 1) if total else Mean(0, 0)
