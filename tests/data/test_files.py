"""Local files as benchmarks: every format, found columns, and what is said of bad files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opo_cli.config import Columns
from opo_cli.data.benchmarks import BENCHMARKS, load_benchmark
from opo_cli.data.datasets import DATASETS
from opo_cli.data.files import read_file
from opo_cli.data.rows import cell, every_problem, find_columns
from opo_cli.errors import OpoError

SHARED = Path(__file__).parents[2].parent / "shared/data/benchmarks"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
COUNTS = {
    "aime24": 30,
    "aime25": 30,
    "amc23": 40,
    "math500": 500,
    "gsm8k_test": 1319,
    "minerva": 272,
    "olympiadbench": 675,
    "gsm8k_train_1000": 1000,
    "math_train": 7459,
}
ROWS = [
    {"problem": "1+1?", "answer": "2", "level": "Level 1"},
    {"problem": 'Zwei\u2028Zeilen, "ja"\nnein?', "answer": "½", "level": "Level 2"},
]


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif path.suffix == ".csv":
        import csv

        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet", ".JSONL"])
def test_every_format_gives_the_same_problems(tmp_path: Path, suffix: str):
    path = write(tmp_path / f"mine{suffix.lower()}", ROWS)
    path = path.rename(path.with_suffix(suffix))
    found = load_benchmark(str(path), Columns())
    assert [(p.id, p.question, p.answer, p.level) for p in found.problems] == [
        ("0000", "1+1?", "2", "1"),
        ("0001", 'Zwei\u2028Zeilen, "ja"\nnein?', "½", "2"),
    ]
    assert (found.name, found.source, found.revision) == ("mine", str(path), "")
    assert {problem.benchmark for problem in found.problems} == {"mine"}


def test_a_json_file_of_lines_and_a_byte_order_mark(tmp_path: Path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"problem": "1+1?", "answer": 2}\r\n')
    assert load_benchmark(str(tmp_path / "a.json"), Columns()).problems[0].answer == "2"


MALFORMED = [
    # Suffix, content, what is said.
    ("jsonl", b'{"problem": "a", "answer": 1}\n{"problem"', ":2: not JSON"),
    ("jsonl", b"[1]\n", ":1: type list, not an object"),
    ("jsonl", b'{"a": 1}\n\xff\n', ":2: not UTF-8"),
    ("jsonl", b"\n", "holds no row"),
    ("jsonl", b'{"a": ' + b"[" * 100_000, "nested too deeply"),
    ("jsonl", b'{"a": ' + b"1" * 5_000 + b"}", ":1: not JSON"),
    ("json", b'[{"a": 1},\n{"a": }]', ":2: not JSON"),
    ("json", b'[{"a": 1}, 2]', "item 2 has type int, not an object"),
    ("json", b"[]", "holds no row"),
    ("csv", b"problem,answer\n1,2\n3\n", ":3: not as many cells as the header"),
    ("csv", b"problem,answer\n1,2,3\n", ":2: not as many cells as the header"),
    ("csv", b'problem,answer\n"1,2\n', ":2: not CSV"),
    ("csv", b"problem,answer\n", "holds no row"),
    ("parquet", b"PAR1 and then nothing", "no readable Parquet file"),
    ("txt", b"1+1? 2", "a data file's name ends in"),
]


@pytest.mark.parametrize(("suffix", "content", "said"), MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_file(tmp_path: Path, suffix: str, content: bytes, said: str):
    path = tmp_path / f"bad.{suffix}"
    path.write_bytes(content)
    with pytest.raises(OpoError) as caught:
        load_benchmark(str(path), Columns())
    assert str(path) in caught.value.message
    assert said in f"{caught.value.message} {caught.value.hint}"
    assert "\n" not in caught.value.message


def loaded(tmp_path: Path, rows: list[dict], **columns: str):
    path = write(tmp_path / "mine.jsonl", rows)
    return load_benchmark(str(path), Columns(**columns)).problems


@pytest.mark.parametrize(
    "row",
    [
        {"Problem": "1+1?", "Answer": 2, "Solution": "So \\boxed{3}."},
        {"question": "1+1?", "final_answer": ["$2$"], "solution": ["no"]},
        {"prompt": [{"role": "user", "content": "1+1?"}], "reward_model": {"ground_truth": "2"}},
        {"problem": "1+1?", "solution": "So \\boxed{2}."},
        {"problem": "1+1?", "prompt": "another", "gold": "2"},
    ],
    ids=repr,
)
def test_usual_columns_are_found(tmp_path: Path, row: dict):
    (problem,) = loaded(tmp_path, [row])
    assert (problem.question, problem.answer) == ("1+1?", "2")


def test_given_columns_reach_into_nested_ones(tmp_path: Path):
    rows = [{"a": {"b": {"c": "1+1?"}}, "x.y": "2", "x": {"y": "3"}, "k": 7, "d": 3, "s": "Sums"}]
    columns = {"question": "a.b.c", "answer": "x.y", "id": "k", "level": "d", "subject": "s"}
    (problem,) = loaded(tmp_path, rows, **columns)
    assert (problem.question, problem.answer, problem.id) == ("1+1?", "2", "7")
    assert (problem.level, problem.subject) == ("3", "Sums")
    assert cell(rows[0], "x.z.w") is None


@pytest.mark.parametrize(
    ("row", "columns", "said"),
    [
        (
            {"problem": "a", "question": "b", "answer": "1"},
            {},
            "'problem' or 'question': which is the question",
        ),
        ({"text": "a", "answer": "1"}, {}, "no column has a usual name of the question"),
        ({"problem": "a", "n": "1"}, {}, "no column has a usual name of the answer"),
        ({"problem": "a", "answer": "1"}, {"answer": "answr"}, "there is no column 'answr'"),
    ],
)
def test_columns_that_cannot_be_told(tmp_path: Path, row: dict, columns: dict, said: str):
    with pytest.raises(OpoError, match=said) as caught:
        loaded(tmp_path, [row], **columns)
    assert f"its columns: {', '.join(row)}" in caught.value.message
    assert "--columns" in caught.value.hint


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"problem": " ", "answer": "1"}, "row 3 has no question"),
        ({"problem": "a", "answer": ""}, "row 3 has no answer"),
        ({"problem": "a"}, "row 3 has no answer"),
        ({"problem": "a", "answer": True}, "row 3 cannot be read: type bool"),
        ({"problem": 5, "answer": "1"}, "row 3 cannot be read: type int"),
        ({"problem": "\ud800", "answer": "1"}, "row 3 cannot be read: half of a surrogate"),
    ],
)
def test_a_row_that_is_no_problem_is_refused(tmp_path: Path, row: dict, said: str):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"problem": "1+1?", "answer": "2"}\n\n' + json.dumps(row))
    with pytest.raises(OpoError, match=said):
        load_benchmark(str(path), Columns())


def test_ids_are_unique(tmp_path: Path):
    rows = [{"problem": f"{n}?", "answer": "1", "id": n // 2, "key": n} for n in range(4)]
    assert [p.id for p in loaded(tmp_path, rows)] == ["0000", "0001", "0002", "0003"]
    assert [p.id for p in loaded(tmp_path, rows, id="key")] == ["0", "1", "2", "3"]
    with pytest.raises(OpoError, match="id '0' is there twice in column 'id'"):
        loaded(tmp_path, rows, id="id")


def test_labels_and_messages_are_printable(tmp_path: Path):
    row = {
        "problem": "1+1?",
        "answer": "2",
        "id": "a\x1b[2Jb\n",
        "level": "\x07 3",
        "type": "x\x9b",
    }
    (problem,) = loaded(tmp_path, [row])
    assert (problem.id, problem.level, problem.subject) == ("a[2Jb", "3", "x")
    with pytest.raises(OpoError) as caught:
        loaded(tmp_path, [{"\x1b[2J\n": 1}])
    assert caught.value.message.isprintable()


# --- the shared files -------------------------------------------------------------------------


def shared(name: str):
    return every_problem(read_file(SHARED / f"{name}.jsonl"), Columns(), "guess", name)


@needs_shared
@pytest.mark.parametrize("name", COUNTS)
def test_the_shared_files_load_with_the_right_count(name: str):
    path = SHARED / f"{name}.jsonl"
    found = load_benchmark(str(path), Columns())
    assert len(found.problems) == COUNTS[name]
    rows = [json.loads(line) for line in path.read_text().split("\n") if line]
    for problem, row in zip(found.problems, rows, strict=True):
        assert problem.id == row["id"]
        assert problem.question == row["problem"].strip()
        assert problem.level == str(row.get("level", ""))
        bare = row["answer"].removeprefix("$").removesuffix("$").strip()
        whole = bare.lstrip("+").replace(".", "", 1).isdigit() and float(bare).is_integer()
        assert problem.answer == (str(int(float(bare))) if whole else problem.answer)
        assert problem.answer in row["answer"] or whole


@needs_shared
@pytest.mark.parametrize(
    "path", sorted((SHARED / "hub_style").glob("*.jsonl")), ids=lambda path: path.stem
)
def test_every_hub_shape_gives_the_plain_answers(path: Path):
    """With the columns found and the encoding guessed, and as our tables have them."""
    plain = {problem.question: problem.answer for name in COUNTS for problem in shared(name)}
    if path.stem.startswith("EleutherAI"):  # Its rows are invented.
        plain = {"What is $2+3$?": "5", "Simplify $\\frac{2}{4}$.": "\\frac{1}{2}"}
        plain["Solve $x^2=4$."] = "-2,2"
    data = read_file(path)
    problems = every_problem(data, Columns(), "guess", "x")
    assert len(problems) == len(path.read_text().splitlines())
    for problem in problems:
        assert problem.answer == plain[problem.question]
    hub = path.name.split(".")[0].replace("__", "/")
    for row in (*BENCHMARKS.values(), *DATASETS.values()):
        if row.hub == hub:
            assert find_columns(row.columns, data)
            found = every_problem(data, row.columns, row.encoding, "x")
            assert [p.question for p in found] == [p.question for p in problems]
            assert [p.answer for p in found] == [p.answer for p in problems]


@needs_shared
def test_our_tables_are_covered_by_the_shapes():
    shapes = {
        path.name.split(".")[0].replace("__", "/") for path in (SHARED / "hub_style").iterdir()
    }
    ours = {row.hub for row in (*BENCHMARKS.values(), *DATASETS.values()) if row.hub}
    assert ours - shapes <= {"DigitalLearningGmbH/MATH-lighteval"}
