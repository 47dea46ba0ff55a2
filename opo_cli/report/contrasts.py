"""Pairs of arms held against each other, per benchmark and over all: differences and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from opo_cli.choose import choose
from opo_cli.errors import OpoError
from opo_cli.report.estimate import pass_at_k
from opo_cli.report.runs import Arm, Run
from opo_cli.report.shared import common_benchmarks
from opo_cli.report.statistics import (
    Bootstrap,
    Difference,
    Permutation,
    difference,
    permutation,
    probability_of_improvement,
)
from opo_cli.report.verdict import Verdict, verdicts

ALL = "all benchmarks"
"""Their mean, each weighing the same."""
MOST_ARMS_IN_ALL_PAIRS = 4
"""Of more arms, all pairs would be more comparisons than a few seeds can carry."""

Pair = tuple[Arm, Arm]


@dataclass(frozen=True, slots=True)
class Contrast:
    """One pair on one benchmark, or on all."""

    pair: Pair
    benchmark: str
    difference: Difference
    """First less second, in the measure."""
    permutation: Permutation | None
    """None with one seed."""
    improvement: Bootstrap
    verdict: Verdict

    @property
    def labels(self) -> tuple[str, str]:
        return self.pair[0].label, self.pair[1].label

    @property
    def sentence(self) -> str:
        return self.verdict.sentence(*self.labels)


@dataclass(frozen=True, slots=True)
class Contrasts:
    overall: Sequence[Contrast]
    """One per pair, over all benchmarks: a family of its own."""
    each: Sequence[Contrast]
    """One per pair and benchmark: likewise. With one benchmark the same as `overall`."""
    num_unpaired: int
    """Pairs that have no two seeds in common, so that seeds were compared as independent."""


def pairs_of(arms: Sequence[Arm], against: str | None = None) -> list[Pair]:
    """Every pair; of more than four arms each against the first, or against the one named.

    Raises:
        OpoError: no arm is called so.
    """
    if against is not None:
        by_label = {arm.label: arm for arm in arms}
        one = choose(against, by_label, "arm")
        return [(arm, one) for arm in arms if arm is not one]
    if len(arms) > MOST_ARMS_IN_ALL_PAIRS:
        return [(arms[0], arm) for arm in arms[1:]]
    return list(combinations(arms, 2))


def make_contrasts(pairs: Sequence[Pair], measure: str, margin: float) -> Contrasts:
    """
    Args:
        measure: `avg`, or `pass@k`.
        margin: the smallest difference that matters, in shares of right answers.

    Raises:
        OpoError: a benchmark has too few samples for the measure.
    """
    arms = list({id(arm): arm for pair in pairs for arm in pair}.values())
    benchmarks = [name for name in common_benchmarks(arms) if _has_problems(arms, name)]
    if not benchmarks:
        return Contrasts([], [], 0)
    check_measure(arms, measure)
    single = _judged([(pair, [name]) for pair in pairs for name in benchmarks], measure, margin)
    overall = single
    if len(benchmarks) > 1:
        overall = _judged([(pair, benchmarks) for pair in pairs], measure, margin)
    num_unpaired = sum(not _is_paired(pair) for pair in pairs)
    return Contrasts(overall, single, num_unpaired)


def _has_problems(arms: Sequence[Arm], benchmark: str) -> bool:
    """Records of an older version have no results per problem."""
    return all(run.final[benchmark].get("problems") for arm in arms for run in arm.runs)


def _judged(tasks: Sequence[tuple[Pair, list[str]]], measure: str, margin: float) -> list[Contrast]:
    """Differences of one family, corrected together."""
    tables = [_tables(pair, names, measure) for pair, names in tasks]
    differences = [difference(a, b, is_paired=is_paired) for a, b, is_paired in tables]
    contrasts = []
    judged = verdicts(differences, margin)
    for (pair, names), (a, b, is_paired), found, verdict in zip(
        tasks, tables, differences, judged, strict=True
    ):
        first, second = (np.mean([table.mean(1) for table in side], axis=0) for side in (a, b))
        has_seeds = found.num_seeds > 1
        contrasts.append(
            Contrast(
                pair=pair,
                benchmark=names[0] if len(names) == 1 else ALL,
                difference=found,
                permutation=(
                    permutation(first, second, is_paired=is_paired) if has_seeds else None
                ),
                improvement=probability_of_improvement(first, second),
                verdict=verdict,
            )
        )
    return contrasts


def _common_seeds(pair: Pair) -> list[int]:
    return [seed for seed in pair[0].seeds if seed in pair[1].seeds]


def _is_paired(pair: Pair) -> bool:
    """Two seeds in common; or one each, and that the same."""
    common = _common_seeds(pair)
    return len(common) > 1 or pair[0].seeds == pair[1].seeds


def _tables(
    pair: Pair, benchmarks: Sequence[str], measure: str
) -> tuple[list[np.ndarray], list[np.ndarray], bool]:
    """(first arm's, second arm's tables (S, P_b) per benchmark, whether rows are equal seeds)."""
    is_paired, common = _is_paired(pair), _common_seeds(pair)
    sides = [
        [run for run in arm.runs if run.seed in common] if is_paired else arm.runs for arm in pair
    ]
    a, b = [], []
    for name in benchmarks:
        found = [[_scores(run, name, measure) for run in side] for side in sides]
        ids = _shared_problems(name, [scores for side in found for scores in side])
        first, second = (np.array([[row[i] for i in ids] for row in side]) for side in found)
        a.append(first)
        b.append(second)
    return a, b, is_paired


def _shared_problems(benchmark: str, rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Ids in every row, in the first one's order. Raises OpoError where there is none."""
    known = set(rows[0]).intersection(*rows[1:])
    if not known:
        raise OpoError(
            f"the runs' evaluations of '{benchmark}' have no problem in common",
            "compare runs that were evaluated on the same problems",
        )
    return [name for name in rows[0] if name in known]


def _scores(run: Run, benchmark: str, measure: str) -> dict[str, float]:
    """Problem id -> the measure."""
    record = run.final[benchmark]
    correct = np.array([problem["num_correct"] for problem in record["problems"]])
    values = per_problem(correct, record["num_samples"], measure)
    return dict(zip((p["id"] for p in record["problems"]), values.tolist(), strict=True))


def per_problem(num_correct: np.ndarray, num_samples: int, measure: str) -> np.ndarray:
    """(P,) counts of right samples -> (P,) the measure of each problem."""
    if measure == "avg":
        return num_correct / num_samples
    return pass_at_k(np.full(len(num_correct), num_samples), num_correct, _k(measure))


def _k(measure: str) -> int:
    """The k of `pass@k`.

    Raises:
        OpoError: the measure is neither that nor `avg`.
    """
    name, _, k = measure.partition("@")
    if name != "pass" or not k.isdecimal() or not int(k):
        raise OpoError(
            f"--measure '{measure}' is neither avg nor pass@K", "for example: --measure pass@4"
        )
    return int(k)


def check_measure(arms: Sequence[Arm], measure: str) -> None:
    """Raises OpoError where the measure is none, or a benchmark has too few samples for it."""
    if measure == "avg":
        return
    k = _k(measure)
    for arm in arms:
        for run in arm.runs:
            for name, record in run.final.items():
                if record["num_samples"] < k:
                    raise OpoError(
                        f"--measure {measure}: '{name}' has {record['num_samples']} samples per "
                        "problem",
                        f"--measure avg, or pass@K with K up to {record['num_samples']}",
                    )
