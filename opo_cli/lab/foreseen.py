"""What a lab will take, told before anything is written."""

from __future__ import annotations

from dataclasses import dataclass

from opo_cli.model.device import GIGABYTE
from opo_cli.train.duration import in_words

PILOT = 8  # Responses from which the time is foretold.


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What a lab will take."""

    num_coordinates: int
    is_whole: bool
    weight_bytes: int
    sampling_bytes: int
    activation_bytes: int
    vector_bytes: int
    seconds: float

    @property
    def peak_bytes(self) -> int:
        gradients = self.activation_bytes + self.vector_bytes
        return self.weight_bytes + max(self.sampling_bytes, gradients)

    @property
    def rows(self) -> list[tuple[str, str]]:
        """(title, text)."""
        kept = "whole" if self.is_whole else "projected, with exact norms"
        parts = (self.weight_bytes, self.sampling_bytes, self.activation_bytes, self.vector_bytes)
        weights, sampling, activations, vectors = (f"{part / GIGABYTE:.2f}" for part in parts)
        return [
            ("gradients", f"{self.num_coordinates:,} coordinates each, {kept}"),
            (
                "memory",
                f"{self.peak_bytes / GIGABYTE:.2f} GB beside the program: weights {weights}, and "
                f"sampling {sampling}, or gradients {vectors} with activations {activations}",
            ),
            ("time", f"{in_words(self.seconds)} at most, by {PILOT} responses"),
        ]
