"""Estimators against hand-computed constants, slow references, and exact enumeration.

Shape legend: B rows, T tokens, S sequences of the tabular policy.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opo_cli.rl import advantages
from opo_cli.rl.advantages import ADVANTAGES, Signals, gae
from opo_cli.rl.objectives import REDUCTIONS
from opo_cli.rl.stats import group_sum

quick = settings(deadline=None, derandomize=True)
ESTIMATORS = {
    "mean": advantages.mean,
    "rloo": advantages.rloo,
    "opo": advantages.opo,
    "opo-loo": advantages.opo_leave_one_out,
    "grpo": advantages.grpo,
}
TOLERANCE = dict.fromkeys(ESTIMATORS, 1e-9) | {"grpo": 1e-6}  # It divides by a small deviation.
LINEAR = [name for name in ESTIMATORS if name != "grpo"]
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)
every_linear = pytest.mark.parametrize("name", LINEAR)


def tensors(rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rewards, lengths, groups = zip(*rows, strict=True)
    return (
        torch.tensor(rewards, dtype=torch.float64),
        torch.tensor(lengths),
        torch.tensor(groups),
    )


def run(name: str, rows) -> list[float]:
    return ESTIMATORS[name](*tensors(rows)).tolist()


# --- constants --------------------------------------------------------------------------------

REWARDS, LENGTHS = (1.0, 0.0, 1.0, 0.0), (100, 300, 200, 400)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", (0.5, -0.5, 0.5, -0.5)),
        ("rloo", (2 / 3, -2 / 3, 2 / 3, -2 / 3)),
        ("opo", (0.7, -0.3, 0.7, -0.3)),
        ("opo-loo", (7 / 9, -3 / 7, 7 / 8, -1 / 2)),
        ("grpo", (0.866024, -0.866024, 0.866024, -0.866024)),
    ],
)
def test_constants(name: str, expected):
    rows = zip(REWARDS, LENGTHS, (0, 0, 0, 0), strict=True)
    assert run(name, rows) == pytest.approx(expected, abs=1e-6)


def test_reinforce_is_the_reward():
    result = advantages.reinforce(torch.tensor([1.0, -2, math.nan, 5]), torch.tensor([3, 1, 2, 0]))
    assert result.tolist() == [1, -2, 0, 0]


@pytest.mark.parametrize(
    ("gae_lambda", "expected"),
    [(1.0, (0.5, 0.4, 0.2)), (0.0, (0.1, 0.2, 0.2)), (0.95, (0.4705, 0.39, 0.2))],
)
def test_gae_constants(gae_lambda: float, expected):
    rewards, values = torch.tensor([[0.0, 0, 1]]), torch.tensor([[0.5, 0.6, 0.8]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    result = gae(rewards, values, mask, gamma=1.0, gae_lambda=gae_lambda)
    assert result[0].tolist() == pytest.approx(expected)


# --- slow references --------------------------------------------------------------------------

row = st.tuples(
    st.one_of(st.sampled_from((0.0, 1.0, math.nan, math.inf)), st.floats(-5, 5, width=32)),
    st.integers(0, 500),
    st.integers(0, 3),
)
any_rows = st.lists(row, min_size=1, max_size=12)
clean_row = st.tuples(st.floats(-5, 5, width=32), st.integers(1, 500), st.integers(0, 3))
clean_rows = st.lists(clean_row, min_size=1, max_size=12)


def slow_advantage(name: str, rows, i: int) -> float:
    def counts(j: int) -> bool:
        return math.isfinite(rows[j][0]) and rows[j][1] > 0

    reward, _, own = rows[i]
    members = [j for j in range(len(rows)) if rows[j][2] == own and counts(j)]
    if not counts(i) or len(members) == 1:
        return 0.0
    if name == "grpo":
        rewards = [rows[j][0] for j in members]
        return (reward - statistics.fmean(rewards)) / (statistics.stdev(rewards) + 1e-6)
    baseline_of = [j for j in members if j != i] if name in ("rloo", "opo-loo") else members
    weights = [rows[j][1] if name in ("opo", "opo-loo") else 1 for j in baseline_of]
    weighted = sum(w * rows[j][0] for w, j in zip(weights, baseline_of, strict=True))
    return reward - weighted / sum(weights)


@every_estimator
@quick
@given(rows=any_rows)
def test_group_estimators_against_plain_python(name: str, rows):
    expected = [slow_advantage(name, rows, i) for i in range(len(rows))]
    assert run(name, rows) == pytest.approx(expected, abs=TOLERANCE[name])


def slow_gae(rewards, values, mask, gamma: float, gae_lambda: float) -> list[float]:
    """The definition: a discounted sum of the deltas of the unmasked tokens."""
    kept = [t for t, is_kept in enumerate(mask) if is_kept]
    following = [*(values[t] for t in kept), 0.0][1:]
    deltas = [rewards[t] + gamma * v - values[t] for t, v in zip(kept, following, strict=True)]
    result = [0.0] * len(mask)
    for start, t in enumerate(kept):
        result[t] = sum((gamma * gae_lambda) ** n * d for n, d in enumerate(deltas[start:]))
    return result


token = st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.booleans())


@quick
@given(tokens=st.lists(token, min_size=1, max_size=10), gamma=st.floats(0, 1), lam=st.floats(0, 1))
def test_gae_against_plain_python(tokens, gamma: float, lam: float):
    rewards, values, mask = zip(*tokens, strict=True)
    result = gae(
        torch.tensor([rewards], dtype=torch.float64),
        torch.tensor([values], dtype=torch.float64),
        torch.tensor([mask]),
        gamma=gamma,
        gae_lambda=lam,
    )
    expected = slow_gae(rewards, values, mask, gamma, lam)
    assert result[0].tolist() == pytest.approx(expected, abs=1e-9)


# --- invariants -------------------------------------------------------------------------------


@quick
@given(clean_rows, st.integers(1, 100))
def test_equal_lengths_make_opo_the_mean(rows, length: int):
    rows = [(reward, length, group) for reward, _, group in rows]
    assert run("opo", rows) == pytest.approx(run("mean", rows), abs=1e-9)
    assert run("opo-loo", rows) == pytest.approx(run("rloo", rows), abs=1e-9)


@every_estimator
@quick
@given(rows=any_rows, factor=st.integers(2, 9))
def test_scaling_lengths_changes_nothing(name: str, rows, factor: int):
    scaled = [(reward, factor * length, group) for reward, length, group in rows]
    assert run(name, scaled) == pytest.approx(run(name, rows), abs=1e-9)


@every_linear
@quick
@given(rows=clean_rows, scale=st.floats(-3, 3), shift=st.floats(-3, 3))
def test_affine_rewards_scale_advantages(name: str, rows, scale: float, shift: float):
    moved = [(scale * reward + shift, length, group) for reward, length, group in rows]
    expected = [scale * a for a in run(name, rows)]
    assert run(name, moved) == pytest.approx(expected, abs=1e-9)


@every_linear
@quick
@given(rows=clean_rows, reward=st.floats(-5, 5))
def test_equal_rewards_have_no_advantage(name: str, rows, reward: float):
    rows = [(reward, length, group) for _, length, group in rows]
    assert run(name, rows) == pytest.approx([0.0] * len(rows), abs=1e-9)


@pytest.mark.parametrize("reward", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("size", [2, 7, 16])
def test_grpo_of_equal_rewards_is_zero(reward: float, size: int):
    assert (
        advantages.grpo(
            torch.full((size,), reward),
            torch.arange(size) + 1,
            torch.zeros(size, dtype=torch.int64),
        )
        .eq(0)
        .all()
    )


def test_grpo_of_equal_inexact_rewards_is_zero():
    groups = torch.zeros(16, dtype=torch.int64)
    result = advantages.grpo(torch.full((16,), 100.1), torch.ones(16), groups)
    assert not result.any()


@every_estimator
@quick
@given(rows=any_rows, data=st.data())
def test_permuting_rows_permutes_advantages(name: str, rows, data):
    order = data.draw(st.permutations(range(len(rows))))
    permuted = run(name, [rows[i] for i in order])
    before = run(name, rows)
    assert permuted == pytest.approx([before[i] for i in order], abs=TOLERANCE[name])


@quick
@given(any_rows)
def test_opo_advantages_add_to_zero_over_tokens(rows):
    _, lengths, groups = tensors(rows)
    result = ESTIMATORS["opo"](*tensors(rows))
    assert group_sum(lengths * result, groups).tolist() == pytest.approx([0] * len(rows), abs=1e-6)


@quick
@given(clean_rows)
def test_leave_one_out_rescales_opo(rows):
    """A_loo = A L/(L - l), L the group's tokens."""
    _, lengths, groups = tensors(rows)
    total = group_sum(lengths.double(), groups)
    others = (total - lengths).clamp(min=1)  # 0 only in a group of one, where A is 0.
    expected = ESTIMATORS["opo"](*tensors(rows)) * total / others
    assert run("opo-loo", rows) == pytest.approx(expected.tolist(), abs=1e-9)


