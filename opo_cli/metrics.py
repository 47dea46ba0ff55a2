"""The one table of metrics. A key that is logged and is not here fails a test.

Per-token averages are token means (sum over tokens / tokens), per-sequence ones are means over
responses of the sum over tokens; "right" and "wrong" split by the grader's verdict. KL names say
estimator and direction; the initial policy is also the reference policy of KL terms, as that is
never refreshed. Unless a formula says otherwise, tokens are those of the step's batch, at the
weights that sampled it.
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
    "exact_on_policy": Metric(
        "on-policy", "1 where the step's certificate holds, else 0", "flag", "higher", 0
    ),
    # --- responses: all that were sampled, those that dynamic sampling replaced included
    "accuracy": Metric("accuracy", "share of responses graded correct", "share", "higher"),
    "accuracy_completed": Metric(
        "acc. done", "share of correct among responses that ended by themselves", "share", "higher"
    ),
    "accuracy_truncated": Metric(
        "acc. cut", "share of correct among responses cut at max_new_tokens", "share", "higher"
    ),
    "length": Metric("length", "mean loss tokens per response, EOS included", "tokens", digits=1),
    "length_right": Metric("len right", "mean length of correct responses", "tokens", digits=1),
    "length_wrong": Metric("len wrong", "mean length of the others", "tokens", digits=1),
    "masked": Metric("masked", "share of trained-on responses without a loss token", "share"),
    "truncated": Metric("truncated", "share of responses cut at max_new_tokens", "share", "lower"),
    "no_answer": Metric(
        "no answer",
        "share of responses with nothing where the answer should stand",
        "share",
        "lower",
    ),
    **{
        f"grader_{reason}": Metric(
            f"gr. {reason}", f"share of responses whose grading ended in {reason}", "share", "lower"
        )
        for reason in GRADER_FAILURES
    },
    "zero_signal_groups": Metric(
        "zero signal", "share of groups whose graded rewards are all equal", "share", "lower"
    ),
    "all_right_groups": Metric("all right", "share of groups with no wrong response", "share"),
    "all_wrong_groups": Metric("all wrong", "share of groups with no correct response", "share"),
    "num_sampled_groups": Metric("groups", "groups sampled for the step", "count", digits=0),
    "num_samples": Metric(
        "samples",
        "responses sampled for the step, a baseline's greedy ones included",
        "count",
        "",
        0,
    ),
    "num_tokens": Metric("tokens", "response tokens of those", "tokens", digits=0),
    # --- rewards and advantages: of the batch that was trained on
    "reward": Metric(
        "reward", "mean over responses of r, shaped and before any KL penalty", "reward", "higher"
    ),
    "advantage": Metric("advantage", "mean over responses of A (of its tokens' mean)", "reward"),
    "advantage_abs": Metric("|A|", "mean over loss tokens of |A|", "reward"),
    "baseline_gap": Metric(
        "mean - b*", "mean over responses of the group's mean r - sum(l r)/sum(l)", "reward"
    ),
    "ess_lengths": Metric(
        "ESS lengths", "mean over responses of (sum l)^2/(N sum l^2) of the group", "share"
    ),
    "length_reward_corr": Metric(
        "corr(l, r)", "Pearson's, of length and r, each less its group's mean", ""
    ),
    # --- the policy
    "entropy": Metric("entropy", "exact: mean over tokens of -sum_v p log p", "nats/token"),
    "entropy_sequence": Metric(
        "entropy/seq", "exact: mean over responses of the sum of -sum_v p log p", "nats/sequence"
    ),
    "entropy_sampled": Metric("sampled H", "mean over tokens of -log p(token)", "nats/token"),
    "entropy_sampled_sequence": Metric(
        "smpl H/seq", "mean over responses of -log p(response)", "nats/sequence"
    ),
    **{
        f"kl_{name}_{per}": Metric(
            f"KL {name}/{per[:3]}",
            f"KL(policy||initial), {how}, {mean}, on measure.responses per prompt",
            f"nats/{per}",
        )
        for name, how in {
            "exact": "over the vocabulary at each token",
            "k1": "k1 = log p - log p0 of each token",
            "k3": "k3 = exp(-k1) - 1 + k1 of each token",
        }.items()
        for per, mean in {
            "token": "token mean",
            "sequence": "mean over responses of the sum",
        }.items()
    },
    "probe_entropy": Metric(
        "probe H", "exact: token mean on new responses to the probe prompts", "nats/token"
    ),
    "probe_entropy_sequence": Metric(
        "probe H/seq", "exact: mean over responses to the probe prompts of the sum", "nats/sequence"
    ),
    "probe_kl_token": Metric(
        "prb KL/tok", "KL(policy||initial), exact over the vocabulary: token mean", "nats/token"
    ),
    "probe_kl_sequence": Metric(
        "prb KL/seq",
        "KL(policy||initial), exact over the vocabulary: mean over responses of the sum",
        "nats/sequence",
    ),
    "probe_reverse_kl_token": Metric(
        "prb KL0/tok",
        "KL(initial||policy), exact over the vocabulary, at the policy's states: token mean",
        "nats/token",
    ),
    "probe_length": Metric(
        "probe len", "mean length of the responses to the probe prompts", "tokens", digits=1
    ),
    "policy_shift_token": Metric(
        "shift/tok",
        "KL(policy before||after the step): token mean of k3, on measure.responses per prompt",
        "nats/token",
        digits=5,
    ),
    "policy_shift_sequence": Metric(
        "shift/seq",
        "KL(policy before||after the step): mean over those responses of the sum of k3",
        "nats/sequence",
        digits=4,
    ),
    "logit_norm": Metric(
        "logit norm", "mean over tokens of 1 - 2 p + sum_v p^2 = |d log p / d logits|^2", ""
    ),
    # --- diversity, in tokens of the model without EOS, within each group
    "distinct_2": Metric(
        "distinct-2", "different 2-grams / 2-grams of a group, mean over groups", "share", "higher"
    ),
    "rep_4": Metric(
        "Rep-4",
        "mean over responses of 1 - different 4-grams / 4-grams",
        "share",
        "lower",
    ),
    "self_bleu": Metric(
        "Self-BLEU", "BLEU-4 of a response against the rest of its group, mean", "share", "lower"
    ),
    "answer_entropy": Metric(
        "answer H", "entropy of a group's extracted answers, none being one; mean", "nats", "higher"
    ),
    # --- on-policy, ratio and sampler
    "ratio_deviation": Metric(
        "|rho - 1|",
        "largest |pi/pi_old - 1| of a token; 0 by construction where one pass scores both",
        "ratio",
    ),
    "clip_fraction": Metric("clipped", "share of loss tokens that were clipped", "share"),
    "clip_fraction_low": Metric("clipped low", "those below the lower bound", "share"),
    "clip_fraction_high": Metric("clipped high", "those above the upper bound", "share"),
    "ess_ratio": Metric(
        "ESS ratio", "(sum rho)^2/(n sum rho^2) over the step's loss tokens", "share", "higher"
    ),
    "sampler_mismatch": Metric(
        "mismatch", "largest |log p(trainer) - log p(sampler)|, nothing truncated", "nats", "lower"
    ),
    "sampler_mismatch_mean": Metric(
        "mism. mean", "mean over tokens of |log p(trainer) - log p(sampler)|", "nats", "lower", 6
    ),
    "sampler_mismatch_k3": Metric(
        "mism. k3", "KL(sampler||trainer): token mean of k3", "nats/token", "lower", 6
    ),
    "sampler_mismatch_sequence": Metric(
        "mism. seq",
        "largest |log p(trainer) - log p(sampler)| of a response, nothing truncated",
        "nats",
        "lower",
    ),
    "ess_sampler": Metric(
        "ESS sampler",
        "(sum w)^2/(n sum w^2) of w = p(trainer)/p(sampler) of each response, nothing truncated",
        "share",
        "higher",
        4,
    ),
    # --- the update
    "surrogate_loss": Metric(
        "surrogate",
        "the policy's loss without KL and entropy terms, mean over updates; no measure of "
        "progress: under exact on-policy OPO with token-mean it is 0 by construction",
        "reward",
    ),
    "kl_loss": Metric(
        "KL loss",
        "coefficient x KL term of the loss, reduced likewise, mean over updates",
        "reward",
    ),
    "gradient_norm": Metric("|grad|", "mean over optimizer steps of the norm before clipping", ""),
    "gradient_noise": Metric(
        "grad noise",
        "trace of the gradient's covariance, from the two halves of each update's prompts: "
        "n_A n_B/n^2 |g_A - g_B|^2, mean over updates",
        "",
        digits=5,
    ),
    "gradient_noise_share": Metric(
        "noise share", "sum of that / sum of |grad|^2, over the step's updates", "share", "lower"
    ),
    "num_optimizer_steps": Metric("updates", "optimizer steps on this batch", "count", digits=0),
    "num_skipped_updates": Metric(
        "skipped",
        "optimizer steps, the critic's too, skipped for a loss or gradient that is not finite",
        "count",
        "lower",
        0,
    ),
    "value_loss": Metric("value loss", "token mean of the clipped value loss", "reward^2", "lower"),
    "explained_variance": Metric(
        "expl. var", "1 - Var(return - V)/Var(return) over tokens, before the update", "", "higher"
    ),
    "learning_rate": Metric("lr", "the policy's", "", digits=6),
    # --- time
    "rollout_seconds": Metric("rollout s", "sampling the batch", "seconds", "lower", 2),
    "grade_seconds": Metric("grade s", "grading it", "seconds", "lower", 2),
    "score_seconds": Metric(
        "score s", "logprobs and values without gradient", "seconds", "lower", 2
    ),
    "update_seconds": Metric("update s", "forward, backward, optimizer", "seconds", "lower", 2),
    "measure_seconds": Metric(
        "measure s", "instruments outside of score and update", "seconds", "lower", 2
    ),
    "sync_seconds": Metric(
        "sync s", "handing the new weights to the engine", "seconds", "lower", 2
    ),
    "ledger_seconds": Metric(
        "ledger s", "writing the rollouts down, outside of the step", "seconds", "lower", 2
    ),
    "step_seconds": Metric("step s", "all of the step", "seconds", "lower", 2),
    "tokens_per_second": Metric(
        "tok/s", "response tokens / step_seconds", "tokens/second", "higher", 0
    ),
    # --- memory
    "memory_gigabytes": Metric(
        "memory GB",
        "most that the process has held so far: on a GPU the tensors that torch counts there (of a "
        "sleeping vLLM, too), on a CPU all of it, libraries included",
        "GB",
        "lower",
    ),
}

BUDGETS = {
    "steps": None,
    "samples": "num_samples",
    "gradient-steps": "num_optimizer_steps",
    "tokens": "num_tokens",
}
"""Unit of a budget -> the metric whose sum over a run's steps it bounds; steps count themselves."""
