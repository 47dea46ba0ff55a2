"""Every setting of a run: strict, frozen sections, each field with its description and unit.

`presets.py` makes a `Config` from a preset and the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from opo_cli.choose import check_known, choose
from opo_cli.errors import OpoError
from opo_cli.rl.advantages import ADVANTAGES, TOKEN_LINEAR, Advantage
from opo_cli.rl.objectives import KL_ESTIMATORS, LOSSES, REDUCTIONS, clipped_gradients

Share = Annotated[float, Field(ge=0, le=1)]
MOST = 2**63 - 1  # Of the 64-bit integers that torch, numpy and Parquet count in.
Count = Annotated[int, Field(ge=1, le=MOST)]
Amount = Annotated[int, Field(ge=0, le=MOST)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=1e30)]  # What AdamW makes of it must be a float32.
BudgetUnit = Literal["steps", "samples", "gradient-steps", "tokens"]
"""Keys of `metrics.BUDGETS`."""


class Section(BaseModel):
    """Strict, frozen, unknown keys refused; a string under a field is its description."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Runtime(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the policy lives; auto takes a GPU if there is one."""
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """Rollout engine; auto takes vLLM where it is installed and fits."""
    num_threads: Amount = 0
    """CPU threads of torch; 0 leaves torch's default."""
    num_gpus: Count = 1
    """GPUs that the preset was sized for, one for each rank of torchrun."""
    gpu_gigabytes: Annotated[float, Field(ge=0)] = 0.0
    """Memory of each of them; 0: the preset needs no GPU."""
    timeout_seconds: Count = 1800
    """How long a rank waits for the others, and for its engine to take new weights."""


class Embedded(Section):
    """Shape of the embedded Qwen2, used where `model.path` is empty."""

    hidden_size: Count = 64
    """Width, must be a multiple of 2 x num_heads."""
    intermediate_size: Count = 192
    """Width inside the MLP."""
    num_layers: Count = 3
    """Decoder layers."""
    num_heads: Count = 4
    """Attention heads."""
    num_key_value_heads: Amount = 0
    """Key/value heads; 0: as many as attention heads."""
    vocab_size: Amount = 0
    """Rows of the embedding; 0: as many as the tokenizer has tokens."""
    use_tied_embeddings: bool = True
    """Whether the output embedding is the input's."""
    tokenizer: Literal["task", "bytes"] = "task"
    """task: the words and characters of the embedded task; bytes: any text, with Qwen's chat
    template."""
    max_position_embeddings: Count = 512
    """Longest prompt plus response, tokens."""
    initializer_range: Positive = 0.05
    """Standard deviation of the initial weights."""


class Model(Section):
    path: str = ""
    """Folder (or hub id) of a Hugging Face causal LM; empty: the embedded tiny model."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the trainer's matrix products. Weights, gradients, optimizer and logprobs are float32."""
    head_dtype: Literal["compute", "float32"] = "compute"
    """Of the output embedding's product, in trainer and vLLM; compute: as all others."""
    embedded: Embedded = Embedded()
    """The embedded model's shape."""


class Columns(Section):
    """Columns of a data set; `a.b` reaches into nested ones. Empty: found by their usual names."""

    question: str = ""
    """The problem's text."""
    answer: str = ""
    """The reference answer, or a solution that ends with it."""
    id: str = ""
    """What names the problem."""
    level: str = ""
    """Difficulty."""
    subject: str = ""
    """Field."""


