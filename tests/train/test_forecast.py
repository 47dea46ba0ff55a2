"""What a dry run says of memory and time."""

from __future__ import annotations

import pytest
from rich.console import Console

from opo_cli.model.device import Device
from opo_cli.model.lookup import find_shape
from opo_cli.presets import resolve
from opo_cli.report.tables import print_tables
from opo_cli.train.budget import load_of, memory_parts
from opo_cli.train.forecast import (
    Forecast,
    bytes_in_words,
    fit_line,
    forecast,
    lines,
    memory_table,
)

GPU = Device(name="NVIDIA H100 80GB HBM3", num_bytes=80 * 10**9, is_gpu=True)
CPU = Device(name="this machine's memory", num_bytes=24 * 10**9, is_gpu=False)
QWEN = ["model.path=Qwen/Qwen2.5-Math-1.5B", "model.compute_dtype=bfloat16"]


def foreseen(device: Device, *overrides: str, engine: str = "vllm") -> Forecast:
    config = resolve("tiny", overrides=overrides)
    shape, source = find_shape(config.model)
    load = load_of(config, shape)
    return Forecast(
        config=config,
        engine=engine,
        device=device,
        shape=shape,
        shape_source=source,
        load=load,
        parts=memory_parts(config, shape, device, engine, load),
    )


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
@pytest.mark.parametrize("device", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("num_gpus", [1, 8])
def test_the_table_adds_up_and_fits_80_columns(device: Device, engine: str, num_gpus: int, capsys):
    settings = ["algorithm.name=ppo", f"runtime.num_gpus={num_gpus}"]
    table = memory_table(foreseen(device, *QWEN, *settings, engine=engine))
    assert table.title.startswith("memory of the worst step, GB")
    for column in range(1, 7):
        cells = [float(row[column]) if row[column] != "-" else 0.0 for row in table.rows]
        assert sum(cells[:-1]) == pytest.approx(cells[-1], abs=0.06)  # Of rounding.
    print_tables(Console(width=80), [table], "rich")
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    # No cell is folded: a line per part, and around them title, head, rule and note.
    assert len([line for line in printed if line.strip()]) == len(table.rows) + 4


def test_a_run_that_evaluates_nothing_has_no_such_column():
    assert memory_table(foreseen(GPU, *QWEN)).head[-1] == "eval"
    assert (
        memory_table(foreseen(GPU, *QWEN, "eval.benchmarks=[]", "eval.validation=[]")).head[-1]
        == "AdamW"
    )


def test_small_models_are_told_in_megabytes():
    assert memory_table(foreseen(CPU, engine="transformers")).title.endswith("MB")
    assert bytes_in_words(999_900_000) == "999.9 MB"
    assert bytes_in_words(1_500_000_000) == "1.5 GB"


def test_whether_it_fits():
    told = fit_line(foreseen(GPU, *QWEN, "rollout.cache_gigabytes=20"))
    assert told.endswith(" of 80.0 GB, NVIDIA H100 80GB HBM3: fits")


def test_what_does_not_fit_comes_with_what_does():
    found = foreseen(GPU, *QWEN, "train.microbatch_tokens=65536", "rollout.max_new_tokens=3000")
    told = fit_line(found)
    assert "DOES NOT FIT (beyond 95%); fits with --set train.microbatch_tokens=" in told
    given = told.split("fits with ")[1].replace("--set ", "").split()
    changed = foreseen(
        GPU, *QWEN, "train.microbatch_tokens=65536", "rollout.max_new_tokens=3000", *given
    )
    assert fit_line(changed).endswith(": fits")


def test_what_cannot_fit():
    told = fit_line(foreseen(GPU, "model.path=Qwen/Qwen2.5-Math-7B"))
    assert told.endswith(
        "DOES NOT FIT: weights, gradients and optimizer alone take 152.3 GB; take a smaller model, "
        "or 2 GPUs (--set runtime.num_gpus=2 shows how)"
    )
    hopeless = foreseen(
        CPU.__class__(name="NVIDIA L4", num_bytes=10**9, is_gpu=True),
        "model.path=Qwen/Qwen2.5-Math-7B",
    )
    assert fit_line(hopeless).endswith("take a smaller model")  # No number of GPUs holds a layer.


def test_one_of_several():
    found = foreseen(GPU, "model.path=Qwen/Qwen2.5-Math-7B", "runtime.num_gpus=8")
    assert memory_table(found).title == "memory of the worst step, GB, one rank of 8"
    assert "of 80.0 GB, NVIDIA H100 80GB HBM3, one rank of 8" in fit_line(found)
    assert dict(lines(found))["worst step"].startswith(
        "24 rows of 1024 + 96 tokens on each of 8 ranks = 26,880; "
    )


def test_time_is_rough_and_says_at_what():
    rows = dict(lines(foreseen(GPU, *QWEN)))
    assert rows["parameters"] == "1,543,714,304 (shape: known; not downloaded yet)"
    assert rows["worst step"].startswith("192 rows of 1024 + 96 tokens = 215,040; ")
    assert "at 40% of 989 TFLOP/s and 60% of 3.35 TB/s (H100 SXM)" in rows["rough time"]
    assert dict(lines(foreseen(CPU)))["rough time"] == "unknown here; --check measures a step"


def test_an_unknown_model_is_told():
    config = resolve("tiny", overrides=["model.path=some/model"])
    assert forecast(config, "vllm") == (
        "unknown: 'some/model': its config.json is not on this machine"
    )
