"""The bytes that are foreseen of a microbatch against those that PyTorch allocates."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from opo_cli import ranks
from opo_cli.config import Embedded, Model
from opo_cli.model import attention, footprint
from opo_cli.model.footprint import Microbatch, ShardedMicrobatch
from opo_cli.model.precision import Precision, precision_of, run_layers, set_precision
from opo_cli.model.recompute import recompute_layers
from opo_cli.model.scores import divergence, score, token_scores
from opo_cli.model.sequences import Sequences
from opo_cli.model.shape import shape_of
from opo_cli.model.sharding import put_away, shard
from opo_cli.model.tiny import build_model, build_tokenizer

SMALL = Embedded(hidden_size=128, intermediate_size=512, num_heads=4, num_key_value_heads=2)
WIDE = SMALL.model_copy(update={"vocab_size": 151936, "hidden_size": 64, "num_heads": 2})
PROMPT = 16
LENGTHS = {SMALL.vocab_size: (4, 256), WIDE.vocab_size: (2, 64)}
"""Rows and their tokens, by vocabulary: logits of a large one take their time on a CPU."""


def sequences(rows: int = 4, length: int = 256) -> Sequences:
    torch.manual_seed(0)
    ids = torch.randint(0, 20, (rows, length)).tolist()
    return Sequences.pack(
        [row[:PROMPT] for row in ids], [row[PROMPT:] for row in ids], torch.device("cpu")
    )


@pytest.fixture(params=[2**22, 2**25], ids=["chunks", "one chunk"])
def max_logits(request, monkeypatch) -> None:
    """96 tokens of the large vocabulary in four chunks, or in one."""
    monkeypatch.setitem(footprint.MAX_LOGITS, "cpu", request.param)


def policy(embedded: Embedded, dtype: str, *, use_checkpointing: bool = False, head="compute"):
    model = build_model(embedded, build_tokenizer(), seed=0).eval()
    set_precision(model, Precision.of(Model(compute_dtype=dtype, head_dtype=head)))
    if use_checkpointing:
        recompute_layers(model.base_model)
    return model


def microbatch(model, rows: Sequences, dtype: str, **settings) -> Microbatch:
    return Microbatch(
        shape=shape_of(model.config),
        num_tokens=rows.input_ids.numel(),
        num_scored=int(rows.lengths.sum()),
        **{"dtype": dtype, "head_dtype": dtype, **settings},
    )


def kept_by_autograd(model) -> int:
    """Bytes that the layers keep for their backward pass, parameters left out."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run_layers(model.base_model, precision_of(model), sequences().input_ids, use_cache=False)
    return sum(kept.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("embedded", [SMALL, WIDE], ids=["small", "wide"])
def test_what_autograd_keeps_of_a_layer_is_exact(embedded: Embedded, dtype: str):
    models = [policy(embedded.model_copy(update={"num_layers": n}), dtype) for n in (2, 3)]
    less, more = (microbatch(model, sequences(), dtype) for model in models)
    foreseen = more.num_tokens * more.layer + more.copies - less.copies
    assert kept_by_autograd(models[1]) - kept_by_autograd(models[0]) == foreseen


def test_heads_that_a_gpu_repeats_in_fp32_are_counted(monkeypatch):
    monkeypatch.setattr(attention, "keeps_scores", lambda query, key: True)
    attention.mend_attention()
    models = [policy(SMALL.model_copy(update={"num_layers": n}), "float32") for n in (2, 3)]
    layer = microbatch(models[0], sequences(), "float32", is_gpu=True).layer
    found = kept_by_autograd(models[1]) - kept_by_autograd(models[0])
    assert found == sequences().input_ids.numel() * layer


@pytest.mark.parametrize("use_checkpointing", [False, True], ids=["whole", "checkpointed"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("num_layers", [4, 12])
def test_the_layers_peak(most_allocated, num_layers: int, dtype: str, use_checkpointing: bool):
    embedded = SMALL.model_copy(update={"num_layers": num_layers})
    model = policy(embedded, dtype, use_checkpointing=use_checkpointing)
    rows = sequences()
    most = most_allocated(lambda: token_scores(model, rows).logprobs.sum().backward())
    foreseen = microbatch(model, rows, dtype, use_checkpointing=use_checkpointing).in_layers()
    assert foreseen.total == pytest.approx(most, rel=0.1)
    assert foreseen.activations > 0.8 * foreseen.total


@pytest.mark.parametrize("has_entropy_gradient", [False, True], ids=["", "entropy"])
@pytest.mark.parametrize(
    ("dtype", "head"), [("float32", "compute"), ("bfloat16", "compute"), ("bfloat16", "float32")]
)
@pytest.mark.usefixtures("max_logits")
def test_the_heads_peak(most_allocated, dtype: str, head: str, has_entropy_gradient: bool):
    model, rows = policy(WIDE, dtype, head=head), sequences(2, 64)

    def run() -> None:
        found = token_scores(model, rows, entropy_gradient=has_entropy_gradient)
        (found.logprobs.sum() + has_entropy_gradient * found.entropy.sum()).backward()

    settings = {
        "head_dtype": dtype if head == "compute" else head,
        "has_entropy_gradient": has_entropy_gradient,
    }
    foreseen = microbatch(model, rows, dtype, **settings).at_the_head()
    assert foreseen.total == pytest.approx(most_allocated(run), rel=0.1)
    assert foreseen.logits > 0.8 * foreseen.total


@pytest.mark.parametrize("compares_policies", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("embedded", [SMALL, WIDE], ids=["small", "wide"])
def test_the_peak_without_gradient(
    most_allocated, embedded: Embedded, dtype: str, compares_policies: bool
):
    model, rows = policy(embedded, dtype), sequences(*LENGTHS[embedded.vocab_size])
    other, budget = policy(embedded, dtype).requires_grad_(False), rows.input_ids.numel()

    def run() -> None:
        if compares_policies:
            divergence(model, other, rows, budget)
        else:
            score(model, rows, budget)

    foreseen = microbatch(model, rows, dtype, compares_policies=compares_policies).score()
    assert foreseen.total == pytest.approx(most_allocated(run), rel=0.1)


def test_checkpointing_keeps_the_layers_inputs():
    model = policy(SMALL.model_copy(update={"num_layers": 40}), "float32")
    whole = microbatch(model, sequences(), "float32")
    less = replace(whole, use_checkpointing=True)
    assert whole.in_layers().activations > 12 * less.in_layers().activations
    assert less.in_layers().activations > 40 * whole.num_tokens * SMALL.hidden_size * 4


# --- sharded --------------------------------------------------------------------------------------

NUM_RANKS = 8
WIDER = Embedded(
    hidden_size=256,
    intermediate_size=1024,
    num_layers=6,
    num_heads=4,
    num_key_value_heads=2,
    vocab_size=2000,
)
UNTIED = WIDER.model_copy(update={"vocab_size": 8000, "use_tied_embeddings": False})


@pytest.fixture
def one_of_eight():
    """We are rank 0 of eight, seven of which are not there: what is gathered from them is anything,
    and takes as much memory."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=NUM_RANKS)
    ranks.set_joined(True)
    yield
    ranks.set_joined(False)
    torch.distributed.destroy_process_group()


def sharded(embedded: Embedded, dtype: str, *, use_checkpointing: bool = False):
    model = policy(embedded, dtype, use_checkpointing=use_checkpointing)
    shard(model, model.base_model, torch.device("cpu"), precision_of(model))
    return model


def of_a_rank(embedded: Embedded, rows: Sequences, dtype: str, **settings) -> ShardedMicrobatch:
    whole = microbatch(policy(embedded, dtype), rows, dtype, **settings)
    return ShardedMicrobatch(**{each.name: getattr(whole, each.name) for each in fields(whole)})


@pytest.mark.parametrize("use_checkpointing", [False, True], ids=["whole", "checkpointed"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("embedded", [WIDER, UNTIED], ids=["tied", "untied"])
@pytest.mark.usefixtures("one_of_eight")
def test_the_peak_of_a_sharded_update(
    most_allocated, embedded: Embedded, dtype: str, use_checkpointing: bool
):
    """Beyond the shards of the gradients, which the first time leaves."""
    rows = sequences(4, 128)
    model = sharded(embedded, dtype, use_checkpointing=use_checkpointing)
    most = most_allocated(lambda: token_scores(model, rows).logprobs.sum().backward())
    part = of_a_rank(embedded, rows, dtype, use_checkpointing=use_checkpointing)
    foreseen = max(part.at_the_head().total, part.in_layers().total)
    assert foreseen == pytest.approx(most, rel=0.1)


@pytest.mark.parametrize("compares_policies", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("embedded", [WIDER, UNTIED], ids=["tied", "untied"])
@pytest.mark.usefixtures("one_of_eight")
def test_the_peak_of_sharded_scores(
    most_allocated, embedded: Embedded, dtype: str, compares_policies: bool
):
    rows = sequences(4, 128)
    model, other = (sharded(embedded, dtype) for _ in range(2))
    budget = rows.input_ids.numel()

    def run() -> None:
        if compares_policies:
            divergence(model, other, rows, budget)
        else:
            score(model, rows, budget)
        put_away(model)
        put_away(other)

    foreseen = of_a_rank(embedded, rows, dtype, compares_policies=compares_policies).score()
    assert foreseen.total == pytest.approx(most_allocated(run), rel=0.1)
