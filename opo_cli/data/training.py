"""The training problems of a config, made once: cleaned, each question once, audited.

The folder holds `train.jsonl`, `source.json` (where they came from, and what became of the rows)
and `audit.json` (what they share with the benchmarks).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from opo_cli.choose import did_you_mean
from opo_cli.config import Columns, Config, Data
from opo_cli.console import warn
from opo_cli.data.audit import Overlap, audit
from opo_cli.data.benchmarks import benchmark_row, check_names, load_benchmark
from opo_cli.data.datasets import DATASETS
from opo_cli.data.files import READERS, Rows, read_file
from opo_cli.data.hub import HubSet, check_hub_id, fetch, pinned
from opo_cli.data.rows import Counts, decode, distinct_problems, find_columns
from opo_cli.data.sources import save_problems
from opo_cli.data.store import is_kept, kept_folder, load_or_make, problem_set
from opo_cli.data.tasks import TASKS
from opo_cli.errors import OpoError
from opo_cli.files import file_sha256, make_folder, write_json
from opo_cli.records import cache_folder, check_cache, digest, source_digest
from opo_cli.types import Problem, ProblemSet

EMBEDDED = ("embedded", "tasks", "tiny", "search")
MAKERS = (*EMBEDDED, "sources", "decode", "files", "rows", "audit", "training")
SOURCES = ("types.py", *(f"data/{name}.py" for name in MAKERS))
APPLIED_AT_START = {"template", "answer_format", "max_prompt_tokens"}  # Of a run.


def audited(config: Config) -> tuple[str, ...]:
    """The benchmarks that the training problems are held against, and what choices are made by. The
    embedded task's tiers are disjoint from its training problems by construction."""
    if not config.data.source:
        return ()
    names = config.data.audit or config.eval.benchmarks
    return tuple(dict.fromkeys((*names, *config.eval.validation)))


def data_folder(config: Config) -> Path:
    """Where this config's training problems are, or will be. A local file counts by its content; a
    hub data set without a revision is what it was when it was first fetched."""
    names = audited(config)
    shape = [config.data.model_dump(exclude=APPLIED_AT_START), names, source_digest(*SOURCES)]
    if names:
        shape += [config.eval.columns.model_dump(), *(repr(benchmark_row(name)) for name in names)]
    if config.data.source and not _is_file(config.data.source):
        shape.append(repr(hub_row(config.data)))
    files = [Path(name) for name in (config.data.source, *names) if _is_file(name)]
    shape += [file_sha256(path) for path in files if path.is_file()]
    return cache_folder() / f"data-{digest(*shape)}"


def prepare_data(config: Config) -> Path:
    """The folder of `data_folder`, made where it is missing or damaged.

    Raises:
        OpoError: the source, or a benchmark to audit against, cannot be had or read; nothing is
            left to train on; the embedded task has too few distinct problems; the cache cannot be
            written.
    """
    folder = data_folder(config)
    if not is_kept(folder):
        check_cache()
        found, counts = load_training(config.data)
        overlaps = _audit(config, found)
        kept = _without(found.problems, overlaps if config.data.drop_overlap else [])
        dropped = len(found.problems) - len(kept)
        if not kept:
            raise OpoError(
                f"data.source = '{config.data.source}': no problem is left to train on",
                f"of {counts.rows} rows, {counts.unusable} cannot be used (no question or answer: "
                f"--set data.columns.answer=NAME), {dropped} overlap benchmarks",
            )
        report = _report(config, overlaps)
        _warn_of(config, overlaps, dropped)
        make_folder(folder, lambda at: _save(at, found, kept, counts, dropped, report))
    return folder


def _save(
    folder: Path,
    found: ProblemSet,
    kept: list[Problem],
    counts: Counts,
    dropped: int,
    report: dict[str, Any],
) -> None:
    save_problems(kept, folder / "train.jsonl")
    facts = {
        "name": found.name,
        "source": found.source,
        "revision": found.revision,
        "sha256": problem_set(found.name, kept, source=found.source).sha256,
        "counts": {**asdict(counts), "overlapping": dropped, "problems": len(kept)},
    }
    write_json(folder / "source.json", facts)
    write_json(folder / "audit.json", report)


def _audit(config: Config, found: ProblemSet) -> list[Overlap]:
    names = audited(config)
    check_names(names)
    benchmarks = [load_benchmark(name, config.eval.columns) for name in names]
    return audit(found.problems, benchmarks, config.data.overlap_words) if names else []


def _without(problems: tuple[Problem, ...], overlaps: list[Overlap]) -> list[Problem]:
    dropped = {place for overlap in overlaps for place in overlap.training}
    return [problem for place, problem in enumerate(problems) if place not in dropped]


