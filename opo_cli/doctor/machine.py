"""Device, memory, cores, disks and terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.filesize import decimal

from opo_cli.doctor.findings import Finding, ok
from opo_cli.doctor.limits import cpu_limit, memory_limit

GIGABYTE = 10**9
LITTLE_MEMORY = (GIGABYTE, 4 * GIGABYTE)
"""Bytes below which nothing runs, and below which only the embedded models do."""
LITTLE_DISK = (10**8, GIGABYTE)
"""Bytes below which a run of the embedded model does not fit, and below which no other does."""
ASK_SECONDS = 5  # For nvidia-smi, which may hang with its driver.


def check_device() -> Iterator[Finding]:
    import torch

    build = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            name = torch.cuda.get_device_name(number)
            share = f"{decimal(free)} of {decimal(total)} free"
            yield ok("device", f"GPU {number}: {name}, {share}; {build}")
        return
    card = _card()
    if card is None:
        yield ok("device", f"CPU; no NVIDIA GPU is here; {build}")
    elif torch.version.cuda is None:
        told = f"{card} is here, {build} is built without CUDA: opo computes on the CPU"
        mend = "install a torch built for CUDA: https://pytorch.org/get-started/locally"
        yield Finding("device", "warning", told, mend)
    elif "CUDA_VISIBLE_DEVICES" in os.environ:
        hidden = os.environ["CUDA_VISIBLE_DEVICES"]
        told = f"{card} is here, and CUDA_VISIBLE_DEVICES='{hidden}' hides it"
        yield Finding("device", "warning", told, "unset CUDA_VISIBLE_DEVICES")
    else:
        told = f"{card} is here, and {build}, built for CUDA {torch.version.cuda}, does not see it"
        mend = (
            f"update the NVIDIA driver to one for CUDA {torch.version.cuda}, or install a torch "
            "built for an older CUDA: https://pytorch.org/get-started/locally"
        )
        yield Finding("device", "problem", told, mend)


def _card() -> str | None:
    """The first GPU with its driver, by the driver's own word; None: there is none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, timeout=ASK_SECONDS)
    except FileNotFoundError:
        return "an NVIDIA GPU" if Path("/dev/nvidia0").exists() else None
    except subprocess.TimeoutExpired:
        return "an NVIDIA GPU whose driver does not answer"
    name, _, driver = asked.stdout.partition("\n")[0].partition(", ")
    return f"{name} with driver {driver}" if asked.returncode == 0 and driver else None


def check_memory() -> Iterator[Finding]:
    from opo_cli.host import available_bytes

    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free, limit = available_bytes(), memory_limit()
    told = f"{decimal(free)} of {decimal(total)} available"
    if limit is not None and limit.num_bytes < total:
        free = min(free, limit.num_bytes - limit.used)
        told += f"; this container may use {decimal(limit.num_bytes)}"
    yield _by_size("memory", told, free, LITTLE_MEMORY, "end other processes, or raise its limit")


def _by_size(what: str, told: str, free: int, little: tuple[int, int], mend: str) -> Finding:
    if free < little[0]:
        return Finding(what, "problem", told, mend)
    if free < little[1]:
        return Finding(what, "warning", f"{told}: enough for embedded models alone", mend)
    return ok(what, told)


def check_cores() -> Iterator[Finding]:
    from opo_cli.host import num_cores

    usable = cores = num_cores()
    told = f"{cores} core{'s' * (cores > 1)}"
    limit, threads = cpu_limit(), os.environ.get("OMP_NUM_THREADS")
    if limit is not None and limit < cores:
        usable = max(1, round(limit))
        told += f", {limit:g} of them by this container's limit"
    told += f"; OMP_NUM_THREADS={threads}" if threads else ""
    mend = f"export OMP_NUM_THREADS={usable}"
    if threads is not None and not threads.replace(",", "").isdigit():
        yield Finding("cores", "warning", f"{told} is no number", mend)
    elif int((threads or str(cores)).split(",")[0]) > usable:
        yield Finding("cores", "warning", f"{told}: threads would wait for each other", mend)
    else:
        yield ok("cores", told)


def check_disk() -> Iterator[Finding]:
    yield _room("runs", Path.cwd())
    yield _room("temporary", Path(tempfile.gettempdir()))


def _room(what: str, folder: Path) -> Finding:
    mend = "free some space there, or " + (
        "run opo in another folder" if what == "runs" else "export TMPDIR=ANOTHER_FOLDER"
    )
    obstacle = write_obstacle(folder)
    if obstacle is not None:
        return Finding(what, "problem", obstacle, mend)
    free = shutil.disk_usage(folder).free
    told = f"{decimal(free)} free in {folder}"
    return _by_size(what, told, free, LITTLE_DISK, mend)


def write_obstacle(folder: Path) -> str | None:
    """Why no file can be written there; None: it can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"opo")
            file.flush()
    except OSError as error:
        return f"cannot write in {folder}: {error.strerror}"
    return None


def check_terminal() -> Iterator[Finding]:
    from opo_cli.console import out

    kind = "terminal" if out.is_terminal else "no terminal"
    colour = out.color_system or ("off by NO_COLOR" if "NO_COLOR" in os.environ else "none")
    told = f"{kind}, {out.width} columns, colour {colour}, {out.encoding}"
    if out.is_terminal and out.width < 80:
        yield Finding("terminal", "warning", f"{told}: tables are made for 80", "widen the window")
    elif not out.encoding.lower().startswith("utf"):
        mend = "export PYTHONUTF8=1"
        yield Finding("terminal", "warning", f"{told}: tables hold signs that it lacks", mend)
    else:
        yield ok("terminal", told)
