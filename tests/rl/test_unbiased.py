"""Expected gradients, exactly: sums over every group of responses of a tabular policy.

Shape legend: B rows, S sequences of the policy.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch

from opo_cli.rl import advantages
from opo_cli.rl.advantages import TOKEN_LINEAR
from opo_cli.rl.objectives import LOSSES, REDUCTIONS, Clip, StepCounts, token_weights

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
        self.mask = torch.arange(MAX_TOKENS) < self.lengths[:, None]
        table = self.logits.log_softmax(-1)
        squares = table.exp().square().sum(-1)
        tokens = [[(PREFIXES.index(s[:t]), s[t]) for t in range(len(s))] for s in SEQUENCES]
        self.token_logprobs = torch.stack(  # (S, T), zero beyond the sequence
            [
                torch.stack([*(table[at] for at in own), *table.new_zeros(MAX_TOKENS - len(own))])
                for own in tokens
            ]
        )
        self.norms = torch.zeros(self.mask.shape, dtype=torch.float64)
        for i, own in enumerate(tokens):
            for t, at in enumerate(own):
                self.norms[i, t] = (1 - 2 * table[at].exp() + squares[at[0]]).detach()
        self.logprobs = self.token_logprobs.sum(-1)
        self.scores = torch.stack([self.gradient(x).flatten() for x in self.logprobs])  # (S, P)

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

    def estimated(self, name: str) -> torch.Tensor:
        """(B,) advantages of all groups."""
        chosen, groups, _ = self.all_groups()
        return ESTIMATES[name](self, chosen, groups)

    def expected_gradient(self, name: str) -> torch.Tensor:
        """E of the mean over the group of A times the score."""
        chosen, _, probability = self.all_groups()
        weights = (probability * self.estimated(name) / GROUP_SIZE).detach()
        return self.gradient((weights * self.logprobs[chosen]).sum())


GREEDY = 0.37


def by_length(estimate):
    return lambda policy, c, groups: estimate(policy.rewards[c], policy.lengths[c], groups)


ESTIMATES = {
    "none": lambda p, c, groups: advantages.reinforce(p.rewards[c], p.lengths[c]),
    "mean": by_length(advantages.mean),
    "rloo": by_length(advantages.rloo),
    "opo": by_length(advantages.opo),
    "opo-loo": by_length(advantages.opo_leave_one_out),
    "length-power": by_length(lambda r, n, groups: advantages.length_power(r, n, groups, 1.6)),
    "logit-proxy": lambda p, c, groups: advantages.logit_proxy(
        p.rewards[c], p.lengths[c], groups, p.norms[c]
    ),
    "remax": lambda p, c, groups: advantages.remax(
        p.rewards[c], p.lengths[c], torch.full(c.shape, GREEDY, dtype=torch.float64)
    ),
}


@pytest.fixture(scope="module")
def policy() -> Tabular:
    return Tabular()


def test_the_tabular_policy_is_a_distribution(policy: Tabular):
    assert len(SEQUENCES) == 15
    assert policy.logprobs.exp().sum().item() == pytest.approx(1)
    assert policy.gradient(policy.logprobs.exp().sum()).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("name", "factor"),
    [("none", 1), ("rloo", 1), ("opo-loo", 1), ("remax", 1), ("mean", 1 - 1 / GROUP_SIZE)],
)
def test_expected_gradient(policy: Tabular, name: str, factor: float):
    torch.testing.assert_close(policy.expected_gradient(name), factor * policy.objective_gradient())


@pytest.mark.parametrize("name", ["mean", "opo", "length-power", "logit-proxy"])
def test_the_bias_of_a_baseline_with_itself_in_it(policy: Tabular, name: str):
    """It is -1/G of the gradient of the expected baseline, whatever the weights."""
    chosen, _, probability = policy.all_groups()
    baseline = policy.rewards[chosen] - policy.estimated(name)
    # Of three equal responses A is 0: their reward is the baseline, as of any weighted mean.
    expected_baseline = (probability * baseline.detach()).sum() / GROUP_SIZE
    bias = policy.expected_gradient(name) - policy.objective_gradient()
    assert bias.abs().max() > 1e-3
    torch.testing.assert_close(bias, -policy.gradient(expected_baseline) / GROUP_SIZE)


def test_the_logit_proxy_is_the_squared_norm_of_a_tabular_score(policy: Tabular):
    torch.testing.assert_close(policy.norms.sum(-1), policy.scores.square().sum(-1))


def test_baselines_weighted_by_squared_norms_minimise_the_variance(policy: Tabular):
    """V(b) = V(b*) + (b - b*)^2 E ||score||^2, and E of the gradient is the same for any b."""
    chance, norms = policy.logprobs.exp().detach(), policy.norms.sum(-1)

    def second_moment(b: float) -> float:
        return (chance * norms * (policy.rewards - b).square()).sum().item()

    best = ((chance * norms * policy.rewards).sum() / (chance * norms).sum()).item()
    for b in (0.0, best - 0.1, GREEDY, 1.0):
        expected = second_moment(best) + (b - best) ** 2 * (chance * norms).sum().item()
        assert second_moment(b) == pytest.approx(expected)


def test_shrinkage_is_unbiased():
    """Three prompts of two responses each, over three answers: all 729 steps."""
    answers = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    logits = torch.tensor([0.3, -0.2, 0.6], dtype=torch.float64, requires_grad=True)
    logprobs, groups = logits.log_softmax(-1), torch.tensor([0, 0, 1, 1, 2, 2])
    lengths = torch.ones(6, dtype=torch.int64)
    loss = 0.0
    for chosen in torch.cartesian_prod(*[torch.arange(3)] * 6):
        result = advantages.shrinkage(answers[chosen], lengths, groups)
        chance = logprobs[chosen].sum().exp().detach()
        loss = loss + chance * (result * logprobs[chosen]).mean()
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (expected,) = torch.autograd.grad((logprobs.exp() * answers).sum(), logits)
    torch.testing.assert_close(gradient, expected)


# --- reductions -------------------------------------------------------------------------------

COUNTS = StepCounts(num_tokens=2, num_rows=1, max_length=MAX_TOKENS)


def on_policy_gradient(policy: Tabular, loss: str, reduction: str, baseline: float):
    """E of the loss's gradient at ratio 1 with A = r - baseline, each step one response."""
    row, logprobs = LOSSES[loss], policy.token_logprobs
    ratio = row.ratio(logprobs, logprobs.detach(), policy.mask)
    per_response = (policy.rewards - baseline)[:, None].expand(policy.mask.shape)
    losses = row.per_token(logprobs, ratio, per_response, Clip())
    weights = token_weights(reduction, policy.mask, policy.lengths, COUNTS)
    return policy.gradient((policy.logprobs.exp().detach()[:, None] * losses * weights).sum())


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_baseline_is_free_only_under_sums_over_tokens(policy: Tabular, reduction: str):
    """A mean over each response's tokens divides scores by lengths, and the expectation of that
    is not 0."""
    without, with_one = (
        on_policy_gradient(policy, "policy-gradient", reduction, b) for b in (0.0, 0.5)
    )
    assert without.allclose(with_one) == (reduction in TOKEN_LINEAR)


@pytest.mark.parametrize(
    ("reduction", "factor"),
    [("seq-mean-token-sum", 1), ("constant", 1 / MAX_TOKENS), ("token-mean", 1 / 2)],
)
def test_sums_over_tokens_follow_the_objective(policy: Tabular, reduction: str, factor: float):
    gradient = on_policy_gradient(policy, "policy-gradient", reduction, baseline=0.2)
    torch.testing.assert_close(gradient, -factor * policy.objective_gradient())


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_on_policy_all_losses_are_one(policy: Tabular, loss: str, reduction: str):
    expected = on_policy_gradient(policy, "policy-gradient", reduction, 0.3)
    torch.testing.assert_close(on_policy_gradient(policy, loss, reduction, 0.3), expected)
