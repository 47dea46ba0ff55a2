"""`opo doctor`, on this machine as it is and on machines that are broken for real."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from opo_cli.doctor import machine, selftests, storage
from opo_cli.doctor.findings import Check, Finding, findings, ok, reinstall
from opo_cli.doctor.limits import cpu_limit, memory_limit
from opo_cli.doctor.report import print_finding, summary
from opo_cli.files import make_folder

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "math_verify":
            raise ModuleNotFoundError("No module named 'math_verify'")
sys.meta_path.insert(0, Hidden())
"""
CRASH = """
import os, signal, sys
class Crash:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGSEGV)
sys.meta_path.insert(0, Crash())
"""


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def by_check(result: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    return {row["check"]: row for row in json.loads(result.stdout)}


def test_this_machine_has_no_problem(run_opo):
    result = run_opo("doctor", "--format", "json", HF_TOKEN="hf_canary")
    assert result.returncode == 0, result.stdout
    found = by_check(result)
    assert {row["state"] for row in found.values()} <= {"ok", "warning"}
    assert "told apart" in found["grader"]["found"]
    assert "tokens on cpu" in found["engine transformers"]["found"]
    assert found["hub"]["found"] == "not checked: HF_HUB_OFFLINE is set; a token is set"
    assert "hf_canary" not in result.stdout + result.stderr
    assert all(row["mend"] for row in found.values() if row["state"] != "ok")


def test_what_is_broken_is_told_and_the_rest_goes_on(run_opo, tmp_path: Path):
    """An old transformers, math-verify that cannot be imported, and no place for the cache."""
    site = tmp_path / "site"
    old = site / "transformers-4.40.0.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 4.40.0\n")
    (site / "sitecustomize.py").write_text(HIDE)
    (tmp_path / "file").write_text("")
    result = run_opo("doctor", PYTHONPATH=str(site), OPO_CACHE=str(tmp_path / "file" / "opo"))
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert "transformers (for models) 4.40.0; opo asks for" in result.stdout
    assert any(line.endswith("-m pip install 'transformers<6,>=5'") for line in lines)
    assert "math-verify: No module named 'math_verify'" in result.stdout
    assert f"cannot write in {tmp_path / 'file'}: Not a directory" in result.stdout
    assert any("ok" in line and "engine transformers" in line for line in lines)
    assert "Traceback" not in result.stdout + result.stderr
    num_problems = sum(line.startswith("problem ") for line in lines)
    assert lines[-1].startswith(f"{num_problems} problems, ")


def test_a_check_that_fails_is_a_problem(tmp_path: Path):
    def fails():
        yield ok("odd", "first")
        raise ValueError("what [bold]it[/] says\nand more")

    first, second = findings(Check("odd", fails))
    assert first.state == "ok"
    assert second.state == "problem"
    assert second.found == "cannot be checked: ValueError: what [bold]it[/] says"


@pytest.mark.parametrize(
    ("origin", "end"),
    [
        ('{"dir_info": {"editable": true}, "url": "file:///a%20b/opo"}', "--editable '/a b/opo'"),
        ('{"dir_info": {}, "url": "file:///a%20b/opo"}', "opo"),
        (None, "opo"),
    ],
    ids=["checkout", "folder", "wheel"],
)
def test_a_checkout_is_installed_again_from_its_folder(origin, end, tmp_path: Path, monkeypatch):
    """What an index calls opo may be something else."""
    metadata = tmp_path / "opo-9.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: opo\nVersion: 9.0\n")
    if origin:
        (metadata / "direct_url.json").write_text(origin)
    monkeypatch.syspath_prepend(tmp_path)
    assert reinstall().endswith(f" -m pip install --force-reinstall {end}")