@quick
@given(tokens=st.lists(token, min_size=1, max_size=8), padding=st.integers(1, 4))
def test_padding_columns_change_nothing_in_gae(tokens, padding: int):
    rewards, values, mask = (torch.tensor([part]) for part in zip(*tokens, strict=True))
    junk = torch.full((1, padding), 9.0)
    off = torch.zeros(1, padding, dtype=torch.bool)
    wide = (torch.cat(pair, 1) for pair in ((rewards, junk), (values, junk), (mask, off)))
    result = gae(*wide, gamma=0.9, gae_lambda=0.8)
    assert result[:, -padding:].eq(0).all()
    assert result[:, :-padding].equal(gae(rewards, values, mask, gamma=0.9, gae_lambda=0.8))


# --- degenerate groups ------------------------------------------------------------------------


@every_estimator
def test_group_of_one_has_no_advantage(name: str):
    assert run(name, [(0.1, 3, 0), (1.0, 5, 1), (0.0, 5, 1)])[0] == 0


@every_estimator
@pytest.mark.parametrize(
    "dropped", [(math.nan, 50, 0), (math.inf, 50, 0), (1.0, 0, 0)], ids=["nan", "inf", "no-tokens"]
)
def test_a_row_that_does_not_count_changes_no_other(name: str, dropped):
    rows = [(1.0, 10, 0), (0.0, 30, 0), (0.5, 20, 0)]
    assert run(name, [dropped, *rows]) == [0.0, *run(name, rows)]


