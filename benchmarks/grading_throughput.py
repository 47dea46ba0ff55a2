"""Rows graded per second, without and with mathematics, beside math-verify alone.

    python benchmarks/grading_throughput.py [--rows 2000] [--workers 2] [--file CASES.jsonl]

CASES: rows with `prediction` and `gold`; else answers are generated, as varied as models' are, and
every row is another, so that no cache helps. The direct call is math-verify's own parse and verify
on the same rows, in one process and in as many as there are workers; ordinary answers only, for
nothing could end a hanging one. The
workers' start is not counted.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from opo_cli.config import Grading
from opo_cli.grading.extract import extract
from opo_cli.grading.grader import Question, screened
from opo_cli.grading.pool import Case, Grader

PROSE = "First we note that the two lines meet, so the angle is known. "


def plain_cases(rng: random.Random, rows: int) -> list[Case]:
    """Integers, decimals and fractions, half of them right."""
    cases = []
    for _ in range(rows):
        a, b = rng.randrange(1, 10**6), rng.randrange(2, 99)
        texts = (f"{a:,}", rf"\frac{{{a}}}{{{b}}}", f"{a}.0", rf"{a}\%")
        answers = (str(a), f"{a}/{b}", str(a), str(a + b))
        i = rng.randrange(len(texts))
        cases.append(Case(PROSE * 10 + rf"\boxed{{{texts[i]}}}", answers[i], "box"))
    return cases


def hard_cases(rng: random.Random, rows: int) -> list[Case]:
    """Roots, polynomials, several values and intervals, half of them right."""
    cases = []
    for _ in range(rows):
        a, b, c = (rng.randrange(2, 999) for _ in range(3))
        pairs = (
            (rf"\sqrt{{{a * a * b}}}", rf"{a}\sqrt{{{b}}}"),
            (rf"\frac{{{a}\pi}}{{{b}}}+{c}", rf"{c}+\frac{{{a}}}{{{b}}}\pi"),
            (rf"(x+{a})(x-{b})", rf"x^2+{a - b}x-{a * b}"),
            (rf"({a}, {b})", rf"({a}, {c})"),
            (rf"[{a}, {a + b})", rf"[{a}, {a + b}]"),
            (rf"{a}, \sqrt{{{b}}}", rf"\sqrt{{{b}}}, {a}"),
        )
        given, answer = rng.choice(pairs)
        cases.append(Case(PROSE * 10 + rf"\boxed{{{given}}}", answer, "box"))
    return cases


def labelled_cases(path: Path) -> list[Case]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [Case(row["prediction"], row["gold"]) for row in rows]


def rate(work: Callable[[], object], rows: int) -> float:
    start = time.perf_counter()
    work()
    return rows / (time.perf_counter() - start)


def direct(cases: list[Case]) -> None:
    """What needs mathematics, by math-verify alone."""
    import math_verify

    logging.disable(logging.WARNING)  # It warns that its timeouts are off.
    for case in cases:
        gold, given = (
            math_verify.parse(rf"\boxed{{{text}}}", parsing_timeout=None)
            for text in (case.answer, extract(case.text, case.answer_format).text)
        )
        math_verify.verify(gold, given, timeout_seconds=None)


def direct_in_processes(cases: list[Case], processes: int) -> float:
    """Rows per second of math-verify alone, the rows dealt out in turn."""
    parts = [cases[i::processes] for i in range(processes)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(direct, [part[:20] for part in parts]))  # Imports.
        return rate(lambda: list(pool.map(direct, parts)), len(cases))


def needs_mathematics(case: Case) -> bool:
    found = extract(case.text, case.answer_format)
    return isinstance(screened(found, case.answer, 300), Question)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--file", type=Path)
    arguments = parser.parse_args()
    rng = random.Random(0)
    plain = plain_cases(rng, arguments.rows * 10)
    cases = labelled_cases(arguments.file) if arguments.file else hard_cases(rng, arguments.rows)
    hard = [case for case in cases if needs_mathematics(case)]
    direct(hard[:20])
    alone = rate(lambda: direct(hard), len(hard))
    dealt = direct_in_processes(hard, arguments.workers)
    with Grader(Grading(num_workers=arguments.workers)) as grader:
        quick = rate(lambda: grader.grade_texts(plain), len(plain))
        assert grader.num_quick == len(plain)
        warm = [Case(rf"\boxed{{\sqrt{{{7 * n * n}}}}}", rf"{n}\sqrt7") for n in range(1000, 1200)]
        grader.grade_texts(warm)
        pooled = rate(lambda: grader.grade_texts(hard), len(hard))
    print(f"{'quick path, one process':<42}{quick:>9.0f} rows/s")
    print(f"{'math-verify called directly, one process':<42}{alone:>9.0f} rows/s")
    name = f"the same in {arguments.workers} processes, rows dealt out"
    print(f"{name:<42}{dealt:>9.0f} rows/s")
    name = f"the grader's mathematics, {arguments.workers} workers"
    print(f"{name:<42}{pooled:>9.0f} rows/s{pooled / dealt:>8.2f} of that")


if __name__ == "__main__":
    main()