class Data(Section):
    source: str = ""
    """Training problems: a row of `opo list datasets`, a hub data set's id, or a JSONL, Parquet or
    CSV file; empty: the embedded task."""
    config: str = ""
    """The hub data set's config, or several: A,B; empty: its default."""
    split: str = "train"
    """The hub data set's split."""
    revision: str = ""
    """The hub data set's commit, tag or branch; empty: the newest."""
    columns: Columns = Columns()
    """Of the hub data set or file."""
    limit: Amount = 0
    """Only the first problems of the source; 0: all."""
    max_prompt_tokens: Count = 1024
    """Longer prompts are left out of training."""
    audit: tuple[str, ...] = ()
    """Benchmarks that training problems are held against for overlap; empty: eval.benchmarks."""
    overlap_words: Count = 13
    """Problems that share so many words in a row overlap (GPT-3's 13); shorter ones when equal."""
    drop_overlap: bool = False
    """Leave overlapping problems out; else they are reported."""
    task: Literal["chains", "search"] = "chains"
    """The embedded task: running totals, or which two terms make a total."""
    num_problems: Count = 4096
    """Distinct training problems (embedded task)."""
    min_terms: Annotated[int, Field(ge=2)] = 2
    """Terms of the shortest training problem (embedded task)."""
    max_terms: Annotated[int, Field(ge=2, le=12)] = 7
    """Terms of the longest training problem (embedded task)."""
    template: str = "auto"
    """Prompt template: a row of `opo list templates`, or a file that holds {question}; auto: that
    of the embedded task for its problems, else the tokenizer's chat template, else boxed."""
    answer_format: Literal["template", "box", "tag", "line", "any"] = "template"
    """Where responses state their answer; template: where the template asks for it."""
    seed: Amount = 0
    """Seed of the embedded task's training problems, shared by all training seeds."""

    @model_validator(mode="after")
    def _ordered(self):
        if self.min_terms > self.max_terms:
            raise ValueError(f"min_terms {self.min_terms} exceeds max_terms {self.max_terms}")
        return self


class Style(Section):
    """One way of writing a solution in the warm start, and how often it goes wrong."""

    share: Share = 0.0
    """Share of the solutions in this style; the four shares add to 1."""
    error_rate: Share = 0.0
    """Chance of a wrong total, per step or trial (direct: per answer)."""
    fix_rate: Share = 0.0
    """Chance that a wrong total is noticed and put right (checked)."""
    no_answer_rate: Share = 0.0
    """Chance that the solution ends without a box (ramble)."""
    repeats: tuple[Count, ...] = (1,)
    """How many times the chain is written out (chains, ramble), or trials before the guess (search,
    direct); drawn evenly."""


class Styles(Section):
    direct: Style = Style()
    """The box alone; search: after a few trials."""
    worked: Style = Style()
    """One line per step, then the box; search: each pair is tried once at most."""
    checked: Style = Style()
    """As worked, with each line checked."""
    ramble: Style = Style()
    """The whole chain, perhaps again and again; search: pairs are tried again and again."""

    @model_validator(mode="after")
    def _shares_add_to_one(self):
        total = sum(style.share for _, style in self)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the four shares add to {total:g}, not to 1")
        return self


class Stage(Section):
    """One stage of the supervised warm start."""

    num_tokens: Count
    """Training tokens, prompts included."""
    learning_rate: Rate
    """Peak; linear warm-up, then cosine."""
    styles: Styles
    """The mixture of solutions."""


class Warmstart(Section):
    """Supervised training of the embedded model before any reinforcement learning."""

    stages: tuple[Stage, ...] = ()
    """Run in order; each with a fresh optimizer."""
    batch_size: Count = 64
    """Examples per optimizer step."""
    max_response_tokens: Count = 96
    """Solutions are cut here."""
    microbatch_tokens: Count = 1024
    """Padded tokens per forward and backward."""
    warmup_steps: Count = 20
    """Optimizer steps of linear warm-up."""
    final_learning_rate_fraction: Share = 0.03
    """Where the cosine ends, as a share of the peak."""
    beta2: Decay = 0.98
    """AdamW; beta1 is 0.9."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW."""
    seed: Amount = 0
    """Seed of weights and examples, shared by all training seeds."""


