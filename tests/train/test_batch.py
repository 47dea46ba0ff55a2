"""A step's batch as tensors, and as lines of the ledger."""

from __future__ import annotations

import copy

import torch

from opo_cli.presets import resolve
from opo_cli.train.batch import collate, ledger_columns
from opo_cli.train.learner import new_learner
from opo_cli.train.measure import Meter
from opo_cli.train.rollouts import shaped
from opo_cli.train.step import score_batch, with_advantages
from opo_cli.train.update import update


def test_the_first_rows_of_each_group(graded):
    batch = collate(graded, torch.device("cpu"))
    assert batch.first_of_groups(1).tolist() == list(range(0, 64, 8))
    assert batch.first_of_groups(3)[:6].tolist() == [0, 1, 2, 8, 9, 10]
    assert batch.first_of_groups(99).tolist() == list(range(64))
    some = batch.select(torch.tensor([5, 6, 20, 40, 41]))  # Groups of two, one and two.
    assert some.first_of_groups(1).tolist() == [0, 2, 3]


def test_what_is_masked_has_no_loss_token(graded):
    batch = collate(graded, torch.device("cpu"))
    cut = torch.arange(64) % 7 == 0
    masked = shaped(
        batch.with_(truncated=cut), resolve("smoke", overrides=["algorithm.overlong=mask"])
    )
    assert masked.loss_lengths[cut].eq(0).all()
    assert masked.loss_lengths[~cut].equal(batch.lengths[~cut])
    assert masked.loss_mask.sum() == masked.loss_lengths.sum()
    assert masked.lengths.equal(batch.lengths)


def test_ledger_columns_hold_the_batch(graded, policy_and_tokenizer):
    model, tokenizer = policy_and_tokenizer
    config = resolve("smoke", algorithm="ppo")
    learner = new_learner(model, copy.deepcopy(model), config)
    batch = with_advantages(
        score_batch(collate(graded, torch.device("cpu")), config, learner), config
    )
    batch = update(batch, 0, config, learner, Meter())
    columns = ledger_columns(3, batch, graded, lambda token: tokenizer.decode([token]))
    assert {len(column) for column in columns.values()} == {64}
    for row in (0, 17, 63):
        group, place = divmod(row, 8)
        rollout = graded[group].group.rollouts[place]
        assert (columns["group"][row], columns["row"][row]) == (group, place)
        assert columns["problem_id"][row] == graded[group].group.prompt.problem.id
        assert columns["tokens"][row] == rollout.token_ids
        assert columns["length"][row] == len(rollout.token_ids)
        assert columns["reward"][row] == graded[group].grades[place].reward
        for name in ("sampler_logprobs", "logprobs", "entropy", "logit_norms", "values"):
            assert len(columns[name][row]) == len(rollout.token_ids)
        special = tokenizer.all_special_tokens
        assert "".join(p for p in columns["pieces"][row] if p not in special) == rollout.text
    assert columns["greedy_reward"] == [None] * 64
