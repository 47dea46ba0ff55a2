"""What docs/security.md promises: no code of a model, a data set or a response is run, nothing of
them steers a terminal or names a path, nothing listens on a network, no secret is kept or told."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from opo_cli.config import Embedded
from opo_cli.console import visible
from opo_cli.errors import OpoError
from opo_cli.model.policy import load_policy
from opo_cli.model.tiny import build_model, build_tokenizer
from opo_cli.redact import command_line, redacted

PACKAGE = Path(__file__).parent.parent / "opo_cli"
CPU = torch.device("cpu")
EVIL = (
    "\x1b[2J\x1b]52;c;aGk=\x07\x1b]8;;http://e\x1b\\[red]x[/red] [link=http://e]y[/link]\r"
    "\u202e<script>alert(1)</script>{0.__class__}"
)
SECRETS = {
    "HF_TOKEN": "hf_canary0123456789",
    "OPENAI_API_KEY": "sk-canary0123456789",
    "WANDB_API_KEY": "wandb-canary0123456789",
    "MY_TOKEN": "my-canary0123456789",
    "AWS_SECRET_ACCESS_KEY": "aws-canary0123456789",
    "DATABASE_PASSWORD": "db-canary0123456789",
}
URL_SECRET = "urlcanary0123456789"


def is_inert(text: str) -> bool:
    return visible(text) == text


# --- loading runs no code -------------------------------------------------------------------------


@pytest.fixture
def canary(tmp_path: Path, monkeypatch) -> Path:
    """A file that code would make, were it run. Whoever would ask the user is told yes."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return tmp_path / "canary"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder."""
    tokenizer = build_tokenizer()
    build_model(Embedded(), tokenizer, seed=0).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


class Bomb:
    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return open, (str(self.canary), "w")


def bomb_raw(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Bomb(canary)}))


