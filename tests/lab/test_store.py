"""The lab folder."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from opo_cli.errors import OpoError
from opo_cli.lab.store import LabFolder, PromptData, load_lab


def prompt_data(seed: int = 0, **changes) -> PromptData:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(3, 7))
    data = PromptData(
        problem_id=f"problem/{seed}",
        gram=vectors @ vectors.T,
        rewards=np.array([1.0, 0.0, 0.25]),
        lengths=np.array([2, 1, 0]),
        correct=np.array([True, False, False]),
        truncated=np.array([False, False, True]),
        logit_norms=random.random(3),
        greedy_reward=1.0,
        sketch=random.normal(size=(3, 5)).astype(np.float32),
    )
    return replace(data, **changes)


def folder_of(path: Path, num_prompts: int) -> LabFolder:
    folder = LabFolder(path)
    folder.start({"prompts": num_prompts, "seed": 0}, "code", whole_gigabytes=0.5, is_whole=True)
    return folder


def assert_same(found: PromptData, expected: PromptData) -> None:
    for field in fields(PromptData):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(theirs, np.ndarray):
            assert ours.dtype == theirs.dtype, field.name
            np.testing.assert_array_equal(ours, theirs, err_msg=field.name)
        else:
            assert (type(ours), ours) == (type(theirs), theirs), field.name


@pytest.mark.parametrize(
    "prompt",
    [
        prompt_data(),
        prompt_data(1, greedy_reward=None),
        prompt_data(
            2, token_gram=np.eye(3, dtype=np.float32) * 0.5, token_norms=np.array([0.1, 0.2, 0.3])
        ),
    ],
    ids=["usual", "no greedy response", "tokens"],
)
def test_what_is_written_is_read(prompt, tmp_path):
    folder = folder_of(tmp_path / "lab", 1)
    folder.add(0, prompt)
    assert_same(folder.read(0), prompt)


def test_products_of_tokens_stay_on_the_disk(tmp_path):
    """Those of all prompts together need not fit into memory."""
    folder, gram = folder_of(tmp_path / "lab", 1), np.arange(9.0).reshape(3, 3)
    folder.add(0, prompt_data(token_gram=gram, token_norms=np.ones(3)))
    found = folder.read(0).token_gram
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, gram)
    whole = folder.tokens(0).read_bytes()
    for damaged in (whole[:140], whole[:-3] + b"?" + whole[-2:]):
        folder.tokens(0).write_bytes(damaged)
        with pytest.raises(OpoError, match=r"000000\.npz' does not load"):
            folder.read(0)


def test_a_whole_lab_comes_back_in_order(tmp_path):
    folder = folder_of(tmp_path / "lab", 3)
    for row in (2, 0, 1):
        assert row in folder.missing()
        folder.add(row, prompt_data(row))
    data = load_lab(folder.path)
    assert data.settings == {"prompts": 3, "seed": 0, "is_whole": True}
    assert [prompt.problem_id for prompt in data.prompts] == ["problem/0", "problem/1", "problem/2"]
    assert sorted(path.name for path in (folder.path / "prompts").iterdir()) == [
        "000000.npz",
        "000001.npz",
        "000002.npz",
    ]


def test_equal_prompts_are_equal_files(tmp_path):
    folder = folder_of(tmp_path / "lab", 2)
    for row in (0, 1):
        folder.add(row, prompt_data(5))
    assert folder.file(0).read_bytes() == folder.file(1).read_bytes()


def test_what_cannot_be_read_is_told(tmp_path):
    with pytest.raises(OpoError, match="there is no lab at"):
        load_lab(tmp_path / "nowhere")
    folder = folder_of(tmp_path / "lab", 3)
    folder.add(0, prompt_data())
    with pytest.raises(OpoError, match="lacks 2 of 3 prompts"):
        load_lab(folder.path)
    folder.add(1, prompt_data())
    folder.add(2, prompt_data())
    folder.file(1).write_bytes(folder.file(1).read_bytes()[:100])
    with pytest.raises(OpoError, match=r"000001\.npz' does not load") as caught:
        load_lab(folder.path)
    assert "remove it" in caught.value.hint
    (folder.path / "lab.json").write_text("[]")
    with pytest.raises(OpoError, match="none of this program's"):
        load_lab(folder.path)


def test_one_process_at_a_time(tmp_path):
    folder = folder_of(tmp_path / "lab", 1)
    with (
        folder.locked(),
        pytest.raises(OpoError, match="another process"),
        LabFolder(folder.path).locked(),
    ):
        raise AssertionError("the second lock was given")
    with folder.locked():
        assert folder.missing() == [0]
