"""Every row of ADVANTAGES: hand-computed constants, slow references, invariants, degenerate cases.

Estimators are called through their rows, on steps written as lists of `Row`.
Shape legend: B rows, T tokens.
"""

from __future__ import annotations

import math
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opo_cli.rl import advantages
from opo_cli.rl.advantages import ADVANTAGES, Signals
from opo_cli.rl.stats import group_sum

quick = settings(deadline=None, derandomize=True, max_examples=40)
thorough = settings(quick, max_examples=100)
every_row = pytest.mark.parametrize("name", ADVANTAGES)

WIDTH = 7  # Longest response that `rows_of_a_step` draws.
GAMMA, LAMBDA, EXPONENT = 0.9, 0.8, 1.6
TOLERANCE = {"grpo": 1e-6}  # It divides by a deviation that may be small.


@dataclass(frozen=True)
class Row:
    """One response. Only the first `length` items of the tuples belong to it."""

    reward: float
    length: int = 1
    group: int = 0
    greedy: float = 0.5
    norms: tuple[float, ...] = (0.5,) * WIDTH
    values: tuple[float, ...] = (0.0,) * WIDTH
    penalties: tuple[float, ...] = (0.0,) * WIDTH
    """Added to the reward, token by token; a KL penalty is such a thing."""

    @property
    def token_rewards(self) -> list[float]:
        found = list(padded(self.penalties, self.length)[: self.length])
        return [*found[:-1], found[-1] + self.reward] if found else []

    @property
    def total(self) -> float:
        return sum(self.token_rewards) if self.length else self.reward

    @property
    def counts(self) -> bool:
        return math.isfinite(self.reward) and self.length > 0


def padded(values: Sequence[float], width: int) -> list[float]:
    return [*values, *[0.0] * (width - len(values))]


def scored(row: Row) -> tuple[float, ...]:
    """A response that is masked whole has no loss token, and norms all the same."""
    return row.norms[: row.length] if row.length else row.norms


def signals(rows: Sequence[Row], width: int | None = None, dtype=torch.float64, **given) -> Signals:
    width = width or max(WIDTH, *(row.length for row in rows))

    def tensor(values) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype)

    lengths = torch.tensor([row.length for row in rows])
    settings_given = {"gamma": GAMMA, "gae_lambda": LAMBDA, "length_exponent": EXPONENT} | given
    return Signals(
        rewards=tensor([row.total for row in rows]),
        lengths=lengths,
        groups=torch.tensor([row.group for row in rows]),
        mask=torch.arange(width) < lengths[:, None],
        token_rewards=tensor([padded(row.token_rewards, width) for row in rows]),
        values=tensor([padded(row.values, width) for row in rows]),
        logit_norms=tensor([padded(scored(row), width) for row in rows]),
        greedy_rewards=tensor([row.greedy for row in rows]),
        **settings_given,
    )


def estimate(name: str, rows: Sequence[Row], **given) -> torch.Tensor:
    return ADVANTAGES[name].estimate(signals(rows, **given))


def per_row(name: str, rows: Sequence[Row], **given) -> list[float]:
    """The advantage on the first token of each row."""
    return estimate(name, rows, **given)[:, 0].tolist()


def near(expected, abs: float = 1e-9):
    return pytest.approx(expected, abs=abs)


def assert_near(result: torch.Tensor, expected, tolerance: float = 1e-9):
    expected = torch.as_tensor(expected, dtype=result.dtype)
    torch.testing.assert_close(result, expected, atol=tolerance, rtol=tolerance)


# --- constants --------------------------------------------------------------------------------

FOUR = [Row(r, n) for r, n in zip((1, 0, 1, 0), (100, 300, 200, 400), strict=True)]
SIX = [Row(r, n) for r, n in zip((1, 0, 1, 0, 1, 1), (1, 3, 2, 4, 5, 5), strict=True)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", (1, 0, 1, 0)),
        ("mean", (0.5, -0.5, 0.5, -0.5)),
        ("rloo", (2 / 3, -2 / 3, 2 / 3, -2 / 3)),
        ("opo", (0.7, -0.3, 0.7, -0.3)),
        ("opo-loo", (7 / 9, -3 / 7, 7 / 8, -1 / 2)),
        ("opo-batch", (0.7, -0.3, 0.7, -0.3)),
        ("length-power", (0.788049, -0.211951, 0.788049, -0.211951)),
        ("grpo", (0.866024, -0.866024, 0.866024, -0.866024)),
        ("gpg", (0.5, -0.5, 0.5, -0.5)),
        ("shrinkage", (2 / 3, -2 / 3, 2 / 3, -2 / 3)),
        ("remax", (0.5, -0.5, 0.5, -0.5)),
    ],
)
def test_constants_of_one_group(name: str, expected):
    assert per_row(name, FOUR) == near(expected, abs=1e-6)


