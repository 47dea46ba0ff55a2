"""How often verdicts are right: simulated comparisons with known truth.

    python benchmarks/verdict_rates.py [--repeats 500] [--families | --pages | --sweep]

Each repeat draws new problems, training seeds and samples. A sample is right with the chance
sigmoid(logit(difficulty) + arm + seed + problem x arm + problem x seed), the last three normal; the
arms' shifts are set so that their true mean accuracies differ by what is asked. A family is all
pairs of three arms on two benchmarks. With 500 repeats the binomial standard error of .05 is .01 by
family, and less by comparison, of which a family has six.

    false win   families in which any arm wins or loses while all are equal (stated: .05)
    covered     intervals that hold the truth: all arms equal, one arm better by the margin
    false tie   comparisons called a tie while the truth is the margin (stated: .025)
    tie         comparisons called a tie while the truth is 0
    found       comparisons with a win while the truth is the margin
    planned     seeds (x problems, where seeds alone cannot) that would resolve the margin, from the
                true components; beside it, how often it is then found (planned: .8)
    advised     share of single pairs whose first verdict stands, or asks for 100 seeds at most,
                which are then added to the first ones; of those: median seeds in the end and how
                often the margin is found in the end (planned: .8); of all: false wins in the end
                while the arms are equal. Two looks at .05 each may be wrong in nearly .1

The same rates of other families: pairs of three arms in the mean over four benchmarks, as a page
shows them; and one pair of arms with other seeds, one of them with more.

    each        as `false win`, of the page's other family: pairs x benchmarks
    either      of both families of the page: each has a level of its own

Of a sweep (`--sweep`) each algorithm is compared at the value that is best on a validation
benchmark. All values of the first are equally good; of the second all, or one alone: then only the
first gains from the choice. Truth: equal at the values chosen. Chosen on the validation problems
with the seeds that are compared (as `opo compare` does), or with as many other ones.

    own         share of a seed's variance that each benchmark has for itself: what a choice on
                another benchmark cannot see
    bias        mean difference, first less second
    false       pairs with a win or worse (stated: .05)
    covered     intervals that hold the truth
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.special import betaincinv, expit, logit

from opo_cli.report.statistics import Difference, difference
from opo_cli.report.verdict import ALPHA, MOST_SEEDS, Verdict, plan, verdicts

NUM_ARMS, NUM_BENCHMARKS = 3, 2
PAIRS = list(combinations(range(NUM_ARMS), 2))
ON_A_PAGE = 4
"""Benchmarks."""
MORE_SEEDS = 8
"""Of the second arm, where the arms are not paired."""
BAD = -0.2
"""True accuracy of the other values, where an algorithm has one good one."""
SEED_BY_PROBLEM = 0.3
"""Standard deviation on the logit scale."""
SHARED = 0.3
"""Of a seed's variance: what all arms have in common at that seed."""
BY_BENCHMARK = 0.5
"""Of the rest: what each benchmark has for itself."""
MARGIN = 0.03
CERTAIN = 1e6
"""Degrees of freedom of a component that is known."""
CHUNK = 2_000_000
"""Chances drawn at once: 16 MB a table."""


@dataclass(frozen=True, slots=True)
class Setting:
    seeds: int
    problems: int
    samples: int
    seed_sd: float
    """Standard deviation of a run's true accuracy between seeds."""
    interaction: float
    """Standard deviation of a problem's liking for an arm, logit scale."""
    difficulty: tuple[float, float]
    """Beta of the chances of being right."""