class Algorithm(Section):
    name: str = "opo"
    """A row of `opo list algorithms`."""
    advantage: str = "opo"
    """Advantage estimator."""
    loss: str = "policy-gradient"
    """Loss per token."""
    reduction: str = "token-mean"
    """How token losses become one number."""
    minibatches_per_step: Count = 1
    """Optimizer steps per rollout batch; 1 is exactly on-policy."""
    clip_low: Positive = 0.2
    """The ratio is clipped below at 1 - clip_low; 1 leaves no lower bound."""
    clip_high: Positive = 0.2
    """The ratio is clipped above at 1 + clip_high."""
    dual_clip: Annotated[float, Field(ge=0)] = 0.0
    """Where the advantage is negative, a ratio above this has no gradient; 0: no such bound."""
    tis: Literal["none", "token", "sequence"] = "none"
    """Truncated importance sampling of the trainer's against the sampler's probabilities."""
    tis_cap: Positive = 2.0
    """Upper bound of those weights."""
    kl_in: Literal["none", "loss", "reward"] = "none"
    """Where the KL to the reference policy enters."""
    kl_estimator: str = "k3"
    """KL estimator per token."""
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL term, reward per nat."""
    entropy_coefficient: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the entropy bonus, reward per nat."""
    length_exponent: Annotated[float, Field(ge=-4, le=4)] = 1.6
    """Power of the length in the weights of the 'length-power' baseline."""
    overlong: Literal["none", "mask", "punish"] = "none"
    """Truncated responses: as any other, left out of the loss, or near the limit punished."""
    overlong_buffer: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Where the soft punishment sets in: this share of max_new_tokens before the limit."""
    max_sampling_rounds: Count = 1
    """Dynamic sampling: prompts all right or all wrong are replaced by others in at most so many
    rounds of rollouts; 1: no such thing."""
    whiten_advantages: bool = False
    """Shift and scale advantages to mean 0, variance 1 over the step's tokens."""
    gamma: Share = 1.0
    """Discount per token, of estimators with rewards to go."""
    gae_lambda: Share = 1.0
    """GAE's lambda (critic only)."""
    critic_learning_rate: Rate = 5e-4
    """AdamW (critic only)."""
    value_clip: Positive = 0.2
    """A new value may leave the old one by this much, in reward (critic only)."""
    allow_mismatched_reduction: bool = False
    """Take a reduction that the estimator or the loss is not meant for."""

    @property
    def estimator(self) -> Advantage:
        """The row of `advantage`."""
        return ADVANTAGES[self.advantage]

    @property
    def misfit(self) -> tuple[str, str] | None:
        """(why, what fits instead) where the reduction is not the one that estimator and loss are
        meant for; else None. (Names of another version fit whatever they like.)

        Under sums over tokens a response's gradient has about its length as squared norm, so that
        the best baseline weights it by a growing power of the length; under a mean over its tokens,
        by a falling one. A mean also makes biased what is unbiased for a sum.
        """
        loss, advantage = LOSSES.get(self.loss), ADVANTAGES.get(self.advantage)
        if loss is None or advantage is None:
            return None
        if loss.reductions is not None and self.reduction not in loss.reductions:
            return (
                f"the '{self.loss}' loss, whose ratio belongs to a whole response",
                f"--set algorithm.reduction={loss.reductions[0]}",
            )
        is_power = self.advantage == "length-power"
        exponent = self.length_exponent if is_power else advantage.length_exponent or 0.0
        if self.reduction in TOKEN_LINEAR:
            if exponent >= 0:
                return None
            return (
                f"the '{self.advantage}' baseline: under sums over tokens, weights l^{exponent:g} "
                "have the wrong sign",
                "--set algorithm.length_exponent=1",
            )
        another_sum = "" if loss.reductions else "--set algorithm.reduction=token-mean, or "
        if exponent > 0:
            return (
                f"the '{self.advantage}' baseline: a mean over each response's tokens turns its "
                "length weights round",
                f"{another_sum}--set algorithm.advantage=length-power "
                "--set algorithm.length_exponent=-1, whose weights do",
            )
        if advantage.is_unbiased:
            another_sum = another_sum.replace("token-mean", "seq-mean-token-sum")
            return (
                f"the '{self.advantage}' estimator: a mean over each response's tokens makes it "
                "biased",
                f"{another_sum}--set algorithm.advantage=mean, which promises nothing else",
            )
        return None


