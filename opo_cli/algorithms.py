"""The algorithms, as rows of names and numbers: what differs between them stands in one place, and
an ablation is `--set algorithm.KEY=VALUE`. A key that a row leaves out has the default of
`config.Algorithm`. Learning rates belong to a model and a task, so presets set them."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmRow:
    description: str
    source: str
    settings: dict[str, str | int | float | bool] = field(default_factory=dict)


ALGORITHMS: dict[str, AlgorithmRow] = {
    "opo": AlgorithmRow(
        description="exact on-policy, length-weighted optimal baseline, nothing else",
        source="arXiv 2505.23585",
        settings={
            "advantage": "opo",
            "loss": "policy-gradient",
            "reduction": "token-mean",
            "minibatches_per_step": 1,
        },
    ),
    "grpo": AlgorithmRow(
        description="std-normalised group advantage, clipped ratio, KL in the loss",
        source="arXiv 2402.03300; KL coefficient and clip range as verl",
        settings={
            "advantage": "grpo",
            "loss": "ppo-clip",
            "reduction": "seq-mean-token-mean",
            "minibatches_per_step": 8,
            "clip_low": 0.2,
            "clip_high": 0.2,
            "kl_in": "loss",
            "kl_estimator": "k3",
            "kl_coefficient": 0.001,
        },
    ),
    "ppo": AlgorithmRow(
        description="critic with GAE, clipped ratio and value, KL in the reward",
        source="arXiv 1707.06347; whitening and KL in the reward as verl",
        settings={
            "advantage": "gae",
            "loss": "ppo-clip",
            "reduction": "token-mean",
            "minibatches_per_step": 4,
            "clip_low": 0.2,
            "clip_high": 0.2,
            "kl_in": "reward",
            "kl_estimator": "k1",
            "kl_coefficient": 0.001,
            "whiten_advantages": True,
        },
    ),
}
