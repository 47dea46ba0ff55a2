"""The one table of metrics. A key that is logged and is not here fails a test.

Per-token averages are token means (sum over tokens / tokens), per-sequence ones are means over
responses of the sum over tokens; "right" and "wrong" split by the grader's verdict.
"""

from dataclasses import dataclass
from typing import Literal

from opo_cli.types import GRADER_FAILURES

Better = Literal["higher", "lower", ""]


@dataclass(frozen=True, slots=True)
class Metric:
    title: str
    """At most 12 characters, for table heads."""
    formula: str
    unit: str
    better: Better = ""
    digits: int = 3


METRICS: dict[str, Metric] = {
    "step": Metric("step", "rollout batches trained on, this one included", "count", digits=0),
    "policy_version": Metric(
        "version", "steps behind the weights that sampled this batch", "count", digits=0
    ),
    "reward": Metric("reward", "mean over responses of r", "reward", "higher"),
    "accuracy": Metric("accuracy", "share of responses graded correct", "share", "higher"),
    "length": Metric("length", "mean loss tokens per response, EOS included", "tokens", digits=1),
    "length_right": Metric("len right", "mean length of correct responses", "tokens", digits=1),
    "length_wrong": Metric("len wrong", "mean length of the others", "tokens", digits=1),
    "truncated": Metric("truncated", "share of responses cut at max_new_tokens", "share", "lower"),
    "no_answer": Metric(
        "no answer", "share of responses that finished without a box", "share", "lower"
    ),
    **{
        f"grader_{reason}": Metric(
            f"gr. {reason}", f"share of responses whose grading ended in {reason}", "share", "lower"
        )
        for reason in GRADER_FAILURES
    },
    "zero_signal_groups": Metric(
        "zero signal", "share of groups whose rewards are all equal", "share", "lower"
    ),
    "advantage": Metric("advantage", "mean over responses of A (of its tokens' mean)", "reward"),
    "entropy": Metric(
        "entropy", "exact, at rollout weights: mean over tokens of -sum_v p log p", "nats/token"
    ),
    "entropy_sampled": Metric("sampled H", "mean over tokens of -log p(token)", "nats/token"),
    "kl_k1_token": Metric(
        "KL k1/tok", "KL(policy||initial): token mean of log p - log p0", "nats/token"
    ),
    "kl_k3_token": Metric(
        "KL k3/tok", "KL(policy||initial): token mean of k3 = exp(-k1) - 1 + k1", "nats/token"
    ),
    "kl_k1_sequence": Metric(
        "KL k1/seq", "KL(policy||initial): mean over responses of the sum of k1", "nats/sequence"
    ),
    "kl_k3_sequence": Metric(
        "KL k3/seq", "KL(policy||initial): mean over responses of the sum of k3", "nats/sequence"
    ),
    "ratio_deviation": Metric("|rho - 1|", "largest |pi/pi_old - 1| of the step", "ratio"),
    "clip_fraction": Metric("clipped", "share of tokens whose gradient was clipped away", "share"),
    "sampler_mismatch": Metric(
        "mismatch", "largest |log p(trainer) - log p(sampler)| at rollout weights", "nats", "lower"
    ),
    "gradient_norm": Metric("|grad|", "mean over optimizer steps of the norm before clipping", ""),
    "num_optimizer_steps": Metric("updates", "optimizer steps on this batch", "count", digits=0),
    "num_skipped_updates": Metric(
        "skipped", "optimizer steps skipped for a gradient that is not finite", "count", "lower", 0
    ),
    "value_loss": Metric("value loss", "token mean of the clipped value loss", "reward^2", "lower"),
    "explained_variance": Metric(
        "expl. var", "1 - Var(return - V)/Var(return) over tokens, before the update", "", "higher"
    ),
    "learning_rate": Metric("lr", "the policy's", "", digits=6),
    "num_tokens": Metric("tokens", "response tokens of the batch", "tokens", digits=0),
    "rollout_seconds": Metric("rollout s", "sampling the batch", "seconds", "lower", 2),
    "grade_seconds": Metric("grade s", "grading it", "seconds", "lower", 2),
    "score_seconds": Metric(
        "score s", "logprobs and values without gradient", "seconds", "lower", 2
    ),
    "update_seconds": Metric("update s", "forward, backward, optimizer", "seconds", "lower", 2),
    "sync_seconds": Metric(
        "sync s", "handing the new weights to the engine", "seconds", "lower", 2
    ),
    "step_seconds": Metric("step s", "all of the step", "seconds", "lower", 2),
    "tokens_per_second": Metric(
        "tok/s", "response tokens / step_seconds", "tokens/second", "higher", 0
    ),
}
