"""Benchmarks and training sets from a hub, by real `opo` processes: what works, and what a user is
told when it does not."""

from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path

import pytest

from opo_cli.data.benchmarks import BENCHMARKS
from opo_cli.data.datasets import DATASETS
from opo_cli.data.decode import ENCODINGS

from .conftest import OTHER_COMMIT, Hub, Repo, card, jsonl, parquet

LONGEST_FAILURE = 35  # Seconds that a user may wait for a hub that fails.
FROM_HUB = {name: row for name, row in BENCHMARKS.items() if row.hub}
STORED = {
    "plain": lambda n: str(n),
    "integer": lambda n: f"{n:03d}" if n % 2 else f"{n}.0",
    "hashes": lambda n: f"We count to {n}.\n#### {n:,}",
    "boxed": lambda n: f"So \\boxed{{{n}}}.",
    "list": lambda n: [f"${n}$"],
    "json-list": lambda n: json.dumps([str(n)]),
}
"""The number n as each encoding stores it."""


def nested(column: str, value) -> dict:
    for part in reversed(column.split(".")):
        value = {part: value}
    return value


def rows_of(row, count: int) -> list[dict]:
    """Rows as a data set of this kind has them, whose answers are 0, 1, 2, ..."""
    columns = row.columns
    question = "{}" if columns.question != "prompt" else "Question {}"
    return [
        nested(columns.question, f"What is {question.format(n)} plus zero?")
        | nested(columns.answer, STORED[row.encoding](n))
        | (nested(columns.id, n) if columns.id else {})
        | (nested(columns.level, "Level 5") if columns.level else {})
        | (nested(columns.subject, "Sums") if columns.subject else {})
        | {"other": "x"}
        for n in range(count)
    ]


def repo_of(row, count: int | None = None, rows: list[dict] | None = None) -> Repo:
    """A data set that has what the row says: as Parquet where it has configs, else as JSONL."""
    rows = rows_of(row, row.num_problems if count is None else count) if rows is None else rows
    config = row.configs[0]
    if config:
        path = f"{config}/{row.split}-00000-of-00001.parquet"
        files = {path: parquet(rows), "README.md": card({config: {row.split: path}})}
    else:
        files = {f"{row.split}.jsonl": jsonl(rows), "README.md": b"# A data set\n"}
        if row.split == "math":
            files["README.md"] = card({"default": {"math": "math.jsonl"}})
    return Repo(files, row.revision or OTHER_COMMIT)


def errors(result) -> tuple[str, str]:
    """The two lines of one error."""
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith(("error:", "hint:"))]
    assert len(lines) == 2, result.stderr
    print(*lines, sep="\n")
    return lines[0], lines[1]


def kept_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "opo" / "problems").glob("*/problems.jsonl"))


@pytest.fixture
def aime(hub: Hub) -> Repo:
    row = BENCHMARKS["AIME24"]
    hub.repos[row.hub] = repo_of(row)
    return hub.repos[row.hub]


def test_every_encoding_is_served():
    assert set(STORED) == set(ENCODINGS) - {"guess"}


def test_every_benchmark_is_fetched_once(hub: Hub, hub_opo, tmp_path: Path):
    for row in FROM_HUB.values():
        hub.repos[row.hub] = repo_of(row)
    first = hub_opo("prepare", "--benchmarks", ",".join(FROM_HUB), COLUMNS="200")
    assert first.returncode == 0, first.stderr
    for name, row in FROM_HUB.items():
        assert f"fetch {name}: done" in first.stderr
        line = next(text for text in first.stdout.splitlines() if text.split()[:1] == [name])
        assert line.split()[1] == str(row.num_problems)
        assert f"{row.source}@{row.revision[:12]}" in line
    assert not list((tmp_path / "opo").glob("base-*"))  # No preset was asked for.

    for file in kept_files(tmp_path):
        facts = json.loads((file.parent / "source.json").read_text())
        row = BENCHMARKS[facts["name"]]
        problems = [json.loads(line) for line in file.read_text().splitlines()]
        assert [p["answer"] for p in problems] == [str(n) for n in range(row.num_problems)]
        assert len({p["id"] for p in problems}) == row.num_problems
        assert {p["benchmark"] for p in problems} == {facts["name"]}
        assert {p["level"] for p in problems} == ({"5"} if row.columns.level else {""})
        assert facts["revision"] == row.revision

    hub.requests.clear()
    again = hub_opo("prepare", "--benchmarks", ",".join(FROM_HUB), COLUMNS="200")
    assert again.stdout == first.stdout
    assert again.stderr == ""
    assert hub.requests == []