def _report(config: Config, overlaps: list[Overlap]) -> dict[str, Any]:
    """What `audit.json` holds: a row per benchmark."""
    rows = [asdict(overlap) for overlap in overlaps]
    for row in rows:
        row["num_training"] = len(row.pop("training"))
    return {
        "overlap_words": config.data.overlap_words,
        "dropped": config.data.drop_overlap,
        "benchmarks": rows,
    }


def _warn_of(config: Config, overlaps: list[Overlap], dropped: int) -> None:
    names = [overlap.benchmark for overlap in overlaps if overlap.training]
    if names and not config.data.drop_overlap:
        count = len({place for overlap in overlaps for place in overlap.training})
        warn(
            f"{count} training problems share {config.data.overlap_words} words with problems of "
            f"{', '.join(names)}; --set data.drop_overlap=true leaves them out"
        )
    elif dropped:
        warn(f"{dropped} training problems left out that overlap {', '.join(names)}")


# --- where they come from ---------------------------------------------------------------------


def load_training(data: Data) -> tuple[ProblemSet, Counts]:
    """The usable problems of a source, in its order, each question once, or the first
    `data.limit` of them.

    Raises:
        OpoError: no such source, or it cannot be had or read.
    """
    if not data.source:
        task = TASKS[data.task]
        problems = task.training_problems(data)
        return problem_set(task.training, problems, source="embedded"), _all_used(problems)
    found, counts = _from_file(data) if _is_file(data.source) else _from_hub(data)
    if data.limit and len(found.problems) > data.limit:
        first = found.problems[: data.limit]
        found = problem_set(found.name, first, source=found.source, revision=found.revision)
    return found, counts


def _all_used(problems: list[Problem]) -> Counts:
    return Counts(rows=len(problems), problems=len(problems))


def _is_file(name: str) -> bool:
    return Path(name).suffix.lower() in READERS


def _from_file(data: Data) -> tuple[ProblemSet, Counts]:
    path = Path(data.source)
    rows, counts = read_file(path), Counts()
    columns = find_columns(data.columns, rows)
    items = decode(rows, columns, "guess", path.stem)
    problems = list(distinct_problems(items, counts, set()))
    return problem_set(path.stem, problems, source=data.source), counts


def check_source(data: Data) -> None:
    """What can be told of a source without reading it.

    Raises:
        OpoError: a file that is not there, or a name that is none.
    """
    if data.source and not _is_file(data.source):
        check_hub_id(hub_row(data).hub)
    elif data.source and not Path(data.source).is_file():
        raise OpoError(
            f"data.source = '{data.source}': there is no such file", "the path counts from here"
        )


def hub_row(data: Data) -> HubSet:
    """The row of a table, or of any hub data set, with what the config says of it.

    Raises:
        OpoError: the source is neither.
    """
    row = DATASETS.get(data.source)
    if row is None and "/" not in data.source:
        hint = did_you_mean(data.source, DATASETS, "training set")
        raise OpoError(
            f"unknown training set '{data.source}'",
            f"{hint}; or a hub data set (owner/name), or a file ({', '.join(READERS)})",
        )
    if row is None:
        row = HubSet(description="", hub=data.source, split=data.split, columns=data.columns)
    elif data.split != Data().split:
        row = replace(row, split=data.split, num_problems=0)
    if data.config:
        row = replace(row, configs=tuple(data.config.split(",")), num_problems=0)
    if data.revision:
        row = replace(row, revision=data.revision, num_problems=0)
    if data.columns != Columns():
        row = replace(row, columns=data.columns, encoding="guess")
    return row


def _from_hub(data: Data) -> tuple[ProblemSet, Counts]:
    row = hub_row(data)
    folder = kept_folder(data.source, "training", *row.shape)
    kept = load_or_make(folder, lambda: _fetched(data.source, row))
    return kept.problems, Counts(**kept.counts)


def _fetched(name: str, row: HubSet) -> tuple[ProblemSet, dict[str, int]]:
    counts, seen = Counts(), set()

    def read(rows: Rows, prefix: str) -> Iterator[Problem]:
        columns = find_columns(row.columns, rows)
        items = decode(rows, columns, row.encoding, name, prefix)
        return distinct_problems(items, counts, seen)

    found = fetch(name, row, read, _remedy())
    if row.num_problems and counts.rows != row.num_problems:
        raise OpoError(
            f"{name}: {pinned(row.hub, found.revision)} has {counts.rows} rows, not "
            f"{row.num_problems}",
            "another mirror: HF_ENDPOINT=URL; or take it as it is: "
            f"--set data.source={row.hub} --set data.split={row.split}",
        )
    return found, asdict(counts)


def _remedy() -> str:
    return (
        "where there is a network: opo prepare with the same settings, then copy its cache's "
        f"'problems' folder into '{cache_folder()}' (or share OPO_CACHE); a mirror: "
        "HF_ENDPOINT=URL; a file: --set data.source=FILE"
    )
