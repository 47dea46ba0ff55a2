"""Sample files, and the record that follows from them: every number by hand."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opo_cli.evaluate.samples import ProblemSamples, Response, SampleFile
from opo_cli.evaluate.summary import summarise
from opo_cli.types import Mean, Problem
from tests.damage import flip_a_bit

HOSTILE = 'two\nlines\u2028 and "quotes" \ud800 [bold]{question}\x00'


def response(**changes) -> Response:
    plain = {
        "text": "so \\boxed{8}",
        "extracted": "8",
        "correct": True,
        "reason": "correct",
        "finish_reason": "stop",
        "length": 5,
        "entropy": 1.5,
    }
    return Response(**plain | changes)


def samples_of(name: str, *responses: Response, **changes) -> ProblemSamples:
    plain = {
        "id": name,
        "answer": "8",
        "responses": responses,
        "diversity": {"self_bleu": Mean(0.5, 2), "rep_4": Mean(0, 0)},
    }
    return ProblemSamples(**plain | changes)


TWO = [
    samples_of("a/1", response(), response(text=HOSTILE, extracted=None, kl=0.25, kl_k1=-0.1)),
    samples_of(HOSTILE, response()),
]


def test_samples_come_back_as_they_were(tmp_path: Path):
    file = SampleFile(tmp_path / "new", "AIME24", {"seed": 0})
    with file.locked():
        assert file.read() == {}
        file.add(TWO[:1])
        file.add(TWO[1:])
    assert SampleFile(tmp_path / "new", "AIME24", {"seed": 0}).read() == {s.id: s for s in TWO}


def test_another_setting_is_another_file(tmp_path: Path):
    paths = {SampleFile(tmp_path, "AIME24", {"seed": seed}).path for seed in (0, 1)}
    assert len(paths) == 2


def test_a_benchmarks_name_is_no_path(tmp_path: Path):
    path = SampleFile(tmp_path, "../../etc/pass wd\n" + "x" * 300, {}).path
    assert path.parent == tmp_path
    assert len(path.name) < 100


@pytest.mark.parametrize("cut", [1, 20])
def test_a_torn_line_costs_its_problem_alone(tmp_path: Path, cut: int):
    file = SampleFile(tmp_path, "x", {})
    with file.locked():
        file.add(TWO)
    content = file.path.read_bytes()
    file.path.write_bytes(content[:-cut])
    with file.locked():
        assert list(file.read()) == ["a/1"]
        file.add(TWO[1:])
        assert file.read() == {s.id: s for s in TWO}
    assert file.path.read_bytes() == content


DAMAGE = {
    "cut": lambda line: line[:-9],
    "another value": lambda line: line.replace(b'"length": 5', b'"length": 4'),
    "no text": lambda line: line.replace(b"boxed", b"b\xffxed"),
    "two lines": lambda line: line.replace(b", ", b"\n", 1),
    "blank": lambda line: b"",
    "another record": lambda line: b'{"id": "a/1"}',
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_line_is_told_and_costs_its_problem_alone(damage, tmp_path: Path, capfd):
    file = SampleFile(tmp_path, "x", {})
    with file.locked():
        file.add(TWO)
        content = file.path.read_bytes()
        head, first, second, _ = content.split(b"\n")
        file.path.write_bytes(b"\n".join([head, DAMAGE[damage](first), second, b""]))
        assert file.read() == {TWO[1].id: TWO[1]}
        told = "".join(capfd.readouterr().err.split("\n"))
        assert f"{file.path}:2: " in told
        assert "its problem is sampled again" in told
        assert file.read() == {TWO[1].id: TWO[1]}
        assert capfd.readouterr().err == ""  # Once.
        file.add(TWO[:1])
        assert file.read() == {s.id: s for s in TWO}


def test_mending_keeps_the_file_that_others_wait_for(tmp_path: Path):
    file = SampleFile(tmp_path, "x", {"seed": 1})
    with file.locked():
        file.add(TWO)
    content, number = file.path.read_bytes(), file.path.stat().st_ino
    flip_a_bit(file.path, 3)  # The first line, which says what they are.
    with file.locked():
        assert file.read() == {s.id: s for s in TWO}
    assert (file.path.read_bytes(), file.path.stat().st_ino) == (content, number)


@pytest.mark.parametrize("size", [0, 5])
def test_a_file_that_was_only_begun_is_begun_anew(tmp_path: Path, size: int):
    file = SampleFile(tmp_path, "x", {"seed": 1})
    with file.locked():
        file.add(TWO)
        content = file.path.read_bytes()
        os.truncate(file.path, size)
        assert file.read() == {}
        file.add(TWO)
        assert file.path.read_bytes() == content


HOLDER = """
import sys, time
from pathlib import Path
from opo_cli.evaluate.samples import SampleFile
file = SampleFile(Path(sys.argv[1]), "x", {})
with file.locked():
    print("held", flush=True)
    time.sleep(1)