@pytest.mark.parametrize("name", DATASETS)
def test_every_training_set(name: str, hub: Hub, hub_opo, tmp_path: Path):
    """Three problems, one of them twice and one without an answer; the row's own number is held
    against what comes, so that it is only met through the data set's id."""
    row = DATASETS[name]
    rows = rows_of(row, 3)
    rows += [rows[0], {**rows[1], row.columns.answer.split(".")[0]: None}]
    hub.repos[row.hub] = repo_of(row, rows=rows)
    hub_benchmark = BENCHMARKS["AIME24"]
    hub.repos[hub_benchmark.hub] = repo_of(hub_benchmark)
    settings = {
        "data.source": row.hub,
        "data.config": row.configs[0],
        "data.split": row.split,
        "data.columns.question": row.columns.question,
        "data.columns.answer": row.columns.answer,
        "eval.benchmarks": '["AIME24"]',
        "model.path": "somewhere",
    }
    options = [word for k, v in settings.items() if v for word in ("--set", f"{k}={v}")]
    result = hub_opo("prepare", "--preset", "smoke", *options, COLUMNS="200")
    assert result.returncode == 0, result.stderr
    file = Path(result.stdout.splitlines()[-2])
    assert file.name == "train.jsonl"
    problems = [json.loads(line) for line in file.read_text().splitlines()]
    assert [problem["answer"] for problem in problems] == ["0", "1", "2"]
    facts = json.loads((file.parent / "source.json").read_text())
    assert facts["revision"] == (row.revision or OTHER_COMMIT)
    assert facts["counts"] == {
        "rows": 5,
        "problems": 3,
        "duplicates": 1,
        "unusable": 1,
        "overlapping": 0,
    }
    assert "overlap with benchmarks" in result.stdout

    if row.num_problems:
        named = hub_opo("prepare", "--preset", "smoke", "--set", f"data.source={name}")
        message, hint = errors(named)
        assert (
            f"{name}: {row.hub}@{row.revision[:12]} has 5 rows, not {row.num_problems}" in message
        )
        assert f"--set data.source={row.hub}" in hint


def test_an_evaluation_fetches_what_it_needs(aime: Repo, hub: Hub, hub_opo, base: Path):
    """The tiny model on real names: the score is 0 of course, the problems are the hub's."""
    options = ("--model", str(base), "--samples", "1", "--limit", "2", "--format", "json")
    fetched = hub_opo("eval", "AIME24", *options, "--set", "eval.max_new_tokens=8")
    assert fetched.returncode == 0, fetched.stderr
    assert "fetch AIME24: done" in fetched.stderr
    hub.requests.clear()
    again = hub_opo("eval", "AIME24", *options, "--set", "eval.max_new_tokens=8")
    assert again.returncode == 0, again.stderr
    assert hub.requests == []
    assert {row["benchmark"] for row in json.loads(again.stdout)} == {"AIME24"}


def test_a_presets_benchmarks_are_fetched_with_it(aime: Repo, hub: Hub, hub_opo, base: Path):
    named = ("--preset", "smoke", "--set", f"model.path={base}")
    named += ("--set", "eval.benchmarks=['AIME24','tiny-easy']")
    prepared = hub_opo("prepare", *named)
    assert prepared.returncode == 0, prepared.stderr
    assert "AIME24" in prepared.stdout
    hub.requests.clear()
    sizes = ("--steps", "1", "--set", "eval.limit=2", "--set", "eval.max_new_tokens=8")
    trained = hub_opo("train", *named, *sizes, HF_HUB_OFFLINE="1")
    assert trained.returncode == 0, trained.stderr
    assert hub.requests == []


