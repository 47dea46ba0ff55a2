"""What an embedded task is: problems drawn by chance, in tiers, with solutions to imitate.

A task says how a problem is drawn, spelled, answered and solved; all that follows from it is here.
Problems are split by a hash of their text, so that no tier holds a training problem, whatever the
seed. Everything is a function of its arguments; nothing reads a global random state.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from opo_cli.errors import OpoError
from opo_cli.types import Problem

if TYPE_CHECKING:
    from opo_cli.config import Data, Style, Styles

HELDOUT_SHARE = 0.3  # Of all problems of any length; never trained on, in warm start or after.
PROBLEMS_PER_TIER = 100
FILLABLE_SHARE = 0.8  # Drawing distinct problems by chance gets slow as they run out.

WORDS = ("\\boxed{", "so ", "then ", "hmm ", "wait ", " ok", " no ")
CHARACTERS = "0123456789+-=?}\n"
"""One vocabulary for all tasks: their bases differ in nothing but what they have seen."""

Terms = tuple[int, int]
"""Fewest and most terms of a problem."""
Item = TypeVar("Item")
"""A problem in numbers, before it is text."""


def is_heldout(text: str) -> bool:
    """Whether the problem belongs to the benchmarks; a property of its text alone."""
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
    return bucket < HELDOUT_SHARE * 2**32


def wrong_total(rng: random.Random, total: int) -> int:
    """A near miss, or now and then anything."""
    offset = rng.choice((1, 2, 10, rng.randint(3, 9)))
    return total + rng.choice((-1, 1)) * offset


def box(answer: object) -> str:
    return f"\\boxed{{{answer}}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Generic[Item]):
    description: str
    """Of a tier's problems, with {terms}."""
    training: str
    """What the set of training problems is called."""
    tiers: Mapping[str, Terms]
    """The last is longer than any problem that the presets train on."""
    validation: str
    """Held out as well, and none of the tiers' problems: what is chosen by them is not reported
    on."""
    validation_terms: Terms
    draw: Callable[[random.Random, int], Item]
    """One with so many terms."""
    text_of: Callable[[Item], str]
    """The question."""
    key_of: Callable[[Item], str]
    """The question in the one spelling that all problems which come to the same share."""
    answer_of: Callable[[Item], str]
    count: Callable[[int], int]
    """How many keys there are of so many terms, on both sides of the split."""
    writers: Mapping[str, Callable[[random.Random, Item, Style], str]]
    """Style -> a solution."""

    def draws(self, rng: random.Random, terms: Terms, *, heldout: bool) -> Iterator[Item]:
        """Endless problems on one side of the split, their length even over `terms`; with
        repeats."""
        while True:
            num_terms = rng.randint(*terms)
            item = self.draw(rng, num_terms)
            while is_heldout(self.key_of(item)) != heldout:
                item = self.draw(rng, num_terms)
            yield item

    def tier_problems(self, tier: str) -> list[Problem]:
        """The held-out problems of a tier, always the same ones."""
        return list(self._tier(tier).values())

    def validation_problems(self) -> list[Problem]:
        """Held-out problems of no tier, always the same ones."""
        taken = {key for tier in self.tiers for key in self._tier(tier)}
        rng = random.Random(self.validation)
        terms, count = self.validation_terms, PROBLEMS_PER_TIER
        found = self._distinct(self.validation, rng, terms, count, heldout=True, taken=taken)
        return list(found.values())

    def training_problems(self, data: Data) -> list[Problem]:
        """`data.num_problems` distinct training problems.

        Raises:
            OpoError: there are not that many.
        """
        known = sum(self.count(n) for n in range(data.min_terms, data.max_terms + 1))
        most = int(known * (1 - HELDOUT_SHARE) * FILLABLE_SHARE)
        if data.num_problems > most:
            raise OpoError(
                f"data.num_problems = {data.num_problems}: only {most} distinct problems of "
                f"{data.min_terms} to {data.max_terms} terms can be had",
                "lower data.num_problems or raise data.max_terms",
            )
        rng = random.Random(f"train/{data.seed}")
        terms = (data.min_terms, data.max_terms)
        found = self._distinct(self.training, rng, terms, data.num_problems, heldout=False)
        return list(found.values())

    def draw_solution(self, rng: random.Random, item: Item, styles: Styles) -> str:
        """A solution in one of the styles, drawn by their shares."""
        names = list(self.writers)
        name = rng.choices(names, [getattr(styles, n).share for n in names])[0]
        return self.writers[name](rng, item, getattr(styles, name))

    def _tier(self, tier: str) -> dict[str, Problem]:
        rng, terms = random.Random(tier), self.tiers[tier]
        return self._distinct(tier, rng, terms, PROBLEMS_PER_TIER, heldout=True)

    def _distinct(
        self,
        name: str,
        rng: random.Random,
        terms: Terms,
        count: int,
        *,
        heldout: bool,
        taken: Collection[str] = (),
    ) -> dict[str, Problem]:
        """The first `count` different problems that are drawn, but for those `taken`, by key."""
        problems: dict[str, Problem] = {}
        for item in self.draws(rng, terms, heldout=heldout):
            if len(problems) == count:
                break
            key = self.key_of(item)
            if key in taken or key in problems:
                continue
            problems[key] = Problem(
                id=f"{name}/{len(problems):04d}",
                question=self.text_of(item),
                answer=self.answer_of(item),
                benchmark=name,
            )
        return problems