def bomb_zipped(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": Bomb(canary)}, folder / "pytorch_model.bin")


def changed_json(file: Path, **values) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def own_code(folder: Path, canary: Path) -> None:
    names = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    changed_json(folder / "config.json", auto_map=names)
    (folder / "mine.py").write_text(
        f"open({str(canary)!r}, 'w')\n"
        "from transformers import Qwen2Config as Config, Qwen2ForCausalLM as Model\n"
        "from transformers import Qwen2Tokenizer as Tokenizer\n"
    )


def own_architecture(folder: Path, canary: Path) -> None:
    own_code(folder, canary)
    changed_json(folder / "config.json", model_type="mine")


def own_tokenizer(folder: Path, canary: Path) -> None:
    own_code(folder, canary)
    names = ["mine.Tokenizer", "mine.Tokenizer"]
    changed_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": names})


def kernel(folder: Path, canary: Path) -> None:
    changed_json(folder / "config.json", attn_implementation="evil/kernel")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (bomb_raw, "its weights are a pickle with more in it than tensors"),
        (bomb_zipped, "its weights are a pickle with more in it than tensors"),
        (own_architecture, "brings code of its own"),
        (kernel, "asks for a program from the hub: attn_implementation = 'evil/kernel'"),
        (own_code, None),
        (own_tokenizer, None),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_code_of_a_model_is_not_run(spoil, told, canary: Path, folder: Path):
    spoil(folder, canary)
    if told is None:  # An architecture that transformers has itself: that is taken.
        load_policy(str(folder), CPU)
    else:
        with pytest.raises(OpoError, match=re.escape(told)):
            load_policy(str(folder), CPU)
    assert not canary.exists()


def test_a_chat_template_is_no_program(canary: Path):
    from opo_cli.data.prompts import resolve_template

    tokenizer = build_tokenizer()
    tokenizer.chat_template = (
        "{{ cycler.__init__.__globals__.os.popen('touch " + str(canary) + "').read() }}"
    )
    with pytest.raises(OpoError, match="chat template fails"):
        resolve_template("chat", tokenizer, is_embedded=False)
    assert not canary.exists()


UNPICKLING = re.compile(r"(torch|np|numpy|pickle|dill|joblib|marshal|yaml)\.(full_)?loads?")


def calls_of(path: Path) -> list[tuple[str, ast.Call]]:
    """(what is called, the call)"""
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [(ast.unparse(call.func), call) for call in found]


CALLS = [call for path in PACKAGE.rglob("*.py") for call in calls_of(path)]


def test_nothing_is_read_that_may_hold_code():
    """Also where no test here comes to."""
    reads = [(name, ast.unparse(call)) for name, call in CALLS if UNPICKLING.fullmatch(name)]
    assert {name for name, _ in reads} == {"np.load"}
    for _, text in reads:
        assert text.count("allow_pickle") == text.count("allow_pickle=False"), text


def test_no_module_evaluates_text():
    for name, call in CALLS:
        last = name.rpartition(".")[2]
        assert last not in ("sympify", "parse_expr", "exec", "popen"), ast.unparse(call)
        assert last != "eval" or not call.args, ast.unparse(call)  # `model.eval()` has none.


@pytest.mark.parametrize("form", ["{}", "\\boxed{{{}}}", "${}$", "\\text{{{}}}", "x = {}"])
def test_answers_are_not_evaluated(form: str, canary: Path):
    """On either side: reference answers are a stranger's, too."""
    from opo_cli.grading.mathematics import judge

    for attack in (
        f"__import__('os').system('touch {canary}')",
        f"open('{canary}','w')",
        f"(lambda: open('{canary}','w'))()",
        f"().__class__.__base__.__subclasses__()[0]; open('{canary}','w')",
        f"\\input{{|touch {canary}}}",
        f"1+open('{canary}','w').write('1')",
        f"Symbol('x').__class__.__init__.__globals__['__builtins__']['open']('{canary}','w')",
    ):
        text = form.format(attack)
        for is_marked in (True, False):
            judge(text, "2", is_marked)
            judge("2", text, is_marked)
    assert not canary.exists()


def test_kept_states_and_labs_run_no_code(tmp_path: Path, canary: Path):
    """Pickles in the place of what we read."""
    from opo_cli.files import make_folder
    from opo_cli.lab.measure import _load
    from opo_cli.lab.store import LabFolder
    from opo_cli.train.best import load_best
    from opo_cli.train.checkpoint import _restore, read_policy
    from opo_cli.train.snapshots import MOMENTS

    def bomb(folder: Path) -> None:
        torch.save({"policy.weight": Bomb(canary)}, folder / "model.safetensors")
        (folder / ".metadata").write_bytes(pickle.dumps(Bomb(canary)))

    for name in ("step-000002", "best-000002"):
        make_folder(tmp_path / name, bomb)
    moments = tmp_path / MOMENTS
    moments.parent.mkdir()
    torch.save({"a": Bomb(canary)}, moments)
    lab = LabFolder(tmp_path / "lab")
    lab.file(0).parent.mkdir(parents=True)
    np.savez(lab.file(0).with_suffix(".npz"), problem_id=np.array([Bomb(canary)], dtype=object))
    policy = torch.nn.Linear(2, 2)
    reads = (
        lambda: _restore(tmp_path / "step-000002", SimpleNamespace(policy=policy)),
        lambda: read_policy(tmp_path / "step-000002"),
        lambda: load_best(tmp_path, policy, 2),
        lambda: _load(moments),
        lambda: lab.read(0),
    )
    for read in reads:
        with pytest.raises(OpoError, match=r"does? not load"):
            read()
    assert not canary.exists()


# --- nothing listens ------------------------------------------------------------------------------


def family(root: int) -> list[int]:
    """A process and all below it."""
    found = [root]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:  # It has gone meanwhile.
                continue
    return found


def open_sockets(pid: int) -> set[str]:
    """Their inodes."""
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{name}"))
            found |= {match[1]} if match else set()
    except OSError:  # It has gone meanwhile.
        pass
    return found


def reachable(pids: list[int]) -> set[str]:
    """`tcp 0100007F:1F90`: TCP sockets that listen and bound UDP ones, of these processes."""
    inodes = set().union(*map(open_sockets, pids))
    found = set()
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            words = line.split()
            listens = words[3] == "0A" if kind.startswith("tcp") else True
            if listens and words[9] in inodes:
                found.add(f"{kind} {words[1]}")
    return found


def watched(command: list[str], **options) -> SimpleNamespace:
    """Runs a command; its outputs, and all that was reachable in its life, looked at 20 times a
    second."""
    found, looks = set(), 0
    with tempfile.TemporaryFile("w+", errors="surrogateescape") as file:
        with subprocess.Popen(
            command, stdout=file, stderr=file, start_new_session=True, **options
        ) as process:
            while process.poll() is None:
                found |= reachable(family(process.pid))
                looks += 1
                time.sleep(0.05)
        file.seek(0)
        output = file.read()
    return SimpleNamespace(code=process.returncode, output=output, reachable=found, looks=looks)


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
LISTEN = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); time.sleep(1); s.close()"


