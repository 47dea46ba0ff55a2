"""The algorithms, as rows of names and numbers: what differs between them stands in one place, and
an ablation is `--set algorithm.KEY=VALUE`. A key that a row leaves out has the default of
`config.Algorithm`. Learning rates belong to a model and a task, so presets set them; group and
batch sizes likewise, so that a comparison is one of like with like.

"verl" stands for its own example scripts and defaults, read in 2026.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmRow:
    description: str
    source: str
    """The method, then where each number of the row comes from."""
    settings: dict[str, str | int | float | bool] = field(default_factory=dict)


ON_POLICY: dict[str, str | int | float | bool] = {
    "loss": "policy-gradient",
    "reduction": "token-mean",
    "minibatches_per_step": 1,
}
"""One optimizer step per rollout batch and nothing beside the surrogate."""


ALGORITHMS: dict[str, AlgorithmRow] = {
    "opo": AlgorithmRow(
        description="exact on-policy, length-weighted optimal baseline, nothing else",
        source="arXiv 2505.23585; token mean: the reduction of the code it was built on",
        settings={"advantage": "opo", **ON_POLICY},
    ),
    "opo-loo": AlgorithmRow(
        description="OPO with each response left out of its own baseline: unbiased",
        source="leave-one-out form of arXiv 2505.23585; numbers as opo",
        settings={"advantage": "opo-loo", **ON_POLICY},
    ),
    "grpo": AlgorithmRow(
        description="std-normalised group advantage, clipped ratio, KL in the loss",
        source="arXiv 2402.03300, reduction and k3 as there; clip 0.2, KL 0.001, 4 updates: verl",
        settings={
            "advantage": "grpo",
            "loss": "ppo-clip",
            "reduction": "seq-mean-token-mean",
            "minibatches_per_step": 4,
            "clip_low": 0.2,
            "clip_high": 0.2,
            "kl_in": "loss",
            "kl_estimator": "k3",
            "kl_coefficient": 0.001,
        },
    ),
    "grpo-on-policy": AlgorithmRow(
        description="GRPO's advantage in OPO's setting: exact on-policy, no KL",
        source="the on-policy control of arXiv 2505.23585; numbers as opo",
        settings={"advantage": "grpo", **ON_POLICY},
    ),
    "dr-grpo": AlgorithmRow(
        description="GRPO without std and with a constant denominator",
        source="arXiv 2503.20783; 8 updates (1024/128), clip 0.2, no KL: its code and table 6",
        settings={
            "advantage": "mean",
            "loss": "ppo-clip",
            "reduction": "constant",
            "minibatches_per_step": 8,
            "clip_low": 0.2,
            "clip_high": 0.2,
        },
    ),
    "dapo": AlgorithmRow(
        description="GRPO with clip-higher, token mean, dynamic sampling, soft overlong punishment",
        source="arXiv 2503.14476: clip 0.2/0.28, 16 updates, last fifth of the length punished "
        "(4096 of 20480); dual clip 10, at most 10 rounds: verl",
        settings={
            "advantage": "grpo",
            "loss": "ppo-clip",
            "reduction": "token-mean",
            "minibatches_per_step": 16,
            "clip_low": 0.2,
            "clip_high": 0.28,
            "dual_clip": 10.0,
            "max_sampling_rounds": 10,
            "overlong": "punish",
            "overlong_buffer": 0.2,
        },
    ),
    "rloo": AlgorithmRow(
        description="leave-one-out mean baseline, a response is one action, KL in the reward",
        source="arXiv 2402.14740, as REINFORCE: one update; KL 0.001: verl (paper: 0.03, 0.1)",
        settings={
            "advantage": "rloo",
            **ON_POLICY,
            "reduction": "seq-mean-token-sum",
            "kl_in": "reward",
            "kl_estimator": "k1",
            "kl_coefficient": 0.001,
        },
    ),
    "reinforce++": AlgorithmRow(
        description="no group, rewards whitened over the step's tokens, KL in the reward",
        source="arXiv 2501.03262: clip 0.2, KL 0.001 for mathematics, 2 updates (256/128); "
        "token mean: verl",
        settings={
            "advantage": "reinforce++",
            "loss": "ppo-clip",
            "reduction": "token-mean",
            "minibatches_per_step": 2,
            "clip_low": 0.2,
            "clip_high": 0.2,
            "kl_in": "reward",
            "kl_estimator": "k1",
            "kl_coefficient": 0.001,
        },
    ),
    "reinforce++-baseline": AlgorithmRow(
        description="group mean taken off, then whitened over the step's tokens, k2 in the loss",
        source="arXiv 2501.03262; one update, k2 KL 0.001, token mean: verl",
        settings={
            "advantage": "reinforce++-baseline",
            **ON_POLICY,
            "kl_in": "loss",
            "kl_estimator": "k2",
            "kl_coefficient": 0.001,
        },
    ),
    "gspo": AlgorithmRow(
        description="GRPO's advantage with one clipped ratio per response",
        source="arXiv 2507.18071, section 5.1: clip 3e-4/4e-4, 4 updates, no KL",
        settings={
            "advantage": "grpo",
            "loss": "gspo",
            "reduction": "seq-mean-token-mean",
            "minibatches_per_step": 4,
            "clip_low": 3e-4,
            "clip_high": 4e-4,
        },
    ),
    "cispo": AlgorithmRow(
        description="GRPO's advantage, weights clipped above and gradients kept",
        source="arXiv 2506.13585: token mean, no lower bound, no KL; ratio at most 5: TRL's recipe "
        "for arXiv 2510.13786; 4 updates: ours",
        settings={
            "advantage": "grpo",
            "loss": "cispo",
            "reduction": "token-mean",
            "minibatches_per_step": 4,
            "clip_low": 1.0,
            "clip_high": 4.0,
        },
    ),
    "remax": AlgorithmRow(
        description="the greedy response's reward as baseline, KL in the reward",
        source="arXiv 2310.10505: one update, no ratio; KL 0.001: verl (its own code 0.05)",
        settings={
            "advantage": "remax",
            **ON_POLICY,
            "kl_in": "reward",
            "kl_estimator": "k1",
            "kl_coefficient": 0.001,
        },
    ),
    "otb": AlgorithmRow(
        description="optimal token baseline: a baseline per token from forward-only weights",
        source="arXiv 2602.07078; one update, no KL, token mean: verl",
        settings={"advantage": "otb", **ON_POLICY},
    ),
    "gpg": AlgorithmRow(
        description="group mean taken off, groups without signal made up for, no ratio, no KL",
        source="arXiv 2504.02546, F = 1; one update: its loss has no ratio",
        settings={"advantage": "gpg", **ON_POLICY},
    ),
    "ppo": AlgorithmRow(
        description="critic with GAE, clipped ratio and value, KL in the reward",
        source="arXiv 1707.06347; whitening, 4 updates, clips 0.2 and 0.5, KL 0.001: verl",
        settings={
            "advantage": "gae",
            "loss": "ppo-clip",
            "reduction": "token-mean",
            "minibatches_per_step": 4,
            "clip_low": 0.2,
            "clip_high": 0.2,
            "value_clip": 0.5,
            "kl_in": "reward",
            "kl_estimator": "k1",
            "kl_coefficient": 0.001,
            "whiten_advantages": True,
        },
    ),
}
