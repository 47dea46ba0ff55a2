"""Evaluations with the real tiny model, and with outputs that are fixed."""

from __future__ import annotations

import copy
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from opo_cli.config import Columns
from opo_cli.data.benchmarks import load_benchmark
from opo_cli.errors import OpoError
from opo_cli.evaluate.run import Evaluator, over_all
from opo_cli.evaluate.settings import check_evaluation
from opo_cli.files import MANIFEST
from opo_cli.grading.pool import Grader
from opo_cli.presets import merged, validated
from opo_cli.rollout.engine import EngineSettings, create_engine
from opo_cli.types import Group, Rollout

BENCHMARKS = Path(__file__).parents[2].parent / "shared/data/benchmarks"
FILES = {
    "aime24": 30,
    "aime25": 30,
    "amc23": 40,
    "math500": 500,
    "gsm8k_test": 1319,
    "minerva": 272,
    "olympiadbench": 675,
}


class Counting:
    """A real engine that counts the prompts it is given."""

    def __init__(self, engine):
        self.engine, self.num_prompts, self.name = engine, 0, engine.name

    def generate(self, prompts, sampling, **options):
        self.num_prompts += len(prompts)
        return self.engine.generate(prompts, sampling, **options)


@pytest.fixture
def config(smoke):
    """Chunks of two problems, twelve problems in all."""
    tables = {
        "eval": {"samples": 4, "k": [], "limit": 12, "max_new_tokens": 24},
        "rollout": {"max_rows": 8},
    }
    return validated(merged(smoke.model_dump(mode="json"), tables))


@pytest.fixture
def make(policy_and_tokenizer, config):
    """Evaluators of the tiny base; `engine` and config tables may differ."""
    policy, tokenizer = policy_and_tokenizer
    grader = Grader(config.grading)

    def make(engine=None, initial=None, **tables) -> Evaluator:
        return Evaluator(
            config=validated(merged(config.model_dump(mode="json"), tables)),
            engine=engine
            or create_engine("transformers", policy, tokenizer, EngineSettings(max_rows=8)),
            grader=grader,
            tokenizer=tokenizer,
            policy=policy,
            initial=initial,
        )

    with grader:
        yield make


def quiet(name: str, done: int, total: int) -> None:
    pass


def without_times(record: dict) -> dict:
    return {
        k: v for k, v in record.items() if k not in ("seconds", "samples_file", "grading_seconds")
    }


