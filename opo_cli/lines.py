"""JSONL whose lines say when they were altered: each ends in `, "crc32": "0a1b2c3d"}`, the checksum
of the line without that. To other readers it is one more key."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from opo_cli.errors import OpoError
from opo_cli.files import disk_errors

Record = dict[str, Any]
KEY = "crc32"
CHECKSUM = re.compile(rb'(?:, )?"crc32": "([0-9a-f]{8})"\}')
HEAD, LENGTH = b', "crc32": "', len(b', "crc32": "0a1b2c3d"}')


def as_lines(records: Iterable[Record]) -> str:
    return "".join(_as_line(record) for record in records)


def _as_line(record: Record) -> str:
    text = json.dumps(record)
    comma = ", " if record else ""
    return f'{text[:-1]}{comma}"{KEY}": "{zlib.crc32(text.encode()):08x}"}}\n'


def parse_line(line: bytes) -> Record:
    """A record without its checksum. A line that has none is taken as it is: an older one, or the
    checksum itself was hit, and the record is whole.

    Raises:
        ValueError: it is damaged; with words that say how.
    """
    suffix = CHECKSUM.search(line, max(0, len(line) - LENGTH))
    is_checked = suffix is not None and suffix.end() == len(line)
    if is_checked and zlib.crc32(line[: suffix.start()] + b"}") != int(suffix[1], 16):
        raise ValueError("damaged: not what was written, by its checksum")
    try:
        record = json.loads(line)
    except ValueError:  # Not JSON, or not UTF-8.
        raise ValueError("not a JSON record") from None
    if not isinstance(record, dict):
        raise ValueError("not a JSON record")
    record.pop(KEY, None)
    return record


def read_lines(path: Path, *, use_unfinished: bool = False) -> list[Record]:
    """The records of a JSONL file; none where there is no file.

    Args:
        use_unfinished: the last line may be unfinished, and is left out then: a run writes on, or
            was killed while it did.

    Raises:
        OpoError: a damaged line.
    """
    if not path.exists():
        return []
    *lines, last = path.read_bytes().split(b"\n")
    if last and not (use_unfinished and _is_torn(last)):
        lines.append(last)
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            if line:
                records.append(parse_line(line))
        except ValueError as error:
            hint = "restore the file from a copy, or leave the run out"
            raise OpoError(f"{path}:{number}: {error}", hint) from None
    return records


def _is_torn(line: bytes) -> bool:
    """Whether a line without an end is the beginning of one, rather than one whose end was hit."""
    try:
        parse_line(line)
    except ValueError:
        return CHECKSUM.search(line) is None
    return False


def are_whole(content: bytes) -> bool:
    """Whether no line is unfinished or at odds with its checksum. Much faster than parsing; False
    may be too strict, where `read_lines` tells."""
    view, start = memoryview(content), 0
    while (end := content.find(b"\n", start)) >= 0:
        place = end - LENGTH
        if content[place : place + len(HEAD)] == HEAD:
            found = zlib.crc32(b"}", zlib.crc32(view[start:place]))
            if content[end - 10 : end - 2] != b"%08x" % found:
                return False
        start = end + 1
    return start == len(content)


def append_lines(path: Path, records: Iterable[Record]) -> None:
    """In one write. A line that a killed process has left unfinished is cut off first, and what a
    full disk takes of ours is taken back."""
    with disk_errors(path), path.open("a+b", buffering=0) as file:
        size, last = file.seek(0, os.SEEK_END), _last_line(file)
        if last and _is_torn(last):
            size, last = size - len(last), b""
            file.truncate(size)
        content = (b"\n" if last else b"") + as_lines(records).encode()
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            with suppress(OSError):
                os.truncate(path, size)
            raise


def _last_line(file: BinaryIO) -> bytes:
    """What stands behind the last end of a line."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1))
    if file.read() in (b"", b"\n"):
        return b""
    file.seek(0)
    return file.read().rpartition(b"\n")[2]
