"""What counts as the same run: one bit is enough for a difference, the clock is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from opo_cli.faults.equal import differences

STEPS = [
    {"step": 1, "reward": 0.5, "step_seconds": 1.5, "crc32": "00000000"},
    {"step": 2, "reward": 0.25, "step_seconds": 1.25, "crc32": "00000001"},
]


def write_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders that hold the same."""
    there, here = tmp_path / "there", tmp_path / "here"
    (there / "model").mkdir(parents=True)
    (there / "rollouts").mkdir()
    write_lines(there / "steps.jsonl", STEPS)
    write_lines(there / "evals.jsonl", [{"step": 2, "k": {"1": 0.5}, "seconds": 3.0}])
    (there / "certificate.json").write_text('{"num_steps": 2, "off": null}')
    (there / "environment.json").write_text('{"started": "1"}')
    (there / "tokens.txt").write_text("abc")
    table = pa.table({"reward": [1.0, 0.0], "tokens": [[1, 2], [3]]})
    pq.write_table(table, there / "rollouts/step-000001.parquet")
    save_file({"w": torch.tensor([1.0, 2.0])}, there / "model/model.safetensors")
    shutil.copytree(there, here)
    return there, here


def found(pair: tuple[Path, Path]) -> list[str]:
    return [str(each) for each in differences(*pair)]


def test_copies_are_the_same(pair):
    assert found(pair) == []


def test_time_and_place_are_no_difference(pair):
    there, here = pair
    for root, seconds in ((there, 3.0), (here, 4.0)):
        record = {"step": 2, "samples_file": f"{root}/samples/a.jsonl", "seconds": seconds}
        write_lines(root / "evals.jsonl", [record])
    write_lines(here / "steps.jsonl", [s | {"step_seconds": 9.0, "crc32": "f"} for s in STEPS])
    (here / "environment.json").write_text('{"started": "2"}')
    assert found(pair) == []


def test_one_metric_is_named_with_both_values(pair):
    write_lines(pair[1] / "steps.jsonl", [STEPS[0], STEPS[1] | {"reward": 0.2500000000000001}])
    assert found(pair) == [
        "steps.jsonl: line 2 (step 2) reward: 0.25 there, 0.2500000000000001 here"
    ]
    (each,) = differences(*pair)
    assert each.is_metric
    assert each.relative == pytest.approx(4.44e-16, rel=0.01)


def test_steps_in_another_order_twice_or_missing(pair):
    log = pair[1] / "steps.jsonl"
    write_lines(log, STEPS[::-1])
    assert found(pair)[0] == "steps.jsonl: line 1 (step 1) step: 1 there, 2 here"
    write_lines(log, [*STEPS, STEPS[1]])
    assert found(pair) == ["steps.jsonl: lines: 2 there, 3 here"]
    write_lines(log, STEPS[:1])
    assert found(pair) == ["steps.jsonl: lines: 2 there, 1 here"]


def test_the_sign_of_zero_and_a_type_count_and_nan_is_itself(pair):
    (pair[0] / "certificate.json").write_text('{"a": 0.0, "b": 1, "c": NaN}')
    (pair[1] / "certificate.json").write_text('{"a": -0.0, "b": 1.0, "c": NaN}')
    assert found(pair) == [
        "certificate.json: a: 0.0 there, -0.0 here",
        "certificate.json: b: 1 there, 1.0 here",
    ]
    assert [each.relative for each in differences(*pair)] == [0, 0]


def test_a_ledger_differs_by_row_and_column(pair):
    table = pa.table({"reward": [1.0, 0.0], "tokens": [[1, 2], [4]]})
    pq.write_table(table, pair[1] / "rollouts/step-000001.parquet")
    assert found(pair) == ["rollouts/step-000001.parquet: row 1 tokens: [3] there, [4] here"]


def test_one_bit_of_a_weight(pair):
    path = pair[1] / "model/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-4] ^= 1  # The lowest bit of the last weight, 2.0.
    path.write_bytes(content)
    bytes_differ, weight = differences(*pair)
    assert (bytes_differ.key, weight.key, weight.place) == ("bytes", "w", "value 1")
    assert weight.relative == pytest.approx(2**-23, rel=1e-3)
    assert not weight.is_metric


def test_one_byte_of_any_other_file(pair):
    (pair[1] / "tokens.txt").write_text("abd")
    assert found(pair) == ["tokens.txt: byte 2: 99 there, 100 here"]


def test_what_is_left_behind_and_what_is_gone(pair):
    (pair[1] / ".writing-x").mkdir()
    (pair[1] / "tokens.txt").unlink()
    assert found(pair) == [
        ".writing-x: : 'absent' there, 'there' here",
        "tokens.txt: : 'there' there, 'absent' here",
    ]
