"""Data sets from the Hugging Face hub, through its own libraries: HF_HOME, HF_ENDPOINT, HF_TOKEN
and HF_HUB_OFFLINE mean what they mean there. No code of a data set is ever run.

First one request for the commit, answered or refused at once (the libraries' own retries would
keep a user without a network waiting); then `datasets` loads exactly that commit; then every file
is held against the hub's checksums, and against a damaged one all are fetched once more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from opo_cli.config import Columns
from opo_cli.console import progress
from opo_cli.data.files import Rows, schema_columns
from opo_cli.data.store import problem_set
from opo_cli.errors import OpoError, first_line
from opo_cli.types import Problem, ProblemSet

ANSWER_SECONDS = 10  # The first request; a hub that says nothing for longer counts as none.
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSet:
    """Where a set of problems is on the hub, and how it stores them."""

    description: str
    hub: str = ""
    """owner/name; empty: embedded."""
    revision: str = ""
    """The commit that public code pins; empty: none is known, the newest is taken and recorded."""
    configs: tuple[str, ...] = ("",)
    """All of them, one after the other; "" is the default one."""
    split: str = "test"
    columns: Columns = field(default_factory=Columns)
    encoding: str = "guess"
    """How the answer is stored, a key of ENCODINGS."""
    num_problems: int = 0
    """Rows, held against what comes; 0: not known."""
    licence: str = ""
    citation: str = ""

    @property
    def source(self) -> str:
        """Data set, configs and split in one word."""
        return "/".join(filter(None, (self.hub, "+".join(filter(None, self.configs)), self.split)))

    @property
    def shape(self) -> tuple[Any, ...]:
        """All that its problems depend on, for the cache."""
        columns = self.columns.model_dump()
        return self.hub, self.revision, self.configs, self.split, columns, self.encoding


def pinned(source: str, revision: str) -> str:
    """As people are told it: `owner/name@commit`."""
    return f"{source}@{revision[:12]}" if revision else source


def check_hub_id(name: str) -> None:
    """Raises OpoError for what cannot be an owner/name."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise OpoError(f"'{name}' is no hub data set", "for example: --set data.source=owner/name")


def fetch(
    name: str, row: HubSet, read: Callable[[Rows, str], Iterable[Problem]], remedy: str
) -> ProblemSet:
    """The problems of every config of a data set.

    Args:
        read: makes problems of a config's rows; called with what begins their ids, too.
        remedy: what a user without a network can do.

    Raises:
        OpoError: no network, no such data set, config or split, no access, a damaged download.
    """
    check_hub_id(row.hub)
    problems: list[Problem] = []
    commit = ""
    with progress(f"fetch {name}", len(row.configs)) as update:
        for done, config in enumerate(row.configs):
            rows, commit = _fetch_config(row, config, remedy)
            update(done, rows.where)
            problems += read(rows, f"{config}/" if len(row.configs) > 1 else "")
    return problem_set(name, problems, source=row.source, revision=commit)


def _fetch_config(row: HubSet, config: str, remedy: str) -> tuple[Rows, str]:
    """(rows, commit)."""
    import datasets
    from huggingface_hub import constants

    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    _hush_hub()
    commit = "" if constants.HF_HUB_OFFLINE else _ask_commit(row, remedy)
    table, loaded = _load(row, config, commit, remedy)
    wanted = commit or row.revision
    if COMMIT.fullmatch(wanted) and loaded != wanted:
        raise OpoError(
            f"the Hugging Face cache holds '{row.hub}' at commit {loaded[:12] or 'unknown'}, "
            f"not at {wanted[:12]}",
            remedy,
        )
    rows = Rows(
        columns=schema_columns(table.features.arrow_schema),
        rows=enumerate(_rows(table), start=1),
        where=pinned(row.hub, loaded),
        is_local=False,
    )
    return rows, loaded


def _rows(table: Any) -> Iterator[dict[str, Any]]:
    """In batches of Arrow's, ten times faster than row by row: some sets have millions."""
    for batch in table.with_format("arrow").iter(batch_size=1000):
        yield from batch.to_pylist()


def _hush_hub() -> None:
    """Every failure comes out as an error of ours; the talk about retries would only bury it."""
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()


