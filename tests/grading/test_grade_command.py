"""`opo grade` as a real process: every format, hostile rows, and what a user may get wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.endless import ENDLESS

ROWS = [
    {"id": 1, "prediction": r"so \boxed{\frac12}", "answer": "0.5"},
    {"id": 2, "prediction": r"\boxed{[bold]7[/bold]}", "gold": "8", "extra": {"a": [1]}},
    {"id": 3, "prediction": r"\boxed{\sqrt8}", "answer": r"2\sqrt2"},
    {"id": 4, "prediction": 12, "answer": 12},
    {"id": 5, "prediction": None, "answer": "3"},
    {"id": 6, "prediction": r"\boxed{}", "answer": "3"},
    {"id": 7, "prediction": r"\boxed{9^{9^{9}}}", "answer": "3"},
    {"id": 8, "prediction": r"\boxed{0.33333}", "answer": r"\frac{1}{3}"},
    {"id": 9, "prediction": "=cmd|' /C calc'!A0 \ud800 \x1b[31m", "answer": "3"},
]
REASONS = ["correct", "unparsed", "correct", "correct", "no-answer", "empty", "refused", "correct"]
VERDICTS = [True, False, True, True, False, False, False, True, False]
AUDIT = ["agrees", "no opinion", "no opinion", "agrees", "agrees", "agrees", "no opinion"]


@pytest.fixture
def file(in_tmp: Path) -> Path:
    path = in_tmp / "some.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.mark.parametrize("format", ["rich", "markdown"])
def test_tables_on_stdout_and_rows_in_a_file(run_opo, file: Path, format: str):
    result = run_opo("grade", "some.jsonl", "--audit", "--format", format, COLUMNS="80")
    assert result.returncode == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80
    for text in ("correct", "no-answer", "refused", "44.4%", "rows/s", "1 of 9 rows disagree"):
        assert text in result.stdout
    graded = [json.loads(line) for line in Path("some.graded.jsonl").read_text().splitlines()]
    assert [row["verdict"] for row in graded] == VERDICTS
    assert [row["reason"] for row in graded][:8] == REASONS
    assert [row["audit"] for row in graded][:7] == AUDIT
    assert graded[7]["audit"] == "disagrees"
    assert graded[0]["extracted"] == r"\frac12"
    assert graded[1]["extra"] == {"a": [1]}
    assert graded[2]["seconds"] > 0 == graded[0]["seconds"]
    assert [{key: row[key] for key in ROWS[i]} for i, row in enumerate(graded)] == ROWS


def test_json_is_the_rows(run_opo, file: Path):
    result = run_opo("grade", "some.jsonl", "--format", "json", "--audit")
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [row["verdict"] for row in rows] == VERDICTS
    assert [row["id"] for row in rows] == list(range(1, 10))
    assert rows[7]["audit"] == "disagrees"
    assert "rows/s" in result.stderr
    assert list(Path().iterdir()) == [Path("some.jsonl")]


def test_csv_is_the_rows(run_opo, file: Path):
    result = run_opo("grade", "some.jsonl", "--format", "csv", "--out", "mine.jsonl")
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["verdict"] for row in rows] == [str(v).lower() for v in VERDICTS]
    assert rows[1]["extra"] == '{"a": [1]}'
    assert len(Path("mine.jsonl").read_text().splitlines()) == 9


def test_answer_format_and_settings(run_opo, file: Path):
    result = run_opo(
        *("grade", "some.jsonl", "--format", "json", "--answer-format", "tag"),
        *("--set", "grading.num_workers=1"),
    )
    assert {row["reason"] for row in json.loads(result.stdout)} == {"no-answer"}


def test_markup_in_names_and_answers_is_shown_as_it_is(run_opo, file: Path):
    rows = [{"prediction": r"\boxed{0.66667}", "answer": r"\frac{2}{3}"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run_opo("grade", "some.jsonl", "--audit", "--out", "[red]x[bold].jsonl")
    assert result.returncode == 0, result.stderr
    assert r"\frac{2}{3}" in result.stdout
    assert "rows: [red]x[bold].jsonl" in result.stdout


def graded_again(run_opo, *arguments: str) -> list[dict]:
    result = run_opo("grade", *arguments, "--out", "out.jsonl")
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]


def test_fields_of_our_names_are_kept_unless_they_are_ours(run_opo, in_tmp: Path):
    row = {"prediction": r"\boxed{7}", "answer": "7"}
    theirs = {"verdict": "no", "seconds": 3, "audit": "x", "input_seconds": 4}
    Path("in.jsonl").write_text(json.dumps(row | theirs) + "\n")
    ours = {"verdict": True, "extracted": "7", "reason": "correct", "seconds": 0.0}
    kept = {"input_verdict": "no", "input_input_seconds": 3, "input_audit": "x"}
    (first,) = graded_again(run_opo, "in.jsonl")
    assert first == row | {"input_seconds": 4} | kept | ours
    Path("again.jsonl").write_text(json.dumps(first | {"verdict": False, "audit": "old"}) + "\n")
    assert graded_again(run_opo, "again.jsonl") == [first]


BAD = {
    "bad.jsonl": b'{"prediction": "1", "answer": "1"}\n{"prediction": ',
    "list.jsonl": b"\n[1, 2]\n",
    "fields.jsonl": b'{"prediction": "1", "answer": "1"}\n\n{"answer": "1"}\n',
    "gold.jsonl": b'{"prediction": "1", "answers": "1"}\n',
    "null.jsonl": b'{"prediction": "1", "answer": null}\n',
    "blank.jsonl": b'{"prediction": "1", "answer": "  "}\n',
    "nested.jsonl": b'{"prediction": ["1"], "answer": "1"}\n',
    "deep.jsonl": b"[" * 100_000,
    "digits.jsonl": b'{"prediction": 1, "answer": ' + b"9" * 5000 + b"}",
    "empty.jsonl": b"\n \n",
    "binary.jsonl": b"\x89PNG\r\n\x1a\n\xff\xfe",
}


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("grade nothing.jsonl", "file 'nothing.jsonl' does not exist", "JSONL"),
        ("grade folder", "'folder' is a folder", "FOLDER/FILE"),
        ("grade bad.jsonl", "'bad.jsonl' line 2 is no JSON", '{"prediction": '),
        ("grade deep.jsonl", "'deep.jsonl' line 1 is no JSON", '{"prediction": '),
        ("grade digits.jsonl", "line 1 holds a number of too many digits", "quotes"),
        ("grade old.jsonl", "'old.graded.jsonl' exists", "--out old.graded.jsonl replaces it"),
        ("grade good.jsonl --out /dev/null", "'/dev/null' is no file", "--format json"),
        ("grade list.jsonl", "'list.jsonl' line 2 is a list, not an object", "answer"),
        ("grade fields.jsonl", "'fields.jsonl' line 3 has no field 'prediction'", "answer"),
        ("grade gold.jsonl", "'gold.jsonl' line 1 has no field 'answer' or 'gold'", "answer"),
        ("grade null.jsonl", "'null.jsonl' line 1 has no field 'answer' or 'gold'", "answer"),
        ("grade blank.jsonl", "line 1: the reference answer is empty", "answer"),
        ("grade nested.jsonl", "line 1: prediction and answer must be text", "answer"),
        ("grade empty.jsonl", "'empty.jsonl' is empty", "answer"),
        ("grade binary.jsonl", "'binary.jsonl' is no text in UTF-8", "JSONL"),
        ("grade good.jsonl --answer-format bx", "unknown answer format 'bx'", "'box'"),
        ("grade good.jsonl --out folder", "--out 'folder' is a folder", "folder/graded.jsonl"),
        ("grade good.jsonl --out no/x", "no folder 'no'", "make the folder"),
        ("grade good.jsonl --out good.jsonl", "is the file that is read", "another name"),
        (
            "grade good.jsonl --set grading.timeout=1",
            "unknown config key 'grading.timeout'",
            "mean",
        ),
        ("grade good.jsonl --set grading.num_workers=0", "grading.num_workers = 0", "Worker"),
        ("grade", "Missing argument 'FILE'", "opo grade --help"),
    ],
)
def test_mistakes_get_two_lines(line: str, message: str, hint: str, in_tmp: Path, capfd):
    from opo_cli.cli import main

    for name, content in BAD.items():
        (in_tmp / name).write_bytes(content)
    (in_tmp / "folder").mkdir()
    for name in ("good", "old", "old.graded"):
        (in_tmp / f"{name}.jsonl").write_text('{"prediction": "1", "answer": "1"}\n')
    before = sorted(in_tmp.iterdir())
    assert main(line.split()) == 2
    printed = capfd.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 2, printed.err
    assert message in lines[0]
    assert hint in lines[1]
    assert printed.out == ""
    assert sorted(in_tmp.iterdir()) == before


def test_no_torch_is_imported(file: Path):
    script = (
        "import sys; from opo_cli.cli import main\n"
        "if __name__ == '__main__':\n"
        "    code = main(['grade', 'some.jsonl'])\n"
        "    sys.exit(code or 'torch' in sys.modules or 'sympy' in sys.modules)"
    )
    Path("script.py").write_text(script)
    result = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_ctrl_c_leaves_no_worker_and_no_traceback(in_tmp: Path):
    """The workers hold our stdout open: it ends when the last of them does."""
    row = {"prediction": rf"\boxed{{{ENDLESS}}}", "answer": "3"}
    Path("endless.jsonl").write_text(json.dumps(row) + "\n")
    arguments = ["grade", "endless.jsonl", "--set", "grading.timeout_seconds=600"]
    process = subprocess.Popen(
        [sys.executable, "-m", "opo_cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ,
    )
    time.sleep(6)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err
    assert b"interrupted: nothing was written" in err
    assert not Path("endless.graded.jsonl").exists()