# --- what goes wrong --------------------------------------------------------------------------


def test_a_run_does_not_start_without_its_benchmarks(hub_opo, base: Path, tmp_path: Path):
    """Also not those that it needs later: a network that is missing is told at the start."""
    later = ("--set", "eval.every=1", "--set", "eval.during=['AIME24']")
    named = ("--preset", "smoke", "--set", f"model.path={base}")
    message, hint = errors(hub_opo("train", *named, *later, HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE is set" in message
    assert "opo prepare --benchmarks AIME24" in hint
    assert not (tmp_path / "runs").exists()


def test_no_network(hub_opo):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # Bound, not listening: connections are refused.
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        started = time.monotonic()
        message, hint = errors(hub_opo("prepare", "--benchmarks", "AIME24", HF_ENDPOINT=endpoint))
    assert time.monotonic() - started < LONGEST_FAILURE
    assert f"cannot reach {endpoint} for 'math-ai/aime24'" in message
    for way_out in (
        "opo prepare --benchmarks AIME24",
        "OPO_CACHE",
        "HF_ENDPOINT=",
        "opo eval --data FILE --columns question=NAME,answer=NAME",
    ):
        assert way_out in hint


def test_a_hub_that_says_nothing(hub_opo):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        message, _ = errors(hub_opo("prepare", "--benchmarks", "AIME24", HF_ENDPOINT=endpoint))
    assert time.monotonic() - started < LONGEST_FAILURE
    assert "cannot reach" in message


def test_offline_with_and_without_copies(aime: Repo, hub: Hub, hub_opo, tmp_path: Path):
    message, hint = errors(hub_opo("prepare", "--benchmarks", "AIME24", HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE is set" in message
    assert "opo prepare --benchmarks AIME24" in hint
    assert hub.requests == []

    assert hub_opo("prepare", "--benchmarks", "AIME24").returncode == 0
    hub.requests.clear()
    ours = hub_opo("prepare", "--benchmarks", "AIME24", HF_HUB_OFFLINE="1", HF_HOME="elsewhere")
    assert ours.returncode == 0, ours.stderr
    shutil.copytree(tmp_path / "opo" / "problems", tmp_path / "node" / "problems")
    node = {"HF_HUB_OFFLINE": "1", "HF_HOME": "elsewhere", "OPO_CACHE": "node"}
    copied = hub_opo("prepare", "--benchmarks", "AIME24", **node)
    assert copied.returncode == 0, copied.stderr
    theirs = hub_opo("prepare", "--benchmarks", "AIME24", HF_HUB_OFFLINE="1", OPO_CACHE="elsewhere")
    assert theirs.returncode == 0, theirs.stderr
    assert hub.requests == []
    facts = json.loads(next((tmp_path / "elsewhere").rglob("source.json")).read_text())
    assert facts["revision"] == aime.commit


def test_another_commit_in_the_hub_cache_is_refused(aime: Repo, hub_opo):
    """`datasets` would load any commit that it holds."""
    arguments = ("--preset", "smoke", "--set", "data.source=math-ai/aime24", "--set")
    aime.commit = OTHER_COMMIT
    fetched = hub_opo("prepare", *arguments, "data.split=test", "--set", "model.path=x")
    assert fetched.returncode == 0, fetched.stderr
    message, _ = errors(hub_opo("prepare", "--benchmarks", "AIME24", HF_HUB_OFFLINE="1"))
    assert f"at commit {OTHER_COMMIT[:12]}, not at {BENCHMARKS['AIME24'].revision[:12]}" in message


def test_all_are_fetched_before_one_fails(aime: Repo, hub_opo, tmp_path: Path):
    result = hub_opo("prepare", "--benchmarks", "AMC23,AIME24,tiny-easy")
    message, hint = errors(result)
    assert "no data set 'math-ai/amc23'" in message
    assert "HF_TOKEN" in hint
    assert len(kept_files(tmp_path)) == 1
    assert "AIME24" in result.stdout
    assert "tiny-easy" in result.stdout


def test_a_gated_set_and_a_token(aime: Repo, hub_opo):
    aime.is_gated = True
    message, hint = errors(hub_opo("prepare", "--benchmarks", "AIME24"))
    assert "'math-ai/aime24' is gated" in message
    assert "HF_TOKEN" in hint
    assert hub_opo("prepare", "--benchmarks", "AIME24", HF_TOKEN="hf_good").returncode == 0


def test_a_hub_out_of_order(aime: Repo, hub_opo):
    aime.status = 503
    started = time.monotonic()
    message, _ = errors(hub_opo("prepare", "--benchmarks", "AIME24"))
    assert "answers 503 for 'math-ai/aime24'" in message
    assert time.monotonic() - started < LONGEST_FAILURE


def test_files_that_may_not_be_read(aime: Repo, hub_opo):
    aime.file_status = 403
    message, hint = errors(hub_opo("prepare", "--benchmarks", "AIME24"))
    assert "loading 'math-ai/aime24' failed" in message
    assert "try again" in hint


def test_a_revision_that_is_gone(aime: Repo, hub_opo):
    aime.commit = OTHER_COMMIT
    message, _ = errors(hub_opo("prepare", "--benchmarks", "AIME24"))
    assert f"has no revision '{BENCHMARKS['AIME24'].revision}'" in message


def test_a_missing_split(hub: Hub, hub_opo):
    row = BENCHMARKS["AIME24"]
    hub.repos[row.hub] = Repo({"train.jsonl": jsonl(rows_of(row, 30))}, row.revision)
    message, hint = errors(hub_opo("prepare", "--benchmarks", "AIME24"))
    assert "has no split 'test'" in message
    assert "it has: train" in hint


def test_a_missing_config(hub: Hub, hub_opo):
    row = BENCHMARKS["GSM8K"]
    path = "socratic/test.parquet"
    files = {path: parquet(rows_of(row, 9)), "README.md": card({"socratic": {"test": path}})}
    hub.repos[row.hub] = Repo(files, row.revision)
    message, hint = errors(hub_opo("prepare", "--benchmarks", "GSM8K"))
    assert "has no config 'main'" in message
    assert "it has: socratic" in hint


def test_two_configs_and_none_asked_for(hub: Hub, hub_opo):
    rows = jsonl([{"problem": "1+1?", "answer": "2"}])
    files = {"a/test.jsonl": rows, "b/test.jsonl": rows}
    files["README.md"] = card({name: {"test": f"{name}/test.jsonl"} for name in "ab"})
    hub.repos["some/one"] = Repo(files)
    arguments = ("prepare", "--preset", "smoke", "--set", "data.source=some/one")
    message, hint = errors(hub_opo(*arguments))
    assert "has several configs" in message
    assert "it has: a, b" in hint
    assert "data.config" in hint


def test_several_configs_one_after_the_other(hub: Hub, hub_opo):
    rows = [{"question": f"{n}+0?", "answer": str(n)} for n in range(4)]
    files = {"I/test.jsonl": jsonl(rows[:2]), "II/test.jsonl": jsonl(rows[2:])}
    files["README.md"] = card({name: {"test": f"{name}/test.jsonl"} for name in ("I", "II")})
    hub.repos["some/one"] = Repo(files)
    settings = ("data.source=some/one", "data.split=test", "data.config=I,II", "model.path=x")
    options = [word for setting in settings for word in ("--set", setting)]
    result = hub_opo("prepare", "--preset", "smoke", *options)
    assert result.returncode == 0, result.stderr
    file = Path(result.stdout.splitlines()[-2])
    problems = [json.loads(line) for line in file.read_text().splitlines()]
    assert [problem["id"] for problem in problems] == ["I/0000", "I/0001", "II/0000", "II/0001"]
    assert [problem["answer"] for problem in problems] == ["0", "1", "2", "3"]
    facts = json.loads((file.parent / "source.json").read_text())
    assert facts["source"] == "some/one/I+II/test"


def test_a_changed_column(hub: Hub, hub_opo):
    row = BENCHMARKS["AIME24"]
    rows = [{"problem": "1+1?", "final": "2"} for _ in range(30)]
    hub.repos[row.hub] = repo_of(row, rows=rows)
    message, _ = errors(hub_opo("prepare", "--benchmarks", "AIME24"))
    assert "no column 'solution'" in message
    assert "its columns: problem, final" in message


def test_an_answer_that_cannot_be_read(hub: Hub, hub_opo):
    row = BENCHMARKS["AIME24"]
    rows = rows_of(row, 30)
    rows[6]["solution"] = "Seven."
    hub.repos[row.hub] = repo_of(row, rows=rows)
    message, _ = errors(hub_opo("prepare", "--benchmarks", "AIME24"))
    assert "row 7 cannot be read: no \\boxed{} in it" in message


@pytest.mark.parametrize("count", [29, 31])
def test_a_wrong_count(count: int, hub: Hub, hub_opo, tmp_path: Path):
    row = BENCHMARKS["AIME24"]
    hub.repos[row.hub] = repo_of(row, count)
    message, _ = errors(hub_opo("prepare", "--benchmarks", "AIME24"))
    assert f"has {count} problems, not the 30" in message
    assert not kept_files(tmp_path)


@pytest.mark.parametrize("name", ["AIME24", "GSM8K"])  # JSONL and Parquet.
def test_a_truncated_download(name: str, hub: Hub, hub_opo, tmp_path: Path):
    row = BENCHMARKS[name]
    repo = hub.repos[row.hub] = repo_of(row)
    repo.truncated = {path for path in repo.files if path != "README.md"}
    started = time.monotonic()
    message, _ = errors(hub_opo("prepare", "--benchmarks", name))
    assert time.monotonic() - started < LONGEST_FAILURE
    assert f"loading '{row.hub}' failed" in message
    assert not kept_files(tmp_path)
    repo.truncated = set()
    assert hub_opo("prepare", "--benchmarks", name).returncode == 0


@pytest.mark.parametrize("name", ["AIME24", "GSM8K"])
def test_a_corrupt_download(name: str, hub: Hub, hub_opo, tmp_path: Path):
    """The JSONL file still reads well, with other words in it: only its checksum tells."""
    row = BENCHMARKS[name]
    repo = hub.repos[row.hub] = repo_of(row)
    repo.corrupt = {path for path in repo.files if path != "README.md"}
    message, _ = errors(hub_opo("prepare", "--benchmarks", name))
    assert f"the download of '{row.hub}' is damaged" in message
    assert not kept_files(tmp_path)
    repo.corrupt = set()
    again = hub_opo("prepare", "--benchmarks", name)
    assert again.returncode == 0, again.stderr  # What the cache holds is not taken for good.


@pytest.mark.parametrize("damage", ["edited", "cut", "gone", "no source", "another source"])
def test_a_damaged_copy_is_told_and_fetched_again(damage, aime: Repo, hub_opo, tmp_path: Path):
    first = hub_opo("prepare", "--benchmarks", "AIME24")
    (file,) = kept_files(tmp_path)
    good, source = file.read_text(), file.parent / "source.json"
    if damage == "edited":
        file.write_text(good.replace('"answer": "7"', '"answer": "8"'))
    elif damage == "cut":
        file.write_text(good[: len(good) // 2])
    elif damage == "gone":
        file.unlink()
    elif damage == "no source":
        source.unlink()
    else:
        source.write_text("[]")
    again = hub_opo("prepare", "--benchmarks", "AIME24")
    assert again.returncode == 0, again.stderr
    assert f"'{file if damage in ('edited', 'cut', 'gone') else source}' is " in again.stderr
    assert again.stderr.count("; made again") == 1
    assert again.stdout == first.stdout
    assert file.read_text() == good