class Optim(Section):
    learning_rate: Rate = 1e-6
    """AdamW, constant."""
    beta1: Decay = 0.9
    """AdamW."""
    beta2: Decay = 0.95
    """AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW."""
    max_gradient_norm: Positive = 1.0
    """Gradients are scaled down to this norm."""
    max_skipped_steps: Count = 3
    """Steps in a row without any finite update, after which the run stops."""


class Rollout(Section):
    prompts_per_step: Count = 16
    """Prompts per rollout batch."""
    group_size: Count = 16
    """Responses per prompt."""
    max_new_tokens: Count = 96
    """Longest response, tokens."""
    temperature: Positive = 1.0
    """Of the sampler. What is trained is the policy at temperature 1: all else is off-policy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling; likewise."""
    max_rows: Count = 512
    """Responses decoded at once (at least one group); bounds the key/value cache."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of vLLM's weights and cache; auto: model.compute_dtype."""
    cache_gigabytes: Annotated[float, Field(ge=0)] = 0.0
    """Key/value cache of vLLM; 0: what max_rows of the longest responses need, as far as there is
    room."""
    execution: Literal["auto", "eager", "compiled"] = "auto"
    """How vLLM runs the model; auto: compiled, with CUDA graphs, on a GPU, eager on a CPU."""
    tensor_parallel: Count = 1
    """Neighbouring ranks that share one vLLM, each with a part of every layer."""


class Train(Section):
    steps: Count = 40
    """Rollout batches."""
    budget: Amount = 0
    """Ends the run instead, after the step that reaches it; 0: train.steps ends it."""
    budget_unit: BudgetUnit = "steps"
    """Of the budget: rollout batches, responses sampled, optimizer steps, or response tokens
    sampled."""
    microbatch_tokens: Count = 2048
    """Padded tokens per forward and backward."""
    use_activation_checkpointing: bool = False
    """Keep each layer's input alone, and compute the rest again in the backward pass."""
    use_reference_offload: bool = False
    """Keep the reference policy in host memory while it is not used."""
    use_cpu_offload: bool = False
    """Under torchrun, keep weights, gradients and optimizer in host memory; AdamW runs there."""


class Eval(Section):
    benchmarks: tuple[str, ...] = ()
    """Evaluated before and after training: rows of `opo list benchmarks`, or data files."""
    columns: Columns = Columns()
    """Of the data files among them."""
    validation: tuple[str, ...] = ()
    """Benchmarks or data files by which checkpoints and swept settings are chosen; none of
    eval.benchmarks."""
    checkpoint: Literal["last", "best"] = "last"
    """The final policy: after the last step, or with the highest mean avg@n over eval.validation of
    those evaluated every eval.every steps and the last (of equals the earliest)."""
    every: Amount = 0
    """Steps between evaluations during training; 0: none."""
    during: tuple[str, ...] = ()
    """What those evaluate; empty: eval.benchmarks."""
    samples: Amount = 0
    """Responses per problem; 0: the benchmark's own number."""
    k: tuple[Count, ...] = ()
    """The k of pass@k and maj@k; empty: 1, 4, 16, 64 as far as there are so many samples."""
    limit: Amount = 0
    """Only the first problems of each benchmark; 0: all."""
    max_new_tokens: Amount = 0
    """Longest response, tokens; 0: the benchmark's own limit, or what the model can take."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling."""
    seed: Amount = 0
    """Of the samples; apart from the training's randomness."""
    require_stop: bool = False
    """Whether a truncated response counts as wrong whatever answer it states."""

    @model_validator(mode="after")
    def _enough_samples(self):
        if self.samples and self.k and max(self.k) > self.samples:
            raise ValueError(f"k {max(self.k)} exceeds the {self.samples} samples per problem")
        return self

    @property
    def every_benchmark(self) -> tuple[str, ...]:
        """All that is evaluated at any time, each once."""
        return tuple(dict.fromkeys((*self.benchmarks, *self.during, *self.validation)))