SETTINGS = (
    Setting(3, 30, 16, 0.02, 0.5, (0.5, 0.5)),
    Setting(3, 100, 1, 0.02, 0.5, (0.5, 0.5)),
    Setting(3, 100, 8, 0.0, 0.0, (0.5, 0.5)),
    Setting(3, 100, 8, 0.02, 0.5, (2, 2)),
    Setting(3, 100, 8, 0.05, 0.0, (0.5, 0.5)),
    Setting(3, 500, 4, 0.01, 0.5, (2, 2)),
    Setting(3, 500, 4, 0.05, 1.0, (0.3, 2)),
    Setting(5, 30, 64, 0.0, 0.5, (0.3, 2)),
    Setting(5, 30, 1, 0.02, 0.0, (0.3, 2)),
    Setting(5, 100, 8, 0.02, 0.5, (0.5, 0.5)),
    Setting(5, 100, 8, 0.05, 1.0, (2, 2)),
    Setting(5, 500, 4, 0.01, 0.0, (5, 0.5)),
    Setting(10, 30, 16, 0.02, 1.0, (0.5, 0.5)),
    Setting(10, 100, 8, 0.02, 0.5, (0.3, 2)),
    Setting(10, 100, 64, 0.05, 0.5, (2, 2)),
    Setting(10, 500, 1, 0.01, 0.5, (0.5, 0.5)),
)
PAGES = (
    Setting(3, 30, 16, 0.02, 0.5, (0.5, 0.5)),
    Setting(3, 100, 8, 0.0, 0.0, (0.5, 0.5)),
    Setting(3, 100, 8, 0.05, 0.0, (0.5, 0.5)),
    Setting(5, 100, 8, 0.02, 0.5, (0.5, 0.5)),
    Setting(10, 100, 8, 0.02, 0.5, (0.3, 2)),
)
UNPAIRED = (
    Setting(3, 30, 16, 0.02, 0.5, (0.5, 0.5)),
    Setting(3, 100, 8, 0.02, 0.5, (2, 2)),
    Setting(3, 100, 8, 0.05, 0.0, (0.5, 0.5)),
    Setting(5, 100, 8, 0.02, 0.5, (0.5, 0.5)),
    Setting(5, 100, 8, 0.05, 1.0, (2, 2)),
)


