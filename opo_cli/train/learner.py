"""What training changes: weights and optimizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from opo_cli.config import Config
from opo_cli.model.critic import Critic
from opo_cli.rl.advantages import ADVANTAGES


@dataclass(slots=True, kw_only=True)
class Learner:
    """Everything that training changes, and the frozen reference."""

    policy: Any
    reference: Any
    """The initial policy; also the reference policy of KL terms."""
    optimizer: torch.optim.Optimizer
    critic: Critic | None = None
    critic_optimizer: torch.optim.Optimizer | None = None


def new_learner(policy, reference, config: Config) -> Learner:
    """Optimizers, and the critic where the estimator needs one."""
    optim = config.optim

    def adamw(module, learning_rate: float) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            module.parameters(),
            lr=learning_rate,
            betas=(optim.beta1, optim.beta2),
            weight_decay=optim.weight_decay,
        )

    learner = Learner(
        policy=policy, reference=reference, optimizer=adamw(policy, optim.learning_rate)
    )
    if ADVANTAGES[config.algorithm.advantage].needs_critic:
        learner.critic = Critic(policy)
        learner.critic_optimizer = adamw(learner.critic, config.algorithm.critic_learning_rate)
    return learner
