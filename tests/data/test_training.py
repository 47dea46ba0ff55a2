"""Which problems a config trains on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from opo_cli.config import Columns, Data
from opo_cli.data.benchmarks import BENCHMARKS
from opo_cli.data.datasets import DATASETS
from opo_cli.data.sources import load_problems
from opo_cli.data.training import data_folder, hub_row, prepare_data
from opo_cli.errors import OpoError
from opo_cli.presets import resolve


def config_of(**data):
    return resolve("smoke", named={"data": data, "eval": {"benchmarks": []}})


def test_another_row_of_a_table_is_another_training_set(monkeypatch):
    config = resolve("smoke", overrides=["data.source=MATH", "eval.benchmarks=['AIME24']"])
    first = data_folder(config)
    monkeypatch.setitem(DATASETS, "MATH", replace(DATASETS["MATH"], revision="0" * 40))
    second = data_folder(config)
    monkeypatch.setitem(BENCHMARKS, "AIME24", replace(BENCHMARKS["AIME24"], revision="0" * 40))
    assert len({first, second, data_folder(config)}) == 3


def test_the_embedded_task_needs_no_audit(smoke):
    folder = prepare_data(smoke)
    facts = json.loads((folder / "source.json").read_text())
    assert (facts["name"], facts["source"], facts["revision"]) == ("tiny-train", "embedded", "")
    count = smoke.data.num_problems
    assert facts["counts"]["rows"] == facts["counts"]["problems"] == count
    assert json.loads((folder / "audit.json").read_text())["benchmarks"] == []
    assert len(load_problems(folder / "train.jsonl")) == count


def test_the_folder_follows_what_shapes_the_problems(in_tmp: Path):
    path = in_tmp / "mine.csv"
    path.write_text("problem,answer\n1+1?,2\n")
    first = data_folder(config_of(source="mine.csv"))
    assert data_folder(config_of(source="mine.csv", template="plain")) == first
    assert data_folder(config_of(source="mine.csv", max_prompt_tokens=7)) == first
    for change in ({"limit": 1}, {"drop_overlap": True}, {"audit": ["tiny-mid"]}, {"split": "x"}):
        assert data_folder(config_of(source="mine.csv", **change)) != first
    path.write_text("problem,answer\n1+1?,3\n")
    assert data_folder(config_of(source="mine.csv")) != first


def test_ids_are_unique_whatever_the_file_says(in_tmp: Path):
    rows = [{"problem": f"{n}?", "answer": n, "id": "same"} for n in range(3)]
    (in_tmp / "mine.json").write_text(json.dumps(rows))
    problems = load_problems(prepare_data(config_of(source="mine.json")) / "train.jsonl")
    assert [problem.id for problem in problems] == ["same", "same#2", "same#3"]
    assert {problem.benchmark for problem in problems} == {"mine"}


@pytest.mark.parametrize(
    ("data", "said", "hint"),
    [
        ({"source": "nowhere.jsonl"}, "there is no file 'nowhere.jsonl'", "path"),
        ({"source": "deepscaler"}, "unknown training set 'deepscaler'", "'DeepScaleR'"),
        ({"source": "../x"}, "'../x' is no hub data set", "owner/name"),
        ({"source": "a/b/c"}, "'a/b/c' is no hub data set", "owner/name"),
        ({"source": "bad.jsonl"}, "no problem is left to train on", "1 cannot be used"),
        (
            {"source": "good.jsonl", "drop_overlap": True, "audit": ["good.jsonl"]},
            "no problem is left to train on",
            "1 overlap benchmarks",
        ),
        ({"source": "good.jsonl", "audit": ["AIME42"]}, "unknown benchmark 'AIME42'", "AIME"),
        ({"source": "good.jsonl", "columns": {"answer": "x"}}, "no column 'x'", "data.columns."),
    ],
)
def test_mistakes(in_tmp: Path, data: dict, said: str, hint: str):
    (in_tmp / "bad.jsonl").write_text('{"problem": "", "answer": "1"}\n')
    (in_tmp / "good.jsonl").write_text('{"problem": "1+1?", "answer": "2"}\n')
    with pytest.raises(OpoError) as caught:
        prepare_data(config_of(**data))
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_settings_change_a_row_of_the_table():
    row = DATASETS["GSM8K-train"]
    assert hub_row(Data(source="GSM8K-train")) == row
    other = hub_row(Data(source="GSM8K-train", config="socratic", revision="main"))
    assert (other.configs, other.revision, other.num_problems) == (("socratic",), "main", 0)
    assert hub_row(Data(source="GSM8K-train", split="test")).split == "test"
    columns = Columns(question="q", answer="a")
    asked = hub_row(Data(source="GSM8K-train", columns=columns))
    assert (asked.columns, asked.encoding, asked.hub) == (columns, "guess", row.hub)
    free = hub_row(Data(source="some/one", config="a", split="dev"))
    assert (free.hub, free.configs, free.split) == ("some/one", ("a",), "dev")
    assert free.revision == ""