@every_estimator
def test_a_group_without_valid_rows_is_zero(name: str):
    assert run(name, [(1.0, 0, 0), (math.nan, 5, 0)]) == [0, 0]


@every_estimator
def test_inputs_stay_as_they_are(name: str):
    given_tensors = tensors([(1.0, 10, 0), (math.nan, 30, 0), (0.5, 0, 1)])
    copies = [x.clone() for x in given_tensors]
    ESTIMATORS[name](*given_tensors)
    for x, copy in zip(given_tensors, copies, strict=True):
        torch.testing.assert_close(x, copy, equal_nan=True)


# --- unbiasedness, exactly --------------------------------------------------------------------

EOS, MAX_TOKENS, GROUP_SIZE = 2, 3, 3
SEQUENCES = [
    s
    for n in range(1, MAX_TOKENS + 1)
    for s in product((0, 1, EOS), repeat=n)
    if EOS not in s[:-1] and (s[-1] == EOS or n == MAX_TOKENS)
]
PREFIXES = list(dict.fromkeys(s[:t] for s in SEQUENCES for t in range(len(s))))


class Tabular:
    """A softmax policy with free logits per prefix; all sums over its 15 sequences are exact."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        size = (len(PREFIXES), 3)
        self.logits = torch.randn(size, generator=generator, dtype=torch.float64)
        self.logits.requires_grad_()
        self.rewards = torch.rand(len(SEQUENCES), generator=generator, dtype=torch.float64)
        self.lengths = torch.tensor([float(len(s)) for s in SEQUENCES], dtype=torch.float64)
        table = self.logits.log_softmax(-1)
        self.logprobs = torch.stack(
            [sum(table[PREFIXES.index(s[:t]), s[t]] for t in range(len(s))) for s in SEQUENCES]
        )

    def gradient(self, value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, self.logits, retain_graph=True)[0]

    def objective_gradient(self) -> torch.Tensor:
        return self.gradient((self.logprobs.exp() * self.rewards).sum())

    def all_groups(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Every group of three: (B,) sequence, (B,) group, (B,) the group's probability."""
        chosen = torch.cartesian_prod(*[torch.arange(len(SEQUENCES))] * GROUP_SIZE)
        groups = torch.arange(len(chosen)).repeat_interleave(GROUP_SIZE)
        probability = self.logprobs[chosen].sum(1).exp()
        return chosen.flatten(), groups, probability[groups]

    def expected_gradient(self, estimate) -> torch.Tensor:
        """E of the mean over the group of A times the score."""
        chosen, groups, probability = self.all_groups()
        result = estimate(self.rewards[chosen], self.lengths[chosen], groups)
        weights = (probability * result / GROUP_SIZE).detach()
        return self.gradient((weights * self.logprobs[chosen]).sum())


