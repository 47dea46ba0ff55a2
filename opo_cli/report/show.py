"""One group of a run's rollouts, as a person reads it: its responses side by side, each token
coloured by how sure the policy was of it."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, pstdev
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from opo_cli.choose import did_you_mean
from opo_cli.console import visible
from opo_cli.errors import OpoError
from opo_cli.ledger import Ledger, told

Line = dict[str, Any]
"""A line of the ledger: one response."""
PANEL_WIDTH = 36  # Columns: two panels in a terminal of 80.
ANSWER_WIDTH = 14  # Of an extracted answer in a panel's head: the response below has it whole.
ENTROPY_COLOURS = ((0.1, ""), (0.5, "cyan"), (1.0, "green"), (2.0, "yellow"), (math.inf, "red"))
"""(below so many nats, style): the basic colours, which every terminal has and themes adapt."""
VERDICTS = {
    "correct": ("right", "green"),
    "wrong": ("wrong", "red"),
    "no-answer": ("no answer", "yellow"),
    "empty": ("empty box", "yellow"),
    "unparsed": ("unparsed", "yellow"),
    "refused": ("refused", "yellow"),
    "truncated": ("cut", "yellow"),
    "timeout": ("grader timed out", "magenta"),
    "memory": ("grader out of memory", "magenta"),
    "error": ("grader failed", "magenta"),
}
"""Reason of the grade -> how it is told, its colour."""


# --- which group --------------------------------------------------------------------------------


def _counted(lines: Sequence[Line]) -> Sequence[Line]:
    """The lines that count in baseline and loss; all where none does."""
    return [line for line in lines if line["is_trained"]] or lines


def _rewards(lines: Sequence[Line]) -> list[float]:
    return [line["reward"] for line in _counted(lines)]


Groups = dict[int, list[Line]]
PICKS: dict[str, Callable[[Groups], int]] = {
    "best": lambda groups: max(groups, key=lambda g: fmean(_rewards(groups[g]))),
    "worst": lambda groups: min(groups, key=lambda g: fmean(_rewards(groups[g]))),
    "random": lambda groups: random.choice(list(groups)),
    "spread": lambda groups: max(groups, key=lambda g: pstdev(_rewards(groups[g]))),
}
"""How a group is picked: by its mean reward, by chance, or by the spread of its rewards, which is
the signal that group estimators live on. The first on ties."""


def find_group(
    ledger: Ledger, step: int | None, problem: str | None, pick: str = "spread"
) -> list[Line]:
    """The lines of one group.

    Args:
        step: None: the newest that is kept, or the newest that has `problem`.
        problem: its id; None: the group that `pick` picks.
        pick: a key of `PICKS`.

    Raises:
        OpoError: no such step or problem, or nothing is kept.
    """
    kept = ledger.kept()
    searched = [step] if step is not None else kept[::-1] if problem is not None else kept[-1:]
    known: dict[str, None] = {}
    for number in searched:
        groups: Groups = {}
        for line in ledger.read(number, ["group", "problem_id", "reward", "is_trained"]):
            known[line["problem_id"]] = None
            if problem in (None, line["problem_id"]):
                groups.setdefault(line["group"], []).append(line)
        if groups:
            group = next(iter(groups)) if problem is not None else PICKS[pick](groups)
            return ledger.read(number, group=group)
    where = told(sorted(searched))
    message = f"no problem '{problem}' in {where} of the ledger"
    raise OpoError(message, did_you_mean(problem, known, "problem"))


# --- how it is shown ----------------------------------------------------------------------------


def print_group(console: Console, run: str, trained: str, lines: Sequence[Line], most: int) -> None:
    """The group for people.

    Args:
        trained: a line on how, which the advantages follow from.
        most: responses that are shown, half of them from either end; 0: all.
    """
    _print_head(console, run, trained, lines)
    ordered = sorted(lines, key=lambda line: (-line["reward"], -line["advantage"]))
    top = len(lines) if most == 0 else (most + 1) // 2
    bottom = max(len(lines) - (most - top), top)
    _print_panels(console, [*ordered[:top], *ordered[bottom:]])
    if bottom > top and most:
        between = f"{bottom - top} of the {len(lines)} responses are not shown: --responses 0"
        console.print(Text(between, "dim"))
    if console.color_system and not console.no_color:
        console.print(_legend())


def _print_head(console: Console, run: str, trained: str, lines: Sequence[Line]) -> None:
    first, encoding = lines[0], console.encoding
    where = f", step {first['step']}, policy version {first['policy_version']}"
    console.print(Text.assemble((visible(run, encoding), "bold"), where, overflow="fold"))
    console.print(Text(visible(trained, encoding), "dim", overflow="fold"))
    facts = Table.grid(padding=(0, 1))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("problem", Text(visible(first["problem_id"], encoding)))
    facts.add_row("prompt", Text(visible(first["prompt"].rstrip("\n"), encoding)))
    facts.add_row("answer", Text(visible(first["answer"], encoding)))
    facts.add_row("group", Text(summary(lines)))
    console.print(facts)


def summary(lines: Sequence[Line]) -> str:
    """Verdicts, both baselines and lengths of a group, in words."""
    counted = _counted(lines)
    verdicts = Counter({name: 0 for name, _ in VERDICTS.values()})  # In this order.
    verdicts.update(verdict_of(line)[0] for line in lines)
    verdicts["masked"] = sum(not line["is_trained"] for line in lines)
    told_verdicts = ", ".join(f"{count} {name}" for name, count in verdicts.items() if count)
    lengths = [line["length"] for line in lines]
    weight = sum(line["length"] for line in counted)
    weighted = sum(line["length"] * line["reward"] for line in counted) / max(weight, 1)
    return (
        f"{len(lines)} responses: {told_verdicts}; mean reward {fmean(_rewards(lines)):.3f}, "
        f"length-weighted {weighted:.3f}; "
        f"length {fmean(lengths):.1f} ({min(lengths)} to {max(lengths)})"
    )


def verdict_of(line: Line) -> tuple[str, str]:
    """(in words, colour)"""
    name, colour = VERDICTS.get(line["grade_reason"], (visible(line["grade_reason"]), "magenta"))
    is_cut = line["finish_reason"] == "length" and line["grade_reason"] != "truncated"
    return f"{name} and cut" if is_cut else name, colour


def _print_panels(console: Console, lines: Sequence[Line]) -> None:
    """Rows of panels, those of a row equally high."""
    num_rows = math.ceil(len(lines) / max(1, console.width // PANEL_WIDTH))
    across = math.ceil(len(lines) / num_rows)
    width = console.width // across
    for place in range(0, len(lines), across):
        panels = [_panel(line, console.encoding) for line in lines[place : place + across]]
        options = console.options.update(width=width)
        height = max(len(console.render_lines(panel, options)) for panel in panels)
        row = Table.grid()
        for panel in panels:
            panel.height = height
            row.add_column(width=width)
        row.add_row(*panels)
        console.print(row)


def _panel(line: Line, encoding: str) -> Panel:
    verdict, colour = verdict_of(line)
    masked = "" if line["is_trained"] else ", masked"
    entropies = line["entropy"] or []
    entropy = f"{fmean(entropies):.3f}" if entropies else "-"
    facts = f"A {_advantage(line)}, {line['length']} tokens\n"
    facts += f"{_answer(line, encoding)}, entropy {entropy}\n"
    return Panel(
        Group(Text(facts, "dim", overflow="fold"), response_text(line, encoding)),
        title=Text(f"{verdict}{masked}, reward {line['reward']:.4g}", f"bold {colour}"),
        title_align="left",
        border_style=colour,
    )


def _answer(line: Line, encoding: str) -> str:
    if line["extracted"] is None:
        return "no answer"
    answer = " ".join(visible(line["extracted"], encoding).split())
    is_long = len(answer) > ANSWER_WIDTH
    return f"answer {answer[: ANSWER_WIDTH - 3] + '...' if is_long else answer}"


def _advantage(line: Line) -> str:
    """One number, or the range where an estimator tells tokens apart."""
    values = line["advantages"] or [line["advantage"]]
    low, high = (f"{value:+z.3f}" for value in (min(values), max(values)))
    return low if low == high else f"from {low} to {high}"


def response_text(line: Line, encoding: str = "utf-8") -> Text:
    """The response, each token in its entropy's colour, and dim what decoding leaves out (EOS).

    Uncoloured where the tokens' own texts do not add up to the response: a character that is spread
    over several tokens belongs to none of them.
    """
    text, place = Text(overflow="fold"), 0
    entropies = line["entropy"] or [None] * len(line["pieces"])
    for piece, entropy in zip(line["pieces"], entropies, strict=True):
        is_text = line["text"].startswith(piece, place)
        place += len(piece) * is_text
        style = "" if entropy is None else _colour(entropy)
        text.append(visible(piece, encoding), style if is_text else f"dim {style}")
    is_whole = place == len(line["text"])
    return text if is_whole else Text(visible(line["text"], encoding), overflow="fold")


def _colour(entropy: float) -> str:
    return next((style for below, style in ENTROPY_COLOURS if entropy < below), "red")


def _legend() -> Text:
    legend, low = Text.assemble(("entropy, nats per token:", "dim")), 0.0
    for below, style in ENTROPY_COLOURS:
        told_range = f"{low:g} to {below:g}" if math.isfinite(below) else f"from {low:g}"
        legend.append("  ").append(told_range, style)
        low = below
    return legend


def print_lines(console: Console, lines: Iterable[Line]) -> None:
    """The group for programs: a JSON list, one response per text line."""
    rows = [json.dumps({key: _plain(value) for key, value in line.items()}) for line in lines]
    print("[\n" + ",\n".join(rows) + "\n]", file=console.file)


def _plain(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: null."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