def test_an_engine_that_crashes_takes_nothing_with_it(tmp_path: Path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(CRASH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    [found] = selftests.check_transformers()
    assert (found.state, found.found) == ("problem", "its process died of SIGSEGV")


def test_an_engine_that_hangs_is_ended(tmp_path: Path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(selftests, "ENGINE_SECONDS", 1)
    [found] = selftests.check_transformers()
    assert (found.state, found.found) == ("problem", "no tokens within 1 s")


def test_a_gpu_that_torch_does_not_see_is_told(tmp_path: Path, monkeypatch):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine's GPU is seen")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 535.104.05'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for build, hidden, state, told in [
        (None, None, "warning", "without CUDA"),
        ("13.0", "", "warning", "CUDA_VISIBLE_DEVICES='' hides it"),
        ("13.0", None, "problem", "built for CUDA 13.0, does not see it"),
    ]:
        monkeypatch.setattr(torch.version, "cuda", build)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if hidden is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        [found] = machine.check_device()
        assert found.state == state
        assert "NVIDIA H200 with driver 535.104.05" in found.found
        assert told in found.found


def test_more_threads_than_cores_are_told(monkeypatch):
    for threads, state in [("1", "ok"), ("4096", "warning"), ("many", "warning")]:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        [found] = machine.check_cores()
        assert found.state == state
        assert state == "ok" or found.mend.startswith("export OMP_NUM_THREADS=")


def test_limits_of_a_container_in_both_versions(tmp_path: Path):
    """The tightest of a group and those above it; files that the kernel keeps are not used up."""
    own, root = tmp_path / "own", tmp_path / "root"
    for path, text in {
        "outer/memory.max": "4000",
        "outer/memory.current": "1000",
        "outer/memory.stat": "anon 1\ninactive_file 600",
        "outer/cpu.max": "150000 100000",
        "outer/inner/memory.max": "max",
        "outer/inner/cpu.max": "max 100000",
        "memory/old/memory.limit_in_bytes": "2000",
        "memory/old/memory.usage_in_bytes": "500",
        "cpu,cpuacct/old/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/old/cpu.cfs_period_us": "100000",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
    own.write_text("0::/outer/inner\n")
    assert memory_limit(root, own) == (4000, 400)
    assert cpu_limit(root, own) == 1.5
    own.write_text("4:memory:/old\n2:cpu,cpuacct:/old\n0::/\n")
    assert memory_limit(root, own) == (2000, 500)
    assert cpu_limit(root, own) is None
    assert memory_limit(root, tmp_path / "missing") is None


def test_an_altered_folder_in_the_cache_is_told(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("OPO_CACHE", str(tmp_path))
    for name in ("base-1", "base-2"):
        make_folder(tmp_path / name, lambda scratch: (scratch / "file").write_text("content"))
    [found] = storage.check_cache()
    assert found.state == "ok"
    assert "in 4 files" in found.found
    (tmp_path / "base-2" / "file").write_text("contemt")
    [found] = storage.check_cache()
    assert found.state == "problem"
    assert "base-2" in found.found
    subprocess.run(found.mend.partition(";")[0], shell=True, check=True)
    [found] = storage.check_cache()
    assert found.state == "ok"


def test_no_home_is_told(monkeypatch):
    """In a container of a user without an entry in /etc/passwd."""
    for name in ("OPO_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}[0])
    [found] = findings(Check("cache", storage.check_cache))
    assert (found.state, found.mend[:17]) == ("problem", "export OPO_CACHE=")


def hub_finding(endpoint: str) -> tuple[list[str], float]:
    script = (
        "import sys, time; from opo_cli.doctor.storage import check_hub; "
        "import huggingface_hub; start = time.monotonic(); [f] = check_hub(); "
        "print(f.state, f.found, time.monotonic() - start, sep='|')"
    )
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "no_proxy": "*"}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    *words, seconds = result.stdout.strip().split("|")
    return words, float(seconds)


def test_the_hub_is_asked_once_and_not_for_long():
    class Refuses(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(403)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (state, told), _ = hub_finding(f"http://user:canary@127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
    assert state == "ok"
    assert told.startswith(f"127.0.0.1:{server.server_port} answers; ")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        (state, told), seconds = hub_finding(f"http://127.0.0.1:{port}")
    assert state == "warning"
    assert "cannot be reached" in told
    assert seconds < storage.HUB_SECONDS + 1


@pytest.mark.parametrize("width", [80, 120])
def test_lines_fold_under_their_column_and_mends_stay_whole(width: int):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, color_system=None)
    mend = "pip install " + "x" * 150
    print_finding(console, Finding("packages", "problem", "[red]odd[/] " + "word " * 60, mend))
    *lines, last = file.getvalue().splitlines()
    assert len(lines) > 2
    assert all(len(line) <= width for line in lines)
    assert "[red]odd[/]" in lines[0]
    assert all(line.startswith(" " * 28) for line in lines[1:])
    assert last.strip() == f"mend: {mend}"


def test_the_last_line_counts():
    found = [ok("a", ""), Finding("b", "warning", "", "x"), Finding("c", "problem", "", "x")]
    assert summary(found) == "[bold]1 problem, 1 warning[/]"
    assert summary(found[:1]) == "no problem, no warnings"


def test_the_quick_checks_come_first():
    from opo_cli.doctor.run import CHECKS

    slow = [check.takes_seconds for check in CHECKS if check.what != "vllm"]
    assert slow == sorted(slow)
    start = time.monotonic()
    for check in CHECKS:
        if not check.takes_seconds:
            list(findings(check))
    assert time.monotonic() - start < 10
