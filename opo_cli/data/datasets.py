"""Training sets on the hub, one row each. Revisions are those that public code pins."""

from __future__ import annotations

from opo_cli.config import Columns
from opo_cli.data.hub import HubSet

MAA = "problems of competitions, the MAA's among them"

DATASETS: dict[str, HubSet] = {
    "MATH": HubSet(
        description="competition problems with worked solutions, levels 1-5",
        hub="DigitalLearningGmbH/MATH-lighteval",
        revision="0530c78699ea5e8eb5530600900e1f328b48acad",
        split="train",
        columns=Columns(question="problem", answer="solution", level="level", subject="type"),
        encoding="boxed",
        num_problems=7500,
        licence="MIT",
        citation="Hendrycks et al. 2021, arXiv:2103.03874",
    ),
    "GSM8K-train": HubSet(
        description="grade-school word problems",
        hub="openai/gsm8k",
        revision="740312add88f781978c0658806c59bc2815b9866",
        configs=("main",),
        split="train",
        columns=Columns(question="question", answer="answer"),
        encoding="hashes",
        num_problems=7473,
        licence="MIT",
        citation="Cobbe et al. 2021, arXiv:2110.14168",
    ),
    "DeepScaleR": HubSet(
        description="AIME and AMC before 2023, Omni-MATH, STILL",
        hub="agentica-org/DeepScaleR-Preview-Dataset",
        revision="b6ae8c60f5c1f2b594e2140b91c49c9ad0949e29",
        split="train",
        columns=Columns(question="problem", answer="answer"),
        encoding="plain",
        num_problems=40315,
        licence=f"MIT; {MAA}",
        citation="Luo et al. 2025, DeepScaleR",
    ),
    "DAPO-17k": HubSet(
        description="competition problems with whole-number answers, the English ones, each once",
        hub="open-r1/DAPO-Math-17k-Processed",
        revision="31dd309567e3da778038cc87d868b6097a3ccf68",
        configs=("en",),
        split="train",
        columns=Columns(question="prompt", answer="solution"),
        encoding="plain",
        num_problems=14116,
        licence=f"Apache-2.0; {MAA}",
        citation="Yu et al. 2025, arXiv:2503.14476",
    ),
    "Skywork-OR1": HubSet(  # No public code that we know of pins its revision or states its rows.
        description="filtered problems of many sources (its split of mathematics)",
        hub="Skywork/Skywork-OR1-RL-Data",
        split="math",
        columns=Columns(question="prompt", answer="reward_model.ground_truth"),
        encoding="json-list",
        licence="see the data set's card",
        citation="He et al. 2025, arXiv:2505.22312",
    ),
}
