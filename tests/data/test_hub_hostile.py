"""Data sets whose makers mean harm: nothing of them is run, and no name leads out of its folder."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from .conftest import Hub, Repo, card, jsonl

ROWS = jsonl([{"question": f"What is {n} plus zero?", "answer": str(n)} for n in range(20)])
OPTIONS = (
    *("--preset", "smoke", "--set", "model.embedded.tokenizer=bytes"),
    *("--set", "warmstart.stages=[]", "--set", "eval.validation=[]"),
    *("--set", "eval.benchmarks=[]", "--set", "data.source=owner/name"),
)


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, ROWS)
    return file.getvalue()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"../../../outside.jsonl": ROWS, "/tmp/opo-outside.jsonl": ROWS}, ""),
        (
            {
                "rows.zip": zipped("rows.jsonl", "../../../../outside.jsonl"),
                "README.md": card({"default": {"train": "rows.zip"}}),
            },
            "",
        ),
        ({"name.py": b"open('outside', 'w')\n"}, "scripts are no longer supported"),
        ({"README.md": card({"default": {"train": "../../../../../../etc/passwd"}})}, ""),
    ],
    ids=["paths", "archive", "script", "card"],
)
def test_a_hostile_data_set_stays_in_its_folder(files, told, tmp_path, hub: Hub, hub_opo):
    """Whether it is refused or read for what it holds."""
    hub.repos["owner/name"] = Repo({"train.jsonl": ROWS} | files)
    result = hub_opo("prepare", *OPTIONS)
    assert result.returncode in (0, 2)
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert "root:" not in result.stdout + result.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"hf", "opo"}
    assert not list(tmp_path.parent.rglob("*outside*"))
    assert not Path("/tmp/opo-outside.jsonl").exists()
    kept = list((tmp_path / "opo").rglob("*.jsonl"))
    assert not any(b"root:" in path.read_bytes() for path in kept)