def _ask_commit(row: HubSet, remedy: str) -> str:
    """The commit that the revision names now."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    api, endpoint = HfApi(library_name="opo"), constants.ENDPOINT
    try:
        info = api.dataset_info(row.hub, revision=row.revision or None, timeout=ANSWER_SECONDS)
    except GatedRepoError:
        raise OpoError(
            f"data set '{row.hub}' is gated",
            f"accept its terms at {endpoint}/datasets/{row.hub}, then set HF_TOKEN",
        ) from None
    except RepositoryNotFoundError:
        raise OpoError(
            f"no data set '{row.hub}' at {endpoint}",
            "check its name; a private one needs HF_TOKEN of an account that may read it",
        ) from None
    except RevisionNotFoundError:
        raise OpoError(
            f"data set '{row.hub}' has no revision '{row.revision}' at {endpoint}",
            "a mirror may lack it: another HF_ENDPOINT; for training: --set data.revision=...",
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise OpoError(f"{endpoint} answers {status} for '{row.hub}'", remedy) from None
    except (HTTPError, OSError) as error:
        raise OpoError(
            f"cannot reach {endpoint} for '{row.hub}': {first_line(error)}", remedy
        ) from None
    return info.sha


class DamagedFileError(Exception):
    """A downloaded file is another than the hub's."""


def _load(row: HubSet, config: str, commit: str, remedy: str) -> tuple[Any, str]:
    """(the split's table, the commit that it is of)."""
    import pyarrow as pa
    from datasets.exceptions import DatasetGenerationError

    damage: Exception | None = None
    for mode in ("reuse_dataset_if_exists", "force_redownload")[: 2 if commit else 1]:
        try:
            return _build(row, config, commit, mode)
        except OpoError:
            raise
        except (DatasetGenerationError, DamagedFileError, pa.ArrowException) as error:
            damage = error
        except Exception as error:  # Whatever the libraries raise when a download breaks off.
            raise _failure(row, commit, error, remedy) from error
    why = first_line(damage.__cause__ or damage)
    raise OpoError(
        f"the download of '{row.hub}' is damaged: {why}", f"try again; or {remedy}"
    ) from damage


def _build(row: HubSet, config: str, commit: str, mode: str) -> tuple[Any, str]:
    import datasets

    revision = commit or row.revision or None
    try:
        builder = datasets.load_dataset_builder(
            row.hub, config or None, revision=revision, download_mode=mode
        )
    except ValueError as error:
        raise _no_config(row, config, revision, error) from None
    builder.download_and_prepare(download_mode=mode)
    if commit:
        _verify(row, commit)
    if row.split not in builder.info.splits:
        raise OpoError(
            f"data set '{row.hub}' has no split '{row.split}'",
            f"it has: {', '.join(builder.info.splits)} (for training: --set data.split=NAME)",
        )
    # `datasets` names its cache by the commit, so that this is what was loaded, offline too.
    return builder.as_dataset(split=row.split), builder.hash or ""


def _no_config(row: HubSet, config: str, revision: str | None, error: ValueError) -> OpoError:
    import datasets

    names = datasets.get_dataset_config_names(row.hub, revision=revision)
    if config in names or (not config and len(names) == 1):
        return OpoError(f"data set '{row.hub}' cannot be loaded: {first_line(error)}", "see there")
    what = f"has no config '{config}'" if config else "has several configs and no default"
    return OpoError(
        f"data set '{row.hub}' {what}",
        f"it has: {', '.join(names)} (for training: --set data.config=NAME)",
    )


def _verify(row: HubSet, commit: str) -> None:
    """Raises DamagedFileError where a downloaded file differs from the hub's checksum of it."""
    from huggingface_hub import HfApi

    api = HfApi(library_name="opo")
    checked = api.verify_repo_checksums(row.hub, repo_type="dataset", revision=commit)
    if checked.mismatches:
        first = checked.mismatches[0]
        raise DamagedFileError(
            f"{first['path']} has {first['algorithm']} {first['actual'][:12]}, "
            f"the hub says {first['expected'][:12]}"
        )


def _failure(row: HubSet, commit: str, error: Exception, remedy: str) -> OpoError:
    if not commit:
        return OpoError(
            f"HF_HUB_OFFLINE is set, and the Hugging Face cache has no copy of '{row.hub}'", remedy
        )
    return OpoError(f"loading '{row.hub}' failed: {first_line(error)}", f"try again; or {remedy}")