class Grading(Section):
    timeout_seconds: Count = 6
    """A grader worker that takes longer is killed; the response counts as a timeout."""
    memory_megabytes: Annotated[int, Field(ge=512)] = 2048
    """Address space of a grader worker (Linux); beyond it the response counts as out of memory."""
    max_answer_characters: Count = 300
    """Longer answers are refused unread."""
    num_workers: Count = 2
    """Worker processes; started when the first answer needs one."""
    tasks_per_worker: Count = 20_000
    """Answers after which a worker is replaced: parsers cache without bound."""
    require_stop: bool = True
    """In training, a truncated response earns nothing, whatever answer it states."""

    @property
    def limits(self) -> dict[str, int]:
        """What may turn a verdict into a failure."""
        return {
            "timeout_seconds": self.timeout_seconds,
            "memory_megabytes": self.memory_megabytes,
            "max_answer_characters": self.max_answer_characters,
        }


class Checkpoint(Section):
    every: Count = 10
    """Steps between checkpoints."""
    keep: Count = 2
    """Checkpoints kept, the newest: one that is damaged is made good from the one before."""
    snapshot_every: Amount = 0
    """Steps between snapshots, weights that stay when the run is finished; 0: none."""
    snapshot_moments: bool = False
    """Keep the optimizer's second moments with them, for `opo lab --along --precondition adam`."""
    grace_seconds: Annotated[float, Field(ge=0)] = 20.0
    """What a step in flight may still take after a signal, once weights began to change; saving
    comes on top."""


class Certificate(Section):
    """What a step must stay under to count as exact on-policy."""

    max_mismatch: Positive = 1e-3
    """Largest |log p(trainer) - log p(sampler)| of a token, nats."""
    max_ratio_deviation: Positive = 1e-3
    """Largest |pi/pi_old - 1| of a token."""


class Measure(Section):
    """The instruments that cost something."""

    every: Amount = 1
    """Steps between measurements of KL, policy shift, gradient noise and diversity; 0: never."""
    responses: Count = 1
    """Responses per prompt on which KL and policy shift are measured: forward passes are dear."""
    probe_every: Amount = 10
    """Steps between exact KL and entropy on the probe prompts; 0: never."""
    probe_prompts: Count = 16
    """Fixed training prompts, one response each; the same for every seed and algorithm."""


class Ledger(Section):
    """Rollouts kept in the run folder."""

    every: Amount = 1
    """Steps between those whose rollouts are kept; 0: none."""
    max_megabytes: Count = 64
    """Beyond it, every second of the kept steps is dropped."""


