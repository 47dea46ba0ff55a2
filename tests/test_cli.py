"""The command line as a user meets it: quick answers, and two lines for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from opo_cli.cli import main


@pytest.mark.parametrize("line", ["--help", "-h", "train --help", "compare -h", "--version"])
def test_help_exits_with_zero(line, capsys):
    assert main(line.split()) == 0
    assert "opo" in capsys.readouterr().out


def test_no_command_shows_the_help(capsys):
    assert main([]) == 2
    assert "compare" in capsys.readouterr().out


LISTS_OF_TABLES = (
    *("presets", "benchmarks", "datasets", "algorithms", "estimators", "losses", "reductions"),
    *("engines", "metrics"),
)


@pytest.mark.parametrize("what", LISTS_OF_TABLES)
@pytest.mark.parametrize("format", ["rich", "markdown", "csv", "json"])
def test_lists_print_in_every_format(what, format, in_tmp, capsys):
    assert main(["list", what, "--format", format]) == 0
    printed = capsys.readouterr().out
    if format == "json":
        assert all(row.values() for row in json.loads(printed)[:1])
    assert len(printed.splitlines()) > 1


def test_a_dry_run_prints_the_plan_and_writes_nothing(run_opo, in_tmp):
    result = run_opo("train", "--dry-run", "-a", "grpo", "--set", "rollout.group_size=8")
    assert result.returncode == 0, result.stderr
    for text in (
        "16 prompts x group of 8 = 128 responses",
        "per batch 4 of 32 responses (off-policy after the first)",
        "0.001 KL(k3) in the loss",
        "certificate none: off-policy (4 updates per batch)",
        "auto; torch sees no GPU" if not has_gpu() else "auto",
        "transformers (auto",
    ):
        assert text in " ".join(result.stdout.split())
    assert list(in_tmp.iterdir()) == []


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


needs_no_gpu = pytest.mark.skipif("has_gpu()", reason="a GPU is here")
GPU_HINT = (
    "hint: opo train --preset qwen-math-smoke runs the same path on a CPU; "
    "--dry-run prints the plan"
)
ANYWAY = "; --set runtime.gpu_gigabytes=0 tries it anyway"


@needs_no_gpu
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --preset qwen-math", "qwen-math needs 1 GPU of 80 GB; torch sees none here"),
        (
            "train --preset qwen-math --set runtime.device=cuda",
            "qwen-math needs 1 GPU of 80 GB; torch sees none here",
        ),
        (
            "train --preset qwen-math --dry-run --check",
            "qwen-math needs 1 GPU of 80 GB; torch sees none here",
        ),
        (
            "train --preset qwen-math-7b",
            "qwen-math-7b needs 8 GPUs of 80 GB; torch sees none here",
        ),
        ("compare --preset qwen-math", "qwen-math needs 1 GPU of 80 GB; torch sees none here"),
    ],
)
def test_a_missing_gpu_is_told_before_anything_is_fetched(line, message, in_tmp, run_opo):
    cache = in_tmp / "cache"
    result = run_opo(*line.split(), OPO_CACHE=str(cache), HF_HOME=str(in_tmp / "hub"))
    assert result.returncode == 2
    hint = GPU_HINT + ("" if "8 GPUs" in message else ANYWAY)
    assert result.stderr.splitlines() == [f"error: preset {message}", hint]
    assert result.stdout == ""
    assert list(in_tmp.iterdir()) == []


def test_one_run_at_a_time_on_a_gpu_and_one_per_core_on_a_cpu():
    from opo_cli.host import num_cores
    from opo_cli.presets import resolve
    from opo_cli.train.matrix import num_jobs

    for_gpu = resolve("qwen-math")
    assert num_jobs(for_gpu, None) == num_jobs(for_gpu, 1) == 1
    on_cpu = resolve("qwen-math", overrides=["runtime.device=cpu"])
    assert num_jobs(on_cpu, None) == num_cores()
    assert num_jobs(on_cpu, 7) == 7


@needs_no_gpu
def test_a_dry_run_for_a_gpu_needs_none(in_tmp, run_opo):
    result = run_opo("train", "--preset", "qwen-math", "--dry-run", COLUMNS="80")
    assert result.returncode == 0
    assert result.stderr.splitlines() == [
        "warning: preset qwen-math needs 1 GPU of 80 GB; torch sees none here"
    ]
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for text in (
        "device       cuda (a GPU of 80 GB, which is not here)",
        "of 80.0 GB, a GPU of 80 GB: fits",
        "memory of the worst step, GB",
        "1,543,714,304 (shape: known; not downloaded yet)",
        "(H100 SXM)",
    ):
        assert " ".join(text.split()) in " ".join(result.stdout.split())
    table = {line[2:].split("  ")[0]: line.split()[-6:] for line in lines if line[:2] == "  "}
    assert table["weights, fp32"] == ["6.17"] * 6
    assert table["AdamW's moments"] == ["12.35"] * 6
    assert list(in_tmp.iterdir()) == []


@needs_no_gpu
def test_a_cpu_that_is_asked_for_needs_no_gpu(run_opo):
    arguments = ["--set", "runtime.gpu_gigabytes=80", "--set", "runtime.device=cpu", "--dry-run"]
    result = run_opo("train", "--preset", "smoke", *arguments)
    assert result.returncode == 0
    assert result.stderr == ""


def test_output_survives_narrow_and_colourless_terminals(run_opo):
    result = run_opo("list", "metrics", NO_COLOR="1", COLUMNS="80")
    assert "\x1b[" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_reader_may_close_the_pipe(in_tmp):
    command = f"{sys.executable} -m opo_cli list metrics --format csv | head -1"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True
    )
    assert result.returncode == 0
    assert "Traceback" not in result.stderr


@pytest.fixture
def small_disk(in_tmp: Path):
    """A real file system of 64 kB."""
    folder = in_tmp / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_the_run_goes_on_elsewhere(run_opo, base, small_disk):
    (small_disk / "filler").write_bytes(b"0" * 20_000)
    result = run_opo("train", "--preset", "smoke", "--out", "disk/run")
    assert result.returncode == 2
    assert "No space left on device" in result.stderr
    assert "--resume" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_read_only_folder_is_told(run_opo, in_tmp):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    locked = in_tmp / "locked"
    locked.mkdir(mode=0o500)
    result = run_opo("train", "--preset", "smoke", "--out", "locked/run")
    assert result.returncode == 2
    assert "cannot write" in result.stderr
    assert "Traceback" not in result.stderr
