"""The rollout ledger: what is written is read, and it stays within its bounds."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from opo_cli.errors import OpoError
from opo_cli.ledger import LINE, PER_TOKEN, Ledger, told
from tests.damage import flip_a_bit

LINE_OF = {
    "step": 1,
    "group": 0,
    "row": 0,
    "policy_version": 0,
    "problem_id": "train/1",
    "prompt": "1+1=?\n",
    "answer": "2",
    "text": "\\boxed{2}",
    "extracted": "2",
    "grade_reason": "correct",
    "finish_reason": "stop",
    "correct": True,
    "is_trained": True,
    "length": 2,
    "reward": 1.0,
    "greedy_reward": None,
    "advantage": 0.5,
    "tokens": [5, 1],
    "pieces": ["\\boxed{2}", "<eos>"],
    "sampler_logprobs": [-0.5, -0.25],
    "logprobs": [-0.5, -0.25],
    "reference_logprobs": [-1.0, -0.25],
    "entropy": [0.5, 0.0],
    "logit_norms": [0.125, 0.0],
    "values": None,
    "advantages": [0.5, 0.5],
}


def columns(*lines: dict) -> dict[str, list]:
    return {key: [(LINE_OF | line)[key] for line in lines] for key in LINE_OF}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "rollouts")


def test_the_example_has_every_column():
    assert list(LINE_OF) == [*LINE, *PER_TOKEN]


def test_what_is_written_is_read(ledger: Ledger):
    changes = [
        {},
        {"row": 1, "text": "½ 数\x1b\n", "extracted": None, "greedy_reward": 0.5},
        {"group": 1, "tokens": [], "pieces": [], "advantages": [], "values": [0.25]},
    ]
    ledger.write(3, columns(*changes), max_bytes=2**20)
    assert ledger.steps() == [3]
    assert ledger.read(3) == [LINE_OF | change for change in changes]
    assert ledger.read(3, ["text", "row"], group=0) == [
        {"text": "\\boxed{2}", "row": 0},
        {"text": "½ 数\x1b\n", "row": 1},
    ]
    assert [path.name for path in ledger.folder.iterdir()] == ["step-000003.parquet"]


def test_a_step_written_again_replaces_the_old_one(ledger: Ledger):
    ledger.write(1, columns({}), max_bytes=2**20)
    ledger.write(1, columns({"reward": 0.0}, {}), max_bytes=2**20)
    assert [line["reward"] for line in ledger.read(1)] == [0.0, 1.0]


def test_thinning_bounds_the_bytes_and_keeps_both_ends(ledger: Ledger):
    ledger.write(1, columns({}), max_bytes=2**20)
    size = ledger.path(1).stat().st_size
    most = 5 * size + size // 2  # Room for five steps.
    for step in range(2, 42):
        ledger.write(step, columns({"step": step}), max_bytes=most)
        kept = ledger.steps()
        assert sum(ledger.path(s).stat().st_size for s in kept) <= most
        assert (kept[0], kept[-1]) == (1, step)
    # Spread over the whole run, not its end alone.
    assert max(after - before for before, after in itertools.pairwise(kept)) <= 16


def test_the_newest_step_stays_whatever_its_size(ledger: Ledger):
    for step in (1, 2, 3):
        ledger.write(step, columns({"step": step}), max_bytes=1)
    assert ledger.steps() == [3]


def sizes(ledger: Ledger) -> dict[int, int]:
    return {step: ledger.path(step).stat().st_size for step in ledger.steps()}


def written(ledger: Ledger, first: int, last: int, every: int, max_bytes: int) -> None:
    """Steps whose files differ in size."""
    for step in range(first, last + 1):
        if (step - 1) % every == 0:
            lines = [{"step": step, "row": row, "text": f"{step}-{row}"} for row in range(step % 7)]
            ledger.write(step, columns(*lines, {"step": step}), max_bytes)


@pytest.mark.parametrize(("every", "room"), [(1, 1.5), (1, 2.5), (1, 6), (3, 2.5)])
def test_a_run_that_goes_back_ends_with_the_rollouts_of_the_run_never_stopped(
    every: int, room: float, tmp_path: Path
):
    """Wherever it was killed, and went back to: thinning does not depend on that."""
    (probe := Ledger(tmp_path / "probe")).write(1, columns({}, {}, {}), 2**20)
    most = int(room * probe.path(1).stat().st_size)
    whole = Ledger(tmp_path / "whole")
    written(whole, 1, 60, every, most)
    for killed, back in ((7, 5), (20, 10), (33, 30), (59, 40), (59, 0), (60, 60)):
        cut = Ledger(tmp_path / f"cut-{killed}-{back}")
        written(cut, 1, killed, every, most)
        cut.cut(back)
        written(cut, back + 1, 60, every, most)
        assert sizes(cut) == sizes(whole)


def test_files_of_others_are_left_alone(ledger: Ledger):
    ledger.write(1, columns({}), max_bytes=2**20)
    (ledger.folder / "step-mine.parquet").write_text("notes")
    assert ledger.steps() == [1]
    ledger.cut(0)
    assert [path.name for path in ledger.folder.iterdir()] == ["step-mine.parquet"]


def test_cut(ledger: Ledger):
    for step in (1, 2, 3):
        ledger.write(step, columns({}), max_bytes=2**20)
    ledger.cut(2)
    assert ledger.steps() == [1, 2]


def test_what_is_not_there_is_told(ledger: Ledger):
    with pytest.raises(OpoError, match="no rollouts in"):
        ledger.kept()
    for step in (1, 2, 5):
        ledger.write(step, columns({}), max_bytes=2**20)
    with pytest.raises(OpoError, match="no rollouts of step 4") as caught:
        ledger.read(4)
    assert caught.value.hint == "it holds steps 1, 2, 5"


def test_a_hit_on_the_rollouts_is_told(ledger: Ledger):
    """Pages and footer have their checksums: never another value."""
    lines = [{"row": row, "text": f"text {row}", "advantage": row / 8} for row in range(8)]
    ledger.write(1, columns(*lines), max_bytes=2**20)
    good, path = ledger.read(1), ledger.path(1)
    places, told = range(0, path.stat().st_size, 11), 0
    for place in places:
        flip_a_bit(path, place, place % 8)
        try:
            assert ledger.read(1) == good, place
        except OpoError:
            told += 1
        flip_a_bit(path, place, place % 8)
    assert told > 0.8 * len(places)


def test_other_readers_read_it_and_a_file_without_a_checksum_is_read(ledger: Ledger):
    import pyarrow.parquet as pq

    ledger.write(1, columns({}), max_bytes=2**20)
    table = pq.read_table(ledger.path(1))
    assert table.to_pylist() == [LINE_OF]
    pq.write_table(table, ledger.path(1))
    assert ledger.read(1) == [LINE_OF]


@pytest.mark.parametrize("damage", [b"", b"PAR1 not so", None], ids=["empty", "torn", "half"])
def test_a_damaged_file_is_told(damage: bytes | None, ledger: Ledger):
    ledger.write(1, columns({}), max_bytes=2**20)
    whole = ledger.path(1).read_bytes()
    ledger.path(1).write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(OpoError, match=r"step-000001.parquet' does not read") as caught:
        ledger.read(1)
    assert "\n" not in caught.value.message
    assert "another step" in caught.value.hint


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([3], "step 3"),
        ([1, 2, 3], "steps 1 to 3"),
        ([1, 2, 5], "steps 1, 2, 5"),
        ([*range(0, 40, 2)], "20 steps from 0 to 38"),
    ],
)
def test_steps_in_words(steps: list[int], words: str):
    assert told(steps) == words