class Compare(Section):
    """What `opo compare --preset` runs unless told otherwise."""

    algorithms: Annotated[tuple[str, ...], Field(min_length=1)] = ("opo", "grpo", "ppo")
    """Rows of `opo list algorithms`."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    """Training seeds of each."""
    match: BudgetUnit = "steps"
    """The budget that all algorithms share; see train.budget_unit."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """The smallest difference in accuracy that matters: what verdicts are about."""


class Config(Section):
    preset: str
    """The preset that this config started from."""
    description: str
    """One line about the preset."""
    seed: Amount = 0
    """Training seed: prompts, sampling and shuffling follow from (seed, step, row)."""
    runtime: Runtime = Runtime()
    model: Model = Model()
    data: Data = Data()
    warmstart: Warmstart = Warmstart()
    algorithm: Algorithm = Algorithm()
    optim: Optim = Optim()
    rollout: Rollout = Rollout()
    train: Train = Train()
    eval: Eval = Eval()
    grading: Grading = Grading()
    checkpoint: Checkpoint = Checkpoint()
    certificate: Certificate = Certificate()
    measure: Measure = Measure()
    ledger: Ledger = Ledger()
    compare: Compare = Compare()

    @property
    def num_rows(self) -> int:
        """Responses per step."""
        return self.rollout.prompts_per_step * self.rollout.group_size

    @property
    def has_one_update(self) -> bool:
        """One optimizer step per batch: the old logprobs are the update's own."""
        return self.algorithm.minibatches_per_step == 1

    @property
    def scores_before_update(self) -> bool:
        """Whether the policy's logprobs at rollout time are computed before the update: where they
        are not the update's own, or the estimator or the reward asks for them earlier."""
        algorithm = self.algorithm
        is_early = algorithm.kl_in == "reward" or algorithm.estimator.needs_logit_norms
        return is_early or not self.has_one_update

    @property
    def off_policy_reasons(self) -> list[str]:
        """Why no step of this config can be exact on-policy, in words; empty where it can."""
        algorithm, rollout = self.algorithm, self.rollout
        found = {
            f"{algorithm.minibatches_per_step} updates per batch": not self.has_one_update,
            f"temperature {rollout.temperature:g}": rollout.temperature != 1,
            f"top-p {rollout.top_p:g}": rollout.top_p != 1,
            f"TIS per {algorithm.tis}": algorithm.tis != "none",
        }
        return [reason for reason, is_so in found.items() if is_so]


def value_at(config: Config, key: str) -> Any:
    """`key`: `section.key`."""
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """With other values at `section.key`, unchecked."""
    for key, value in settings.items():
        section, name = key.split(".")
        part = getattr(config, section).model_copy(update={name: value})
        config = config.model_copy(update={section: part})
    return config


def check(config: Config) -> None:
    """Settings that must fit together.

    Raises:
        OpoError: the first pair that does not.
    """
    algorithm, rollout = config.algorithm, config.rollout
    advantage = choose(algorithm.advantage, ADVANTAGES, "advantage estimator")
    loss = choose(algorithm.loss, LOSSES, "loss")
    check_known(algorithm.reduction, REDUCTIONS, "reduction")
    check_known(algorithm.kl_estimator, KL_ESTIMATORS, "KL estimator")
    if algorithm.gamma != 1 and not advantage.uses_gamma:
        discounting = [name for name, row in ADVANTAGES.items() if row.uses_gamma]
        raise OpoError(
            f"algorithm.gamma = {algorithm.gamma:g}: the '{algorithm.advantage}' estimator has one "
            "reward per response and discounts nothing",
            f"--set algorithm.gamma=1; estimators that discount: {', '.join(discounting)}",
        )
    if algorithm.kl_in == "reward" and not advantage.takes_kl_in_reward:
        raise OpoError(
            f"algorithm.kl_in = 'reward': the '{algorithm.advantage}' estimator divides by the "
            "group's spread, which would scale the penalty up wherever rewards are equal",
            "--set algorithm.kl_in=loss --set algorithm.kl_estimator=k2",
        )
    if advantage.needs_group and rollout.group_size < 2:
        raise OpoError(
            f"rollout.group_size = {rollout.group_size}: the '{algorithm.advantage}' baseline "
            "compares the responses of a prompt and needs at least 2",
            "--set rollout.group_size=8, or --algorithm ppo, which needs no group",
        )
    if algorithm.kl_in == "loss" and algorithm.kl_estimator == "k1":
        raise OpoError(
            "algorithm.kl_estimator = 'k1' in the loss: its expected gradient is zero",
            "--set algorithm.kl_estimator=k2 (or k3+), or --set algorithm.kl_in=reward",
        )
    if algorithm.kl_in == "none" and algorithm.kl_coefficient:
        raise OpoError(
            f"algorithm.kl_coefficient = {algorithm.kl_coefficient:g}: algorithm.kl_in is 'none'",
            "--set algorithm.kl_in=loss (or reward), or leave the coefficient out",
        )
    if rollout.prompts_per_step % algorithm.minibatches_per_step:
        raise OpoError(
            f"algorithm.minibatches_per_step = {algorithm.minibatches_per_step} does not divide "
            f"rollout.prompts_per_step = {rollout.prompts_per_step}",
            "whole groups go into each minibatch; change one of the two",
        )
    if algorithm.dual_clip and algorithm.dual_clip <= 1 + algorithm.clip_high:
        raise OpoError(
            f"algorithm.dual_clip = {algorithm.dual_clip:g} does not exceed the upper bound "
            f"{1 + algorithm.clip_high:g} of the ratio",
            "--set algorithm.dual_clip=3, or 0 for none",
        )
    if algorithm.dual_clip and loss.clipped is not clipped_gradients:
        raise OpoError(
            f"algorithm.dual_clip = {algorithm.dual_clip:g}: the '{algorithm.loss}' loss has no "
            "such bound",
            "--set algorithm.dual_clip=0, or --set algorithm.loss=ppo-clip",
        )
    if algorithm.max_sampling_rounds > 1 and rollout.group_size < 2:
        raise OpoError(
            f"algorithm.max_sampling_rounds = {algorithm.max_sampling_rounds}: a group of one is "
            "always all right or all wrong",
            "--set rollout.group_size=8, or --set algorithm.max_sampling_rounds=1",
        )
    misfit = algorithm.misfit
    if misfit is not None and not algorithm.allow_mismatched_reduction:
        why, alternative = misfit
        raise OpoError(
            f"algorithm.reduction = '{algorithm.reduction}' does not fit {why}",
            f"{alternative}; or --set algorithm.allow_mismatched_reduction=true to measure just "
            "that",
        )
    _check_budget(config.train)
    _check_validation(config.eval)
    if not config.model.path:
        _check_heads(config.model.embedded)