@linux
def test_a_socket_of_a_grandchild_is_seen():
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LISTEN!r}])"
    [found] = watched([sys.executable, "-c", script]).reachable
    assert found.startswith("tcp 0100007F:")


@linux
def test_vllm_listens_on_the_loopback_interface_alone():
    from opo_cli.rollout.engine import vllm_obstacle

    if vllm_obstacle(None, "cpu"):
        pytest.skip(vllm_obstacle(None, "cpu")[0])
    result = watched([sys.executable, "-m", "opo_cli.doctor.selftests", "vllm"])
    assert result.code == 0, result.output
    addresses = {found.split()[1].partition(":")[0] for found in result.reachable}
    assert addresses <= {"0100007F"}


# --- one hostile run, with secrets in the environment ---------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory, cache: Path) -> Path:
    """A folder with hostile data."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [
        {"id": f"../../{EVIL}{i}", "question": f"{i}+1 {EVIL}", "answer": str(i + 1) if i else EVIL}
        for i in range(40)
    ]
    for name in ("train.jsonl", BENCHMARK):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


BENCHMARK = "b\x1b[2J[red].jsonl"
RUN = "r\x1b]0;x\x07[red]"


@pytest.fixture(scope="module")
def opo(place: Path):
    """A real `opo`, watched, with secrets in its environment."""

    def run(*arguments: str, **environment: str) -> SimpleNamespace:
        return watched(
            [sys.executable, "-m", "opo_cli", *arguments],
            cwd=place,
            env=os.environ | SECRETS | {"HF_HUB_OFFLINE": "1"} | environment,
        )

    return run


@pytest.fixture(scope="module")
def trained(opo, place: Path) -> SimpleNamespace:
    """Its model has random weights over bytes: it responds with any, escape codes among them."""
    return opo(
        *("train", "--preset", "smoke", "--steps", "1", "--out", f"runs/{RUN}"),
        *("--set", "model.embedded.tokenizer=bytes", "--set", "warmstart.stages=[]"),
        *("--set", "data.source=train.jsonl", "--set", "eval.validation=[]"),
        *("--set", f"eval.benchmarks={json.dumps([BENCHMARK])}", "--set", "eval.limit=4"),
        *("--set", "measure.every=0", "--set", "measure.probe_every=0"),
    )


@linux
def test_training_opens_no_socket_and_writes_no_code_to_the_terminal(trained, place: Path):
    assert trained.code == 0, trained.output
    assert trained.looks > 20
    assert trained.reachable == set()
    assert is_inert(trained.output)


def test_the_run_did_respond_with_escape_codes(trained, place: Path):
    """Otherwise the tests below would show little."""
    from opo_cli.records import RunFolder

    lines = RunFolder(place / "runs" / RUN).ledger.read(1)
    assert any("\x1b" in line["text"] for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", RUN),
        ("list", "runs"),
        ("grade", "graded.jsonl", "--audit"),
        ("grade", "graded.jsonl", "--audit", "--format", "markdown"),
        ("grade", "graded.jsonl", "--format", "csv"),
    ],
    ids=" ".join,
)
def test_what_is_shown_of_it_is_inert(arguments, opo, trained, place: Path):
    rows = [{"prediction": f"\\boxed{{{i}}} {EVIL}", "answer": f"{i}"} for i in range(3)]
    rows += [{"prediction": f"\\boxed{{{EVIL}\ud800}}", "answer": EVIL, "id": EVIL}]
    (place / "graded.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "graded.graded.jsonl").unlink(missing_ok=True)
    result = opo(*arguments)
    assert result.code == 0, result.output
    assert result.reachable == set()
    assert is_inert(result.output)
    assert "Traceback" not in result.output


WRONG = [
    ("show", EVIL),
    ("eval", "b\x1b[2J[red]x", "--run", f"runs/{RUN}"),
    ("train", "--preset", "../../etc/passwd"),
    ("train", "--preset", "/etc/passwd"),
    ("train", "--set", "preset=../../x"),
    ("train", "--set", "algorithm.name=../x"),
    ("train", "--set", "data.source=../../x\x1b[2J"),
    ("train", "--set", f"data.source=hf://user:{URL_SECRET}@hub/name"),
    ("train", "--set", f"data.source=https://user:{URL_SECRET}@host/rows.jsonl"),
    ("train", "--model", f"https://user:{URL_SECRET}@host/model"),
    ("train", "--set", f"data.source=../{SECRETS['HF_TOKEN']}/y"),
    ("train", "--set", f"{SECRETS['MY_TOKEN']}=1\nhint: run this"),
    ("train", f"--{SECRETS['MY_TOKEN']}\x1b[2J"),
]


def test_errors_are_two_inert_lines_without_secrets(place: Path, trained):
    script = (
        "import json, sys; from opo_cli.cli import main\n"
        "for line in sys.stdin: print(main(json.loads(line)), file=sys.stderr, flush=True)"
    )
    before = sorted(place.rglob("*"))
    result = subprocess.run(
        [sys.executable, "-c", script],
        input="".join(json.dumps(arguments) + "\n" for arguments in WRONG),
        cwd=place,
        env=os.environ | SECRETS,
        capture_output=True,
        text=True,
    )
    lines = result.stderr.splitlines()
    for arguments, place_of in zip(WRONG, range(0, 3 * len(WRONG), 3), strict=True):
        error, hint, code = lines[place_of : place_of + 3]
        assert (error[:7], hint[:6], code) == ("error: ", "hint: ", "2"), arguments
    assert len(lines) == 3 * len(WRONG)
    assert result.stdout == ""
    assert is_inert(result.stderr)
    assert not told_secrets(result.stderr)
    assert sorted(place.rglob("*")) == before


def told_secrets(text: str) -> list[str]:
    return [value for value in (*SECRETS.values(), URL_SECRET) if value in text]


def test_no_file_and_no_output_holds_a_secret(trained, opo, place: Path, cache: Path):
    """Of training, evaluation, comparison and the estimator lab; the cache is the session's."""
    from opo_cli.records import RunFolder

    outputs = [trained.output]
    evaluated = opo("eval", BENCHMARK, "--run", RUN, "--set", "eval.samples=1")
    assert evaluated.code == 0, evaluated.output
    compared = opo("compare", f"runs/{RUN}", "--html", "page.html", "--out", "comparison")
    assert compared.code == 0, compared.output
    page = (place / "page.html").read_text()
    assert "<script>alert" not in page
    assert "\x1b" not in page
    small = ("--prompts", "2", "--responses", "4", "--group-size", "2")
    lab = opo("lab", "--run", RUN, *small, "--html", "lab.html")
    outputs += [evaluated.output, compared.output, lab.output]
    assert "done in" in lab.output  # Random weights earn nothing: it measures, and says so.
    assert not told_secrets("".join(outputs))
    assert all(map(is_inert, outputs))
    files = [path for root in (place, cache) for path in root.rglob("*") if path.is_file()]
    assert len(files) > 20
    needles = [value.encode() for value in (*SECRETS.values(), URL_SECRET)]
    for path in files:
        content = path.read_bytes()
        assert not any(needle in content for needle in needles), path
    assert "HF_TOKEN" not in json.dumps(RunFolder(place / "runs" / RUN).environment())


