"""Prompts with their responses as tensors, cut into microbatches by a token budget.

Shape legend: B rows, S prompt + response tokens, T response tokens. Rows are padded on the right
alone: under a causal mask no real token sees padding, so no attention mask is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    input_ids: Tensor
    """(B, S) int64, prompt then response then padding."""
    prompt_lengths: Tensor
    """(B,) int64."""
    lengths: Tensor
    """(B,) int64, response (loss) tokens."""

    @staticmethod
    def pack(
        prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: torch.device
    ) -> Sequences:
        """Token ids -> padded rows. Padding is id 0; nothing ever looks at it."""
        rows = [
            torch.tensor([*prompt, *response])
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        return Sequences(
            input_ids=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device),
            prompt_lengths=torch.tensor([len(prompt) for prompt in prompts], device=device),
            lengths=torch.tensor([len(response) for response in responses], device=device),
        )

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    @property
    def mask(self) -> Tensor:
        """(B, T) bool: response tokens."""
        width = int(self.lengths.max()) if len(self) else 0
        return torch.arange(width, device=self.lengths.device) < self.lengths[:, None]

    def select(self, rows: Tensor) -> Sequences:
        """Some rows, padding cut back to their longest."""
        prompt_lengths, lengths = self.prompt_lengths[rows], self.lengths[rows]
        width = int((prompt_lengths + lengths).max())
        return Sequences(
            input_ids=self.input_ids[rows, :width], prompt_lengths=prompt_lengths, lengths=lengths
        )

    def microbatches(self, token_budget: int) -> list[Tensor]:
        """Row indices sorted by length and cut so that rows x longest <= `token_budget`.

        A row longer than the budget stands alone.
        """
        totals = self.prompt_lengths + self.lengths
        order = totals.argsort(stable=True)
        cuts, start = [], 0
        for end, total in enumerate(totals[order].tolist()):
            if end > start and (end - start + 1) * total > token_budget:
                cuts.append(order[start:end])
                start = end
        cuts.append(order[start:])
        return cuts