def _check_budget(train: Train) -> None:
    if not train.budget and train.budget_unit != "steps":
        raise OpoError(
            f"train.budget_unit = '{train.budget_unit}' without a budget",
            "--set train.budget=N, N of them; or --set train.budget_unit=steps",
        )


def _check_validation(evaluation: Eval) -> None:
    shared = [name for name in evaluation.validation if name in evaluation.benchmarks]
    if shared:
        raise OpoError(
            f"'{shared[0]}' is in eval.validation and in eval.benchmarks: what it chooses would be "
            "reported on it",
            "leave it out of one of the two",
        )
    if evaluation.checkpoint == "best" and not evaluation.validation:
        raise OpoError(
            "eval.checkpoint = 'best' without eval.validation to choose by",
            "--set eval.checkpoint=last, or name some: "
            """--set 'eval.validation=["tiny-validation"]'""",
        )
    if evaluation.checkpoint == "best" and not evaluation.every:
        raise OpoError(
            "eval.checkpoint = 'best' with eval.every = 0: there is but the last to choose from",
            "--set eval.every=10, or --set eval.checkpoint=last",
        )


def _check_heads(shape: Embedded) -> None:
    if shape.hidden_size % (2 * shape.num_heads):
        raise OpoError(
            f"model.embedded.hidden_size = {shape.hidden_size} is no multiple of "
            f"2 x num_heads = {2 * shape.num_heads}",
            "rotary embeddings need heads of even width",
        )
    if shape.num_key_value_heads and shape.num_heads % shape.num_key_value_heads:
        fitting = [n for n in range(1, shape.num_heads + 1) if shape.num_heads % n == 0]
        raise OpoError(
            f"model.embedded.num_key_value_heads = {shape.num_key_value_heads} does not divide "
            f"num_heads = {shape.num_heads}",
            f"--set model.embedded.num_key_value_heads=N, N one of {', '.join(map(str, fitting))}",
        )
