"""PPO's critic: a backbone of its own, which starts as a copy of the policy's, and a value head."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from opo_cli.model.precision import precision_of
from opo_cli.model.scores import by_microbatch, response_hidden, spread
from opo_cli.model.sequences import Sequences


class Critic(nn.Module):
    """V(prompt, response so far), one value before each response token."""

    def __init__(self, policy):
        super().__init__()
        self.precision = precision_of(policy)
        self.backbone = copy.deepcopy(policy.base_model)
        width = policy.get_output_embeddings().weight.shape[1]
        self.head = nn.Linear(width, 1, device=policy.device)
        nn.init.zeros_(self.head.weight)  # The first values are 0: no noise from an untrained head.
        nn.init.zeros_(self.head.bias)

    def forward(self, sequences: Sequences) -> Tensor:
        """(B, T) values, zero where masked; gradients flow."""
        hidden = response_hidden(self.backbone, self.precision, sequences)
        return spread(self.head(hidden.float()).squeeze(-1), sequences.mask)

    def values(self, sequences: Sequences, token_budget: int) -> Tensor:
        """(B, T) without gradient, over any number of rows."""
        return by_microbatch(self, lambda part: (self(part),), sequences, token_budget)[0]
