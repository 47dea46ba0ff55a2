"""Training problems against benchmarks: what a model may have learnt by heart.

Two problems overlap where they share `num_words` words in a row, lower case, without punctuation
(Brown et al. 2020, GPT-3, appendix C, with 13); those with fewer words where they are equal but for
space and case. Most overlaps in mathematics are phrases ("where m and n are relatively prime
positive integers. Find m + n"): of MATH's training set, which holds no AIME problem of 2024, 67
problems share 13 words with one. Hence the second number, copies: training problems that hold at
least half of a benchmark problem's runs of words. A rewording goes unseen by both.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from opo_cli.data.rows import same_question
from opo_cli.types import Problem, ProblemSet

NUM_EXAMPLES = 3
COPY_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A training problem that overlaps a benchmark problem, by ids."""

    training: str
    benchmark: str
    share: float
    """Of the benchmark problem's runs of words, those that the training problem holds too."""
    words: str
    """The first shared run, or the whole question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What training problems share with one benchmark."""

    benchmark: str
    num_problems: int
    """Of the benchmark."""
    num_hit: int
    """Benchmark problems that some training problem overlaps."""
    training: tuple[int, ...]
    """Places of the training problems that overlap, ascending."""
    num_copies: int
    """Training problems that hold at least half of a benchmark problem."""
    examples: tuple[Pair, ...]
    """Those with the largest shares."""


Place = tuple[int, int]
"""(benchmark, problem), both from 0."""


def audit(
    problems: Sequence[Problem], benchmarks: Sequence[ProblemSet], num_words: int
) -> list[Overlap]:
    """What `problems` share with each of `benchmarks`, in their order."""
    runs = [[_runs(p.question, num_words) for p in b.problems] for b in benchmarks]
    index: dict[str, list[Place]] = defaultdict(list)
    for number, sets in enumerate(runs):
        for place, keys in enumerate(sets):
            for key in keys:
                index[key].append((number, place))
    found: list[dict[tuple[int, int], list[str]]] = [defaultdict(list) for _ in benchmarks]
    for row, problem in enumerate(problems):
        for key in _runs(problem.question, num_words):
            for number, place in index.get(key, ()):
                found[number][row, place].append(key)
    return [
        _overlap(benchmark, problems, hits, [len(keys) for keys in sets])
        for benchmark, hits, sets in zip(benchmarks, found, runs, strict=True)
    ]


def _runs(question: str, num_words: int) -> dict[str, None]:
    """What two questions must share to overlap: every run of words, or all of a short one. A dict,
    whose order is that of the text."""
    words = re.findall(r"[^\W_]+", question.lower())
    if len(words) < num_words:
        return {f"={same_question(question)}": None}
    starts = range(len(words) - num_words + 1)
    return dict.fromkeys(" ".join(words[start : start + num_words]) for start in starts)


def _overlap(
    benchmark: ProblemSet,
    problems: Sequence[Problem],
    hits: dict[tuple[int, int], list[str]],
    num_runs: Sequence[int],
) -> Overlap:
    """Args: hits: (training place, benchmark place) -> shared runs; num_runs: per place."""
    shares = {(row, place): len(keys) / num_runs[place] for (row, place), keys in hits.items()}
    worst = sorted(shares, key=lambda pair: -shares[pair])[:NUM_EXAMPLES]
    return Overlap(
        benchmark=benchmark.name,
        num_problems=len(benchmark.problems),
        num_hit=len({place for _, place in hits}),
        training=tuple(sorted({row for row, _ in hits})),
        num_copies=len({row for (row, _), share in shares.items() if share >= COPY_SHARE}),
        examples=tuple(
            Pair(
                training=problems[row].id,
                benchmark=benchmark.problems[place].id,
                share=round(shares[row, place], 3),
                words=hits[row, place][0].removeprefix("="),
            )
            for row, place in worst
        ),
    )
