"""What training changes: weights and optimizers."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch

from opo_cli.config import Config
from opo_cli.evaluate.settings import takes_kl
from opo_cli.model.critic import Critic
from opo_cli.model.memory import host_copy
from opo_cli.model.recompute import recompute_layers
from opo_cli.rl.advantages import ADVANTAGES


@dataclass(slots=True, kw_only=True)
class Learner:
    """Everything that training changes, and the frozen reference."""

    policy: Any
    reference: Any
    """The initial policy; also the reference policy of KL terms. None where nothing needs it; it
    may lie in host memory (see `score`)."""
    optimizer: torch.optim.Optimizer
    critic: Critic | None = None
    critic_optimizer: torch.optim.Optimizer | None = None

    @property
    def bytes_to_come(self) -> int:
        """Of AdamW's moments that are not there yet."""
        modules = [(self.policy, self.optimizer), (self.critic, self.critic_optimizer)]
        moments = [each for each, optimizer in modules if each is not None and not optimizer.state]
        return sum(2 * _bytes(module) for module in moments)


def _bytes(module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def needs_reference(config: Config) -> bool:
    """Whether the objective, an instrument or an evaluation takes a KL to the initial policy."""
    measure, evaluation = config.measure, config.eval
    return (
        config.algorithm.kl_in != "none"
        or bool(measure.every or measure.probe_every)
        or (bool(evaluation.every_benchmark) and takes_kl(evaluation))
    )


def make_reference(policy, config: Config):
    """A frozen copy of the initial policy, where `train.use_reference_offload` puts it, or None."""
    if not needs_reference(config):
        return None
    if config.train.use_reference_offload:
        return host_copy(policy)
    return copy.deepcopy(policy).requires_grad_(False)


def new_learner(policy, reference, config: Config) -> Learner:
    """Optimizers, and the critic where the estimator needs one."""
    optim = config.optim
    if config.train.use_activation_checkpointing:
        recompute_layers(policy.base_model)

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
