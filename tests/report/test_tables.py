"""Tables in every format."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from opo_cli.report.tables import Report, Table, latex_text, print_report, print_tables

TABLE = Table("share of 100 %", ["policy", "acc_1"], [["opo", "0.900 ±0.010"]], "one | two\nthree")


def printed(format: str, *tables: Table, **more) -> str:
    console = Console(file=io.StringIO(), width=80)
    if more:
        print_report(console, Report(tables, **more), format)
    else:
        print_tables(console, tables, format)
    return console.file.getvalue()


def test_latex_is_a_table_with_a_caption():
    assert printed("latex", TABLE).splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{share of 100 \%. one \textbar{} two. three}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"policy & acc\_1 \\",
        r"\midrule",
        r"opo & 0.900 $\pm$0.010 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ]


@pytest.mark.parametrize("char", list("&%$#_{}~^\\<>"))
def test_no_character_is_latexs_own(char: str):
    assert latex_text(f"a{char}b") != f"a{char}b"
    assert latex_text("a_b & 5% \\x") == r"a\_b \& 5\% \textbackslash{}x"


LINES = {"records": [], "opening": ["first", "two\nlines"], "drawing": ["a  b"], "closing": ["c"]}


def test_lines_of_a_report_are_comments_in_latex():
    text = printed("latex", TABLE, **LINES)
    assert text.startswith("% first\n% two\n% lines\n\n\\begin{table}")
    assert text.endswith("a  b\n\n% c\n\n")
    assert "% a  b\n" in text


def test_lines_of_a_report_are_lists_in_markdown_and_drawings_keep_their_spaces():
    text = printed("markdown", TABLE, **LINES)
    assert text.startswith("- first\n- two\n- lines\n\n### share of 100 %\n")
    assert text.endswith("```\na  b\n```\n\n- c\n\n")
    assert "| opo | 0.900 ±0.010 |" in text


def test_programs_get_the_records_alone():
    records = [{"a": 1, "b": None}, {"a": 2, "c": "x,y"}]
    more = {"records": records, "opening": ["first"], "closing": ["last"]}
    assert json.loads(printed("json", TABLE, **more)) == records
    rows = list(csv.DictReader(io.StringIO(printed("csv", TABLE, **more))))
    assert rows == [{"a": "1", "b": "", "c": ""}, {"a": "2", "b": "", "c": "x,y"}]
