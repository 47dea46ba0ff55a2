"""All checks, the quick ones first."""

from __future__ import annotations

from collections.abc import Iterator

from opo_cli.doctor import machine, packages, selftests, storage
from opo_cli.doctor.findings import Check, Finding, findings

CHECKS = (
    Check("python", packages.check_python),
    Check("packages", packages.check_packages),
    Check("vllm", packages.check_vllm, takes_seconds=True),
    Check("terminal", machine.check_terminal),
    Check("cores", machine.check_cores),
    Check("memory", machine.check_memory),
    Check("disk", machine.check_disk),
    Check("cache", storage.check_cache),
    Check("device", machine.check_device, takes_seconds=True),
    Check("hub", storage.check_hub, takes_seconds=True),
    Check("grader", selftests.check_grader, takes_seconds=True),
    Check("engine transformers", selftests.check_transformers, takes_seconds=True),
    Check("engine vllm", selftests.check_vllm, takes_seconds=True),
)


def examine(begin) -> Iterator[Finding]:
    """
    Args:
        begin: called with a check that takes its time; a context manager that says so meanwhile.
    """
    for check in CHECKS:
        if check.takes_seconds:
            with begin(check.what):
                found = list(findings(check))
            yield from found
        else:
            yield from findings(check)
