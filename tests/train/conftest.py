"""Real rollouts of the tiny model, for what is tested of a step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from opo_cli.data.prompts import make_prompts, resolve_template
from opo_cli.data.tiny import CHAINS
from opo_cli.presets import resolve
from opo_cli.rollout.engine import EngineSettings, create_engine
from opo_cli.types import Grade, GradedGroup

NUM_PROMPTS = 8


@pytest.fixture
def prompts(policy_and_tokenizer):
    problems = CHAINS.training_problems(resolve("smoke").data)[:NUM_PROMPTS]
    tokenizer = policy_and_tokenizer[1]
    template = resolve_template("line", tokenizer, is_embedded=True)
    return make_prompts(problems, template, tokenizer)


@pytest.fixture
def engine(policy_and_tokenizer):
    return create_engine("transformers", *policy_and_tokenizer, EngineSettings())


@pytest.fixture
def graded(engine, prompts) -> list[GradedGroup]:
    """Every third response is called right, so that no group is without signal."""
    from opo_cli.train.rollouts import sampling_of

    groups = engine.generate(prompts, sampling_of(resolve("smoke")), stream=(0, 0))
    right = Grade(reward=1.0, correct=True, extracted="1", reason="correct")
    wrong = Grade(reward=0.0, correct=False, extracted="0", reason="wrong")
    return [
        GradedGroup(
            group=group,
            grades=tuple(
                right if (i + place) % 3 == 0 else wrong for i in range(len(group.rollouts))
            ),
        )
        for place, group in enumerate(groups)
    ]


@pytest.fixture(scope="session")
def marked() -> Callable[[str], list[int]]:
    """Processes that live and have a mark in their environment, whoever started them."""

    def find(mark: str) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # Gone meanwhile, or another user's.
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if mark.encode() in (entry / "environ").read_bytes() and state != "Z":
                    found.append(int(entry.name))
        return found

    return find