"""


def test_a_second_process_waits(tmp_path: Path, capfd):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"held\n"
        started = time.monotonic()
        with SampleFile(tmp_path, "x", {}).locked():
            assert time.monotonic() - started > 0.5
    assert "waiting for it" in capfd.readouterr().err


def test_the_first_line_says_what_the_samples_are(tmp_path: Path):
    file = SampleFile(tmp_path, "x", {"template": "boxed", "seed": 3})
    with file.locked():
        file.add(TWO)
    first = json.loads(file.path.read_text().splitlines()[0])
    assert (first["template"], first["seed"]) == ("boxed", 3)


# --- the record ---------------------------------------------------------------------------------

RIGHT = response()
WRONG = response(text="9", extracted="9", correct=False, reason="wrong", length=9, entropy=4.5)
HALF = response(text="1/2", extracted="1/2", correct=False, reason="wrong", length=3)
ALSO_HALF = response(text="0.5", extracted="0.5", correct=False, reason="wrong", length=3)
SILENT = response(
    text="", extracted=None, correct=False, reason="no-answer", finish_reason="length", length=32
)
CUT_RIGHT = response(finish_reason="length", length=32)
TIMEOUT = response(correct=False, reason="timeout", extracted="9^9", grading_seconds=6.0)

SAMPLES = [
    samples_of("a", RIGHT, RIGHT, WRONG, SILENT),
    samples_of("b", RIGHT, HALF, ALSO_HALF, CUT_RIGHT),
    samples_of("c", SILENT, SILENT, TIMEOUT, WRONG),
]
LEVELS = {"a": ("1", "Algebra"), "b": ("5", "Geometry"), "c": ("5", "")}


def record_of(samples: list[ProblemSamples], ks=()) -> dict:
    """Their record; problems a, b and c have levels and subjects."""
    problems = [
        Problem(id=s.id, question="?", answer="8", benchmark="x", level=level, subject=subject)
        for s in samples
        for level, subject in [LEVELS.get(s.id, ("", ""))]
    ]
    return summarise(samples, problems, ks)


def test_accuracy_is_the_mean_over_problems():
    record = record_of(SAMPLES)
    assert (record["num_problems"], record["num_samples"]) == (3, 4)
    assert record["accuracy"] == pytest.approx(1 / 3)
    assert record["accuracy_se"] == pytest.approx(1 / 6)  # sd of (.5, .5, 0) over sqrt 3.
    low, high = record["accuracy_95"]
    assert 0 <= low < 1 / 3 < high <= 1
    assert record["problems"] == [
        {"id": "a", "num_correct": 2},
        {"id": "b", "num_correct": 2},
        {"id": "c", "num_correct": 0},
    ]


def test_pass_and_majority_of_every_k_from_the_same_samples():
    """Problem b's votes at k = 4: two right, two a half, however written: a tie."""
    record = record_of(SAMPLES, (1, 2, 4))
    assert record["pass_at_k"] == pytest.approx({"1": 1 / 3, "2": (5 / 6 + 5 / 6) / 3, "4": 2 / 3})
    assert record["maj_at_k"]["4"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    # At 2: a: {R,R} 1, {R,W} x2 1/2 each, {R,-} x2 1 each, {W,-} 0: 4/6; b: {R,R} 1, {R,H} x4 1/2,
    # {H,H} 0: 3/6; c: 0.
    assert record["maj_at_k"]["2"] == pytest.approx((4 / 6 + 3 / 6) / 3)
    assert set(record["pass_at_k_95"]) == {"1", "2", "4"}
    assert set(record["maj_at_k_95"]) == {"2", "4"}


def test_k_by_default():
    assert list(record_of(SAMPLES)["pass_at_k"]) == ["1", "4"]


def test_lengths_truncation_and_reasons():
    record = record_of(SAMPLES)
    assert record["length"] == pytest.approx(
        (5 + 5 + 9 + 32 + 5 + 3 + 3 + 32 + 32 + 32 + 5 + 9) / 12
    )
    assert record["length_right"] == pytest.approx((5 + 5 + 5 + 32) / 4)
    assert record["length_wrong"] == pytest.approx((9 + 32 + 3 + 3 + 32 + 32 + 5 + 9) / 8)
    assert record["truncated"] == pytest.approx(4 / 12)
    assert record["accuracy_completed"] == pytest.approx(3 / 8)
    assert record["accuracy_truncated"] == pytest.approx(1 / 4)
    assert record["reasons"] == {"correct": 4, "wrong": 4, "no-answer": 3, "timeout": 1}
    assert record["grader_failures"] == 1
    assert record["grading_seconds"] == 6.0


def test_nothing_truncated_has_no_accuracy_of_the_truncated():
    record = record_of([samples_of("a", RIGHT, WRONG)])
    assert record["accuracy_truncated"] is None
    assert record["accuracy_95"] is None  # One problem.


def test_entropy_is_per_token_and_kl_per_response():
    pair = [response(kl=0.5, kl_k1=-0.25, kl_k3=1.0), response(kl=1.5, kl_k1=0.75, kl_k3=2.0)]
    record = record_of([samples_of("a", *pair)])
    assert record["entropy"] == pytest.approx(3.0 / 10)
    assert record["kl_exact_sequence"] == pytest.approx(1.0)
    assert record["kl_k1_sequence"] == pytest.approx(0.25)
    assert record["kl_k3_sequence"] == pytest.approx(1.5)
    assert "kl_exact_sequence" not in record_of(SAMPLES)


def test_diversity_is_pooled_over_problems():
    pool = [
        samples_of("a", RIGHT, diversity={"self_bleu": Mean(1.5, 2)}),
        samples_of("b", RIGHT, diversity={"self_bleu": Mean(0.5, 6)}),
        samples_of("c", RIGHT, diversity={"self_bleu": Mean(0, 0)}),
    ]
    assert record_of(pool)["self_bleu"] == pytest.approx(0.25)


def test_by_level_and_subject():
    record = record_of(SAMPLES)
    assert {k: v["num_problems"] for k, v in record["by_level"].items()} == {"1": 1, "5": 2}
    assert record["by_level"]["5"]["accuracy"] == pytest.approx(0.25)
    assert list(record["by_subject"]) == ["", "Algebra", "Geometry"]
    assert record_of([samples_of("d", RIGHT)])["by_level"] == {}


def test_the_mean_does_not_depend_on_how_many_samples_repeat():
    """avg@n of samples written twice is avg@n."""
    twice = [samples_of(each.id, *each.responses, *each.responses) for each in SAMPLES]
    assert math.isclose(record_of(twice)["accuracy"], record_of(SAMPLES)["accuracy"])


def test_a_file_is_busy_while_another_process_samples_it(tmp_path: Path):
    file = SampleFile(tmp_path, "b", {"x": 1})
    assert not file.is_busy
    assert not file.path.exists()
    script = (
        "import sys; from pathlib import Path; from opo_cli.evaluate.samples import SampleFile\n"
        "with SampleFile(Path(sys.argv[1]), 'b', {'x': 1}).locked():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        assert file.is_busy
        other.communicate(timeout=30)
    assert not file.is_busy
