"""Gradients of single responses, what is kept of them, and projections."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from opo_cli.lab.gradients import (
    Layout,
    Vectors,
    gradients_one_by_one,
    gradients_together,
    response_gradients,
    takes_together,
    token_gradients,
    vector_bytes,
)
from opo_cli.lab.parameters import adam_scales, measured_parameters
from opo_cli.lab.projection import PLACES, SKETCH_PLACES, Projection
from opo_cli.model.scores import token_scores
from opo_cli.model.sequences import Sequences

CPU = torch.device("cpu")


@pytest.fixture
def policy(policy_and_tokenizer):
    return policy_and_tokenizer[0]


@pytest.fixture
def sequences(policy) -> Sequences:
    """20 rows of different lengths: more than are taken together."""
    random = np.random.default_rng(0)
    size = policy.config.vocab_size

    def tokens(low: int, high: int) -> list[int]:
        return random.integers(0, size, random.integers(low, high)).tolist()

    return Sequences.pack(
        [tokens(3, 9) for _ in range(20)], [tokens(1, 25) for _ in range(20)], CPU
    )


def plain_gradient(policy, sequences: Sequences, row: int) -> torch.Tensor:
    """Without anything of the lab: one row, logits everywhere, `backward`."""
    prompt, length = int(sequences.prompt_lengths[row]), int(sequences.lengths[row])
    ids = sequences.input_ids[row : row + 1, : prompt + length]
    policy.zero_grad()
    logprobs = policy(input_ids=ids).logits[0, :-1].log_softmax(-1)
    logprobs.gather(-1, ids[0, 1:, None])[prompt - 1 :].sum().backward()
    found = torch.cat([each.grad.reshape(-1) for each in policy.parameters()])
    policy.zero_grad()
    return found


def flat(gradient) -> torch.Tensor:
    return torch.cat(list(gradient.parts))


@pytest.mark.parametrize("way", [gradients_one_by_one, gradients_together])
def test_every_gradient_is_autograds_own(way, policy, sequences):
    with measured_parameters(policy, "all", 0) as parameters:
        found = {each.row: flat(each) for each in way(policy, parameters, sequences)}
    assert sorted(found) == list(range(20))
    for row, gradient in found.items():
        expected = plain_gradient(policy, sequences, row)
        assert (gradient - expected).norm() <= 5e-6 * expected.norm()


def test_both_ways_are_exact_but_for_rounding(policy, sequences):
    """In float64, where rounding is out of the way."""
    policy.double()
    few = sequences.select(torch.arange(6))
    with measured_parameters(policy, "all", 0) as parameters:
        together = {e.row: flat(e) for e in gradients_together(policy, parameters, few)}
        for row in range(6):
            expected = plain_gradient(policy, few, row)
            # Logprobs are float32 wherever the policy is scored.
            assert (together[row] - expected).norm() <= 2e-6 * expected.norm()


def test_small_models_are_taken_together(policy):
    assert takes_together(policy)
    policy.to(torch.float32)
    policy.opo_precision = type(policy.opo_precision)(compute=torch.bfloat16)
    assert not takes_together(policy)


def test_logit_norms_are_the_policys(policy, sequences):
    expected = token_scores(policy, sequences).logit_norms
    with measured_parameters(policy, "lm-head", 0) as parameters:
        for way in (gradients_one_by_one, gradients_together):
            for each in way(policy, parameters, sequences):
                length = int(sequences.lengths[each.row])
                assert len(each.logit_norms) == length
                torch.testing.assert_close(
                    each.logit_norms, expected[each.row, :length], atol=1e-5, rtol=1e-4
                )


def test_gradients_of_tokens_add_up_to_the_response(policy, sequences):
    few = sequences.select(torch.arange(3))
    with measured_parameters(policy, "all", 0) as parameters:
        whole = [flat(each) for each in gradients_one_by_one(policy, parameters, few)]
        tokens = [flat(each) for each in token_gradients(policy, parameters, few)]
    assert len(tokens) == int(few.lengths.sum())
    for expected, part in zip(whole, torch.stack(tokens).split(few.lengths.tolist()), strict=True):
        assert (part.sum(0) - expected).norm() <= 1e-5 * expected.norm()


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [gradients_one_by_one, gradients_together])
@pytest.mark.parametrize(("which", "count"), [("lm-head", 1), ("last-block", 12)])
def test_a_part_is_a_slice_of_all(way, which, count, policy, sequences):
    few = sequences.select(torch.arange(3))
    with measured_parameters(policy, "all", 0) as parameters:
        names = list(parameters)
        whole = {each.row: each.parts for each in way(policy, parameters, few)}
    with measured_parameters(policy, which, 0) as parameters:
        assert len(parameters) == count
        for each in way(policy, parameters, few):
            expected = [whole[each.row][names.index(name)] for name in parameters]
            torch.testing.assert_close(list(each.parts), expected)
            assert not any(part.requires_grad for part in each.parts)


def test_adapters_measure_the_weights_gradient_times_a(policy, sequences):
    """d/dB of W + B A at B = 0 is (d/dW) A^T."""
    few = sequences.select(torch.arange(2))
    with measured_parameters(policy, "all", 0) as parameters:
        names, whole = list(parameters), list(gradients_one_by_one(policy, parameters, few))
    linear = policy.model.layers[0].mlp.up_proj
    before = token_scores(policy, few).logprobs
    for way in (gradients_one_by_one, gradients_together):
        with measured_parameters(policy, "lora", 3) as parameters:
            assert torch.equal(token_scores(policy, few).logprobs, before)
            place = list(parameters).index("model.layers.0.mlp.up_proj.lora_b")
            down, found = linear.lora_a.clone(), list(way(policy, parameters, few))
        assert not any(part.requires_grad for each in found for part in each.parts)
        for part, of_all in zip(sorted(found, key=lambda e: e.row), whole, strict=True):
            full = of_all.parts[names.index("model.layers.0.mlp.up_proj.weight")]
            expected = full.view_as(linear.weight) @ down.T
            torch.testing.assert_close(
                part.parts[place].view_as(expected), expected, atol=1e-5, rtol=1e-4
            )
    assert not hasattr(linear, "lora_a")
    assert dict(policy.named_parameters()).keys() == set(names)


# --- what is kept ---------------------------------------------------------------------------------


def vectors_of(policy, sequences, *, is_whole: bool, scales=None) -> Vectors:
    with measured_parameters(policy, "all", 0) as parameters:
        layout = Layout.of(parameters, seed=0, is_whole=is_whole, scales=scales)
        vectors = Vectors(layout, len(sequences))
        for each in response_gradients(policy, parameters, sequences):
            vectors.add(each.row, each.parts)
    return vectors


def test_gram_is_symmetric_positive_with_squared_norms(policy, sequences):
    gram = vectors_of(policy, sequences, is_whole=True).gram()
    expected = torch.stack([plain_gradient(policy, sequences, row) for row in range(20)]).double()
    lengths = expected.norm(dim=1)
    errors = (gram - (expected @ expected.T).numpy()) / torch.outer(lengths, lengths).numpy()
    assert np.abs(errors).max() < 1e-5
    np.testing.assert_array_equal(gram, gram.T)
    assert np.linalg.eigvalsh(gram).min() > -1e-9 * gram.max()
    np.testing.assert_allclose(np.diag(gram), expected.square().sum(1).numpy(), rtol=1e-5)


def test_projected_gram_has_exact_norms_and_close_products(policy, sequences):
    whole = vectors_of(policy, sequences, is_whole=True)
    projected = vectors_of(policy, sequences, is_whole=False)
    exact, found = whole.gram(), projected.gram()
    np.testing.assert_allclose(np.diag(found), np.diag(exact), rtol=1e-6)
    lengths = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    errors = ((found - exact) / lengths)[~np.eye(20, dtype=bool)]
    assert 0 < errors.std() < 2 * np.sqrt(2 / 8209)
    np.testing.assert_array_equal(whole.sketches(), projected.sketches())


@pytest.mark.parametrize(("is_whole", "width"), [(True, 162_432), (False, PLACES)])
def test_products_of_many_rows_take_what_is_foretold(is_whole, width, policy, most_allocated):
    """Of 120 rows: some columns at a time, so that they are never all in float64."""
    with measured_parameters(policy, "all", 0) as parameters:
        layout = Layout.of(parameters, seed=0, is_whole=is_whole)
    taken = most_allocated(Vectors(layout, 120).gram)
    foretold = vector_bytes(162_432, 120, is_whole=is_whole)
    foretold -= 120 * 4 * (width + SKETCH_PLACES) + 162_432 * 9  # What stands already.
    assert 0.8 * foretold < taken < 1.1 * foretold


def test_adam_scales_each_coordinate(policy, sequences):
    few = sequences.select(torch.arange(2))
    with measured_parameters(policy, "all", 0) as parameters:
        moments = {name: torch.rand_like(each) for name, each in parameters.items()}
        scales = adam_scales(moments, parameters, 1e-8)
    gram = vectors_of(policy, few, is_whole=True, scales=scales).gram()
    v = torch.cat([each.reshape(-1) for each in moments.values()])
    rows = torch.stack([plain_gradient(policy, few, row) / (v.sqrt() + 1e-8) for row in range(2)])
    np.testing.assert_allclose(gram, (rows.double() @ rows.double().T).detach(), rtol=1e-4)


def test_projections_are_unbiased_and_as_noisy_as_said():
    """Over seeds, E<s, s'> = <g, g'>; columns of equal energy do not fall together."""
    random = torch.Generator().manual_seed(0)
    column = torch.zeros(64, 32)
    column[:, 5] = 3.0  # All energy of a weight in one input.
    pair = [
        [torch.randn(700, generator=random), column.reshape(-1)],
        [torch.randn(700, generator=random), column.reshape(-1) / 2],
    ]
    first, second = (torch.cat(each) for each in pair)
    products = []
    for seed in range(600):
        project = Projection([700, 64 * 32], 101, seed, CPU)
        products.append(float(project(pair[0]) @ project(pair[1])))
    exact, scale = float(first @ second), float(first.norm() * second.norm())
    error = np.std(products) / np.sqrt(len(products))
    assert abs(np.mean(products) - exact) < 4 * error
    assert np.std(products) < 1.2 * scale * np.sqrt(2 / 101)


def test_one_seed_is_one_projection():
    vector = [torch.arange(5.0), torch.ones(3)]
    first, again, other = (Projection([5, 3], 7, seed, CPU)(vector) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# --- the score identity ---------------------------------------------------------------------------


def test_scores_of_samples_are_zero_on_average(policy_and_tokenizer, engine, prompts):
    """E grad log pi = 0 where samples are the policy's own: |mean g|^2 is as large as the mean of
    |g|^2 over n, give or take."""
    from opo_cli.types import Sampling

    policy, count = policy_and_tokenizer[0], 256
    sampling = Sampling(num_responses=count, max_new_tokens=32)
    group = engine.generate(prompts[:1], sampling, stream=(0, 0))[0]
    packed = Sequences.pack(
        [group.prompt.token_ids] * count, [each.token_ids for each in group.rollouts], CPU
    )
    gram = vectors_of(policy, packed, is_whole=True).gram()
    ratio = gram.mean() / (np.trace(gram) / count / count)
    assert 0.3 < ratio < 3
