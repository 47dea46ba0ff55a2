"""Look-up by name, with "did you mean"."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from opo_cli.errors import OpoError

Row = TypeVar("Row")
MOST_NAMES = 20  # More are no help in one line.


def choose(name: str, table: Mapping[str, Row], what: str) -> Row:
    """The row called `name`.

    Raises:
        OpoError: no such row; see `check_known`.
    """
    check_known(name, table, what)
    return table[name]


def check_known(name: str, names: Collection[str], what: str) -> None:
    """
    Raises:
        OpoError: `name` is none of `names`; the hint names the nearest one, or all.
    """
    if name not in names:
        raise OpoError(f"unknown {what} '{name}'", did_you_mean(name, names, what))


def did_you_mean(name: str, names: Iterable[str], what: str) -> str:
    """One line that names the nearest of `names`, or the first of them where none is near."""
    names = list(names)
    near = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=1, cutoff=0.6)
    if near:
        match = next(n for n in names if n.lower() == near[0])
        return f"did you mean '{match}'?"
    rest = ", ..." if len(names) > MOST_NAMES else ""
    plural = f"{what}es" if what.endswith("ss") else what if what.endswith("s") else f"{what}s"
    return f"known {plural}: {', '.join(names[:MOST_NAMES])}{rest}"
