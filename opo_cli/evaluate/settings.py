"""`opo eval`'s request as a config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opo_cli.config import Config, Eval
from opo_cli.data.benchmarks import Benchmark, benchmark_row, benchmark_title, check_names
from opo_cli.data.prompts import check_template
from opo_cli.errors import OpoError
from opo_cli.presets import defaults, merged, parse_override, stored, validated
from opo_cli.records import RunFolder

NEVER_INHERITED = ("limit", "every", "during", "validation", "checkpoint")
OF_OWN_BENCHMARKS = ("samples", "k", "max_new_tokens")


def eval_config(
    folder: RunFolder | None,
    model: str | None,
    asked: Mapping[str, Any],
    overrides: Iterable[str] = (),
) -> Config:
    """The run's own settings, or for a model the defaults, and what was asked on top.

    What a run says of numbers of samples and tokens holds for its own benchmarks; others have
    theirs. A limit is never inherited: a score of the first problems is none of the benchmark.
    Without an own `k`, those of the run that the samples can carry.

    Args:
        asked: tables from the command's own options.

    Raises:
        OpoError: a value that does not fit.
    """
    start = defaults() if folder is None else stored(folder)
    given: dict[str, Any] = dict(asked)
    for text in overrides:
        given = merged(given, parse_override(text))
    tables = start.model_dump(mode="json")
    if model is not None:
        tables["model"]["path"] = model
    names = asked["eval"]["benchmarks"]
    are_own = set(names) <= {*start.eval.benchmarks, *start.eval.validation}
    reset = (*NEVER_INHERITED, *(() if are_own else OF_OWN_BENCHMARKS))
    tables["eval"] |= {key: Eval().model_dump(mode="json")[key] for key in reset}
    tables = merged(tables, given)
    own = given.get("eval")
    has_own_k = not isinstance(own, dict) or "k" in own
    return validated(tables if has_own_k else _with_fitting_k(tables, names))


def _with_fitting_k(tables: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The run's k, as far as the samples reach."""
    settings = validated(merged(tables, {"eval": {"k": []}})).eval
    most = min(num_samples(settings, benchmark_row(name)) for name in names)
    return merged(tables, {"eval": {"k": [k for k in tables["eval"]["k"] if k <= most]}})


def num_samples(settings: Eval, row: Benchmark) -> int:
    """Responses per problem: as asked, else the benchmark's own number; one where all are equal."""
    return settings.samples or (row.num_samples if settings.temperature else 1)


def takes_kl(settings: Eval) -> bool:
    """Whether KL to the initial policy can be measured: at another temperature or top-p the samples
    are not the policy's, and their log-ratios estimate no KL."""
    return settings.temperature == 1 and settings.top_p == 1


def check_evaluation(config: Config) -> None:
    """What can be told of evaluations before anything is loaded.

    Raises:
        OpoError: an unknown benchmark or template, or a k without enough samples.
    """
    names, most = config.eval.every_benchmark, max(config.eval.k, default=0)
    check_names(names)
    check_template(config.data.template)
    for name in names:
        count = num_samples(config.eval, benchmark_row(name))
        if most > count:
            raise OpoError(
                f"k {most} exceeds the {count} samples per problem of '{benchmark_title(name)}'",
                f"--set eval.samples={most}, or a smaller eval.k",
            )
