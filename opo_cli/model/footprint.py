"""Bytes that a microbatch holds in its forward and backward pass. Pure arithmetic, no torch;
tests/model/test_footprint.py holds it against what PyTorch allocates."""

from __future__ import annotations

from dataclasses import dataclass, replace

from opo_cli.model.shape import BYTES, Shape

FP32 = 4
MAX_LOGITS = {"cpu": 2**25, "cuda": 2**27}
"""Alive at once, by device; in fp32 128 and 512 MiB, and a few copies of it. On a GPU each chunk
also pays for a cast of the head and a sum into its gradient."""
SCORE_COPIES, BACKWARD_COPIES = 3, 3  # Tensors of logits' size at once.
KL_COPIES, ENTROPY_COPIES = 5, 5  # Where two policies are compared; where entropy has a gradient.
PRODUCT_COPIES = 2.4  # Beside the head's gradient in fp32; measured.


@dataclass(frozen=True, slots=True)
class Moment:
    """Bytes held together."""

    activations: int
    copies: int = 0
    """Of weights, in a lower precision."""
    logits: int = 0
    """With the gradient of the head, which is summed chunk by chunk."""
    root: int = 0
    """Of sharded weights: embedding, final norm and head, gathered, with their gradients."""
    layers: int = 0
    """Of sharded weights: layers, gathered, and gradients on their way to the shards."""

    @property
    def total(self) -> int:
        return self.activations + self.copies + self.logits + self.root + self.layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Microbatch:
    shape: Shape
    num_tokens: int
    """Padded."""
    num_scored: int
    """Those that reach the head."""
    dtype: str = "float32"
    """Of the layers' products."""
    head_dtype: str = "float32"
    """Of the head's."""
    is_gpu: bool = False
    use_checkpointing: bool = False
    has_entropy_gradient: bool = False
    compares_policies: bool = False
    """Whether the exact KL to another policy is measured."""

    @property
    def layer(self) -> int:
        """What autograd keeps of one Qwen2 layer, per token.

        Two norms keep the fp32 residual stream, the normed values and one number; the linear layers
        their input, which autocast casts anew for each of q, k, v, gate and up; attention (SDPA)
        its q, k, v and output, key/value heads repeated only in fp32 on a GPU (`model.attention`),
        and one number per head; the MLP the gate, its SiLU, the other half and their product.
        """
        shape, width, size = self.shape, self.shape.hidden_size, BYTES[self.dtype]
        norms = 2 * (2 * width + 1) * FP32
        inputs = 2 * width * FP32 if self.dtype == "float32" else 5 * width * size
        is_repeated = self.is_gpu and self.dtype == "float32"
        keys = shape.query_width if is_repeated else shape.key_width
        attention = 2 * (shape.query_width + keys) * size + shape.num_heads * FP32
        return norms + inputs + attention + 4 * shape.intermediate_size * size

    @property
    def copies(self) -> int:
        """Autocast's, of the layers' weights; none in fp32."""
        return 0 if self.dtype == "float32" else self.shape.num_multiplied * BYTES[self.dtype]

    @property
    def _width(self) -> int:
        return self.shape.hidden_size * FP32

    @property
    def _chunk(self) -> int:
        """Tokens that may meet the head at once."""
        return max(1, MAX_LOGITS["cuda" if self.is_gpu else "cpu"] // self.shape.vocab_size)

    @property
    def _has_chunks(self) -> bool:
        return self.num_scored > self._chunk

    @property
    def _logits(self) -> int:
        """fp32, of a chunk."""
        return min(self.num_scored, self._chunk) * self.shape.vocab_size * FP32

    @property
    def _head(self) -> int:
        """Its weights in fp32."""
        return self.shape.vocab_size * self._width

    @property
    def _lower(self) -> float:
        """The head's precision as a share of fp32; 0 where there is no copy in it."""
        return 0 if self.head_dtype == "float32" else BYTES[self.head_dtype] / FP32

    def forward(self) -> Moment:
        """Without gradient: the embeddings, a layer's input, its residual stream and normed values,
        and its MLP."""
        mlp = 3 * self.shape.intermediate_size * BYTES[self.dtype]
        return Moment(self.num_tokens * (4 * self._width + mlp), self.copies)

    def score(self) -> Moment:
        """The dearest moment without gradient."""
        hidden = self.num_scored * self._width
        number = KL_COPIES if self.compares_policies else SCORE_COPIES
        product = (1 + self.compares_policies + self._lower) * self._logits
        logits = max(number * self._logits, product + self._lower * self._head)
        layers = self.forward()
        moments = [
            replace(layers, activations=layers.activations + self.compares_policies * hidden),
            Moment((1 + self.compares_policies) * hidden, 0, int(logits)),
        ]
        return max(moments, key=lambda moment: moment.total)

    def in_layers(self) -> Moment:
        """The dearest moment of the layers, with gradient."""
        return max(self.after_layers(), self.in_last_layer(), key=lambda moment: moment.total)

    def after_layers(self) -> Moment:
        """At the end of the forward pass."""
        kept = self.num_tokens * self.shape.num_layers * self._kept
        inside = self.forward().activations if self.use_checkpointing else 0
        return Moment(kept + inside, self.copies)

    def at_the_head(self) -> Moment:
        """In the backward pass of a chunk of logits, or of the head behind it, which sums the
        gradients of several chunks before it adds them to others."""
        final_norm = 2 * self._width + FP32 + 8
        kept = self.num_tokens * (self.shape.num_layers * self._kept + final_norm)
        number = ENTROPY_COPIES if self.has_entropy_gradient else BACKWARD_COPIES
        softmax = self._lower * self._head + number * self._logits
        product = (1 + self._lower) * self._head + (self._lower or PRODUCT_COPIES) * self._logits
        return Moment(
            kept + 2 * self.num_scored * self._width,
            0 if self.use_checkpointing else self.copies,
            int(self._has_chunks * self._head + max(softmax, product)),
        )

    def in_last_layer(self) -> Moment:
        """In the backward pass of its MLP: two gradients of the MLP's width, two of the residual
        stream's; a tied head's waits for that of the embedding."""
        others = (self.shape.num_layers - 1) * self._kept
        gradients = 2 * self.shape.intermediate_size * BYTES[self.dtype] + 2 * self._width
        layers = self.shape.num_layers if self.use_checkpointing else 1
        return Moment(
            self.num_tokens * (others + self.layer + gradients),
            self.copies // layers,
            self.shape.is_tied * self._head,
        )

    @property
    def _kept(self) -> int:
        """Of a layer, per token: its input alone where the rest is computed again."""
        return self._width if self.use_checkpointing else self.layer


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedMicrobatch(Microbatch):
    """Of one of several ranks among which FSDP2 (torch 2.13) shards the weights.

    Layers are gathered one by one in the compute precision, so that autocast copies nothing; the
    root, in fp32, from a forward pass to the end of its backward pass. Either arrives in a buffer
    from which it is copied out; gradients leave through one in fp32.
    """

    @property
    def copies(self) -> int:
        return 0

    @property
    def _layer_weights(self) -> int:
        numbers = self.shape.num_parameters
        products = (numbers["attention"] + numbers["mlp"]) // self.shape.num_layers
        return products + 2 * self.shape.hidden_size

    @property
    def _gathered(self) -> int:
        """A layer."""
        return self._layer_weights * BYTES[self.dtype]

    @property
    def _root(self) -> int:
        numbers = self.shape.num_parameters
        return (numbers["embedding"] + numbers["head"] + self.shape.hidden_size) * FP32

    def forward(self) -> Moment:
        return replace(Microbatch.forward(self), layers=self._gathered)

    def score(self) -> Moment:
        """Or where the root arrives: that of another policy, beside ours."""
        models, whole = 1 + self.compares_policies, Microbatch.score(self)
        arriving = Moment(0, root=(models + 1) * self._root, layers=models * self._gathered)
        layers = whole.layers + models * self._gathered  # Each keeps its last buffer.
        computing = replace(whole, root=models * self._root, layers=layers)
        return max(arriving, computing, key=lambda moment: moment.total)

    def after_layers(self) -> Moment:
        """The last layer, and the buffer that it came in."""
        whole = Microbatch.after_layers(self)
        return replace(whole, root=self._root, layers=2 * self._gathered)

    def at_the_head(self) -> Moment:
        whole = Microbatch.at_the_head(self)
        return replace(whole, root=self._root, layers=self._gathered)

    def in_layers(self) -> Moment:
        """Or at either end, where the root arrives and where its gradients leave."""
        root = Moment(0, root=2 * self._root, layers=self._layer_weights * FP32)
        return max(root, Microbatch.in_layers(self), key=lambda moment: moment.total)

    def in_last_layer(self) -> Moment:
        """With the layer before it arriving, and the gradients of the layer behind it leaving; the
        head's gradient waits."""
        leaving = self._layer_weights * FP32
        return replace(
            Microbatch.in_last_layer(self),
            logits=self._head,
            root=self._root,
            layers=2 * self._gathered + leaving,
        )
