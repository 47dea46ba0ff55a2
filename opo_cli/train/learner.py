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
from opo_cli.model.parallel import own
from opo_cli.model.policy import choose_device
from opo_cli.model.precision import precision_of
from opo_cli.model.recompute import recompute_layers
from opo_cli.model.sharding import shard
from opo_cli.ranks import is_joined


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
    """Of this rank's part."""
    return sum(own(p).numel() * p.element_size() for p in module.parameters())


def needs_reference(config: Config) -> bool:
    """Whether the objective, an instrument or an evaluation takes a KL to the initial policy."""
    measure, evaluation = config.measure, config.eval
    return (
        config.algorithm.kl_in != "none"
        or bool(measure.every or measure.probe_every)
        or (bool(evaluation.every_benchmark) and takes_kl(evaluation))
    )


def make_reference(policy, config: Config):
    """A frozen copy of the initial policy, where `train.use_reference_offload` puts it, or None; in
    shards where ranks share the work. Before `new_learner`, which deals the policy out."""
    if not needs_reference(config):
        return None
    is_offloaded = config.train.use_reference_offload
    if is_offloaded and not is_joined():
        return host_copy(policy)
    reference = copy.deepcopy(policy).requires_grad_(False)
    frozen = {"is_trained": False, "use_offload": is_offloaded}
    shard(reference, reference.base_model, _device(config), precision_of(policy), **frozen)
    return reference


def _device(config: Config) -> torch.device:
    return choose_device(config.runtime.device)[0]


def new_learner(policy, reference, config: Config) -> Learner:
    """Optimizers, and the critic where the estimator needs one; all in shards where ranks share the
    work."""
    optim, use_offload = config.optim, config.train.use_cpu_offload
    if config.train.use_activation_checkpointing:
        recompute_layers(policy.base_model)

    critic = Critic(policy) if config.algorithm.estimator.needs_critic else None
    place = (_device(config), precision_of(policy))
    shard(policy, policy.base_model, *place, use_offload=use_offload)
    if critic is not None:
        shard(critic, critic.backbone, *place, use_offload=use_offload)

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
    if critic is not None:
        learner.critic = critic
        learner.critic_optimizer = adamw(critic, config.algorithm.critic_learning_rate)
    return learner
