"""A policy that can be enumerated: three tokens, one of them the end, a table of logits per prefix.

What a lab estimates from samples is here a finite sum. Gradients are exact: the score of a token is
(onehot - p) in the row of its prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from opo_cli.lab.store import LabData, PromptData

NUM_TOKENS, END = 3, 2
SKETCH = 4096


@dataclass(frozen=True)
class Toy:
    """n sequences of a policy with the gradients of their probabilities."""

    chances: np.ndarray  # (n,)
    lengths: np.ndarray  # (n,)
    rewards: np.ndarray  # (n,)
    tokens: list[np.ndarray]  # per sequence (l, d): scores of its tokens
    logits: list[np.ndarray]  # per sequence (l,): 1 - 2 p + sum p^2

    @property
    def scores(self) -> np.ndarray:
        """(n, d)"""
        return np.stack([each.sum(0) for each in self.tokens])

    @property
    def gradient(self) -> np.ndarray:
        """(d,) of the expected reward."""
        return (self.chances * self.rewards) @ self.scores


def make_toy(seed: int, longest: int = 3) -> Toy:
    """15 sequences where the longest has 3 tokens, 7 where it has 2."""
    rng = np.random.default_rng(seed)
    prefixes = [p for n in range(longest) for p in product((0, 1), repeat=n)]
    table = rng.normal(0, 0.8, (len(prefixes), NUM_TOKENS))
    table = np.exp(table) / np.exp(table).sum(1, keepdims=True)
    place = {prefix: i for i, prefix in enumerate(prefixes)}
    found = [
        (*p, t) for p in prefixes for t in range(NUM_TOKENS) if t == END or len(p) + 1 == longest
    ]
    tokens, logits, chances = [], [], []
    for sequence in found:
        scores, chance, norms = np.zeros((len(sequence), *table.shape)), 1.0, []
        for t, token in enumerate(sequence):
            row = place[sequence[:t]]
            p = table[row]
            scores[t, row] = np.eye(NUM_TOKENS)[token] - p
            chance *= p[token]
            norms.append(1 - 2 * p[token] + p @ p)
        tokens.append(scores.reshape(len(sequence), -1))
        logits.append(np.array(norms))
        chances.append(chance)
    lengths = np.array([len(sequence) for sequence in found])
    rewards = (rng.random(len(found)) < 0.3 + 0.4 * (lengths == lengths.min())).astype(float)
    return Toy(np.array(chances), lengths, rewards, tokens, logits)


def prompt_of(toy: Toy, which: Sequence[int], name: str = "toy", rng=None) -> PromptData:
    """The data of a prompt to which the policy gave these sequences."""
    which = np.asarray(which)
    scores, tokens = toy.scores[which], np.concatenate([toy.tokens[i] for i in which])
    return PromptData(
        problem_id=name,
        gram=scores @ scores.T,
        rewards=toy.rewards[which],
        lengths=toy.lengths[which],
        correct=toy.rewards[which] > 0,
        truncated=np.zeros(len(which), bool),
        logit_norms=np.array([toy.logits[i].sum() for i in which]),
        greedy_reward=float(toy.rewards[toy.chances.argmax()]),
        sketch=scores.astype(np.float32),
        token_gram=tokens @ tokens.T,
        token_norms=np.concatenate([toy.logits[i] for i in which]),
    )


def lab_of(toys: Sequence[Toy], num_responses: int, seed: int) -> LabData:
    """A lab with one prompt of each policy, sampled."""
    rng = np.random.default_rng(seed)
    prompts = [
        prompt_of(toy, rng.choice(len(toy.chances), num_responses, p=toy.chances), f"toy/{i}")
        for i, toy in enumerate(toys)
    ]
    return LabData(settings={"policy": "toy"}, prompts=prompts)


@dataclass(frozen=True)
class Exact:
    """What moments estimate, by enumeration."""

    second: float
    square: float
    signal: float

    @property
    def variance(self) -> float:
        return self.second - self.square


def exact_of(toy: Toy, size: int, advantages: Callable[[np.ndarray], np.ndarray]) -> Exact:
    """Over all groups of `size` sequences.

    Args:
        advantages: (c, size) sequences of groups -> (c, size) of responses, or (c, size, T) of
            their tokens.
    """
    groups = np.array(list(product(range(len(toy.chances)), repeat=size)))
    weights, found = toy.chances[groups].prod(1), advantages(groups)
    if found.ndim == 2:
        gradients = np.einsum("cg,cgd->cd", found, toy.scores[groups]) / size
    else:
        padded = np.zeros((len(toy.tokens), found.shape[2], toy.scores.shape[1]))
        for i, each in enumerate(toy.tokens):
            padded[i, : len(each)] = each
        gradients = np.einsum("cgt,cgtd->cd", found, padded[groups]) / size
    mean = weights @ gradients
    return Exact(weights @ (gradients**2).sum(1), mean @ mean, mean @ toy.gradient)
