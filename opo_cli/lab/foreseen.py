"""What a lab will take, told before anything is written."""

from __future__ import annotations

import math
from dataclasses import dataclass

from opo_cli.config import Config
from opo_cli.errors import OpoError
from opo_cli.lab.gradients import vector_bytes
from opo_cli.lab.pool import NUM_DRAWS
from opo_cli.lab.settings import Request
from opo_cli.model.device import GIGABYTE
from opo_cli.model.footprint import FP32
from opo_cli.train.duration import in_words

FP64 = 8
PILOT = 8  # Responses from which the time is foretold.
COPIES = 8
"""Of what multiplies a prompt's tokens in all draws, while an arm is tried; measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What gradients of single tokens take where every response is as long as it may be."""

    num_tokens: int
    """Of a prompt's responses."""
    prompt_bytes: int
    """To measure a prompt, projected."""
    analysis_bytes: int
    """A prompt at a time."""
    disk_bytes: int

    @staticmethod
    def of(config: Config, asked: Request) -> Tokens | None:
        """None: they are not asked for."""
        if not asked.token_gradients:
            return None
        longest = config.rollout.max_new_tokens
        count = asked.responses * longest
        return Tokens(
            num_tokens=count,
            prompt_bytes=vector_bytes(0, count, is_whole=False),
            analysis_bytes=COPIES * NUM_DRAWS * count * FP64 + 2 * count**2 * FP64,
            disk_bytes=asked.prompts * count**2 * FP32,
        )

    def check(self, asked: Request) -> None:
        """Raises OpoError where they do not fit into the memory that was granted."""
        needed = max(self.prompt_bytes, self.analysis_bytes) / GIGABYTE
        if needed > asked.memory_gigabytes:
            raise OpoError(
                f"--token-gradients with --responses {asked.responses}, up to {self.num_tokens:,} "
                f"tokens a prompt, takes {needed:.1f} GB; --memory grants "
                f"{asked.memory_gigabytes:g}",
                f"--memory {math.ceil(needed * 10) / 10:g}, fewer --responses, or a smaller "
                "--set rollout.max_new_tokens",
            )


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
    tokens: Tokens | None = None
    num_ranks: int = 1
    """Among which prompts are dealt; each takes the memory."""

    @property
    def peak_bytes(self) -> int:
        gradients = self.activation_bytes + self.vector_bytes
        analysis = self.tokens.analysis_bytes if self.tokens else 0
        return self.weight_bytes + max(self.sampling_bytes, gradients, analysis)

    @property
    def rows(self) -> list[tuple[str, str]]:
        """(title, text)."""
        kept = "whole" if self.is_whole else "projected, with exact norms"
        parts = (self.weight_bytes, self.sampling_bytes, self.activation_bytes, self.vector_bytes)
        weights, sampling, activations, vectors = (f"{part / GIGABYTE:.2f}" for part in parts)
        is_shared = self.num_ranks > 1
        each = f", on each of {self.num_ranks} ranks" if is_shared else ""
        rows = [
            ("gradients", f"{self.num_coordinates:,} coordinates each, {kept}"),
            ("memory", f"{self.peak_bytes / GIGABYTE:.2f} GB beside the program{each}"),
            (
                "of it",
                f"weights {weights}; sampling {sampling}, or gradients {vectors} + {activations}",
            ),
            (
                "time",
                f"{in_words(self.seconds)} at most, by {PILOT} responses"
                + (f", on {self.num_ranks} ranks" if is_shared else ""),
            ),
        ]
        if self.tokens:
            analysis, disk = self.tokens.analysis_bytes, self.tokens.disk_bytes
            text = f"{analysis / GIGABYTE:.2f} GB to analyse, {disk / GIGABYTE:.2f} GB on disk"
            rows.append(("single tokens", f"{text}, at most"))
        return rows
