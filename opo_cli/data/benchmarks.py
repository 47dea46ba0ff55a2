"""Benchmarks, one row each, and any local data file as one more.

Default samples per problem follow the field. The standard error of avg@k falls with problems x k,
so that small sets need many: DeepSeek-R1 takes 64 for AIME's 30 problems; AMC's 40 get 32; those
of some hundred get 4, and GSM8K, with 1319, gets 1.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from opo_cli.choose import choose
from opo_cli.config import Columns, Eval
from opo_cli.data.embedded import PROBLEMS_PER_TIER, Task, Terms
from opo_cli.data.files import READERS, Rows, read_file
from opo_cli.data.hub import HubSet, fetch, pinned
from opo_cli.data.rows import every_problem
from opo_cli.data.store import Kept, kept_folder, load_or_make, problem_set
from opo_cli.data.tasks import TASKS, embedded_problems
from opo_cli.errors import OpoError
from opo_cli.records import cache_folder
from opo_cli.types import Problem, ProblemSet

MAA = "problems: copyright of the Mathematical Association of America"


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark(HubSet):
    num_samples: int = 4
    """Responses per problem, unless told otherwise."""
    max_new_tokens: int = 32768
    """An upper bound, tokens; the model's context cuts it."""
    is_embedded: bool = False


def _tiers(task: Task) -> dict[str, Benchmark]:
    *inside, beyond = task.tiers
    return {
        **{name: _tier(task, task.tiers[name], "held out") for name in inside},
        beyond: _tier(task, task.tiers[beyond], "longer than what the presets train on"),
        task.validation: _tier(task, task.validation_terms, "held out, to choose settings by"),
    }


def _tier(task: Task, terms: Terms, note: str) -> Benchmark:
    described = "-".join(map(str, dict.fromkeys(terms)))
    return Benchmark(
        description=f"{task.description.format(terms=described)}, {note}",
        num_problems=PROBLEMS_PER_TIER,
        num_samples=8,  # 100 problems, and samples of the tiny model cost next to nothing.
        max_new_tokens=96,  # What its warm start has seen.
        is_embedded=True,
        licence="MIT",
    )


BENCHMARKS: dict[str, Benchmark] = {
    "AIME24": Benchmark(
        description="American Invitational Mathematics Examination 2024, I and II",
        hub="math-ai/aime24",
        revision="83a7f387baaa524a8bda0022eac0541582297103",
        columns=Columns(question="problem", answer="solution", id="id"),
        encoding="boxed",
        num_problems=30,
        num_samples=64,
        licence=MAA,
        citation="MAA, AIME I and II, 2024",
    ),
    "AIME25": Benchmark(
        description="American Invitational Mathematics Examination 2025, I and II",
        hub="math-ai/aime25",
        revision="563bb8404243c5f09de6ec262f2db674fe5bce9b",
        columns=Columns(question="problem", answer="answer", id="id"),
        encoding="integer",
        num_problems=30,
        num_samples=64,
        licence=MAA,
        citation="MAA, AIME I and II, 2025",
    ),
    "AMC23": Benchmark(  # Not the 83 problems of 2022 and 2023 that some report as AMC.
        description="American Mathematics Competitions 12, 2023, with whole-number answers",
        hub="math-ai/amc23",
        revision="80815d37005feb82cd7f8fbc6901d5d3eff43057",
        columns=Columns(question="question", answer="answer", id="id"),
        encoding="integer",
        num_problems=40,
        num_samples=32,
        licence=MAA,
        citation="MAA, AMC 12A and 12B, 2023",
    ),
    "MATH-500": Benchmark(
        description="500 problems of the MATH test set, levels 1-5",
        hub="HuggingFaceH4/MATH-500",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        columns=Columns(
            question="problem", answer="answer", id="unique_id", level="level", subject="subject"
        ),
        encoding="plain",
        num_problems=500,
        licence="MIT",
        citation="Lightman et al. 2023, arXiv:2305.20050; Hendrycks et al. 2021, arXiv:2103.03874",
    ),
    "GSM8K": Benchmark(
        description="grade-school word problems, the test set",
        hub="openai/gsm8k",
        revision="740312add88f781978c0658806c59bc2815b9866",
        configs=("main",),
        columns=Columns(question="question", answer="answer"),
        encoding="hashes",
        num_problems=1319,
        num_samples=1,
        licence="MIT",
        citation="Cobbe et al. 2021, arXiv:2110.14168",
    ),
    "Minerva": Benchmark(
        description="undergraduate problems of MIT OpenCourseWare, many with numbers as answers",
        hub="math-ai/minervamath",
        revision="ee46ddc498933b1977577953250ca5c66be64f96",
        columns=Columns(question="question", answer="answer"),
        encoding="plain",
        num_problems=272,
        licence="MIT OpenCourseWare, CC BY-NC-SA",
        citation="Lewkowycz et al. 2022, arXiv:2206.14858",
    ),
    "OlympiadBench": Benchmark(  # 674 on the hub; the copy in Qwen's evaluation has one more.
        description="olympiad problems, the English open-ended ones in text alone",
        hub="Hothan/OlympiadBench",
        revision="91184b52131e7fc9455fef848035173aea8cc01a",
        configs=("OE_TO_maths_en_COMP",),
        split="train",
        columns=Columns(question="question", answer="final_answer", id="id", subject="subfield"),
        encoding="list",
        num_problems=674,
        licence="see the data set's card",
        citation="He et al. 2024, arXiv:2402.14008",
    ),
    **{name: row for task in TASKS.values() for name, row in _tiers(task).items()},
}