class Population:
    """Arms of known mean accuracy."""

    def __init__(
        self, setting: Setting, effects: Sequence[float], benchmarks: int, own: float = BY_BENCHMARK
    ):
        self.setting, self.benchmarks, self.own = setting, benchmarks, own
        grid = betaincinv(*setting.difficulty, (np.arange(1000) + 0.5) / 1000)
        self.scale = 1 / float((grid * (1 - grid)).mean())
        """Logits per accuracy."""
        normals, weights = np.polynomial.hermite_e.hermegauss(31)
        spread = (setting.seed_sd * self.scale) ** 2 + setting.interaction**2 + SEED_BY_PROBLEM**2
        chances = logit(grid.clip(1e-9, 1 - 1e-9))[:, None] + np.sqrt(spread) * normals

        def accuracy(shift: float) -> float:
            return float((expit(chances + shift) @ weights).mean() / weights.sum())

        self.shifts = np.array([_solved(accuracy, accuracy(0.0) + effect) for effect in effects])

    def draw(
        self,
        rng: np.random.Generator,
        repeats: int,
        seeds: int,
        problems: int,
        problem_rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """(R, arms, benchmarks, S, P) shares of right samples; `problem_rng`: draws the problems,
        where they are to be drawn again for more seeds."""
        problem_rng = problem_rng or rng
        setting, arms = self.setting, len(self.shifts)

        def normal(*shape: int, rng: np.random.Generator = rng) -> np.ndarray:
            return rng.standard_normal((repeats, *shape), dtype=np.float32)

        own = np.sqrt(1 - self.own) * normal(arms, 1, seeds, 1)
        own = own + np.sqrt(self.own) * normal(arms, self.benchmarks, seeds, 1)
        seed = np.sqrt(SHARED) * normal(1, 1, seeds, 1) + np.sqrt(1 - SHARED) * own
        difficulty = problem_rng.beta(
            *setting.difficulty, (repeats, 1, self.benchmarks, 1, problems)
        )
        values = logit(difficulty.clip(1e-9, 1 - 1e-9)) + self.shifts[:, None, None, None]
        values = values + setting.seed_sd * self.scale * seed
        liking = normal(arms, self.benchmarks, 1, problems, rng=problem_rng)
        values = values + setting.interaction * liking
        values = values + SEED_BY_PROBLEM * normal(arms, self.benchmarks, seeds, problems)
        return rng.binomial(setting.samples, expit(values)) / setting.samples

    def tables(self, rng: np.random.Generator, repeats: int, seeds: int, problems: int):
        """`repeats` times (arms, benchmarks, S, P)."""
        at_once = max(1, CHUNK // (len(self.shifts) * self.benchmarks * seeds * problems))
        for start in range(0, repeats, at_once):
            yield from self.draw(rng, min(at_once, repeats - start), seeds, problems)


def _solved(accuracy, target: float) -> float:
    low, high = -10.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if accuracy(middle) < target else (low, middle)
    return low


def family(table: np.ndarray) -> list[Difference]:
    return [
        difference([table[a, b]], [table[c, b]]) for a, c in PAIRS for b in range(len(table[0]))
    ]


def overall(table: np.ndarray) -> list[Difference]:
    """In the mean over benchmarks."""
    return [difference(list(table[a]), list(table[c])) for a, c in PAIRS]


def unpaired(table: np.ndarray) -> list[Difference]:
    """Of two arms; the second has the last `MORE_SEEDS` seeds, the first the others."""
    first, second = table[0, :, :-MORE_SEEDS], table[1, :, -MORE_SEEDS:]
    return [difference(list(first), list(second), is_paired=False)]


Family = Callable[[np.ndarray], list[Difference]]
"""(arms, benchmarks, S, P) -> differences, those of the first arm first."""


def rates(
    setting: Setting,
    repeats: int,
    families: Sequence[Family] = (family,),
    benchmarks: int = NUM_BENCHMARKS,
    arms: int = NUM_ARMS,
) -> dict[str, float]:
    """Of the first of the families; `each` of the last, `either` of all."""
    found: dict[str, list[float]] = {}

    def note(name: str, values: Sequence[bool]) -> None:
        found.setdefault(name, []).append(float(np.mean(values)))

    rng, size = np.random.default_rng(0), (repeats, setting.seeds, setting.problems)
    for table in Population(setting, [0.0] * arms, benchmarks).tables(rng, *size):
        told = [verdicts(read(table), MARGIN) for read in families]
        false = [any(v.word in ("win", "worse") for v in each) for each in told]
        note("false win", [false[0]])
        note("each", [false[-1]])
        note("either", [any(false)])
        note("covered 0", [v.difference.low <= 0 <= v.difference.high for v in told[0]])
        note("tie", [v.word == "tie" for v in told[0]])
    for table in Population(setting, [MARGIN] + [0.0] * (arms - 1), benchmarks).tables(rng, *size):
        told = verdicts(families[0](table), MARGIN)
        told = told[: len(told) * 2 // arms]  # Pairs with the better arm.
        note("covered m", [v.difference.low <= MARGIN <= v.difference.high for v in told])
        note("false tie", [v.word == "tie" for v in told])
        note("found", [v.word == "win" for v in told])
    return {name: float(np.mean(values)) for name, values in found.items()}


def true_difference(setting: Setting) -> Difference:
    """A difference with the true components, from many seeds and problems."""
    many = (100, 5000)
    table = Population(setting, [MARGIN, 0.0], 1).draw(np.random.default_rng(1), 1, *many)[0]
    found, more = difference([table[0, 0]], [table[1, 0]]), many[1] / setting.problems
    components = replace(
        found.components,
        between=found.components.seed + found.components.residual * more,
        problem=found.components.problem * more,
        residual=found.components.residual * more,
        seed_degrees=CERTAIN,
        problem_degrees=setting.problems - 1,
    )
    return replace(
        found, components=components, num_seeds=setting.seeds, num_problems=setting.problems
    )


def planned(setting: Setting, repeats: int) -> tuple[int, int, float]:
    """(seeds, problems, how often the margin is found with them), from the true components."""
    size = len(PAIRS) * NUM_BENCHMARKS
    seeds, problems = plan(true_difference(setting), MARGIN, ALPHA / size)
    problems = problems or setting.problems
    rng, found = np.random.default_rng(2), []
    for table in Population(setting, [MARGIN, 0.0, 0.0], NUM_BENCHMARKS).tables(
        rng, repeats, seeds, problems
    ):
        told = verdicts(family(table), MARGIN)[: 2 * NUM_BENCHMARKS]
        found.append(np.mean([v.p_holm < ALPHA and v.difference.mean > 0 for v in told]))
    return seeds, problems, float(np.mean(found))


def advised(setting: Setting, effect: float, repeats: int) -> tuple[float, float, float]:
    """Of one pair alone whose first advice is followed, where it is no more than 100 seeds.

    Returns:
        (share of pairs where it was, or where none was needed; median seeds of those in the end;
        wins in the end: where one arm is better, as share of those; where the arms are equal, in
        either direction, as share of all).
    """
    population, totals, wins = Population(setting, [effect, 0.0], 1), [], []
    words = ("win",) if effect else ("win", "worse")

    def drawn(repeat: int, part: int, seeds: int) -> np.ndarray:
        rngs = np.random.default_rng([repeat, part]), np.random.default_rng([repeat])
        return population.draw(rngs[0], 1, seeds, setting.problems, rngs[1])[0, :, 0]

    for repeat in range(repeats):
        table = drawn(repeat, 0, setting.seeds)
        verdict = _told(table)
        if verdict.word == "cannot tell":
            more = verdict.num_more_seeds
            if verdict.num_problems_needed is not None or more > MOST_SEEDS:
                continue
            table = np.concatenate([table, drawn(repeat, 1, more)], axis=1)
            verdict = _told(table)
        totals.append(table.shape[1])
        wins.append(verdict.word in words)
    rate = sum(wins) / (len(wins) if effect else repeats)
    return len(wins) / repeats, float(np.median(totals)), rate


def _told(table: np.ndarray) -> Verdict:
    return verdicts([difference([table[0]], [table[1]])], MARGIN)[0]


@dataclass(frozen=True, slots=True)
class Sweep:
    seeds: int
    values: int
    seed_sd: float
    own: float


SWEEPS = (
    *(Sweep(3, values, 0.03, 0.0) for values in (2, 4, 8)),
    *(Sweep(seeds, 4, 0.03, 0.0) for seeds in (5, 10)),
    *(Sweep(3, 4, seed_sd, 0.0) for seed_sd in (0.01, 0.05)),
    *(Sweep(seeds, 4, 0.03, BY_BENCHMARK) for seeds in (3, 5, 10)),
)
CHOICES = {
    "one good, same seeds": (BAD, False),
    "all good, same seeds": (0.0, False),
    "one good, other seeds": (BAD, True),
}
"""Accuracy of the second algorithm's other values, whether other seeds choose."""


def swept(sweep: Sweep, bad: float, is_apart: bool, repeats: int) -> tuple[float, float, float]:
    """(bias, share of false wins, share of intervals that hold the truth) of own bests."""
    seeds, values = sweep.seeds, sweep.values
    setting = Setting(seeds, 100, 8, sweep.seed_sd, 0.0, (0.5, 0.5))
    effects = np.array([0.0] * (values + 1) + [bad] * (values - 1))
    population = Population(setting, effects, 2, sweep.own)
    errors, false, covered = [], [], []
    rng = np.random.default_rng(3)
    for table in population.tables(rng, repeats, (1 + is_apart) * seeds, setting.problems):
        first, second = table[:, 0, -seeds:].mean((1, 2)).reshape(2, values).argmax(1)
        second += values
        found = difference([table[first, 1, :seeds]], [table[second, 1, :seeds]])
        truth = effects[first] - effects[second]
        errors.append(found.mean - truth)
        false.append(verdicts([found], MARGIN)[0].word in ("win", "worse"))
        covered.append(found.low <= truth <= found.high)
    return float(np.mean(errors)), float(np.mean(false)), float(np.mean(covered))


RATES = ("false win", "covered 0", "covered m", "false tie", "tie", "found")
HEAD = f"{'seeds':>5}{'probl':>6}{'sampl':>6}{'sd':>6}{'inter':>6}{'difficulty':>11}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=500)
    parts = {"families": print_families, "pages": print_pages, "sweep": print_sweeps}
    only = parser.add_mutually_exclusive_group()
    for name in parts:
        only.add_argument(f"--{name}", action="store_true", help="these tables alone")
    options = vars(parser.parse_args())
    print(f"margin {MARGIN}; {options['repeats']} of each")
    chosen = [part for name, part in parts.items() if options[name]] or parts.values()
    for part in chosen:
        part(options["repeats"])


def print_families(repeats: int) -> None:
    print(f"\nfamilies of {len(PAIRS) * NUM_BENCHMARKS}: pairs x benchmarks")
    _print_rates(SETTINGS, RATES, lambda setting: rates(setting, repeats))
    print(f"\n{HEAD}{'planned':>12}{'found':>7}{'advised':>9}{'seeds':>7}{'found':>7}{'false':>7}")
    for setting in SETTINGS:
        seeds, problems, power = planned(setting, repeats)
        (share, median, found), (*_, false) = (
            advised(setting, effect, repeats) for effect in (MARGIN, 0.0)
        )
        plan_cell = f"{seeds} x {problems}"
        cells = f"{plan_cell:>12}{power:7.3f}{share:9.3f}{median:7.0f}{found:7.3f}{false:7.3f}"
        print(_row(setting) + cells, flush=True)


def print_pages(repeats: int) -> None:
    print(f"\nfamilies of {len(PAIRS)}: pairs in the mean over {ON_A_PAGE} benchmarks")
    _print_rates(
        PAGES,
        (*RATES, "each", "either"),
        lambda setting: rates(setting, repeats, (overall, family), ON_A_PAGE),
    )
    for benchmarks in (1, ON_A_PAGE):
        print(f"\none pair, other seeds, {MORE_SEEDS} in the second arm; benchmarks: {benchmarks}")
        _print_rates(
            UNPAIRED,
            RATES,
            lambda setting, benchmarks=benchmarks: rates(
                replace(setting, seeds=setting.seeds + MORE_SEEDS),
                repeats,
                (unpaired,),
                benchmarks,
                arms=2,
            ),
        )


def print_sweeps(repeats: int) -> None:
    print("\nsweeps, each algorithm at its own best: bias, false, covered")
    head = f"{'seeds':>5}{'values':>7}{'sd':>6}{'own':>6}"
    print(head + "".join(f"{name:>24}" for name in CHOICES), flush=True)
    for sweep in SWEEPS:
        row = f"{sweep.seeds:5}{sweep.values:7}{sweep.seed_sd:6}{sweep.own:6}"
        for choice in CHOICES.values():
            bias, false, covered = swept(sweep, *choice, repeats)
            row += f"{bias:+10.4f}{false:7.3f}{covered:7.3f}"
        print(row, flush=True)


def _print_rates(
    settings: Sequence[Setting],
    names: Sequence[str],
    measured: Callable[[Setting], dict[str, float]],
) -> None:
    print(HEAD + "".join(f"{name:>10}" for name in names), flush=True)
    for setting in settings:
        found = measured(setting)
        print(_row(setting) + "".join(f"{found[name]:10.3f}" for name in names), flush=True)


def _row(setting: Setting) -> str:
    difficulty = ", ".join(f"{value:g}" for value in setting.difficulty)
    return (
        f"{setting.seeds:5}{setting.problems:6}{setting.samples:6}{setting.seed_sd:6}"
        f"{setting.interaction:6}{difficulty:>11}"
    )


if __name__ == "__main__":
    main()
