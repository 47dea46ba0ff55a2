"""The command line as a user meets it: quick answers, and two lines for every mistake."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from opo_cli.cli import main

# Arguments, what the error line must hold, what the hint must hold.
MISTAKES = [
    ("train --preset tinny", "unknown preset 'tinny'", "did you mean 'tiny'?"),
    ("train --preset zzz", "unknown preset 'zzz'", "known presets: qwen-math, qwen-math-7b"),
    ("train --algorithm gropo", "unknown algorithm 'gropo'", "did you mean 'grpo'?"),
    ("train --set optim.lr=1", "unknown config key 'optim.lr'", "known keys: learning_rate"),
    ("train --set optim.learning_rat=1", "unknown config key", "mean 'optim.learning_rate'?"),
    ("train --set optims.x=1", "unknown config key 'optims'", "did you mean 'optim'?"),
    ("train --set train.steps", "--set 'train.steps' is not", "rollout.group_size=8"),
    ("train --set .=1", "--set '.=1' is not", "rollout.group_size=8"),
    ("train --set train.steps=many", "train.steps = 'many'", "Rollout batches"),
    ("train --set train.steps=1.5", "train.steps = 1.5", "Rollout batches"),
    ("train --set train=5", "train = 5", "--set train=VALUE"),
    ("train --set algorithm=5", "algorithm = 5", "--set algorithm=VALUE"),
    ("train --set algorithm.name=opoo", "unknown algorithm 'opoo'", "'opo'"),
    ("train --steps 0", "train.steps = 0", "Rollout batches"),
    (
        "train --steps x",
        "valid integer, unable to parse string as an integer: 'x'",
        "opo train --help",
    ),
    ("train --seed -1", "seed = -1", "Training seed"),
    ("train --engine vlm", "runtime.engine = 'vlm'", "Rollout engine"),
    ("train --stepps 3", "No such option: --stepps", "opo train --help"),
    ("train --set rollout.group_size=1", "rollout.group_size = 1", "--algorithm ppo"),
    ("train --set algorithm.minibatches_per_step=3", "= 3 does not divide", "whole groups"),
    ("train --set algorithm.advantage=oppo", "unknown advantage estimator 'oppo'", "'opo'"),
    ("train --set algorithm.loss=ppo", "unknown loss 'ppo'", "ppo-clip"),
    ("train --set algorithm.reduction=token", "unknown reduction 'token'", "token-mean"),
    ("train --set algorithm.kl_estimator=k4", "unknown KL estimator 'k4'", "k"),
    ("train --set algorithm.advantage=RLOO", "unknown advantage estimator 'RLOO'", "'rloo'"),
    ("train --set algorithm.kl_in=loss --set algorithm.kl_estimator=k1", "gradient is zero", "k2"),
    ("train --set algorithm.kl_coefficient=1", "algorithm.kl_in is 'none'", "kl_in=loss"),
    (
        "train --set algorithm.reduction=seq-mean-token-mean",
        "does not fit the 'opo' baseline",
        "--set algorithm.reduction=token-mean",
    ),
    ("train -a gspo --set algorithm.reduction=token-mean", "the 'gspo' loss", "seq-mean-token"),
    ("train --set algorithm.gamma=0.9", "the 'opo' estimator has one reward", "gae"),
    (
        "train -a grpo --set algorithm.kl_in=reward",
        "the 'grpo' estimator divides by the group's spread",
        "kl_in=loss",
    ),
    ("train --set algorithm.dual_clip=1.1", "algorithm.dual_clip = 1.1", "dual_clip=3"),
    ("train --set algorithm.dual_clip=3", "dual_clip = 3: the 'policy-gradient' loss", "ppo-clip"),
    ("train --set algorithm.length_exponent=9", "algorithm.length_exponent = 9", "Power of the"),
    ("train --set algorithm.overlong=drop", "algorithm.overlong = 'drop'", "Truncated responses"),
    ("train --set algorithm.tis=row", "algorithm.tis = 'row'", "importance sampling"),
    ("train --set rollout.temperature=0", "rollout.temperature = 0", "sampler"),
    ("train --set rollout.top_p=2", "rollout.top_p = 2", "Nucleus"),
    (
        "train -a remax --set rollout.group_size=1 --set algorithm.max_sampling_rounds=4",
        "algorithm.max_sampling_rounds = 4: a group of one",
        "group_size=8",
    ),
    ("train --set ledger.max_megabytes=0", "ledger.max_megabytes = 0", "every second"),
    ("train --set measure.every=-1", "measure.every = -1", "Steps between"),
    ("train --set optim.beta1=1.0", "optim.beta1 = 1.0", "AdamW"),
    ("train --set optim.learning_rate=inf", "optim.learning_rate = inf", "AdamW"),
    ("train --set data.template=foo", "unknown template 'foo'", "line"),
    ("train --set algorithm.kl_in=los", "algorithm.kl_in = 'los'", "KL"),
    ("train --set data.min_terms=9", "min_terms 9 exceeds max_terms 7", "data"),
    ("train --set eval.benchmarks=['AIME42']", "unknown benchmark 'AIME42'", "'AIME25'"),
    ("train --set eval.k=[32]", "k 32 exceeds the 8 samples", "eval"),
    ("train --dry-run --set data.source=nope.jsonl", "data.source = 'nope.jsonl'", "from here"),
    ("train --dry-run --set data.source=MTAH", "unknown training set 'MTAH'", "'MATH'"),
    ("train --dry-run --set data.source=a/b/c", "'a/b/c' is no hub data set", "owner/name"),
    ("train --set eval.every=-1", "eval.every = -1", "Steps between"),
    ("train --set eval.during=['AIME42']", "unknown benchmark 'AIME42'", "did you mean 'AIME2"),
    ("train --set runtime.device=tpu", "runtime.device = 'tpu'", "GPU"),
    ("train --model nowhere", "model folder 'nowhere' does not exist", "config.json"),
    ("train --resume", "no run to resume at 'runs/tiny-opo-seed0'", "leave --resume out"),
    ("train --out occupied", "'occupied' exists and is no run folder", "--out"),
    ("train --out occupied/file", "'occupied/file' exists and is no run folder", "--out"),
    ("train --preset smoke --out run", "train.steps is 9 there, 6 here", "another folder"),
    ("train --preset smoke --steps 9 --out run", "holds this very run, finished", "opo eval"),
    ("prepare --preset tny", "unknown preset 'tny'", "'tiny'"),
    (
        "prepare --preset smoke --set data.num_problems=99999",
        "only 1086 distinct problems",
        "max_terms",
    ),
    ("eval", "no benchmark was given", "opo eval --data FILE"),
    ("eval --data nowhere.jsonl", "unknown benchmark 'nowhere.jsonl'", "no such file"),
    ("eval --data occupied", "unknown benchmark 'occupied'", "known benchmarks"),
    ("eval tiny-easy --run run --template boxd", "unknown template 'boxd'", "'boxed'"),
    ("eval tiny-easy --run run --template occupied/file", "holds {question} 0 times", "once"),
    ("eval tiny-easy --run run --columns answer", "--columns 'answer' is not", "question=problem"),
    ("eval tiny-easy --run run --columns q=a", "unknown config key 'eval.columns.q'", "question"),
    ("eval tiny-easy --run run --temperature -1", "eval.temperature = -1", "greedy"),
    ("eval tiny-easy --run run --max-new-tokens -1", "eval.max_new_tokens = -1", "tokens"),
    ("eval tiny-easy --run run --set eval.samples=0 --k 16", "k 16 exceeds the 8 samples", "k"),
    ("eval AIME42", "unknown benchmark 'AIME42'", "did you mean 'AIME25'?"),
    ("eval zzz", "unknown benchmark 'zzz'", "known benchmarks: AIME24"),
    ("eval nowhere.jsonl", "unknown benchmark 'nowhere.jsonl'", "there is no such file"),
    ("eval tiny-esy --run run", "unknown benchmark 'tiny-esy'", "'tiny-easy'"),
    ("eval tiny-easy", "no finished run under 'runs/'", "opo train"),
    ("eval tiny-easy --run nowhere", "no run at 'nowhere'", "opo train"),
    ("eval tiny-easy --model nowhere", "model folder 'nowhere' does not exist", "config.json"),
    ("eval tiny-easy --run run --model m", "--run run and --model m", "leave one out"),
    ("eval tiny-easy --run run --samples 2 --k 4", "k 4 exceeds the 2 samples", "eval"),
    ("eval tiny-easy --run run --k some", "--k 'some' is no list of numbers", "--k 1,2,4"),
    ("eval tiny-easy --run run --format html", "'html'", "opo eval --help"),
    ("compare", "neither runs nor a preset", "opo compare --preset tiny"),
    ("compare run --preset tiny", "both runs and a preset", "opo compare RUN"),
    ("eval tiny-easy --run run --set eval=3", "eval = 3", "--set eval=VALUE"),
    ("eval tiny-easy --run run --k 1,4 --samples 2", "k 4 exceeds the 2 samples", "eval"),
    ("eval tiny-easy --run run --set eval.k=4", "eval.k = 4", "pass@k"),
    ("eval tiny-easy --run run --set eval.samples=abc", "eval.samples = 'abc'", "per problem"),
    ("eval tiny-easy --run foreign", "no run at 'foreign'", "opo train"),
    ("compare run --seeds 0", "go with --preset", "instead of runs"),
    ("compare --preset tiny --set seed=3", "a comparison sets that itself", "--seeds"),
    ("compare --preset tiny --algorithms ,", "--algorithms ',' holds no name", "a,b"),
    ("compare nowhere", "no run at 'nowhere'", "opo train"),
    ("compare unfinished", "run 'unfinished' is not finished", "opo train --resume"),
    ("compare --preset tiny --algorithms opo,rlo", "unknown algorithm 'rlo'", "'rloo'"),
    ("compare --preset tiny --seeds one", "--seeds 'one' is no list", "--seeds 1,2,4"),
    ("compare --preset tiny --curves rewards", "unknown metric 'rewards'", "'reward'"),
    (
        "compare --preset tiny --sweep optim.beta1=0,0.5 --sweep optim.beta2=0,0.5",
        "one setting is swept at a time",
        "by --set",
    ),
    (
        "compare --preset tiny --sweep optim.lr=1,2",
        "unknown config key 'optim.lr'",
        "learning_rate",
    ),
    ("compare --preset tiny --sweep optim.beta2=0.5", "two values or more", "--sweep optim."),
    ("compare --preset tiny --match tokens", "tokens without a budget", "--budget 737280"),
    ("compare --preset tiny --measure pass@9", "has 8 samples per problem", "--measure avg"),
    ("compare --preset tiny --measure best", "neither avg nor pass@K", "--measure pass@4"),
    ("compare --preset tiny --against pop", "unknown algorithm of these 'pop'", "did you mean"),
    ("compare --preset tiny --margin 2", "--margin 2 is not between 0 and 1", "0.02"),
    ("compare --preset tiny --html a/", "'a/' is a folder", "name a file in it"),
    ("compare --preset tiny --html .", "'.' is a folder", "name a file in it"),
    ("compare --preset tiny --out /dev/null/x", "'/dev/null/x' cannot be written", "another place"),
    ("compare run --jobs 0", "go with --preset", "instead of runs"),
    ("compare --preset tiny --jobs 0", "--jobs 0", "one per core"),
    ("compare --preset qwen-math --jobs 2", "--jobs 2: these runs train on a GPU", "at a time"),
    ("list preset", "unknown list 'preset'", "did you mean 'presets'?"),
    ("lists", "No such command 'lists'", "opo --help"),
    ("prepare --benchmarks aime24", "unknown benchmark 'aime24'", "did you mean 'AIME24'?"),
    ("prepare --benchmarks ,", "--benchmarks ',' holds no name", "a,b"),
    ("prepare --benchmarks occupied/file", "unknown benchmark 'occupied/file'", ".jsonl"),
    ("prepare --set data.source=deepscaler", "training set 'deepscaler'", "'DeepScaleR'"),
    ("prepare --set data.source=nowhere.csv", "there is no file 'nowhere.csv'", "path"),
    ("prepare --set data.source=../up", "'../up' is no hub data set", "owner/name"),
    ("prepare --set data.overlap_words=0", "data.overlap_words = 0", "GPT-3"),
]


@pytest.fixture
def workplace(in_tmp: Path) -> Path:
    """A folder with a finished run, an unfinished one, and something in the way."""
    from opo_cli.presets import resolve

    config = resolve("smoke", named={"train": {"steps": 9}}).model_dump(mode="json")
    for name in ("run", "unfinished"):
        (in_tmp / name).mkdir()
        (in_tmp / name / "config.json").write_text(json.dumps(config))
        (in_tmp / name / "environment.json").write_text("{}")
    (in_tmp / "run" / "model").mkdir()
    (in_tmp / "run" / "model" / "config.json").write_text("{}")
    (in_tmp / "foreign").mkdir()  # Some model's config, not a run's.
    (in_tmp / "foreign" / "config.json").write_text('{"model_type": "qwen2"}')
    (in_tmp / "occupied").mkdir()
    (in_tmp / "occupied" / "file").write_text("mine")
    return in_tmp


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(("line", "message", "hint"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_a_mistake_gets_two_lines_and_loses_nothing(line, message, hint, workplace, capfd):
    before = contents(workplace)
    assert main(line.split()) == 2
    printed = capfd.readouterr()
    lines = [text for text in printed.err.splitlines() if text.startswith(("error:", "hint:"))]
    assert len(lines) == 2, printed.err
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]
    assert "Traceback" not in printed.err + printed.out
    after = contents(workplace)
    assert {path: after.get(path) for path in before} == before


def test_a_wrong_model_leaves_no_run_behind(workplace):
    assert main(["train", "--model", "nowhere"]) == 2
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize("line", ["--help", "-h", "train --help", "compare -h", "--version"])
def test_help_exits_with_zero(line, capsys):
    assert main(line.split()) == 0
    assert "opo" in capsys.readouterr().out


def test_no_command_shows_the_help(capsys):
    assert main([]) == 2
    assert "compare" in capsys.readouterr().out


LISTS_OF_TABLES = (
    *("presets", "benchmarks", "datasets", "algorithms", "estimators", "losses", "reductions"),
    *("engines", "metrics"),
)


@pytest.mark.parametrize("what", LISTS_OF_TABLES)
@pytest.mark.parametrize("format", ["rich", "markdown", "csv", "json"])
def test_lists_print_in_every_format(what, format, in_tmp, capsys):
    assert main(["list", what, "--format", format]) == 0
    printed = capsys.readouterr().out
    if format == "json":
        assert all(row.values() for row in json.loads(printed)[:1])
    assert len(printed.splitlines()) > 1


def test_a_dry_run_prints_the_plan_and_writes_nothing(run_opo, in_tmp):
    result = run_opo("train", "--dry-run", "-a", "grpo", "--set", "rollout.group_size=8")
    assert result.returncode == 0, result.stderr
    for text in (
        "16 prompts x group of 8 = 128 responses",
        "per batch 4 of 32 responses (off-policy after the first)",
        "0.001 KL(k3) in the loss",
        "certificate none: off-policy (4 updates per batch)",
        "auto; torch sees no GPU" if not has_gpu() else "auto",
        "transformers (auto",
    ):
        assert text in " ".join(result.stdout.split())
    assert list(in_tmp.iterdir()) == []


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


needs_no_gpu = pytest.mark.skipif("has_gpu()", reason="a GPU is here")
GPU_HINT = (
    "hint: opo train --preset qwen-math-smoke runs the same path on a CPU; "
    "--dry-run prints the plan"
)
ANYWAY = "; --set runtime.gpu_gigabytes=0 tries it anyway"


@needs_no_gpu
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --preset qwen-math", "qwen-math needs 1 GPU of 80 GB; torch sees none here"),
        (
            "train --preset qwen-math --set runtime.device=cuda",
            "qwen-math needs 1 GPU of 80 GB; torch sees none here",
        ),
        (
            "train --preset qwen-math --dry-run --check",
            "qwen-math needs 1 GPU of 80 GB; torch sees none here",
        ),
        (
            "train --preset qwen-math-7b",
            "qwen-math-7b needs 8 GPUs of 80 GB; this version trains on one GPU, and torch sees "
            "none here",
        ),
        ("compare --preset qwen-math", "qwen-math needs 1 GPU of 80 GB; torch sees none here"),
    ],
)
def test_a_missing_gpu_is_told_before_anything_is_fetched(line, message, in_tmp, run_opo):
    cache = in_tmp / "cache"
    result = run_opo(*line.split(), OPO_CACHE=str(cache), HF_HOME=str(in_tmp / "hub"))
    assert result.returncode == 2
    hint = GPU_HINT + ("" if "8 GPUs" in message else ANYWAY)
    assert result.stderr.splitlines() == [f"error: preset {message}", hint]
    assert result.stdout == ""
    assert list(in_tmp.iterdir()) == []


def test_one_run_at_a_time_on_a_gpu_and_one_per_core_on_a_cpu():
    from opo_cli.model.device import num_cores
    from opo_cli.presets import resolve
    from opo_cli.train.matrix import num_jobs

    for_gpu = resolve("qwen-math")
    assert num_jobs(for_gpu, None) == num_jobs(for_gpu, 1) == 1
    on_cpu = resolve("qwen-math", overrides=["runtime.device=cpu"])
    assert num_jobs(on_cpu, None) == num_cores()
    assert num_jobs(on_cpu, 7) == 7


@needs_no_gpu
def test_a_dry_run_for_a_gpu_needs_none(in_tmp, run_opo):
    result = run_opo("train", "--preset", "qwen-math", "--dry-run", COLUMNS="80")
    assert result.returncode == 0
    assert result.stderr.splitlines() == [
        "warning: preset qwen-math needs 1 GPU of 80 GB; torch sees none here"
    ]
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for text in (
        "device       cuda (a GPU of 80 GB, which is not here)",
        "of 80.0 GB, a GPU of 80 GB: fits",
        "memory of the worst step, GB",
        "1,543,714,304 (shape: known; not downloaded yet)",
        "(H100 SXM)",
    ):
        assert " ".join(text.split()) in " ".join(result.stdout.split())
    table = {line[2:].split("  ")[0]: line.split()[-6:] for line in lines if line[:2] == "  "}
    assert table["weights, fp32"] == ["6.17"] * 6
    assert table["AdamW's moments"] == ["12.35"] * 6
    assert list(in_tmp.iterdir()) == []


@needs_no_gpu
def test_a_cpu_that_is_asked_for_needs_no_gpu(run_opo):
    arguments = ["--set", "runtime.gpu_gigabytes=80", "--set", "runtime.device=cpu", "--dry-run"]
    result = run_opo("train", "--preset", "smoke", *arguments)
    assert result.returncode == 0
    assert result.stderr == ""


def test_output_survives_narrow_and_colourless_terminals(run_opo):
    result = run_opo("list", "metrics", NO_COLOR="1", COLUMNS="80")
    assert "\x1b[" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_reader_may_close_the_pipe(in_tmp):
    command = f"{sys.executable} -m opo_cli list metrics --format csv | head -1"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True
    )
    assert result.returncode == 0
    assert "Traceback" not in result.stderr


@pytest.fixture
def small_disk(in_tmp: Path):
    """A real file system of 64 kB."""
    folder = in_tmp / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_the_run_goes_on_elsewhere(run_opo, base, small_disk):
    (small_disk / "filler").write_bytes(b"0" * 20_000)
    result = run_opo("train", "--preset", "smoke", "--out", "disk/run")
    assert result.returncode == 2
    assert "No space left on device" in result.stderr
    assert "--resume" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_read_only_folder_is_told(run_opo, in_tmp):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    locked = in_tmp / "locked"
    locked.mkdir(mode=0o500)
    result = run_opo("train", "--preset", "smoke", "--out", "locked/run")
    assert result.returncode == 2
    assert "cannot write" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_damaged_run_is_told(workplace, capfd):
    (workplace / "run" / "config.json").write_text("{")
    assert main(["compare", "run"]) == 2
    assert "not valid JSON" in capfd.readouterr().err
    shutil.rmtree(workplace / "run")
