"""How arms are told apart in charts: by colour, and past the seventh by dashes and symbols too."""

from __future__ import annotations

from dataclasses import dataclass

LIGHT = ("#0072b2", "#d55e00", "#00866a", "#b3508f", "#a87900", "#3795d4", "#3b3b3b")
DARK = ("#4ea3e8", "#ff8a4c", "#2cc79a", "#e59cc7", "#f0b93c", "#a3dcff", "#dcdcdc")
"""Okabe and Ito's order of hues, which colour-blind readers tell apart; lightness moved so that
each has a contrast of 3 to 1 with white, and with the page's dark ground."""
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up")
"""As plotly.js names them."""


@dataclass(frozen=True, slots=True)
class Style:
    light: str
    dark: str
    dash: str
    symbol: str


def style_of(place: int) -> Style:
    """Args: place of the arm among the arms, from 0. Styles repeat after 28."""
    colour, turn = place % len(LIGHT), place // len(LIGHT) % len(DASHES)
    return Style(LIGHT[colour], DARK[colour], DASHES[turn], SYMBOLS[turn])
