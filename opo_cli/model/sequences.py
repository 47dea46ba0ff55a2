"""Prompts with their responses as tensors, cut into microbatches by a token budget.

Shape legend: B rows, S prompt + response tokens, T response tokens. Rows are padded on the right
alone: under a causal mask no real token sees padding, so no attention mask is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NO_ROWS = torch.zeros(0, 0, dtype=torch.long)


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
        lengths = torch.tensor(
            [[len(part) for part in parts] for parts in (prompts, responses)],
            dtype=torch.long,
            device=device,
        )
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else NO_ROWS
        return Sequences(input_ids=ids.to(device), prompt_lengths=lengths[0], lengths=lengths[1])

    @staticmethod
    def filler(device: torch.device) -> Sequences:
        """A row for a forward pass of which only others have use."""
        return Sequences.pack([[0]], [[0]], device)

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
        width = int((prompt_lengths + lengths).max()) if len(lengths) else 0
        return Sequences(
            input_ids=self.input_ids[rows, :width], prompt_lengths=prompt_lengths, lengths=lengths
        )

    def microbatches(self, token_budget: int) -> list[Tensor]:
        """Row indices sorted by length and cut so that rows x longest <= `token_budget`.

        A row longer than the budget stands alone. Of no rows there are none.
        """
        if not len(self):
            return []
        totals = self.prompt_lengths + self.lengths
        order = totals.argsort(stable=True)
        cuts, start = [], 0
        for end, total in enumerate(totals[order].tolist()):
            if end > start and (end - start + 1) * total > token_budget:
                cuts.append(order[start:end])
                start = end
        cuts.append(order[start:])
        return cuts
