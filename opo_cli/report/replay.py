"""Credit as other estimators would have given it, recomputed from a run's ledger without a model.

What it does not say: how training would have gone on. The rollouts are those of the run's own
policy, which another estimator would have moved elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opo_cli.config import Algorithm
from opo_cli.console import warn
from opo_cli.errors import OpoError
from opo_cli.ledger import told
from opo_cli.presets import stored
from opo_cli.records import RunFolder
from opo_cli.report.labels import training_line
from opo_cli.report.tables import Report, Table, number
from opo_cli.rl.advantages import ADVANTAGES, Signals
from opo_cli.rl.estimate import advantages_of, make_signals

if TYPE_CHECKING:
    from torch import Tensor

Line = dict[str, Any]
PER_RESPONSE = ("group", "correct", "is_trained", "length", "reward", "greedy_reward")
PER_TOKEN = ("logprobs", "reference_logprobs", "logit_norms", "values", "advantages")
NEEDS = {
    "needs_critic": ("values", "values of a critic", "ppo"),
    "needs_greedy": ("greedy_reward", "rewards of greedy responses", "remax"),
    "needs_logit_norms": ("logit_norms", "logit norms", "otb"),
}
"""Flag of an estimator's row -> the ledger's column, what that is, an algorithm that keeps it."""
ROUNDING = 1e-4  # Advantages of another device or number of threads differ by less.
NOTE = (
    "|A|: mean over loss tokens; right, wrong: mean A of such responses; corr: Pearson with the "
    "own A over tokens; flip: share of tokens with the other sign (0 has none); zero: share of "
    "responses without any credit; moved: sum|sA - A_own| / sum|A_own|, where s makes the totals "
    "of |A| equal"
)


# --- advantages, as the training step computes them ---------------------------------------------


def signals_of(lines: Sequence[Line], algorithm: Algorithm) -> Signals:
    """What the estimators saw of a step."""
    return make_signals(
        algorithm,
        rewards=_tensor(lines, "reward"),
        lengths=_tensor(lines, "length").long() * _tensor(lines, "is_trained").long(),
        groups=_tensor(lines, "group").long(),
        width=max(line["length"] for line in lines),
        old_logprobs=_padded(lines, "logprobs"),
        reference_logprobs=_padded(lines, "reference_logprobs"),
        values=_padded(lines, "values"),
        logit_norms=_padded(lines, "logit_norms"),
        greedy_rewards=_tensor(lines, "greedy_reward"),
    )


def _tensor(lines: Sequence[Line], column: str) -> Tensor | None:
    """(B,) float, or None where the ledger has no such thing."""
    import torch

    values = [line[column] for line in lines]
    return None if None in values else torch.tensor(values, dtype=torch.float)


def _padded(lines: Sequence[Line], column: str) -> Tensor | None:
    """(B, T) float, zero beyond a row's length; None likewise."""
    import torch

    rows = [line[column] for line in lines]
    if any(row is None for row in rows):
        return None
    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row, dtype=torch.float) for row in rows], batch_first=True
    )


# --- credit over steps --------------------------------------------------------------------------


@dataclass(slots=True)
class Credit:
    """An estimator's advantages of all steps, flat. Sums over them are sums over steps."""

    tokens: list[Tensor] = field(default_factory=list)
    """(loss tokens,) per step."""
    responses: list[Tensor] = field(default_factory=list)
    """(responses that are trained on,) per step: the mean over tokens."""
    is_zero: list[Tensor] = field(default_factory=list)
    """Likewise, bool: no token has any."""

    def add(self, advantages: Tensor, signals: Signals) -> None:
        """One step's (B, T)."""
        rows = signals.lengths > 0
        kept = advantages.double() * signals.mask
        self.tokens.append(kept[signals.mask])
        self.responses.append(kept[rows].sum(-1) / signals.lengths[rows])
        self.is_zero.append((kept[rows] == 0).all(-1))


def measures(credit: Credit, own: Credit, is_right: Tensor) -> dict[str, float | None]:
    """How an estimator's credit differs from the run's own; None where nothing is to be told."""
    import torch

    a, a_own, rows = (torch.cat(x) for x in (credit.tokens, own.tokens, credit.responses))
    x, y = a - a.mean(), a_own - a_own.mean()
    spread = (x.square().sum() * y.square().sum()).sqrt().item()
    total, total_own = a.abs().sum().item(), a_own.abs().sum().item()
    scaled = a * (total_own / total) if total else a
    moved = (scaled - a_own).abs().sum().item()
    right, wrong = rows[is_right], rows[~is_right]
    return {
        "mean_abs_advantage": total / len(a),
        "advantage_right": right.mean().item() if len(right) else None,
        "advantage_wrong": wrong.mean().item() if len(wrong) else None,
        "correlation": (x * y).sum().item() / spread if spread else None,
        "sign_flips": (a * a_own < 0).double().mean().item(),
        "zero_share": torch.cat(credit.is_zero).double().mean().item(),
        "moved_credit": moved / total_own if total and total_own else None,
    }


