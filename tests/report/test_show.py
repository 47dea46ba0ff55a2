"""`opo show`: which group is shown, and that nothing in it steers the terminal."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import get_args

import pytest
from rich.cells import cell_len
from rich.console import Console

from opo_cli.cli import main
from opo_cli.console import visible
from opo_cli.errors import OpoError
from opo_cli.ledger import Ledger
from opo_cli.presets import resolve
from opo_cli.report.show import VERDICTS, find_group, print_group, response_text
from opo_cli.types import GradeReason

ESCAPE = "\x1b"


def line_of(**changes) -> dict:
    """A ledger line; its tokens are the characters of its text, then <eos>."""
    text = changes.get("text", "1+1=\\boxed{2}")
    pieces = changes.get("pieces", [*text, "<eos>"])
    per_token = dict.fromkeys(
        ("sampler_logprobs", "logprobs", "reference_logprobs", "entropy", "logit_norms"),
        [0.25] * len(pieces),
    )
    reward = changes.get("reward", 1.0)
    line = {
        "step": 1,
        "group": 0,
        "row": 0,
        "policy_version": 0,
        "problem_id": "a",
        "prompt": "1+1=?\n",
        "answer": "2",
        "text": text,
        "extracted": "2",
        "grade_reason": "correct" if reward else "wrong",
        "finish_reason": "stop",
        "correct": bool(reward),
        "is_trained": True,
        "length": len(pieces),
        "reward": reward,
        "greedy_reward": None,
        "advantage": reward - 0.5,
        "tokens": [7] * len(pieces),
        "pieces": pieces,
        "values": None,
        "advantages": [reward - 0.5] * len(pieces),
        **per_token,
    }
    return line | changes


def group_of(group: int, problem: str, *rewards: float, **changes) -> list[dict]:
    return [
        line_of(group=group, problem_id=problem, row=row, reward=reward, **changes)
        for row, reward in enumerate(rewards)
    ]


def write(ledger: Ledger, step: int, *groups: list[dict]) -> None:
    lines = [line | {"step": step} for group in groups for line in group]
    ledger.write(step, {key: [line[key] for line in lines] for key in lines[0]}, 2**24)


def printed(lines: list[dict], most: int = 0, **options) -> str:
    console = Console(file=io.StringIO(), width=80, **options)
    print_group(console, "run", "opo", lines, most)
    return console.file.getvalue()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "rollouts")
    write(ledger, 1, group_of(0, "old", 1, 0), group_of(1, "a", 0, 0))
    groups = [("a", 1, 1, 0, 1), ("b", 0, 1, 1, 0), ("c", 1, 1, 1, 1), ("d", 0, 0, 0, 0)]
    write(ledger, 2, *(group_of(n, name, *rewards) for n, (name, *rewards) in enumerate(groups)))
    return ledger


@pytest.fixture
def run(ledger: Ledger, monkeypatch) -> Path:
    """An unfinished run around that ledger, in the working folder."""
    folder = ledger.folder.parent
    monkeypatch.chdir(folder.parent)
    (folder / "config.json").write_text(resolve("smoke").model_dump_json())
    (folder / "environment.json").write_text("{}")
    return folder


# --- which group --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "problem", "pick", "expected"),
    [
        (None, None, "spread", (2, "b")),
        (None, None, "best", (2, "c")),
        (None, None, "worst", (2, "d")),
        (1, None, "spread", (1, "old")),
        (None, "a", "spread", (2, "a")),
        (1, "a", "spread", (1, "a")),
        (None, "old", "spread", (1, "old")),
    ],
)
def test_the_group_that_is_asked_for(step, problem, pick, expected, ledger):
    lines = find_group(ledger, step, problem, pick)
    assert {(line["step"], line["problem_id"]) for line in lines} == {expected}
    assert len(lines) in (2, 4)


def test_any_group(ledger):
    assert {find_group(ledger, 2, None, "random")[0]["problem_id"] for _ in range(60)} == set(
        "abcd"
    )


def test_masked_responses_are_no_signal(ledger):
    masked = group_of(0, "masked", 1, 0, is_trained=False)
    masked[0]["is_trained"] = True
    write(ledger, 3, masked, group_of(1, "b", 0.5, 0.25))
    assert find_group(ledger, None, None)[0]["problem_id"] == "b"


def test_a_problem_of_many_is_named_by_a_few(ledger):
    write(ledger, 3, *(group_of(n, f"problem-{n}", 1, 0) for n in range(50)))
    with pytest.raises(OpoError) as caught:
        find_group(ledger, 3, "zzz")
    assert len(caught.value.hint) < 300


# --- what is shown ------------------------------------------------------------------------------


def test_the_summary_knows_both_baselines():
    lines = [line_of(reward=1.0, length=10), line_of(reward=0.0, length=30)]
    text = " ".join(printed(lines).split())
    assert "2 responses: 1 right, 1 wrong" in text
    assert "mean reward 0.500, length-weighted 0.250" in text
    assert "length 20.0 (10 to 30)" in text


def test_few_are_taken_from_both_ends():
    lines = [line_of(text=f"nr {row}", reward=row / 9) for row in range(10)]
    text = printed(lines, most=4)
    assert [int(n) for n in re.findall(r"nr (\d)", text)] == [9, 8, 1, 0]
    assert "6 of the 10 responses are not shown" in text
    assert "not shown" not in printed(lines, most=0) + printed(lines, most=10)


def test_advantages_that_differ_by_token_are_a_range():
    text = printed([line_of(text="ab", advantages=[-0.5, 0.25, 0.0])])
    assert "A from -0.500 to +0.250" in text


def test_a_cut_and_masked_response_says_so():
    text = printed(
        [line_of(reward=0.0, grade_reason="truncated", finish_reason="length", is_trained=False)]
    )
    assert "cut, masked, reward 0" in text


def test_every_grade_is_told_in_words():
    assert set(get_args(GradeReason)) == set(VERDICTS)


def test_tokens_have_the_colour_of_their_entropy():
    line = line_of(text="abc", entropy=[0.0, 0.7, 3.0, 0.2])
    styles = {text: str(style) for text, style in spans_of(line)}
    assert styles == {"a": "", "b": "green", "c": "red", "<eos>": "dim cyan"}


def spans_of(line: dict) -> list[tuple[str, str]]:
    """(piece, style) of the response; unstyled pieces have no span of their own."""
    shown = response_text(line)
    styles = {shown.plain[s.start : s.end]: s.style for s in shown.spans}
    return [(piece, styles.get(piece, "")) for piece in line["pieces"]]


def test_a_character_over_several_tokens_leaves_the_text_plain():
    line = line_of(text="a數b", pieces=["a", "\ufffd", "\ufffd", "b", "<eos>"])
    assert response_text(line).plain == "a數b"
    assert response_text(line).spans == []


def test_a_special_token_inside_the_text_is_shown():
    line = line_of(text="12", pieces=["1", "<pad>", "2", "<eos>"])
    assert response_text(line).plain == "1<pad>2<eos>"


HOSTILE = "\x1b[31mred\x1b[0m [bold]b[/] [/nothing] \x07\x9b2J\u202e\r\tü數字🙂"


@pytest.mark.parametrize("colour", ["truecolor", None])
def test_hostile_text_is_neutralised(colour: str | None):
    columns = ("prompt", "answer", "text", "extracted", "problem_id", "grade_reason")
    line = line_of(**dict.fromkeys(columns, HOSTILE))
    text = printed([line], color_system=colour, force_terminal=True)
    own = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert not [char for char in own if char != "\n" and not char.isprintable()]
    assert "\x1b[31mred" not in text
    for shown in ("\\x1b[31mred", "[bold]b[/] [/nothing]", "\\x9b2J", "\\u202e\\r\\t", "數字🙂"):
        assert shown in "".join(own.split("\n"))
    assert max(cell_len(row) for row in own.splitlines()) <= 80


def test_what_the_stream_cannot_say_is_escaped():
    assert visible("a\nü數", "ascii") == "a\n\\xfc\\u6578"


def test_a_wide_terminal_has_more_columns_and_a_narrow_one_goes_on():
    lines = group_of(0, "a", 1, 1, 0, 0)
    for width, across in ((30, 1), (80, 2), (160, 4)):
        console = Console(file=io.StringIO(), width=width)
        print_group(console, "run", "opo", lines, 4)
        rows = console.file.getvalue().splitlines()
        assert max(row.count("╭") for row in rows) == across
        assert max(map(len, rows)) <= width


# --- the command --------------------------------------------------------------------------------

MISTAKES = [
    ("nowhere", "no run at 'nowhere'", "opo train"),
    ("RUN --step 7", "no rollouts of step 7", "it holds steps 1 to 2"),
    ("RUN --problem ol", "no problem 'ol' in steps 1 to 2", "did you mean 'old'?"),
    ("RUN --problem old --step 2", "no problem 'old' in step 2", "known problems: a, b, c, d"),
    ("RUN --problem a --best", "--problem and --best", "leave out all but --problem"),
    ("RUN --best --worst --random", "--best and --worst and --random", "all but --best"),
    ("RUN --responses -1", "--responses", "opo show --help"),
    ("RUN --step x", "'x'", "opo show --help"),
    ("RUN --format csv", "'csv'", "opo show --help"),
    ("", "Missing argument 'RUN'", "opo show --help"),
]


@pytest.mark.parametrize(("line", "message", "hint"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_a_mistake_gets_two_lines(line, message, hint, run, capfd):
    assert main(["show", *line.replace("RUN", run.name).split()]) == 2
    told = capfd.readouterr()
    lines = told.err.splitlines()
    assert len(lines) == 2, told.err
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]
    assert told.out == ""


@pytest.mark.parametrize("state", ["none", "damaged"])
def test_a_ledger_that_does_not_read_is_told(state, run, capfd):
    shutil.rmtree(run / "rollouts")
    if state == "damaged":
        (run / "rollouts").mkdir()
        (run / "rollouts" / "step-000001.parquet").write_bytes(b"not so")
    assert main(["show", run.name]) == 2
    assert [row.split(":")[0] for row in capfd.readouterr().err.splitlines()] == ["error", "hint"]


def test_json_is_whole_and_valid(run, capfd):
    lines = group_of(0, "a", 1, 0, text=HOSTILE)
    lines[0]["entropy"] = [float("nan"), *lines[0]["entropy"][1:]]
    write(Ledger(run / "rollouts"), 3, lines)
    assert main(["show", run.name, "--format", "json"]) == 0
    text = capfd.readouterr().out
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [line["text"] for line in found] == [HOSTILE] * 2
    assert found[0]["entropy"][:2] == [None, 0.25]
    assert ESCAPE not in text


def test_a_real_run_fits_80_columns_without_colour(base, run_opo):
    sets = ["--set", "eval.benchmarks=[]"]
    assert main(["train", "--preset", "smoke", "--steps", "2", *sets, "--out", "run"]) == 0
    result = run_opo("show", "run", "--responses", "0", NO_COLOR="1", COLUMNS="80")
    assert result.returncode == 0, result.stderr
    assert ESCAPE not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stdout.startswith("run, step 2, policy version 1\ntrained by opo: exact")
    assert result.stdout.count("╭") == 8
    assert result.stdout.count("<eos>") >= 1
