"""Files and folders: whole or not there, and told when they are altered."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from opo_cli.errors import OpoError
from opo_cli.files import (
    MANIFEST,
    check_seal,
    disk_errors,
    is_whole,
    make_folder,
    remove_folder,
    sweep,
    write_file,
    write_text,
)
from tests.damage import flip_a_bit, kill_as_it_says, names

CONTENT = {"weights.bin": bytes(range(256)) * 8, "sub/config.json": b"{}\n"}


def fill(folder: Path) -> None:
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def test_a_folder_is_filled_sealed_and_leaves_nothing_beside_it(tmp_path: Path):
    make_folder(tmp_path / "new" / "base", fill)
    base = tmp_path / "new" / "base"
    assert names(tmp_path / "new") == ["base"]
    assert names(base) == [MANIFEST, "sub", "weights.bin"]
    assert json.loads((base / MANIFEST).read_text())["files"]["sub/config.json"] == {
        "bytes": 3,
        # sha256sum <<< "{}"
        "sha256": "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356",
    }
    check_seal(base)
    assert base.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: flip_a_bit(f / "weights.bin"), "weights.bin' is damaged: not what was written"),
        (lambda f: os.truncate(f / "weights.bin", 99), "is damaged: 99 bytes, not 2048"),
        (lambda f: (f / "sub/config.json").unlink(), "sub/config.json' is missing"),
        (lambda f: (f / MANIFEST).unlink(), "manifest.json' is missing"),
        (lambda f: (f / MANIFEST).write_text("{}"), "manifest.json' is damaged"),
        (lambda f: (f / MANIFEST).write_text("[1]"), "manifest.json' is damaged"),
        (lambda f: (f / MANIFEST).write_text('{"files": {"a": 1}}'), "manifest.json' is damaged"),
        (lambda f: (f / MANIFEST).write_bytes(b"\xff"), "manifest.json' is damaged"),
    ],
    ids=["flipped", "cut", "gone", "no seal", "no files", "list", "no facts", "bytes"],
)
def test_damage_is_told_with_the_file(damage, told, tmp_path: Path):
    make_folder(tmp_path / "base", fill)
    damage(tmp_path / "base")
    with pytest.raises(OpoError) as caught:
        check_seal(tmp_path / "base")
    assert told in caught.value.message
    assert str(tmp_path / "base") in caught.value.message
    make_folder(tmp_path / "base", fill)  # A damaged one makes room.
    check_seal(tmp_path / "base")
    assert names(tmp_path) == ["base"]


def test_every_bit_of_a_seal_counts(tmp_path: Path):
    """Wherever a bit of the manifest is hit, the folder is not taken for whole with other files."""
    make_folder(tmp_path / "base", fill)
    manifest = tmp_path / "base" / MANIFEST
    content = manifest.read_bytes()
    harmless = set()
    for place in range(len(content)):
        flip_a_bit(manifest, place)
        if is_whole(tmp_path / "base"):
            harmless.add(chr(content[place]))
        flip_a_bit(manifest, place)
    assert harmless <= set(" \n")  # Blanks between tokens at most.


def test_who_comes_second_leaves_the_first_ones_folder(tmp_path: Path):
    make_folder(tmp_path / "base", fill)
    make_folder(tmp_path / "base", lambda folder: (folder / "other").write_text("x"))
    assert names(tmp_path / "base") == [MANIFEST, "sub", "weights.bin"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")])
def test_a_folder_that_fails_leaves_nothing(error, tmp_path: Path):
    def failing(folder: Path) -> None:
        fill(folder)
        raise error

    with pytest.raises((KeyboardInterrupt, OSError)) as caught:
        make_folder(tmp_path / "base", failing)
    assert names(tmp_path) == []
    if isinstance(error, OSError):  # Told by the name that was asked for.
        assert caught.value.filename == str(tmp_path / "base")


def test_a_folder_is_removed(tmp_path: Path):
    make_folder(tmp_path / "base", fill)
    remove_folder(tmp_path / "base")
    remove_folder(tmp_path / "base")
    assert names(tmp_path) == []


def test_a_file_is_replaced_or_stays(tmp_path: Path):
    target = tmp_path / "config.json"
    write_text(target, "old")
    write_text(target, "new ½")
    assert target.read_text(encoding="utf-8") == "new ½"

    def failing(file) -> None:
        file.write(b"half")
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        write_file(target, failing)
    assert target.read_text(encoding="utf-8") == "new ½"
    assert names(tmp_path) == ["config.json"]


def test_a_full_disk_is_told_with_the_target():
    """/dev/full takes no byte."""
    for write in (
        lambda file: file.write("x" * 10000),
        lambda file: _fail_like_torch(),
        lambda file: _fail_like_safetensors(),
    ):
        with (
            pytest.raises(OSError, match=r"No space left on device: 'model.safetensors'") as caught,
            disk_errors(Path("model.safetensors")),
            open("/dev/full", "w", buffering=1) as file,
        ):
            write(file)
        assert caught.value.errno == errno.ENOSPC


def _fail_like_torch() -> None:
    try:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        raise RuntimeError("[enforce fail at inline_container.cc:664]")  # noqa: B904


def _fail_like_safetensors() -> None:
    raise RuntimeError("Error while serializing: IoError(Os { code: 28 }), (os error 28)")


# --- what killed processes leave ------------------------------------------------------------------

WRITER = """
import sys, time
from pathlib import Path
from opo_cli.files import make_folder, write_file
def fill(place):
    if place.__class__.__name__ == "BufferedWriter":
        place.write(b"half"); place.flush()
    else:
        (place / "half").write_text("half")
    print("writing", flush=True)
    time.sleep(100)
{make}(Path(sys.argv[1]), fill)
"""


@pytest.mark.parametrize("make", ["make_folder", "write_file"])
def test_what_a_killed_writer_leaves_is_swept(make: str, tmp_path: Path):
    kill_as_it_says("writing", WRITER.format(make=make), str(tmp_path / "target"))
    (left,) = names(tmp_path)
    assert left.startswith(".writing-")
    make_folder(tmp_path / "other", fill)
    assert names(tmp_path) == ["other"]


def test_what_a_living_writer_is_at_is_not_swept(tmp_path: Path):
    def slow(folder: Path) -> None:
        fill(folder)
        sweep(tmp_path)
        make_folder(tmp_path / "second", fill)

    make_folder(tmp_path / "first", slow)
    check_seal(tmp_path / "first")
    assert names(tmp_path) == ["first", "second"]


def test_files_of_others_are_not_swept(tmp_path: Path):
    (tmp_path / ".writing-notes").write_text("mine")
    (tmp_path / "writing").mkdir()
    sweep(tmp_path)
    assert names(tmp_path) == [".writing-notes", "writing"]
