"""`opo lab`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opo_cli.cli.options import (
    DEFAULT_PRESET,
    Format,
    FormatOption,
    SetOption,
    check_target,
    parse_names,
    parse_numbers,
    prepare_process,
    set_threads,
    write_page,
)

if TYPE_CHECKING:
    from opo_cli.config import Config
    from opo_cli.lab.analysis import Analysis
    from opo_cli.lab.plan import LabPlan
    from opo_cli.lab.settings import PolicySource, Request

NAME = "lab"


def command(
    run: Annotated[str | None, typer.Option(help="A run's final, or newest, policy.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A Hugging Face model folder or hub id.")
    ] = None,
    along: Annotated[
        str | None, typer.Option(metavar="RUN", help="All snapshots of a run, one by one.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", "-p", help="Without a run; else tiny. Its base.")
    ] = None,
    problems: Annotated[
        str, typer.Option(help="A benchmark, or a data file; else the training problems.")
    ] = "",
    prompts: Annotated[int, typer.Option(help="Problems, drawn by the seed.")] = 256,
    responses: Annotated[int, typer.Option(help="Per prompt, twice a group at least.")] = 32,
    group_size: Annotated[str, typer.Option(help="Groups that are tried: 8,16.")] = "8,16",
    estimators: Annotated[
        str | None, typer.Option(metavar="A,B", help="Else all that can be had.")
    ] = None,
    parameters: Annotated[
        str, typer.Option(help="Of the gradients: all, last-block, lm-head or lora.")
    ] = "all",
    precondition: Annotated[
        str, typer.Option(help="none, or adam: coordinates as its steps scale them.")
    ] = "none",
    reduction: Annotated[str, typer.Option(help="token-sum or seq-mean.")] = "token-sum",
    use_tokens: Annotated[
        bool, typer.Option("--token-gradients", help="A gradient per token, too: slow; for OTB.")
    ] = False,
    memory: Annotated[
        float, typer.Option(help="GB for a prompt's gradients; beyond it, projections.")
    ] = 4.0,
    seed: Annotated[int, typer.Option(help="Of problems, samples, projections.")] = 0,
    out: Annotated[str | None, typer.Option(help="Lab folder; else one under labs/.")] = None,
    html: Annotated[str | None, typer.Option(help="The report as this file.")] = None,
    overrides: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only how much memory and time it takes.")
    ] = False,
    format: FormatOption = Format.rich,
) -> None:
    """Measure which baseline lowers the gradient's variance, on this policy and these problems.

    What is measured stays in the lab folder: a stopped lab goes on, and a finished one answers
    other questions (--estimators, --group-size, --reduction) at once."""
    from opo_cli.console import note
    from opo_cli.lab.settings import Request, check_config, check_request, left_out_terms
    from opo_cli.ranks import is_main

    _check_policy({"run": run, "model": model, "along": along}, preset)
    check_target(out, is_folder=True)
    check_target(html, is_folder=False)
    sizes = parse_numbers(group_size, "--group-size")
    names = None if estimators is None else parse_names(estimators, "--estimators")
    asked = Request(
        prompts=prompts,
        responses=responses,
        problems=problems,
        parameters=parameters,
        precondition=precondition,
        token_gradients=use_tokens,
        seed=seed,
        memory_gigabytes=memory,
    )
    check_request(asked, sizes)
    config, sources, first = _policies(run, model, along, preset, asked, overrides or ())
    check_config(config)
    prepare_process()
    set_threads(config)
    _check_analysis(names, reduction)
    with _ranks(config) as from_main:
        target = Path(out) if out else None
        plans, training = from_main(lambda: _plans(config, asked, sources, target, first))
        if dry_run or from_main(lambda: any(_is_open(plan) for plan in plans)):
            _measure(config, asked, plans, training, only_plan=dry_run)
    if dry_run or not is_main():
        return
    analyses = _analyses(plans, group_sizes=sizes, estimators=names, reduction=reduction, seed=seed)
    _tell(analyses, left_out_terms(config), format, html)
    folder = plans[0].folder.path
    note(f"measured: {folder if len(plans) == 1 else folder.parent}")


def _check_policy(given: dict[str, str | None], preset: str | None) -> None:
    """Raises OpoError where two are named."""
    from opo_cli.errors import OpoError

    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        first, second, *_ = named
        raise OpoError(f"--{first} and --{second}: one of them", "leave one out")
    if preset and "model" not in named and named:
        raise OpoError(f"--preset {preset} with a run, which has its own", "leave --preset out")


def _analyses(plans: list[LabPlan], **options) -> list[Analysis]:
    """What the measured labs say, in their order; one at a time is in memory."""
    from opo_cli.console import progress
    from opo_cli.lab.analysis import analyse
    from opo_cli.lab.store import load_lab

    found = []
    with progress("analyse", len(plans)) as update:
        for number, plan in enumerate(plans):
            data = load_lab(plan.folder.path)
            found.append(
                analyse(data, **options, update=lambda share, number=number: update(number + share))
            )
    return found


def _tell(analyses: list[Analysis], remarks: list[str], format: Format, html: str | None) -> None:
    from opo_cli.console import note, out
    from opo_cli.lab.report import lab_report
    from opo_cli.report.tables import print_report

    if html is not None:  # First: who reads the tables may stop before their end.
        from opo_cli.lab.page import render_lab

        write_page(html, render_lab(*analyses, remarks=remarks))
        note(f"report: {html}")
    print_report(out, lab_report(*analyses, remarks=remarks), format)


def _policies(
    run: str | None, model: str | None, along: str | None, preset: str | None, asked: Request, over
) -> tuple[Config, list[PolicySource], str]:
    """(config, policies, how the folder's name begins)."""
    from opo_cli.lab.settings import PolicySource, policies_along, policy_of_run, run_config
    from opo_cli.model.folder import model_source
    from opo_cli.presets import resolve
    from opo_cli.records import find_run

    if run or along:
        folder = find_run(run or along)
        config = run_config(folder, over)
        if along:
            return config, policies_along(folder, asked), f"{folder.name}-along"
        return config, [policy_of_run(folder, asked)], folder.name
    name = preset or DEFAULT_PRESET
    config = resolve(name, named={"model": {"path": model}} if model else None, overrides=over)
    if config.model.path:
        model_source(config.model.path)
        label = Path(config.model.path).name
        return config, [PolicySource(label=label, path=config.model.path)], label
    return config, [PolicySource(label=f"{name}'s base", path="")], name


def _check_analysis(names: list[str] | None, reduction: str) -> None:
    """Before hours of measuring: raises OpoError for an unknown arm or reduction."""
    from opo_cli.choose import check_known
    from opo_cli.lab.arms import ARMS
    from opo_cli.lab.pool import REDUCTIONS

    check_known(reduction, REDUCTIONS, "reduction")
    for name in names or ():
        check_known(name, ARMS, "estimator")


def _plans(
    config: Config, asked: Request, sources: list[PolicySource], out: Path | None, first: str
) -> tuple[list[LabPlan], Path | None]:
    """Makes problems and base where they are missing; they are part of what tells labs apart."""
    from dataclasses import replace

    from opo_cli.lab.plan import plan_lab, training_file
    from opo_cli.lab.settings import check_moments
    from opo_cli.train.warmstart import prepare

    for source in sources:
        check_moments(source, asked)
    training = training_file(config, asked)
    if not sources[0].path:
        sources = [replace(sources[0], path=prepare(config)[1])]
    return plan_lab(config, asked, sources, out, first), training


@contextmanager
def _ranks(config: Config) -> Iterator[Callable]:
    """Around the work of all ranks; `from_main`, which in a process of its own takes no torch."""
    from opo_cli.ranks import is_launched

    if not is_launched():
        yield lambda compute: compute()
        return
    from opo_cli.model.parallel import from_main, joined
    from opo_cli.model.policy import choose_device

    with joined(choose_device(config.runtime.device)[0].type, config.runtime.timeout_seconds):
        yield from_main


def _is_open(plan: LabPlan) -> bool:
    return not plan.folder.exists or bool(plan.folder.missing())


def _measure(
    config: Config, asked: Request, plans: list[LabPlan], training: Path | None, *, only_plan: bool
) -> None:
    from opo_cli.console import note
    from opo_cli.lab.measure import measure
    from opo_cli.model.device import check_gpus
    from opo_cli.ranks import world_size
    from opo_cli.train.outputs import with_ranks

    def tell(rows: list[tuple[str, str]]) -> None:
        for title, text in rows:
            note(f"{title}: {text}")

    config = with_ranks(config, world_size())  # Each has a whole policy: any number will do.
    check_gpus(config)
    try:
        measure(config, asked, plans, training, tell, only_plan=only_plan)
    except KeyboardInterrupt:
        note("stopped; the same command goes on with the prompts that are missing")
        raise