@dataclass(slots=True)
class Replayed:
    """What has been recomputed so far, step by step."""

    algorithm: Algorithm
    own: Credit = field(default_factory=Credit)
    others: dict[str, Credit] = field(default_factory=dict)
    is_right: list[Tensor] = field(default_factory=list)
    """(responses that are trained on,) bool, per step."""
    differences: dict[int, float] = field(default_factory=dict)
    """Step -> the largest |own recomputed - own stored|."""

    def add(self, step: int, lines: Sequence[Line], names: Sequence[str]) -> None:
        signals = signals_of(lines, self.algorithm)
        advantages, _ = advantages_of(self.algorithm, signals)
        stored = _padded(lines, "advantages")
        self.differences[step] = (advantages - stored).abs().max().item()
        self.own.add(advantages, signals)
        for name in names:
            estimate = ADVANTAGES[name].estimate(signals)
            self.others.setdefault(name, Credit()).add(estimate, signals)
        self.is_right.append(_tensor(lines, "correct")[signals.lengths > 0] == 1)


def replay(folder: RunFolder, names: Sequence[str] | None, step: int | None) -> Report:
    """The table of `opo replay`.

    Args:
        names: rows of `ADVANTAGES`; None: all that the ledger has the signals for.
        step: None: all that are kept, each a batch of its own, as it was in training.

    Raises:
        OpoError: no such step, or an estimator that asks for what the ledger does not hold.
    """
    replayed = Replayed(stored(folder).algorithm)
    steps = folder.ledger.kept() if step is None else [step]
    for place in steps:
        lines = folder.ledger.read(place, [*PER_RESPONSE, *PER_TOKEN])
        names = _replayable(folder, lines, names, replayed.algorithm)
        replayed.add(place, lines, names)
    if not any(len(tokens) for tokens in replayed.own.tokens):
        raise OpoError(
            f"no response of {told(steps)} in '{folder.path}' counts in the loss: all are masked",
            "choose other steps, or read them: opo show",
        )
    _check_own(replayed)
    return _report(folder, replayed)


def _replayable(
    folder: RunFolder, lines: Sequence[Line], names: Sequence[str] | None, algorithm: Algorithm
) -> list[str]:
    """The estimators of `names`, which the ledger must be able to feed; None: all that it can feed.

    Without the run's own: that is the first row anyway, unless the run whitens it.
    """
    missing = {}
    for flag, (column, what, keeper) in NEEDS.items():
        if any(line[column] is None for line in lines):
            lacking = [name for name, row in ADVANTAGES.items() if getattr(row, flag)]
            missing |= dict.fromkeys(lacking, (what, keeper))
    for name in (algorithm.advantage, *(names or ())):
        if name in missing:
            what, keeper = missing[name]
            raise OpoError(
                f"'{name}' cannot be replayed: the ledger of '{folder.path}' holds no {what}",
                f"leave '{name}' out; a run of opo train --algorithm {keeper} keeps them",
            )
    wanted = [name for name in ADVANTAGES if name not in missing] if names is None else names
    return [n for n in wanted if n != algorithm.advantage or algorithm.whiten_advantages]


def _check_own(replayed: Replayed) -> None:
    for step, difference in replayed.differences.items():
        if not difference <= ROUNDING:  # A NaN is a difference too.
            warn(
                f"step {step}: the stored advantages do not follow from its rollouts by "
                f"'{replayed.algorithm.advantage}' and the run's settings "
                f"(largest difference {difference:.3g})"
            )


def _report(folder: RunFolder, replayed: Replayed) -> Report:
    import torch

    algorithm, is_right = replayed.algorithm, torch.cat(replayed.is_right)
    difference = max(replayed.differences.values())
    rows, records = [], []
    for name, credit in {"": replayed.own, **replayed.others}.items():
        found = measures(credit, replayed.own, is_right)
        label = name or algorithm.advantage
        records.append({"estimator": label, "is_own": not name, **found})
        rows.append([name or f"{label} (own)", *_cells(found)])
    records[0]["stored_difference"] = difference
    head = ["estimator", "|A|", "right", "wrong", "corr", "flip", "zero", "moved"]
    steps = told(list(replayed.differences))
    title = f"credit by estimator: {folder.name}, {steps}, {len(is_right)} responses"
    note = _note(algorithm, difference)
    note += "\n" + training_line(folder.config(), folder.steps())
    return Report([Table(title, head, rows, note)], records)


def _note(algorithm: Algorithm, difference: float) -> str:
    whitened = " and whitened" if algorithm.whiten_advantages else ""
    kl = "; all less the run's KL penalty" if algorithm.kl_in == "reward" else ""
    near = f"within {difference:.1g} of" if difference else "exactly"
    return f"own: recomputed{whitened}, {near} what is stored{kl}; {NOTE}"


def _cells(values: dict[str, float | None]) -> list[str]:
    """Narrow enough for 80 columns beside the longest name."""
    shown = []
    for key, value in values.items():
        if key in ("advantage_right", "advantage_wrong") and value is not None:
            shown.append(f"{value:+z.3f}")
        else:
            shown.append(number(value, 2 if key in ("sign_flips", "zero_share") else 3))
    return shown