def test_a_stopped_evaluation_goes_on_to_the_same_record(make, tmp_path: Path):
    def stopping(name: str, done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    (whole,) = make().evaluate(["tiny-easy"], tmp_path / "whole", "base", quiet)
    with pytest.raises(KeyboardInterrupt):
        make().evaluate(["tiny-easy"], tmp_path / "cut", "base", stopping)
    (file,) = (tmp_path / "cut").iterdir()
    assert 0 < len(file.read_text().splitlines()) - 1 < 12
    evaluator = make()
    counting = Counting(evaluator.engine)
    (cut,) = make(counting).evaluate(["tiny-easy"], tmp_path / "cut", "base", quiet)
    assert without_times(cut) == without_times(whole)
    assert 0 < counting.num_prompts < 12


def test_what_is_sampled_is_not_sampled_again(make, tmp_path: Path):
    first = make().evaluate(["tiny-easy"], tmp_path, "base", quiet)
    counting = Counting(make().engine)
    again = make(counting).evaluate(["tiny-easy"], tmp_path, "base", quiet)
    assert counting.num_prompts == 0
    assert list(map(without_times, again)) == list(map(without_times, first))
    more = make(counting, eval={"limit": 14}).evaluate(["tiny-easy"], tmp_path, "base", quiet)
    assert (counting.num_prompts, more[0]["num_problems"]) == (2, 14)


@pytest.mark.parametrize(
    "tables",
    [
        {"eval": {"seed": 1}},
        {"eval": {"temperature": 0.5}},
        {"eval": {"max_new_tokens": 16}},
        {"data": {"template": "plain"}},
        {"data": {"answer_format": "any"}},
    ],
    ids=str,
)
def test_another_setting_is_sampled_anew(make, tmp_path: Path, tables):
    make().evaluate(["tiny-easy"], tmp_path, "base", quiet)
    counting = Counting(make().engine)
    make(counting, **tables).evaluate(["tiny-easy"], tmp_path, "base", quiet)
    assert counting.num_prompts == 12
    assert len(list(tmp_path.iterdir())) == 2


def test_other_weights_are_sampled_anew(make, tmp_path: Path):
    for policy in ("base", ["step", 3]):
        make().evaluate(["tiny-easy"], tmp_path, policy, quiet)
    assert len(list(tmp_path.iterdir())) == 2


def test_numbers_follow_from_the_kept_samples(make, tmp_path: Path):
    (record,) = make().evaluate(["tiny-easy"], tmp_path, "base", quiet)
    lines = [json.loads(line) for line in Path(record["samples_file"]).read_text().splitlines()][1:]
    problems = load_benchmark("tiny-easy", Columns()).problems[:12]
    assert [line["id"] for line in lines] == [problem.id for problem in problems]
    for line, problem in zip(lines, problems, strict=True):
        for response in line["responses"]:
            # Responses of this base state integers, so that text alone tells right from wrong.
            assert response["correct"] == (response["extracted"] == problem.answer)
    shares = [np.mean([r["correct"] for r in line["responses"]]) for line in lines]
    assert record["accuracy"] == pytest.approx(np.mean(shares))
    lengths = [r["length"] for line in lines for r in line["responses"]]
    assert record["length"] == pytest.approx(np.mean(lengths))
    assert record["settings"]["template"] == "line"
    assert record["settings"]["template_text"] == "{question}\n"
    assert record["settings"]["engine"] == "transformers"
    assert "math-verify" in record["settings"]["grader"]


def test_levels_are_those_of_the_data_not_of_the_kept_samples(make, tmp_path: Path):
    file = tmp_path / "mine.jsonl"
    rows = [{"question": f"{n}+1=?", "answer": str(n + 1), "hard": n} for n in (1, 2)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (plain,) = make().evaluate([str(file)], tmp_path / "kept", "base", quiet)
    assert plain["by_level"] == {}
    counting = Counting(make().engine)
    named = make(counting, eval={"columns": {"level": "hard"}})
    (record,) = named.evaluate([str(file)], tmp_path / "kept", "base", quiet)
    assert counting.num_prompts == 0
    assert list(record["by_level"]) == ["1", "2"]


def test_kl_to_itself_is_zero_and_needs_temperature_1(make, policy_and_tokenizer, tmp_path: Path):
    policy, _ = policy_and_tokenizer
    (record,) = make(initial=policy).evaluate(["tiny-easy"], tmp_path, "base", quiet)
    assert record["kl_exact_sequence"] == pytest.approx(0, abs=1e-4)
    cold = make(initial=policy, eval={"temperature": 0.5})
    (record,) = cold.evaluate(["tiny-easy"], tmp_path, "base", quiet)
    assert "kl_exact_sequence" not in record


def test_benchmarks_have_samples_and_limits_of_their_own(make, tmp_path: Path):
    plain = make(eval={"samples": 0, "max_new_tokens": 0, "limit": 2})
    (record,) = plain.evaluate(["tiny-easy"], tmp_path, "base", quiet)
    assert record["num_samples"] == 8
    assert record["settings"]["max_new_tokens"] == 96
    greedy = make(eval={"samples": 0, "temperature": 0.0, "limit": 2})
    (record,) = greedy.evaluate(["tiny-easy"], tmp_path, "base", quiet)
    assert record["num_samples"] == 1


@pytest.mark.parametrize(
    ("engine", "budget", "expected"),
    [
        ("transformers", 512, "--set train.microbatch_tokens=256"),
        ("vllm", 512, "--set train.microbatch_tokens=256, or a smaller rollout.cache_gigabytes"),
        ("transformers", 8, "another run with --set eval.max_new_tokens=12"),
    ],
)
def test_scores_out_of_memory_say_what_to_lower(
    engine: str, budget: int, expected: str, make, policy_and_tokenizer, tmp_path: Path
):
    """The scored policy is not the engine's, and asks for an exabyte."""
    evaluator = make(train={"microbatch_tokens": budget})
    policy = copy.deepcopy(policy_and_tokenizer[0])
    policy.base_model.register_forward_pre_hook(lambda *_: torch.empty(2**60, dtype=torch.uint8))
    counting = Counting(evaluator.engine)
    counting.name = engine
    evaluator = replace(evaluator, policy=policy, engine=counting)
    with pytest.raises(OpoError) as told:
        evaluator.evaluate(["tiny-easy"], tmp_path, "base", quiet)
    assert told.value.message.startswith("out of host memory in scoring the evaluation: ")
    assert told.value.hint == expected


def test_the_bar_of_several_benchmarks_never_goes_back(make, tmp_path: Path):
    """The first is busy and comes last; what is kept counts as done."""
    names, shown = ["tiny-easy", "tiny-mid"], []
    make().evaluate(
        names, tmp_path, "base", over_all(lambda done, name: shown.append((done, name)))
    )
    assert [pair for pair in shown if pair[0] in (1, 2)][-1] == (2, "tiny-mid")
    (path,) = tmp_path.glob("tiny-easy-*")
    path.write_text("")
    shown = []
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def show(done: float, name: str) -> None:
            shown.append((done, name))
            fcntl.flock(file, fcntl.LOCK_UN)  # The other process ends once we have something.

        make().evaluate(names, tmp_path, "base", over_all(show))
    assert shown[0] == (1, "tiny-mid")
    assert shown[-1] == (2, "tiny-easy")
    assert shown == sorted(shown, key=lambda pair: pair[0])
    assert len({done for done, _ in shown}) > 3


def test_too_large_a_k_is_told(smoke):
    tables = {"eval": {"samples": 0, "k": [16]}}
    with pytest.raises(OpoError, match="k 16 exceeds the 8 samples per problem of 'tiny-easy'"):
        check_evaluation(validated(merged(smoke.model_dump(mode="json"), tables)))


# --- fixed outputs ----------------------------------------------------------------------------


class Fixed:
    """An engine whose responses are known: the first c of each problem's four are right."""

    name = "fixed"

    def __init__(self, end: int):
        self.end = end

    def generate(self, prompts, sampling, *, stream, first_row=0, progress=None):
        start = first_row // sampling.num_responses
        return [self._group(prompt, (start + place) % 5) for place, prompt in enumerate(prompts)]

    def _group(self, prompt, num_right: int) -> Group:
        texts = [f"so \\boxed{{{prompt.problem.answer}}}"] * num_right + ["I give up."] * (
            4 - num_right
        )
        rollouts = [
            Rollout(
                token_ids=(3, self.end), sampler_logprobs=(0, 0), text=text, finish_reason="stop"
            )
            for text in texts
        ]
        return Group(prompt=prompt, rollouts=tuple(rollouts), policy_version=0)


@pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the benchmark files are not beside this checkout"
)
@pytest.mark.parametrize("name", FILES)
def test_fixed_outputs_get_the_score_that_a_direct_computation_gives(
    name: str, make, policy_and_tokenizer, tmp_path: Path
):
    """Every reference answer in a box of its own is right, whatever the benchmark."""
    _, tokenizer = policy_and_tokenizer
    evaluator = make(
        Fixed(tokenizer.eos_token_id),
        eval={"limit": 0, "columns": {"question": "problem"}},
        data={"template": "plain"},
        rollout={"max_rows": 2048},
    )
    (record,) = evaluator.evaluate([str(BENCHMARKS / f"{name}.jsonl")], tmp_path, "x", quiet)
    counts = [place % 5 for place in range(FILES[name])]
    assert record["num_problems"] == FILES[name]
    assert [each["num_correct"] for each in record["problems"]] == counts
    assert record["accuracy"] == pytest.approx(np.mean(counts) / 4)
    assert record["pass_at_k"]["4"] == pytest.approx(np.mean([count > 0 for count in counts]))
    assert record["reasons"]["no-answer"] == 4 * FILES[name] - sum(counts)


# --- processes --------------------------------------------------------------------------------


def test_kl_is_to_the_policy_that_the_run_started_from(base: Path, in_tmp: Path, run_opo):
    start = in_tmp / "start"
    shutil.copytree(base, start, ignore=shutil.ignore_patterns(MANIFEST))  # Nobody's seal.
    sets = ("--set", "eval.benchmarks=[]", "--model", "start")
    trained = run_opo("train", "--preset", "smoke", "--steps", "1", *sets, "--out", "run")
    assert trained.returncode == 0, trained.stderr
    arguments = (
        "eval",
        "tiny-easy",
        "--run",
        "run",
        "--limit",
        "2",
        "--samples",
        "1",
        "-f",
        "json",
    )
    before = run_opo(*arguments)
    assert "kl_exact_sequence" in json.loads(before.stdout)[0], before.stderr
    os.utime(start / "model.safetensors", (1, 1))  # As if other weights had been put there.
    after = run_opo(*arguments)
    assert "'start' is not what the run started from" in after.stderr.replace(f"{in_tmp}/", "")
    assert "kl_exact_sequence" not in json.loads(after.stdout)[0]


def test_a_killed_opo_eval_goes_on(base: Path, in_tmp: Path, run_opo):
    def arguments(seed: int) -> list[str]:
        return [
            *("eval", "tiny-mid", "--model", str(base), "--samples", "4", "--format", "json"),
            *("--limit", "24", "--max-new-tokens", "32"),
            *("--set", "rollout.max_rows=4", "--set", f"eval.seed={seed}"),
        ]

    child = subprocess.Popen(
        [sys.executable, "-m", "opo_cli", *arguments(7)], stdout=subprocess.DEVNULL
    )
    folder = Path(os.environ["OPO_CACHE"]) / "evals"
    before = set(folder.glob("tiny-mid-*"))
    deadline = time.monotonic() + 120
    while not any(
        path.read_bytes().count(b"\n") > 5 for path in set(folder.glob("tiny-mid-*")) - before
    ):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    (file,) = set(folder.glob("tiny-mid-*")) - before
    kept = file.read_bytes()
    done = kept.count(b"\n") - 1
    assert 0 < done < 24

    resumed = run_opo(*arguments(7))
    assert resumed.returncode == 0, resumed.stderr
    assert file.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    again = run_opo(*arguments(7))
    file.unlink()
    anew = run_opo(*arguments(7))
    records = [json.loads(result.stdout) for result in (resumed, again, anew)]
    for (record,) in records:
        assert record["num_problems"] == 24
        assert without_times(record) == without_times(records[0][0])


def test_a_prompt_beyond_the_context_is_told_before_an_engine_starts(base, in_tmp, run_opo):
    rows = [{"id": "short", "question": "1+1=?", "answer": "2"}]
    rows.append({"id": "endless", "question": "1" + "+1" * 400 + "=?", "answer": "401"})
    (in_tmp / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run_opo("eval", "--data", "mine.jsonl", "--model", str(base))
    assert result.returncode == 2
    assert "engine:" not in result.stderr
    told, hint = result.stderr.splitlines()[-2:]
    assert told.startswith("error: the longest prompt, of problem 'endless', has 80")
    assert hint == (
        "hint: leave problem endless out of the data, or choose a model with a longer context"
    )
