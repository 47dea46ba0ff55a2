"""Lines that tell when they were altered."""

from __future__ import annotations

import json
import os
import resource
import signal
import zlib
from pathlib import Path

import pytest

from opo_cli.errors import OpoError
from opo_cli.lines import append_lines, are_whole, as_lines, parse_line, read_lines
from tests.damage import flip_a_bit

RECORDS = [{"step": 1, "reward": 0.1}, {}, {"step": 3, "text": "½\n\u2028 \ud800", "none": None}]


def test_a_line_is_json_with_a_checksum_of_the_rest():
    (line,) = as_lines([{"a": 1}]).splitlines()
    assert line == '{"a": 1, "crc32": "fba18e97"}'
    assert zlib.crc32(b'{"a": 1}') == 0xFBA18E97
    assert json.loads(line)["a"] == 1


def test_records_come_back(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    assert read_lines(path) == []
    append_lines(path, RECORDS[:1])
    append_lines(path, RECORDS[1:])
    assert read_lines(path) == RECORDS
    assert path.read_text() == as_lines(RECORDS)
    assert are_whole(path.read_bytes())


def test_a_line_without_a_checksum_is_taken(tmp_path: Path):
    (tmp_path / "old.jsonl").write_text('{"a": 1}\n{"a": 2}')
    assert read_lines(tmp_path / "old.jsonl") == [{"a": 1}, {"a": 2}]


def test_wherever_a_bit_is_hit_the_records_are_those_written_or_the_damage_is_told(tmp_path: Path):
    """Every bit of a file, one at a time: never another value, never a record less in silence."""
    path = tmp_path / "x.jsonl"
    records = [{"step": 1, "reward": 0.25}, {"step": 2, "reward": -1e-5}]
    path.write_text(as_lines(records))
    content, told = path.read_bytes(), 0
    for place in range(len(content)):
        for bit in range(8):
            flip_a_bit(path, place, bit)
            try:
                found = read_lines(path, use_unfinished=True)
                kept = [{k: r[k] for k in ("step", "reward")} for r in found]
                assert kept == records, (place, bit)
            except OpoError:
                told += 1
            flip_a_bit(path, place, bit)
    assert told > 0.7 * 8 * len(content)


def test_the_quick_look_sees_what_reading_sees():
    """Of hits that may leave JSON behind, and of a line without an end."""
    content = as_lines([{"step": 1, "reward": 0.25}, {"step": 2, "reward": 0.5}]).encode()
    assert are_whole(content)
    assert are_whole(b'{"step": 1}\n')
    assert not are_whole(content[:-1])
    for place in [i for i, byte in enumerate(content) if chr(byte).isdigit()]:
        hit = bytearray(content)
        hit[place] ^= 1
        try:
            [parse_line(line) for line in bytes(hit).splitlines()]
        except ValueError:
            assert not are_whole(bytes(hit))


def test_a_damaged_line_is_named(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(OpoError, match=r"x.jsonl:2: not a JSON record"):
        read_lines(path)
    path.write_text(as_lines([{"step": 1}, {"step": 2}]).replace('"step": 2', '"step": 3'))
    with pytest.raises(OpoError, match=r"x.jsonl:2: damaged: not what was written, by its check"):
        read_lines(path)
    path.write_text("[1]\n")
    with pytest.raises(OpoError, match=r"x.jsonl:1: not a JSON record"):
        read_lines(path)


@pytest.mark.parametrize("cut", [2, 10, 30, 40])
def test_a_torn_line_is_dropped_and_does_not_spoil_the_next(cut: int, tmp_path: Path):
    path = tmp_path / "x.jsonl"
    append_lines(path, [{"step": 1}, {"step": 2, "reward": 0.5}])
    os.truncate(path, path.stat().st_size - cut)
    assert read_lines(path, use_unfinished=True) == [{"step": 1}]
    with pytest.raises(OpoError, match=r"x.jsonl:2: not a JSON record"):
        read_lines(path)
    append_lines(path, [{"step": 3}])
    assert read_lines(path) == [{"step": 1}, {"step": 3}]


def test_a_last_line_whose_end_alone_is_lost_is_kept(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    append_lines(path, [{"step": 1}])
    os.truncate(path, path.stat().st_size - 1)
    assert read_lines(path) == [{"step": 1}]
    append_lines(path, [{"step": 2}])
    assert read_lines(path) == [{"step": 1}, {"step": 2}]


def test_a_last_line_whose_end_was_hit_is_no_torn_one(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    append_lines(path, [{"step": 1}, {"step": 2}])
    flip_a_bit(path, path.stat().st_size - 1, 7)
    with pytest.raises(OpoError, match=":2: not a JSON record"):
        read_lines(path, use_unfinished=True)


def test_a_disk_that_is_full_midway_leaves_whole_lines(tmp_path: Path):
    """A limit on the file's size stands for the disk's: the write fails after some bytes."""
    path = tmp_path / "x.jsonl"
    append_lines(path, [{"step": 1}])
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
        with pytest.raises(OSError, match="File too large") as caught:
            append_lines(path, [{"step": 2, "text": "x" * 100}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
