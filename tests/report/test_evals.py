"""Tables of evaluations."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from opo_cli.report.evals import evals_report, setting_differences
from opo_cli.report.tables import print_report

SETTINGS = {
    "template": "boxed",
    "template_digest": "abc",
    "answer_format": "box",
    "temperature": 1.0,
    "top_p": 1.0,
    "max_new_tokens": 3072,
    "seed": 0,
    "require_stop": False,
    "engine": "transformers",
    "grader": "math-verify 0.9.0",
    "grader_limits": {"timeout_seconds": 6},
    "samples": 4,
}


def record(benchmark: str, **changes) -> dict:
    plain = {
        "benchmark": benchmark,
        "num_problems": 30,
        "num_samples": 4,
        "accuracy": 0.25,
        "accuracy_se": 0.05,
        "accuracy_95": [0.16, 0.36],
        "pass_at_k": {"1": 0.25, "4": 0.5},
        "pass_at_k_95": {"1": [0.16, 0.36], "4": [0.3, 0.7]},
        "maj_at_k": {"4": 0.3},
        "maj_at_k_95": {"4": [0.2, 0.4]},
        "length": 100.0,
        "length_right": 80.0,
        "length_wrong": 110.0,
        "truncated": 0.1,
        "accuracy_completed": 0.28,
        "accuracy_truncated": 0.0,
        "reasons": {"correct": 30, "wrong": 80, "no-answer": 9, "timeout": 1},
        "grader_failures": 1,
        "grading_seconds": 6.5,
        "entropy": 0.3,
        "distinct_2": 0.4,
        "rep_4": 0.1,
        "self_bleu": 0.6,
        "answer_entropy": None,
        "by_level": {"1": {"num_problems": 10, "accuracy": 0.5, "accuracy_95": [0.3, 0.7]}},
        "by_subject": {},
        "problems": [],
        "settings": SETTINGS,
        "samples_file": "file.jsonl",
        "seconds": 3.0,
    }
    return plain | changes


def printed(records, format: str, width: int = 80) -> str:
    file = io.StringIO()
    print_report(Console(file=file, width=width), evals_report(records, None), format)
    return file.getvalue()


def test_the_tables_fit_a_narrow_terminal_and_say_everything():
    text = printed([record("OlympiadBench", kl_exact_sequence=1.0) for _ in "12"], "rich")
    assert text.count("OlympiadBench") == 10  # In one piece, twice in each of five tables.
    text += printed([record("OlympiadBench"), record("[bold]x[/]")], "rich")
    lines = [line for line in text.splitlines() if not line.startswith("settings:")]
    assert max(map(len, lines)) <= 80
    for cell in (
        *("avg@4", "pass@4", "maj@4", "0.160 to 0.360", "no-answer", "timeout", "by level"),
        *("Self-BLEU", "acc. done", "[bold]x[/]", "the grader failed on 2 responses"),
    ):
        assert cell in text, cell
    assert "by subject" not in text
    assert "temperature 1.0" in text
    assert "template boxed (abc)" in text


def test_machine_formats_hold_the_same_numbers():
    rows = json.loads(printed([record("a"), record("b")], "json"))
    assert rows[0]["accuracy"] == 0.25
    assert (rows[0]["accuracy_low"], rows[0]["pass@4_high"], rows[0]["maj@4"]) == (0.16, 0.7, 0.3)
    assert (rows[0]["num_timeout"], rows[0]["num_memory"]) == (1, 0)
    assert rows[0]["accuracy_level_1"] == 0.5
    assert rows[0]["template_digest"] == "abc"
    assert (rows[0]["samples"], rows[0]["samples_file"]) == (4, "file.jsonl")
    table = list(csv.DictReader(io.StringIO(printed([record("a")], "csv"))))
    assert float(table[0]["maj@4_low"]) == 0.2
    assert "| a | 30 | avg@4 | 0.250 | 0.160 to 0.360 |" in printed([record("a")], "markdown")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"temperature": 0.6}, ["not the same: temperature (a: 1.0, b: 0.6)"]),
        ({"template_digest": "xyz"}, ["not the same: template (a: boxed (abc), b: boxed (xyz))"]),
        ({"grader": "other"}, ["not the same: grader (a: math-verify 0.9.0, b: other)"]),
        ({"samples": 64}, []),
    ],
)
def test_settings_that_results_do_not_share_are_named(changes, expected):
    records = [record("a"), record("b", settings=SETTINGS | changes)]
    assert setting_differences(records) == expected