@pytest.fixture(scope="module")
def tabular() -> Tabular:
    return Tabular()


def test_tabular_policy_is_a_distribution(tabular: Tabular):
    assert len(SEQUENCES) == 15
    assert tabular.logprobs.exp().sum().item() == pytest.approx(1)
    assert tabular.gradient(tabular.logprobs.exp().sum()).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("estimate", "factor"),
    [
        (lambda r, l, g: advantages.reinforce(r, l), 1),  # noqa: E741
        (advantages.rloo, 1),
        (advantages.opo_leave_one_out, 1),
        (advantages.mean, 1 - 1 / GROUP_SIZE),
    ],
    ids=["none", "rloo", "opo-loo", "mean"],
)
def test_expected_gradient(tabular: Tabular, estimate, factor: float):
    torch.testing.assert_close(
        tabular.expected_gradient(estimate), factor * tabular.objective_gradient()
    )


def test_opo_bias_is_the_gradient_of_its_expected_baseline(tabular: Tabular):
    chosen, groups, probability = tabular.all_groups()
    rewards, lengths = tabular.rewards[chosen], tabular.lengths[chosen]
    baseline = rewards - advantages.opo(rewards, lengths, groups)
    expected_baseline = (probability * baseline).sum() / GROUP_SIZE
    bias = tabular.expected_gradient(advantages.opo) - tabular.objective_gradient()
    assert bias.abs().max() > 1e-3
    torch.testing.assert_close(bias, -tabular.gradient(expected_baseline) / GROUP_SIZE)


# --- every row of the table -------------------------------------------------------------------


def some_signals() -> Signals:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([4, 2, 7, 1, 3, 0])
    mask = torch.arange(7) < lengths[:, None]
    rewards = torch.tensor([1.0, 0, 0, 1, 1, 1])
    last = torch.arange(7) == lengths[:, None] - 1
    return Signals(
        rewards=rewards,
        lengths=lengths,
        groups=torch.tensor([0, 0, 0, 1, 1, 1]),
        mask=mask,
        token_rewards=rewards[:, None] * last,
        values=torch.rand(6, 7, generator=generator),
        gamma=1.0,
        gae_lambda=0.95,
    )


@pytest.mark.parametrize("name", ADVANTAGES)
def test_every_row_of_the_table(name: str):
    signals = some_signals()
    result = ADVANTAGES[name].estimate(signals)
    assert result.shape == signals.mask.shape
    assert result.isfinite().all()
    assert result[~signals.mask].eq(0).all()
    assert result[signals.mask].ne(0).any()
    assert set(ADVANTAGES[name].reductions or ()) <= set(REDUCTIONS)


@pytest.mark.parametrize("name", [n for n, row in ADVANTAGES.items() if row.needs_group])
def test_every_group_row_ignores_equal_rewards(name: str):
    signals = some_signals()
    result = ADVANTAGES[name].estimate(signals)
    assert result[3:].eq(0).all()


def test_importing_the_tables_imports_no_torch():
    script = (
        "import sys, opo_cli.rl.stats, opo_cli.rl.advantages, opo_cli.rl.objectives; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