def check_names(names: Iterable[str]) -> None:
    """Every name is a row or an existing data file, and no two have the same title.

    Raises:
        OpoError: else.
    """
    titles: dict[str, str] = {}
    for name in dict.fromkeys(names):
        benchmark_row(name)
        other = titles.setdefault(benchmark_title(name), name)
        if other != name:
            raise OpoError(
                f"'{other}' and '{name}' are both called '{benchmark_title(name)}' in results",
                "rename one of the files",
            )


def longest_response(settings: Eval) -> int:
    """Tokens that a response of any evaluation may take, if the model can; 0: nothing is
    evaluated."""
    rows = [benchmark_row(name) for name in settings.every_benchmark]
    return max((settings.max_new_tokens or row.max_new_tokens for row in rows), default=0)


def benchmark_row(name: str) -> Benchmark:
    """The row called `name`, or one for the data file `name`.

    Raises:
        OpoError: neither exists.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    suffix = Path(name).suffix.lower()
    if os.path.isfile(name) and suffix in READERS:
        return Benchmark(description=f"the file {name}")
    if os.path.isfile(name):
        raise OpoError(
            f"unknown benchmark '{name}'", f"a data file's name ends in {', '.join(READERS)}"
        )
    if suffix in READERS or "/" in name:
        raise OpoError(
            f"unknown benchmark '{name}'", "there is no such file; the path counts from here"
        )
    return choose(name, BENCHMARKS, "benchmark")


def benchmark_title(name: str) -> str:
    """What results call it: the row's name, or the file's without folder and suffix."""
    return name if name in BENCHMARKS else Path(name).stem


def load_benchmark(name: str, columns: Columns) -> ProblemSet:
    """A benchmark's problems; fetched where there is no copy of them.

    Args:
        columns: of a data file; rows of the table know theirs.

    Raises:
        OpoError: no such benchmark, no network for the first time, or data that is none.
    """
    row, title = benchmark_row(name), benchmark_title(name)
    if row.is_embedded:
        return problem_set(title, embedded_problems(name), source="embedded")
    if row.hub:
        return kept_benchmark(name).problems
    found = every_problem(read_file(Path(name)), columns, "guess", title)
    return problem_set(title, found, source=name)


def kept_benchmark(name: str) -> Kept:
    """A hub benchmark's copy in the cache, made where there is none.

    Raises:
        OpoError: it cannot be had, or does not hold what the row says.
    """
    row = BENCHMARKS[name]
    return load_or_make(kept_folder(name, *row.shape), lambda: (_fetched(name, row), {}))


def _fetched(name: str, row: Benchmark) -> ProblemSet:
    def read(rows: Rows, prefix: str) -> list[Problem]:
        return every_problem(rows, row.columns, row.encoding, name, prefix)

    found = fetch(name, row, read, _remedy(name))
    if len(found.problems) != row.num_problems:
        raise OpoError(
            f"{name}: {pinned(row.hub, found.revision)} has {len(found.problems)} problems, not "
            f"the {row.num_problems} of the benchmark",
            "scores would not compare with those of others; another mirror: HF_ENDPOINT=URL",
        )
    return found


def _remedy(name: str) -> str:
    return (
        f"where there is a network: opo prepare --benchmarks {name}, then copy its cache's "
        f"'problems' folder into '{cache_folder()}' (or share OPO_CACHE); a mirror: "
        "HF_ENDPOINT=URL; a file: opo eval --data FILE --columns question=NAME,answer=NAME"
    )