def test_nothing_is_written_beside_its_folder(trained, place: Path):
    """Ids and names that are paths name none."""
    top = {"train.jsonl", BENCHMARK, "runs"}
    others = {"graded.jsonl", "graded.graded.jsonl", "page.html", "comparison"}
    others |= {"labs", "lab.html"}
    assert top <= {path.name for path in place.iterdir()} <= top | others
    assert [path.name for path in (place / "runs").iterdir()] == [RUN]


# --- redaction ------------------------------------------------------------------------------------


def test_secrets_are_taken_out_of_text(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    monkeypatch.setenv("SHORT_KEY", "abc")
    monkeypatch.setenv("MONKEY_BUSINESS", "bananas and more")
    assert redacted("a hf_abcdefgh b abc bananas and more") == "a $HF_TOKEN b abc bananas and more"
    assert redacted("hf://me:pw@hub/x and https://t@h/y") == "hf://***@hub/x and https://***@h/y"
    assert redacted("mail me@host, a://b/c@d") == "mail me@host, a://b/c@d"
    monkeypatch.setattr(sys, "argv", ["opo", "train", "--model", "https://u:pw@h/hf_abcdefgh"])
    assert command_line() == ["opo", "train", "--model", "https://***@h/$HF_TOKEN"]


def test_a_port_that_is_in_use_elsewhere_is_not_ours():
    with socket.create_server(("127.0.0.1", 0)):
        assert reachable([os.getppid()]) == set() or sys.platform != "linux"
        assert reachable([os.getpid()]) != set() or sys.platform != "linux"