def test_the_baseline_over_the_step_is_the_mean_reward_of_its_tokens():
    assert per_row("opo-batch", SIX) == near([0.35, -0.65, 0.35, -0.65, 0.35, 0.35])


def test_reinforce_plus_plus_constants():
    right, wrong = 0.715219, -1.328264
    expected = [right, wrong, right, wrong, right, right]
    assert per_row("reinforce++", SIX, gamma=1.0) == near(expected, abs=1e-6)


def test_gpg_makes_up_for_groups_without_signal():
    rows = [*FOUR, *(replace(row, reward=1.0, group=1) for row in FOUR)]
    assert per_row("gpg", rows) == near([1, -1, 1, -1, 0, 0, 0, 0])


@pytest.mark.parametrize("shift", [-1.0, 0.5, 3.0])
def test_gpg_counts_groups_with_signal_not_rewards_that_are_not_zero(shift: float):
    """Counting rewards that are not zero, `FOUR` would have advantages of +-1, unless shifted."""
    shifted = [replace(row, reward=row.reward + shift) for row in FOUR]
    assert per_row("gpg", shifted) == near(per_row("gpg", FOUR))


def test_shrinkage_constants():
    """Three prompts of two: for the first, means (1, 0.5), noises (0, 0.25), hence v = 1/8,
    s = 1/16 and lambda = (2/3) (2/3) = 4/9; its target is 3/4."""
    rewards = (1.0, 0.0, 1.0, 1.0, 0.0, 1.0)
    result = per_row("shrinkage", [Row(r, group=i // 2) for i, r in enumerate(rewards)])
    assert result[:2] == near([1 - 4 / 9 * 3 / 4, -(5 / 9 + 4 / 9 * 3 / 4)])


@pytest.mark.parametrize(
    ("gae_lambda", "expected"),
    [(1.0, (0.5, 0.4, 0.2)), (0.0, (0.1, 0.2, 0.2)), (0.95, (0.4705, 0.39, 0.2))],
)
def test_gae_constants(gae_lambda: float, expected):
    rows = [Row(1.0, 3, values=(0.5, 0.6, 0.8))]
    result = estimate("gae", rows, gamma=1.0, gae_lambda=gae_lambda)
    assert result[0, :3].tolist() == near(expected)


def test_returns_to_go_of_a_reward_less_a_kl_penalty():
    """0.1 times log-ratios of (0.1, -0.05, 0.2), off a reward of 1."""
    token_rewards = torch.tensor([[-0.01, 0.005, 0.98, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    whole = advantages.returns_to_go(token_rewards, mask)
    assert whole[0].tolist() == near([0.975, 0.985, 0.98, 0])
    halved = advantages.returns_to_go(token_rewards, mask, gamma=0.5)
    assert halved[0].tolist() == near([0.2375, 0.495, 0.98, 0])


OTB_ROWS = [Row(1.0, 2, norms=(0.5, 0.5)), Row(0.0, 3, norms=(1.0, 0.25, 0.75))]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The last token of the second row is the only one left at its position.
        ("otb", [[2 / 3, 5 / 9, 0], [-1 / 3, -4 / 9, 0]]),
        ("otb-token", [[2 / 3, 1 / 3, 0], [-1 / 3, -2 / 3, 0]]),
    ],
)
def test_token_baseline_constants(name: str, expected):
    assert_near(estimate(name, OTB_ROWS, width=3), expected)


@pytest.mark.parametrize("name", ["otb", "otb-token"])
@pytest.mark.parametrize("reward", [0.1, 0.3, 0.7, 1.1])
def test_the_last_row_alive_has_exactly_no_advantage(name: str, reward: float):
    """Not the rounding error of w r / w - r."""
    rows = [Row(reward, WIDTH, norms=(0.1, 0.3, 0.7, 0.9, 1.1, 1.3, 1.7)), Row(0.0, 2)]
    for dtype in (torch.float32, torch.float64):
        result = estimate(name, rows, dtype=dtype)[0]
        assert result[:2].ne(0).all()
        assert result[2:].eq(0).all()


@pytest.mark.parametrize("name", ["otb", "otb-token"])
def test_token_baseline_of_equal_weights_is_the_mean(name: str):
    rows = [Row(1.0, 3, norms=(1.0,) * 3), Row(0.0, 3, norms=(1.0,) * 3)]
    assert_near(estimate(name, rows, width=3), [[0.5] * 3, [-0.5] * 3])


# --- slow references --------------------------------------------------------------------------
# Plain Python, straight from the definitions: a list of T advantages for each row of the step.

Slow = Callable[[list[Row]], list[list[float]]]


def peers(rows: list[Row], i: int) -> list[Row]:
    """The rows of i's group that count, i itself among them."""
    return [row for row in rows if row.counts and row.group == rows[i].group]


def has_signal(rows: list[Row], i: int) -> bool:
    return len({row.total for row in peers(rows, i)}) > 1


def slow_weighted(
    rows: list[Row], i: int, weight: Callable[[Row], float], leave_one_out: bool = False
) -> float:
    pool = [row for row in peers(rows, i) if not (leave_one_out and row is rows[i])]
    total = math.fsum(weight(row) for row in pool)
    if not has_signal(rows, i) or not total:
        return 0.0
    return rows[i].total - math.fsum(weight(row) * row.total for row in pool) / total


def slow_mean(rows: list[Row], i: int) -> float:
    return slow_weighted(rows, i, lambda row: 1)


def slow_grpo(rows: list[Row], i: int) -> float:
    rewards = [row.total for row in peers(rows, i)]
    spread = statistics.stdev(rewards) if len(rewards) > 1 else 0.0
    return slow_mean(rows, i) / (spread + 1e-6)


def slow_gpg(rows: list[Row], i: int) -> float:
    counted = [j for j, row in enumerate(rows) if row.counts]
    telling = [j for j in counted if has_signal(rows, j)]
    return slow_mean(rows, i) * len(counted) / max(len(telling), 1)


def slow_opo_batch(rows: list[Row], i: int) -> float:
    counted = [row for row in rows if row.counts]
    tokens = sum(row.length for row in counted)
    return rows[i].total - sum(row.length * row.total for row in counted) / tokens


def slow_shrinkage(rows: list[Row], i: int) -> float:
    found: dict[int, list[float]] = {}
    for row in rows:
        if row.counts and row.group != rows[i].group:
            found.setdefault(row.group, []).append(row.total)
    prompts = list(found.values())
    means = [statistics.fmean(rewards) for rewards in prompts]
    noises = [statistics.variance(r) / len(r) for r in prompts if len(r) > 1]
    others = [row.total for row in peers(rows, i) if row is not rows[i]]
    if not others:
        return rows[i].total - statistics.fmean(means) if means else 0.0
    v = statistics.fmean(noises) if noises else 0.0
    if not v:
        return rows[i].total - statistics.fmean(others)
    share = len(means) / (len(means) + 1) * v / (v + statistics.pvariance(means))
    baseline = (1 - share) * statistics.fmean(others) + share * statistics.fmean(means)
    return rows[i].total - baseline


def slow_remax(rows: list[Row], i: int) -> float:
    return rows[i].total - rows[i].greedy if math.isfinite(rows[i].greedy) else 0.0


def on_every_token(per_response: Callable[[list[Row], int], float]) -> Slow:
    def slow(rows: list[Row]) -> list[list[float]]:
        found = [per_response(rows, i) if row.counts else 0.0 for i, row in enumerate(rows)]
        return [padded([a] * row.length, WIDTH) for a, row in zip(found, rows, strict=True)]

    return slow


def slow_otb(rows: list[Row], cumulative: bool) -> list[list[float]]:
    def advantage(i: int, t: int) -> float:
        alive = [row for row in peers(rows, i) if row.length > t]
        if not has_signal(rows, i) or len(alive) < 2:
            return 0.0
        weights = [math.fsum(row.norms[: t + 1]) if cumulative else row.norms[t] for row in alive]
        returns = [math.fsum(row.token_rewards[t:]) for row in alive]
        if not any(weights):
            return 0.0
        weighted = math.fsum(w * r for w, r in zip(weights, returns, strict=True))
        return math.fsum(rows[i].token_rewards[t:]) - weighted / math.fsum(weights)

    return [
        padded([advantage(i, t) for t in range(row.length * row.counts)], WIDTH)
        for i, row in enumerate(rows)
    ]


def slow_gae(rows: list[Row]) -> list[list[float]]:
    """A discounted sum of the deltas that follow."""
    found = []
    for row in rows:
        values = [*row.values[: row.length], 0.0]
        deltas = [
            reward + GAMMA * values[t + 1] - values[t]
            for t, reward in enumerate(row.token_rewards if row.counts else [])
        ]
        sums = accumulate(reversed(deltas), lambda carried, d: d + GAMMA * LAMBDA * carried)
        found.append(padded([*sums][::-1], WIDTH))
    return found


def slow_whitened(rows: list[Row], found: list[list[float]]) -> list[list[float]]:
    lengths = [row.length * row.counts for row in rows]
    kept = [a for own, length in zip(found, lengths, strict=True) for a in own[:length]]
    if len(kept) < 2:
        return [[0.0] * WIDTH for _ in rows]
    centre, scale = statistics.fmean(kept), (statistics.variance(kept) + 1e-8) ** -0.5
    return [
        padded([(a - centre) * scale for a in own[:length]], WIDTH)
        for own, length in zip(found, lengths, strict=True)
    ]


def slow_reinforce_plus_plus(rows: list[Row]) -> list[list[float]]:
    def returns(row: Row) -> list[float]:
        rewards = row.token_rewards if row.counts else []
        return [
            math.fsum(GAMMA**n * reward for n, reward in enumerate(rewards[t:]))
            for t in range(len(rewards))
        ]

    return slow_whitened(rows, [padded(returns(row), WIDTH) for row in rows])


SLOW: dict[str, Slow] = {
    "none": on_every_token(lambda rows, i: rows[i].total),
    "mean": on_every_token(slow_mean),
    "rloo": on_every_token(lambda rows, i: slow_weighted(rows, i, lambda row: 1, True)),
    "opo": on_every_token(lambda rows, i: slow_weighted(rows, i, lambda row: row.length)),
    "opo-loo": on_every_token(lambda rows, i: slow_weighted(rows, i, lambda row: row.length, True)),
    "opo-batch": on_every_token(slow_opo_batch),
    "length-power": on_every_token(
        lambda rows, i: slow_weighted(rows, i, lambda row: row.length**EXPONENT)
    ),
    "logit-proxy": on_every_token(
        lambda rows, i: slow_weighted(rows, i, lambda row: math.fsum(row.norms[: row.length]))
    ),
    "otb": lambda rows: slow_otb(rows, True),
    "otb-token": lambda rows: slow_otb(rows, False),
    "grpo": on_every_token(slow_grpo),
    "gpg": on_every_token(slow_gpg),
    "shrinkage": on_every_token(slow_shrinkage),
    "reinforce++": slow_reinforce_plus_plus,
    "reinforce++-baseline": lambda rows: slow_whitened(rows, on_every_token(slow_mean)(rows)),
    "remax": on_every_token(slow_remax),
    "gae": slow_gae,
}

# Eighths: sums are exact, so that "equal" and "zero" mean the same to both sides.
eighths = st.integers(-40, 40).map(lambda n: n / 8)


def drawn_row(reward: float, length: int, group: int, penalties, seed: int) -> Row:
    """What is drawn per token comes from a seed, which is a good deal faster."""
    draw = random.Random(seed)
    return Row(
        reward,
        length,
        group,
        greedy=draw.choice((0.0, 0.5, 1.0, math.nan)),
        norms=tuple(draw.choices((0.0, 0.25, 1.0, 1.5), k=WIDTH)),
        values=tuple(draw.randint(-20, 20) / 8 for _ in range(WIDTH)),
        penalties=tuple(draw.choices(draw.choice(((0.0,), penalties)), k=WIDTH)),
    )


def rows_of_a_step(rewards, lengths, penalties=(-0.125, 0.0, 0.25)) -> st.SearchStrategy:
    groups, seeds = st.integers(0, 3), st.integers(0, 999)
    row = st.builds(drawn_row, rewards, lengths, groups, st.just(penalties), seeds)
    return st.lists(row, min_size=1, max_size=9)


few_rewards = st.sampled_from((0.0, 1.0))  # Groups without signal must be common.
any_step = rows_of_a_step(
    st.one_of(few_rewards, st.sampled_from((math.nan, math.inf, -math.inf)), eighths),
    st.integers(0, WIDTH),
)
clean_step = rows_of_a_step(st.one_of(few_rewards, eighths), st.integers(1, WIDTH))
terminal_step = rows_of_a_step(st.one_of(few_rewards, eighths), st.integers(1, WIDTH), (0.0,))


@every_row
@thorough
@given(rows=any_step)
def test_every_row_against_plain_python(name: str, rows: list[Row]):
    assert_near(estimate(name, rows, width=WIDTH), SLOW[name](rows), TOLERANCE.get(name, 1e-9))


@quick
@given(st.lists(st.tuples(eighths, eighths, st.booleans()), min_size=1, max_size=9))
def test_gae_skips_masked_tokens_wherever_they_are(tokens):
    """As if they had never been there."""

    def run(tokens) -> list[float]:
        if not tokens:
            return []
        rewards, values, mask = (torch.tensor([part]) for part in zip(*tokens, strict=True))
        return advantages.gae(rewards, values, mask, gamma=GAMMA, gae_lambda=LAMBDA)[0].tolist()

    kept = iter(run([token for token in tokens if token[2]]))
    assert run(tokens) == near([next(kept) if token[2] else 0.0 for token in tokens], abs=1e-6)


# --- invariants -------------------------------------------------------------------------------


@every_row
@quick
@given(rows=any_step, data=st.data())
def test_permuting_rows_permutes_advantages(name: str, rows: list[Row], data):
    order = data.draw(st.permutations(range(len(rows))))
    permuted = estimate(name, [rows[i] for i in order])
    assert_near(permuted, estimate(name, rows)[order], TOLERANCE.get(name, 1e-9))


@every_row
@quick
@given(rows=any_step, padding=st.integers(1, 4))
def test_padding_columns_change_nothing(name: str, rows: list[Row], padding: int):
    wide = estimate(name, rows, width=WIDTH + padding)
    assert wide[:, WIDTH:].eq(0).all()
    assert_near(wide[:, :WIDTH], estimate(name, rows, width=WIDTH))


@every_row
@quick
@given(rows=any_step)
def test_ranks_with_the_same_rows_are_one_rank_with_both(name: str, rows: list[Row]):
    again = [replace(row, group=row.group + 4) for row in rows]
    expected = estimate(name, [*rows, *again])[: len(rows)]
    assert_near(estimate(name, rows, all_sum=lambda x: 2 * x), expected)


@every_row
@quick
@given(rows=any_step)
def test_single_precision_does(name: str, rows: list[Row]):
    result = estimate(name, rows, dtype=torch.float32)
    assert result.dtype == torch.float32
    assert_near(result.double(), estimate(name, rows), 1e-3 if name == "grpo" else 1e-4)


WITHOUT_BASELINE = ("none", "gae")
WITH_SCALE = ("grpo", "reinforce++", "reinforce++-baseline")


def moved(row: Row, scale: float, shift: float) -> Row:
    return replace(
        row,
        reward=scale * row.reward + shift,
        greedy=scale * row.greedy + shift,
        penalties=tuple(scale * penalty for penalty in row.penalties),
    )


@pytest.mark.parametrize("name", [n for n in ADVANTAGES if n not in WITHOUT_BASELINE])
@quick
@given(rows=clean_step, shift=st.sampled_from((-1.5, 0.25, 4.0)))
def test_adding_to_all_rewards_changes_nothing(name: str, rows: list[Row], shift: float):
    result = estimate(name, [moved(row, 1, shift) for row in rows], gamma=1.0)
    assert_near(result, estimate(name, rows, gamma=1.0), TOLERANCE.get(name, 1e-9))


@pytest.mark.parametrize("name", [n for n in ADVANTAGES if n not in WITH_SCALE])
@quick
@given(rows=clean_step, scale=st.sampled_from((-2.0, 0.5, 3.0)))
def test_scaling_all_rewards_scales_advantages(name: str, rows: list[Row], scale: float):
    if name == "gae":
        rows = [replace(row, values=(0.0,) * WIDTH) for row in rows]
    result = estimate(name, [moved(row, scale, 0) for row in rows])
    assert_near(result, scale * estimate(name, rows))


@pytest.mark.parametrize("name", ["opo", "opo-loo", "length-power", "opo-batch"])
@quick
@given(rows=clean_step, factor=st.integers(2, 9))
def test_only_shares_of_the_length_matter(name: str, rows: list[Row], factor: int):
    longer = [replace(row, reward=row.total, length=factor * row.length) for row in rows]
    longer = [replace(row, penalties=()) for row in longer]
    assert per_row(name, longer) == near(per_row(name, rows))


@every_row
def test_lengths_matter_as_declared(name: str):
    """With a reward on the last token, and where `length-power` has a power to apply."""
    row = ADVANTAGES[name]
    lengths = torch.tensor([1, 2, 3, 1, 2, 3])

    def run(lengths: torch.Tensor) -> torch.Tensor:
        pairs = zip((1, 0, 2, 0, 1, 1), lengths.tolist(), strict=True)
        rows = [Row(reward, length, i // 3) for i, (reward, length) in enumerate(pairs)]
        return estimate(name, rows, gamma=1.0, gae_lambda=1.0).sum(-1) / lengths

    weights_by_length = row.length_exponent is not None or name == "length-power"
    if name == "reinforce++-baseline":  # Its baseline does not; the whitening after it does.
        weights_by_length = True
    assert run(lengths).allclose(run(4 - lengths)) != weights_by_length


# --- identities -------------------------------------------------------------------------------


@quick
@given(any_step, st.integers(1, WIDTH), st.floats(-4, 4))
def test_equal_lengths_make_length_weights_plain(rows: list[Row], length: int, exponent: float):
    rows = [replace(row, length=length if row.length else 0, penalties=()) for row in rows]
    mean = estimate("mean", rows)
    assert_near(estimate("opo", rows), mean)
    assert_near(estimate("length-power", rows, length_exponent=exponent), mean)
    assert_near(estimate("opo-loo", rows), estimate("rloo", rows))


@quick
@given(any_step)
def test_length_power_contains_mean_and_opo(rows: list[Row]):
    assert_near(estimate("length-power", rows, length_exponent=0.0), estimate("mean", rows))
    assert_near(estimate("length-power", rows, length_exponent=1.0), estimate("opo", rows))


@quick
@given(any_step)
def test_opo_advantages_add_to_zero_over_tokens(rows: list[Row]):
    _, groups = lengths_and_groups(rows)
    over_tokens = estimate("opo", rows).sum(-1)
    assert_near(group_sum(over_tokens, groups), torch.zeros(len(rows)))
    for name in ("opo-batch", "reinforce++", "reinforce++-baseline"):
        assert estimate(name, rows).sum().item() == near(0, abs=1e-6)


def lengths_and_groups(rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([float(row.length) for row in rows], dtype=torch.float64)
    return lengths, torch.tensor([row.group for row in rows])


@quick
@given(clean_step)
def test_leave_one_out_rescales(rows: list[Row]):
    """A_loo = A L/(L - l), L the group's tokens; likewise with responses for tokens."""
    lengths, groups = lengths_and_groups(rows)
    for name, own in (("opo", lengths), ("mean", torch.ones_like(lengths))):
        total = group_sum(own, groups)
        others = (total - own).clamp(min=1)  # 0 only in a group of one, where A is 0.
        loo = estimate("opo-loo" if name == "opo" else "rloo", rows)
        assert_near(loo, estimate(name, rows) * (total / others)[:, None])


@quick
@given(any_step, st.sampled_from((0.25, 1.0, 2.0)))
def test_equal_norms_make_the_logit_proxy_opo(rows: list[Row], norm: float):
    rows = [replace(row, norms=(norm,) * row.length) for row in rows]
    assert_near(estimate("logit-proxy", rows), estimate("opo", rows))


@quick
@given(terminal_step, st.integers(1, WIDTH), st.sampled_from((0.25, 1.0)))
def test_equal_norms_and_lengths_make_token_baselines_the_mean(
    rows: list[Row], length: int, norm: float
):
    rows = [replace(row, length=length, norms=(norm,) * length) for row in rows]
    for name in ("otb", "otb-token"):
        assert_near(estimate(name, rows), estimate("mean", rows))


@quick
@given(terminal_step)
def test_reinforce_plus_plus_is_opo_over_the_step_on_another_scale(rows: list[Row]):
    rewards = [row.total for row in rows for _ in range(row.length)]
    spread = statistics.variance(rewards) + 1e-8 if len(rewards) > 1 else 1.0
    expected = estimate("opo-batch", rows) / spread**0.5
    assert_near(estimate("reinforce++", rows, gamma=1.0), expected)


@quick
@given(terminal_step)
def test_shrinkage_alone_is_rloo(rows: list[Row]):
    """Of one prompt, and where other prompts have no noise to learn a share from."""
    rows = [replace(row, group=0) for row in rows]
    certain = [Row(0.5, 2, group) for group in (1, 1, 2, 2)]
    assert_near(estimate("shrinkage", rows), estimate("rloo", rows))
    if len(rows) > 1:
        result = estimate("shrinkage", [*rows, *certain])[: len(rows)]
        leave_one_out = [(len(rows) * r.total - sum(x.total for x in rows)) for r in rows]
        expected = [a / (len(rows) - 1) for a in leave_one_out]
        assert result[:, 0].tolist() == near(expected)


def test_shrinkage_does_not_see_the_response_itself():
    """Its own reward moves neither its baseline nor the share."""
    rows = [Row(r, group=i // 2) for i, r in enumerate((1.0, 0.0, 1.0, 1.0, 0.0, 0.5))]
    other = [replace(rows[0], reward=-3.0), *rows[1:]]
    baselines = [r[0].reward - per_row("shrinkage", r)[0] for r in (rows, other)]
    assert baselines[0] == near(baselines[1])


@quick
@given(terminal_step)
def test_gae_without_values_is_the_reward_to_go(rows: list[Row]):
    rows = [replace(row, values=(0.0,) * WIDTH) for row in rows]
    result = estimate("gae", rows, gamma=1.0, gae_lambda=1.0)
    assert_near(result, estimate("none", rows))


@quick
@given(terminal_step)
def test_gae_less_values_is_the_return(rows: list[Row]):
    """A + V, the critic's target, does not depend on V where lambda is 1."""
    given = signals(rows, gamma=1.0, gae_lambda=1.0)
    target = (ADVANTAGES["gae"].estimate(given) + given.values) * given.mask
    assert_near(target, estimate("none", rows))


# --- degenerate cases -------------------------------------------------------------------------

FULL = [Row(1.0, 3), Row(0.0, 5), Row(0.5, 1), Row(0.0, 2, 1), Row(0.0, 4, 1), Row(1.0, 6, 1)]
GROUP_ALONE = [
    name
    for name, row in ADVANTAGES.items()
    if row.needs_group and name not in ("shrinkage", "reinforce++-baseline")
]


@pytest.mark.parametrize("name", GROUP_ALONE)
@pytest.mark.parametrize("reward", [1.0, 0.1, -7.3])
@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_a_group_of_equal_rewards_has_exactly_no_advantage(name: str, reward: float, size: int):
    """A group of one is such a group. 0.1 is not exact: its mean may differ from it."""
    rows = [*FULL, *(Row(reward, 1 + i % WIDTH, 2) for i in range(size))]
    for dtype in (torch.float32, torch.float64):
        result = estimate(name, rows, dtype=dtype)
        assert result[: len(FULL)].ne(0).any()
        assert result[len(FULL) :].eq(0).all()


@every_row
@pytest.mark.parametrize("reward", [0.0, 0.1, 1.0])
def test_a_step_of_equal_rewards(name: str, reward: float):
    rows = [replace(row, reward=reward) for row in FULL]
    result = estimate(name, rows, gamma=1.0, gae_lambda=1.0, dtype=torch.float32)
    mask = signals(rows).mask
    if name in WITHOUT_BASELINE:  # The critic's values are 0 here.
        assert_near(result, reward * mask, 1e-6)
    elif name == "remax":
        assert_near(result, (reward - 0.5) * mask, 1e-6)
    else:
        assert_near(result, torch.zeros(mask.shape), 1e-7)


@pytest.mark.parametrize("name", ["opo-batch", "reinforce++", "reinforce++-baseline", "shrinkage"])
def test_estimators_over_the_step_keep_an_advantage_in_groups_of_equal_rewards(name: str):
    """Even in a group of one: what they compare with does not know the prompt alone."""
    rows = [*FULL, Row(1.0, 3, 2), Row(1.0, 4, 2), Row(1.0, 2, 3)]
    assert estimate(name, rows)[-3:, 0].ne(0).all()


def test_shrinkage_gives_a_group_of_one_the_mean_of_the_other_prompts():
    rows = [Row(1.0), Row(1.0, group=1), Row(0.0, group=1), Row(0.25, group=2)]
    assert per_row("shrinkage", rows)[0] == near(1 - (0.5 + 0.25) / 2)


@every_row
def test_one_response(name: str):
    result = estimate(name, [Row(1.0, 2, values=(0.25, 0.25))], gamma=1.0, gae_lambda=1.0)
    expected = {"none": 1.0, "remax": 0.5, "gae": 0.75}.get(name, 0.0)
    assert_near(result, [padded([expected] * 2, WIDTH)])


NAN, INFINITE, EMPTY = Row(math.nan, 3), Row(-math.inf, 3), Row(1.0, 0)


@every_row
@pytest.mark.parametrize("dropped", [NAN, INFINITE, EMPTY], ids=["nan", "inf", "no-tokens"])
def test_a_row_that_does_not_count_changes_no_other(name: str, dropped: Row):
    dropped = replace(dropped, norms=(9.0,) * WIDTH, values=(9.0,) * WIDTH)
    result = estimate(name, [dropped, *FULL])
    assert result[0].eq(0).all()
    assert_near(result[1:], estimate(name, FULL))


@every_row
@pytest.mark.parametrize("rows", [[EMPTY, NAN], [INFINITE], [EMPTY, EMPTY]])
def test_a_step_without_a_row_that_counts_is_zero(name: str, rows: list[Row]):
    assert estimate(name, rows).eq(0).all()


@every_row
def test_inputs_stay_as_they_are(name: str):
    given = signals([*FULL, NAN, EMPTY])
    again = signals([*FULL, NAN, EMPTY])
    ADVANTAGES[name].estimate(given)
    for field in ("rewards", "lengths", "mask", "token_rewards", "values", "logit_norms"):
        after, before = getattr(given, field), getattr(again, field)
        torch.testing.assert_close(after, before, equal_nan=True, atol=0, rtol=0)


def test_a_greedy_response_without_a_reward_drops_the_row():
    rows = [replace(FULL[0], greedy=math.nan), *FULL[1:]]
    result, whole = estimate("remax", rows), estimate("remax", FULL)
    assert result[0].eq(0).all()
    assert result[1:].equal(whole[1:])


@pytest.mark.parametrize("name", ["logit-proxy", "otb", "otb-token"])
def test_a_group_of_certain_tokens_has_no_advantage(name: str):
    rows = [replace(row, norms=(float(row.group),) * row.length) for row in FULL]
    result = estimate(name, rows)
    assert result[:3].eq(0).all()
    assert result[3:].ne(0).any()


def test_a_certain_response_has_no_say_in_the_logit_proxy():
    rows = [Row(1.0, 3, norms=(0.0,) * 3), Row(0.0, 3), Row(0.5, 3)]
    assert per_row("logit-proxy", rows) == near([0.75, -0.25, 0.25])


# --- the table --------------------------------------------------------------------------------


@every_row
def test_every_row_of_the_table(name: str):
    row, given = ADVANTAGES[name], signals([*FULL, EMPTY])
    result = row.estimate(given)
    assert result.shape == given.mask.shape
    assert result.isfinite().all()
    assert result[~given.mask].eq(0).all()
    assert result[given.mask].ne(0).any()
    assert row.formula
    assert row.source


@every_row
def test_every_row_takes_only_what_it_declares(name: str):
    row, given = ADVANTAGES[name], signals(FULL)
    bare = replace(
        given,
        values=given.values if row.needs_critic else None,
        logit_norms=given.logit_norms if row.needs_logit_norms else None,
        greedy_rewards=given.greedy_rewards if row.needs_greedy else None,
    )
    assert row.estimate(bare).equal(row.estimate(given))


def test_importing_the_tables_imports_no_torch():
    script = (
        "import sys, opo_cli.rl.stats, opo_cli.rl.advantages, opo_cli.rl.objectives; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
