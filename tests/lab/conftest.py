"""The tiny model's engine and prompts."""

from __future__ import annotations

import pytest

from opo_cli.data.prompts import make_prompts, resolve_template
from opo_cli.data.tiny import CHAINS
from opo_cli.presets import resolve
from opo_cli.rollout.engine import EngineSettings, create_engine


@pytest.fixture
def prompts(policy_and_tokenizer):
    problems = CHAINS.training_problems(resolve("smoke").data)[:8]
    tokenizer = policy_and_tokenizer[1]
    return make_prompts(problems, resolve_template("line", tokenizer, is_embedded=True), tokenizer)


@pytest.fixture
def engine(policy_and_tokenizer):
    return create_engine("transformers", *policy_and_tokenizer, EngineSettings())
