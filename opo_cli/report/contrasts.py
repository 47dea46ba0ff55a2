"""Pairs of arms held against each other, per benchmark and over all: differences and verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from opo_cli.choose import choose
from opo_cli.errors import OpoError
from opo_cli.report.estimate import pass_at_k
from opo_cli.report.runs import Arm, Run
from opo_cli.report.shared import benchmarks_of, common_benchmarks
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
    """One per pair and benchmark: likewise. None with one benchmark."""
    notes: Sequence[str] = ()
    """What was left out, and which pairs are none of seeds."""

    def by_pair(self) -> Iterator[tuple[Contrast, list[Contrast]]]:
        """(over all benchmarks, those of each)."""
        for overall in self.overall:
            yield overall, [each for each in self.each if each.pair == overall.pair]


def pairs_of(arms: Sequence[Arm], against: str | None = None) -> list[Pair]:
    """Every pair; of more than four arms each against the first, or against the one named.

    Args:
        against: label of an arm, or an algorithm that only one of them has.

    Raises:
        OpoError: no arm is called so.
    """
    if against is not None:
        one = _named(arms, against)
        return [(arm, one) for arm in arms if arm is not one]
    if len(arms) > MOST_ARMS_IN_ALL_PAIRS:
        return [(arms[0], arm) for arm in arms[1:]]
    return list(combinations(arms, 2))


def _named(arms: Sequence[Arm], name: str) -> Arm:
    of_algorithm = [arm for arm in arms if arm.algorithm == name]
    if len(of_algorithm) == 1:
        return of_algorithm[0]
    return choose(name, {arm.label: arm for arm in arms}, "arm")


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
    notes = _notes(pairs, arms, benchmarks)
    if not benchmarks:
        return Contrasts([], [], notes)
    check_measure(arms, measure)
    overall = _judged([(pair, benchmarks) for pair in pairs], measure, margin)
    singles = [(pair, [name]) for pair in pairs for name in benchmarks]
    each = _judged(singles, measure, margin) if len(benchmarks) > 1 else []
    return Contrasts(overall, each, notes)


def _notes(pairs: Sequence[Pair], arms: Sequence[Arm], benchmarks: Sequence[str]) -> list[str]:
    left_out = [name for name in benchmarks_of(arms) if name not in benchmarks]
    notes = []
    if left_out:
        notes.append(
            f"in no verdict: {', '.join(left_out)}, which not every run was evaluated on, with "
            "results per problem"
        )
    num_unpaired = sum(not _is_paired(pair) for pair in pairs)
    if num_unpaired:
        notes.append(
            f"pairs whose arms have other seeds: {num_unpaired} of {len(pairs)}; their seeds are "
            "compared as independent samples, their problems in pairs"
        )
    paired = [pair for pair in pairs if _is_paired(pair)]
    spare = {
        str(run.path)
        for pair in paired
        for arm in pair
        for run in arm.runs
        if run.seed not in _common_seeds(pair)
    }
    if spare:
        notes.append(
            f"{len(spare)} run{'s' * (len(spare) > 1)} of a seed that another arm lacks: left out "
            "of the verdicts against it, not of the other tables"
        )
    return notes


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
    """Every seed of the arm with fewer is one of the other's; else pairs would be few."""
    return len(_common_seeds(pair)) == min(len(arm.runs) for arm in pair)


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
    return pass_at_k(np.full(len(num_correct), num_samples), num_correct, k_of(measure))


def k_of(measure: str) -> int:
    """The k of `pass@k`; 1 of `avg`.

    Raises:
        OpoError: the measure is neither that nor `avg`.
    """
    if measure == "avg":
        return 1
    name, _, k = measure.partition("@")
    if name != "pass" or not k.isdecimal() or not int(k):
        raise OpoError(
            f"--measure '{measure}' is neither avg nor pass@K", "for example: --measure pass@4"
        )
    return int(k)


def check_measure(arms: Sequence[Arm], measure: str) -> None:
    """Raises OpoError where the measure is none, or a benchmark has too few samples for it."""
    for arm in arms:
        for run in arm.runs:
            for name, record in run.final.items():
                check_samples(measure, name, record["num_samples"])


def check_samples(measure: str, benchmark: str, num_samples: int) -> None:
    """Raises OpoError where the measure is none, or needs more samples per problem."""
    if k_of(measure) > num_samples:
        raise OpoError(
            f"--measure {measure}: '{benchmark}' has {num_samples} samples per problem",
            f"--measure avg, or pass@K with K up to {num_samples}",
        )
