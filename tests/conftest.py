"""Fixtures: the embedded tiny model is the fake. Preset `smoke`'s base is made once per session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from opo_cli.config import Config
from opo_cli.presets import resolve

# Whoever started us with signals ignored (nohup, a shell's `&`): our children hear them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory) -> Path:
    """A cache of the session's own, so that tests neither see nor leave anything elsewhere."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["OPO_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def smoke() -> Config:
    return resolve("smoke")


@pytest.fixture(scope="session")
def base(cache: Path, smoke: Config) -> Path:
    """The prepared base model of preset `smoke`."""
    from opo_cli.train.warmstart import prepare

    return Path(prepare(smoke)[1])


@pytest.fixture
def policy_and_tokenizer(base: Path):
    import torch

    from opo_cli.model.policy import load_policy

    return load_policy(str(base), torch.device("cpu"))


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run_opo(in_tmp: Path):
    """A real `opo` process in the test's own folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "opo_cli", *arguments],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def most_allocated():
    """Bytes that a call allocates at most beyond those at its start, at its second time."""
    from torch.profiler import ProfilerActivity, profile

    def measure(run) -> int:
        run()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
            run()
        events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
        now = most = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            now += event.nbytes()
            most = max(most, now)
        return most

    return measure
