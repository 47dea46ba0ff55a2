"""What a run may be called: its algorithm, what was changed of it, and its certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opo_cli.algorithms import ALGORITHMS
from opo_cli.certificate import certificate_of
from opo_cli.config import Algorithm

TELLING = (
    *("advantage", "loss", "reduction", "kl_in", "kl_estimator", "entropy_coefficient"),
    *("whiten_advantages", "dual_clip", "tis", "overlong", "max_sampling_rounds"),
)
"""Settings of an algorithm without which its name would mislead; the certificate tells the rest."""

DEFAULTS = Algorithm()


def algorithm_label(config: Mapping[str, Any]) -> str:
    """The algorithm, with what has been changed of its row; a mismatched reduction by name.

    Args:
        config: as in a run's config.json; of another version perhaps, so keys may lack.
    """
    settings = config["algorithm"]
    row = ALGORITHMS[settings["name"]].settings if settings["name"] in ALGORITHMS else {}
    known = {key: value for key, value in settings.items() if key in Algorithm.model_fields}
    algorithm = Algorithm.model_construct(**known)  # Another version's names are not ours to judge.
    is_mismatched = algorithm.misfit is not None
    changed = [
        f"{key}={getattr(algorithm, key)}"
        for key in TELLING
        if getattr(algorithm, key) != row.get(key, getattr(DEFAULTS, key))
        and not (key == "reduction" and is_mismatched)
    ]
    mismatch = [f"(mismatched {algorithm.reduction})"] if is_mismatched else []
    return " ".join([settings["name"], *changed, *mismatch])


def training_line(config: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> str:
    """One line for a table about one run."""
    certificate = certificate_of(steps)
    share = f"{certificate.share} exact steps"
    return f"trained by {algorithm_label(config)}: {certificate.label}, {share}"
