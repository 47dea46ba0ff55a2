"""`opo compare` over the whole path, and the table that comes out."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import time

import pytest

from opo_cli.algorithms import ALGORITHMS


def test_compare_trains_what_is_missing_and_tabulates(base, tmp_path, run_opo):
    first = run_opo("compare", "--preset", "smoke")
    assert first.returncode == 0, first.stderr
    for name in ("opo", "grpo", "ppo", "tiny-easy", "avg@4", "pass@4", "KL/seq", "no between-seed"):
        assert name in first.stdout
    assert (tmp_path / "runs" / ".logs" / "smoke-ppo-seed0.log").is_file()

    again = run_opo("compare", "--preset", "smoke", "--format", "json")
    assert "3 finished, 0 to do" in again.stderr
    records = json.loads(again.stdout)
    assert {record["algorithm"] for record in records} == {"opo", "grpo", "ppo"}
    assert all(record.get("half_width_95") is None for record in records)

    more = run_opo(
        *("compare", "--preset", "smoke", "--algorithms", "opo", "--seeds", "0-1", "-f", "csv"),
    )
    assert more.returncode == 0, more.stderr
    rows = list(csv.DictReader(io.StringIO(more.stdout)))
    accuracy = [row for row in rows if row["measure"] == "avg@4"]
    assert [row["num_seeds"] for row in accuracy] == ["2", "2"]
    assert all(float(row["half_width_95"]) >= 0 for row in accuracy)

    runs = [f"runs/smoke-{name}-seed0" for name in ("opo", "grpo")]
    table = run_opo("compare", *runs, "--format", "markdown")
    assert table.returncode == 0, table.stderr
    assert "| benchmark | measure | initial | opo | grpo |" in table.stdout
    listed = run_opo("list", "runs")
    assert listed.stdout.count("finished") == 4


def test_every_algorithm_trains_and_is_tabulated(base, tmp_path, run_opo):
    sizes = ["train.steps=2", "eval.limit=4", "measure.probe_every=1"]
    sets = [part for text in sizes for part in ("--set", text)]
    result = run_opo("compare", "--preset", "smoke", "--algorithms", "all", *sets, "-f", "csv")
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert {row["algorithm"] for row in rows} == set(ALGORITHMS)
    certificates = {row["algorithm"]: row["certificate"] for row in rows}
    assert certificates["opo"] == certificates["otb"] == "exact on-policy"
    assert certificates["dr-grpo"] == "off-policy (8 updates per batch)"
    for log in tmp_path.glob("runs/smoke-*/steps.jsonl"):
        for line in log.read_text().splitlines():
            record = json.loads(line, parse_constant=lambda name: pytest.fail(name))
            for name in ("gradient_norm", "entropy", "kl_exact_token", "surrogate_loss"):
                assert record[name] is not None, f"{log}: {name}"


def test_a_failing_cell_is_told_and_the_others_finish(base, tmp_path, run_opo):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "smoke-ppo-seed0").write_text("in the way")
    result = run_opo("compare", "--preset", "smoke", "--algorithms", "opo,ppo")
    assert result.returncode == 1
    assert "smoke-ppo-seed0 failed" in result.stderr
    assert "is no run folder" in result.stderr
    assert "tiny-easy" in result.stdout


def test_an_interrupted_comparison_stops_its_runs_and_goes_on(base, in_tmp, run_opo):
    command = ["compare", "--preset", "smoke", "--algorithms", "opo", "--set", "train.steps=40"]
    parent = subprocess.Popen(
        [sys.executable, "-m", "opo_cli", *command], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not any(log.read_text() for log in in_tmp.glob("runs/smoke-opo-*/steps.jsonl")):
        assert time.monotonic() < deadline
        assert parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(signal.SIGINT)
    _, talk = parent.communicate(timeout=90)
    assert parent.returncode == 130
    assert "call the same command again" in talk
    assert "Traceback" not in talk
    [folder] = in_tmp.glob("runs/smoke-opo-*")
    log = folder / "steps.jsonl"
    done = len(log.read_text().splitlines())
    assert 0 < done < 40
    time.sleep(1)
    assert len(log.read_text().splitlines()) == done  # No run goes on behind our back.
    assert list((folder / "checkpoints").glob("step-*"))

    again = run_opo(*command)
    assert again.returncode == 0, again.stderr
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, 41))
