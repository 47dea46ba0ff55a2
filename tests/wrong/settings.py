"""Wrong settings: keys, types, ranges, TOML, and settings that do not fit together."""

# ruff: noqa: E501 - a message is one line, as a user sees it.

from __future__ import annotations

from tests.wrong.places import Wrong, file

ROWS = [
    Wrong(
        line="prepare --set data.source=../up",
        error="'../up' is no hub data set",
        hint="for example: --set data.source=owner/name",
    ),
    Wrong(
        line="prepare --set data.source=nowhere.csv",
        error="data.source = 'nowhere.csv': there is no such file",
        hint="the path counts from here",
    ),
    Wrong(
        line="train --set 'optim.lr=1'",
        error="unknown config key 'optim.lr'",
        hint="known keys: learning_rate, beta1, beta2, weight_decay, max_gradient_norm, max_skipped_steps",
    ),
    Wrong(
        line="train --set 'optim.learning_rat=1'",
        error="unknown config key 'optim.learning_rat'",
        hint="did you mean 'optim.learning_rate'?",
    ),
    Wrong(
        line="train --set 'optims.x=1'",
        error="unknown config key 'optims'",
        hint="did you mean 'optim'?",
    ),
    Wrong(
        line="train --set 'train.steps'",
        error="--set 'train.steps' is not section.key=value",
        hint="for example: --set rollout.group_size=8",
    ),
    Wrong(
        line="train --set '.=1'",
        error="--set '.=1' is not section.key=value",
        hint="for example: --set rollout.group_size=8",
    ),
    Wrong(
        line="train --set '=1'",
        error="--set '=1' is not section.key=value",
        hint="for example: --set rollout.group_size=8",
    ),
    Wrong(
        line="train --set 'train..steps=1'",
        error="--set 'train..steps=1' is not section.key=value",
        hint="for example: --set rollout.group_size=8",
    ),
    Wrong(
        line="train --set 'train.steps=many'",
        error="train.steps = 'many': input should be a valid integer",
        hint="--set train.steps=VALUE; Rollout batches.",
    ),
    Wrong(
        line="train --set 'train.steps=1.5'",
        error="train.steps = 1.5: input should be a valid integer",
        hint="--set train.steps=VALUE; Rollout batches.",
    ),
    Wrong(
        line="train --set 'train.steps=true'",
        error="train.steps = True: input should be a valid integer",
        hint="--set train.steps=VALUE; Rollout batches.",
    ),
    Wrong(
        line="train --set 'train.steps=[3]'",
        error="train.steps = [3]: input should be a valid integer",
        hint="--set train.steps=VALUE; Rollout batches.",
    ),
    Wrong(
        line="train --set 'train.steps={a=1}'",
        error="train.steps = {'a': 1}: input should be a valid integer",
        hint="--set train.steps=VALUE; Rollout batches.",
    ),
    Wrong(
        line="train --set 'train.steps=\"3\"'",
        error="train.steps = '3': input should be a valid integer",
        hint="--set train.steps=VALUE; Rollout batches.",
    ),
    Wrong(
        line="train --set 'train=5'",
        error="train = 5: input should be an object",
        hint="it is a section: --set train.steps=VALUE and the like",
    ),
    Wrong(
        line="train --set 'algorithm=5'",
        error="algorithm = 5: input should be an object",
        hint="it is a section: --set algorithm.name=VALUE and the like",
    ),
    Wrong(
        line="train --set 'algorithm.name=opoo'",
        error="unknown algorithm 'opoo'",
        hint="did you mean 'opo'?",
    ),
    Wrong(
        line="train --set 'algorithm.name=[]'",
        error="algorithm.name = []: input should be a valid string",
        hint="--set algorithm.name=VALUE; A row of `opo list algorithms`.",
    ),
    Wrong(
        line="train --set 'seed=-1'",
        error="seed = -1: input should be greater than or equal to 0",
        hint="--set seed=VALUE; Training seed: prompts, sampling and shuffling follow from (seed, step, row).",
    ),
    Wrong(
        line="train --set 'seed=99999999999999999999'",
        error="seed = 99999999999999999999: input should be less than or equal to 9223372036854775807",
        hint="--set seed=VALUE; Training seed: prompts, sampling and shuffling follow from (seed, step, row).",
    ),
    Wrong(
        line="train --set 'seed=1_0.5'",
        error="seed = 10.5: input should be a valid integer",
        hint="--set seed=VALUE; Training seed: prompts, sampling and shuffling follow from (seed, step, row).",
    ),
    Wrong(
        line="train --set 'preset=tinny'",
        error="unknown preset 'tinny'",
        hint="did you mean 'tiny'?",
    ),
    Wrong(
        line="train --set 'preset=5'",
        error="preset = 5: input should be a valid string",
        hint="--set preset=VALUE; The preset that this config started from.",
    ),
    Wrong(
        line="train --set 'optim.learning_rate=nan'",
        error="optim.learning_rate = nan: input should be a finite number",
        hint="--set optim.learning_rate=VALUE; AdamW, constant.",
    ),
    Wrong(
        line="train --set 'optim.learning_rate=inf'",
        error="optim.learning_rate = inf: input should be a finite number",
        hint="--set optim.learning_rate=VALUE; AdamW, constant.",
    ),
    Wrong(
        line="train --set 'optim.learning_rate=0'",
        error="optim.learning_rate = 0: input should be greater than 0",
        hint="--set optim.learning_rate=VALUE; AdamW, constant.",
    ),
    Wrong(
        line="train --set 'optim.learning_rate=-1e-4'",
        error="optim.learning_rate = -0.0001: input should be greater than 0",
        hint="--set optim.learning_rate=VALUE; AdamW, constant.",
    ),
    Wrong(
        line="train --set 'optim.learning_rate=\"\"'",
        error="optim.learning_rate = '': input should be a valid number",
        hint="--set optim.learning_rate=VALUE; AdamW, constant.",
    ),
    Wrong(
        line="train --set 'optim.learning_rate=2026-01-01'",
        error="optim.learning_rate = '2026-01-01': input should be a valid number",
        hint="--set optim.learning_rate=VALUE; AdamW, constant.",
    ),
    Wrong(
        line="train --set 'optim.beta1=1.0'",
        error="optim.beta1 = 1.0: input should be less than 1",
        hint="--set optim.beta1=VALUE; AdamW.",
    ),
    Wrong(
        line="train --set 'rollout.group_size=1'",
        error="rollout.group_size = 1: the 'opo' baseline compares the responses of a prompt and needs at least 2",
        hint="--set rollout.group_size=8, or --algorithm ppo, which needs no group",
    ),
    Wrong(
        line="train --set 'rollout.group_size=9223372036854775808'",
        error="rollout.group_size = 9223372036854775808: input should be less than or equal to 9223372036854775807",
        hint="--set rollout.group_size=VALUE; Responses per prompt.",
    ),
    Wrong(
        line="train --set 'rollout.temperature=0'",
        error="rollout.temperature = 0: input should be greater than 0",
        hint="--set rollout.temperature=VALUE; Of the sampler. What is trained is the policy at temperature 1: all else is off-policy.",
    ),
    Wrong(
        line="train --set 'rollout.temperature=nan'",
        error="rollout.temperature = nan: input should be a finite number",
        hint="--set rollout.temperature=VALUE; Of the sampler. What is trained is the policy at temperature 1: all else is off-policy.",
    ),
    Wrong(
        line="train --set 'rollout.top_p=2'",
        error="rollout.top_p = 2: input should be less than or equal to 1",
        hint="--set rollout.top_p=VALUE; Nucleus sampling; likewise.",
    ),
    Wrong(
        line="train --set 'rollout.max_new_tokens=0'",
        error="rollout.max_new_tokens = 0: input should be greater than or equal to 1",
        hint="--set rollout.max_new_tokens=VALUE; Longest response, tokens.",
    ),
    Wrong(
        line="train --set 'algorithm.minibatches_per_step=3'",
        error="algorithm.minibatches_per_step = 3 does not divide rollout.prompts_per_step = 16",
        hint="whole groups go into each minibatch; change one of the two",
    ),
    Wrong(
        line="train --set 'algorithm.advantage=oppo'",
        error="unknown advantage estimator 'oppo'",
        hint="did you mean 'opo'?",
    ),
    Wrong(
        line="train --set 'algorithm.loss=ppo'",
        error="unknown loss 'ppo'",
        hint="known losses: policy-gradient, ppo-clip, gspo, cispo",
    ),
    Wrong(
        line="train --set 'algorithm.reduction=token'",
        error="unknown reduction 'token'",
        hint="did you mean 'token-mean'?",
    ),
    Wrong(
        line="train --set 'algorithm.kl_estimator=k4'",
        error="unknown KL estimator 'k4'",
        hint="known KL estimators: k1, k2, k3, k3+",
    ),
    Wrong(
        line="train --set 'algorithm.kl_in=los'",
        error="algorithm.kl_in = 'los': input should be 'none', 'loss' or 'reward'",
        hint="--set algorithm.kl_in=VALUE; Where the KL to the reference policy enters.",
    ),
    Wrong(
        line="train --set 'algorithm.advantage=RLOO'",
        error="unknown advantage estimator 'RLOO'",
        hint="did you mean 'rloo'?",
    ),
    Wrong(
        line="train --set 'algorithm.kl_coefficient=1'",
        error="algorithm.kl_coefficient = 1: algorithm.kl_in is 'none'",
        hint="--set algorithm.kl_in=loss (or reward), or leave the coefficient out",
    ),
    Wrong(
        line="train --set 'algorithm.reduction=seq-mean-token-mean'",
        error="algorithm.reduction = 'seq-mean-token-mean' does not fit the 'opo' baseline: a mean over each response's tokens turns its length weights round",
        hint="--set algorithm.reduction=token-mean, or --set algorithm.advantage=length-power --set algorithm.length_exponent=-1, whose weights do; or --set algorithm.allow_mismatched_reduction=true to measure just that",
    ),
    Wrong(
        line="train --set 'algorithm.gamma=0.9'",
        error="algorithm.gamma = 0.9: the 'opo' estimator has one reward per response and discounts nothing",
        hint="--set algorithm.gamma=1; estimators that discount: reinforce++, gae",
    ),
    Wrong(
        line="train --set 'algorithm.dual_clip=1.1'",
        error="algorithm.dual_clip = 1.1 does not exceed the upper bound 1.2 of the ratio",
        hint="--set algorithm.dual_clip=3, or 0 for none",
    ),
    Wrong(
        line="train --set 'algorithm.dual_clip=3'",
        error="algorithm.dual_clip = 3: the 'policy-gradient' loss has no such bound",
        hint="--set algorithm.dual_clip=0, or --set algorithm.loss=ppo-clip",
    ),
    Wrong(
        line="train --set 'algorithm.length_exponent=9'",
        error="algorithm.length_exponent = 9: input should be less than or equal to 4",
        hint="--set algorithm.length_exponent=VALUE; Power of the length in the weights of the 'length-power' baseline.",
    ),
    Wrong(
        line="train --set 'algorithm.overlong=drop'",
        error="algorithm.overlong = 'drop': input should be 'none', 'mask' or 'punish'",
        hint="--set algorithm.overlong=VALUE; Truncated responses: as any other, left out of the loss, or near the limit punished.",
    ),
    Wrong(
        line="train --set 'algorithm.tis=row'",
        error="algorithm.tis = 'row': input should be 'none', 'token' or 'sequence'",
        hint="--set algorithm.tis=VALUE; Truncated importance sampling of the trainer's against the sampler's probabilities.",
    ),
    Wrong(
        line="train --set 'algorithm.max_sampling_rounds=0'",
        error="algorithm.max_sampling_rounds = 0: input should be greater than or equal to 1",
        hint="--set algorithm.max_sampling_rounds=VALUE; Dynamic sampling: prompts all right or all wrong are replaced by others in at most so many rounds of rollouts; 1: no such thing.",
    ),
    Wrong(
        line="train --set 'ledger.max_megabytes=0'",
        error="ledger.max_megabytes = 0: input should be greater than or equal to 1",
        hint="--set ledger.max_megabytes=VALUE; Beyond it, every second of the kept steps is dropped.",
    ),
    Wrong(
        line="train --set 'measure.every=-1'",
        error="measure.every = -1: input should be greater than or equal to 0",
        hint="--set measure.every=VALUE; Steps between measurements of KL, policy shift, gradient noise and diversity; 0: never.",
    ),
    Wrong(
        line="train --set 'data.template=foo'",
        error="unknown template 'foo'",
        hint="known templates: auto, line, plain, boxed, chat, qwen-math, qwen-boxed, r1-distill, r1-zero, dapo",
    ),
    Wrong(
        line="train --set 'data.min_terms=9'",
        error="data: min_terms 9 exceeds max_terms 7",
        hint="change data in the preset or by --set",
    ),
    Wrong(
        line="train --set 'data.task=sums'",
        error="data.task = 'sums': input should be 'chains' or 'search'",
        hint="--set data.task=VALUE; The embedded task: running totals, or which two terms make a total.",
    ),
    Wrong(
        line="train --set 'data.source=nope.jsonl'",
        error="data.source = 'nope.jsonl': there is no such file",
        hint="the path counts from here",
    ),
    Wrong(
        line="train --set 'data.source=MTAH'",
        error="unknown training set 'MTAH'",
        hint="did you mean 'MATH'?; or a hub data set (owner/name), or a file (.jsonl, .json, .parquet, .csv)",
    ),
    Wrong(
        line="train --set 'data.source=a/b/c'",
        error="'a/b/c' is no hub data set",
        hint="for example: --set data.source=owner/name",
    ),
    Wrong(
        line="train --set 'data.source=../up.jsonl'",
        error="data.source = '../up.jsonl': there is no such file",
        hint="the path counts from here",
    ),
    Wrong(
        line="train --set 'data.columns.q=a'",
        error="unknown config key 'data.columns.q'",
        hint="known keys: question, answer, id, level, subject",
    ),
    Wrong(
        line="train --set 'data.columns=5'",
        error="data.columns = 5: input should be an object",
        hint="it is a section: --set data.columns.question=VALUE and the like",
    ),
    Wrong(
        line="train --set 'data.audit=AIME24'",
        error="data.audit = 'AIME24': input should be a valid array",
        hint="--set data.audit=VALUE; Benchmarks that training problems are held against for overlap; empty: eval.benchmarks.",
    ),
    Wrong(
        line="train --set 'data.audit=[\"AIME42\"]'",
        error="unknown benchmark 'AIME42'",
        hint="did you mean 'AIME25'?",
    ),
    Wrong(
        line="train --set 'data.limit=-1'",
        error="data.limit = -1: input should be greater than or equal to 0",
        hint="--set data.limit=VALUE; Only the first problems of the source; 0: all.",
    ),
    Wrong(
        line="train --set 'data.overlap_words=0'",
        error="data.overlap_words = 0: input should be greater than or equal to 1",
        hint="--set data.overlap_words=VALUE; Problems that share so many words in a row overlap (GPT-3's 13); shorter ones when equal.",
    ),
    Wrong(
        line="train --set 'eval.benchmarks=tiny-easy'",
        error="eval.benchmarks = 'tiny-easy': input should be a valid array",
        hint="--set eval.benchmarks=VALUE; Evaluated before and after training: rows of `opo list benchmarks`, or data files.",
    ),
    Wrong(
        line="train --set 'eval.benchmarks=[\"tiny-easy\",5]'",
        error="eval.benchmarks[1] = 5: input should be a valid string",
        hint="--set eval.benchmarks=VALUE; Evaluated before and after training: rows of `opo list benchmarks`, or data files.",
    ),
    Wrong(
        line="train --set 'eval.benchmarks=[\"tiny-easy\"'",
        error="eval.benchmarks = '[\"tiny-easy\"': input should be a valid array",
        hint="--set eval.benchmarks=VALUE; Evaluated before and after training: rows of `opo list benchmarks`, or data files.",
    ),
    Wrong(
        line="train --set 'eval.k=[32]'",
        error="k 32 exceeds the 8 samples per problem of 'tiny-easy'",
        hint="--set eval.samples=32, or a smaller eval.k",
    ),
    Wrong(
        line="train --set 'eval.k=[0]'",
        error="eval.k[0] = 0: input should be greater than or equal to 1",
        hint="--set eval.k=VALUE; The k of pass@k and maj@k; empty: 1, 4, 16, 64 as far as there are so many samples.",
    ),
    Wrong(
        line="train --set 'eval.every=-1'",
        error="eval.every = -1: input should be greater than or equal to 0",
        hint="--set eval.every=VALUE; Steps between evaluations during training; 0: none.",
    ),
    Wrong(
        line="train --set 'eval.validation=[\"tiny-easy\"]'",
        error="'tiny-easy' is in eval.validation and in eval.benchmarks: what it chooses would be reported on it",
        hint="leave it out of one of the two",
    ),
    Wrong(
        line="train --set 'eval.checkpoint=best'",
        error="eval.checkpoint = 'best' with eval.every = 0: there is but the last to choose from",
        hint="--set eval.every=10, or --set eval.checkpoint=last",
    ),
    Wrong(
        line="train --set 'eval.samples=-1'",
        error="eval.samples = -1: input should be greater than or equal to 0",
        hint="--set eval.samples=VALUE; Responses per problem; 0: the benchmark's own number.",
    ),
    Wrong(
        line="train --set 'runtime.device=tpu'",
        error="runtime.device = 'tpu': input should be 'auto', 'cpu' or 'cuda'",
        hint="--set runtime.device=VALUE; Where the policy lives; auto takes a GPU if there is one.",
    ),
    Wrong(
        line="train --set 'runtime.num_threads=-1'",
        error="runtime.num_threads = -1: input should be greater than or equal to 0",
        hint="--set runtime.num_threads=VALUE; CPU threads of torch; 0 leaves torch's default.",
    ),
    Wrong(
        line="train --set 'model.compute_dtype=float16'",
        error="model.compute_dtype = 'float16': input should be 'float32' or 'bfloat16'",
        hint="--set model.compute_dtype=VALUE; Of the trainer's matrix products. Weights, gradients, optimizer and logprobs are float32.",
    ),
    Wrong(
        line="train --set 'model.embedded.num_heads=3'",
        error="model.embedded.hidden_size = 64 is no multiple of 2 x num_heads = 6",
        hint="rotary embeddings need heads of even width",
    ),
    Wrong(
        line="train --set 'model.embedded.num_key_value_heads=3'",
        error="model.embedded.num_key_value_heads = 3 does not divide num_heads = 4",
        hint="--set model.embedded.num_key_value_heads=N, N one of 1, 2, 4",
    ),
    Wrong(
        line="train --set 'model.embedded.vocab_size=3'",
        error="model.embedded.vocab_size = 3: the 'task' tokenizer has 26 tokens",
        hint="--set model.embedded.vocab_size=26 or more, or 0 for just as many",
    ),
    Wrong(
        line="train --set 'model.embedded.tokenizer=words'",
        error="model.embedded.tokenizer = 'words': input should be 'task' or 'bytes'",
        hint="--set model.embedded.tokenizer=VALUE; task: the words and characters of the embedded task; bytes: any text, with Qwen's chat template.",
    ),
    Wrong(
        line="train --set 'model.path=5'",
        error="model.path = 5: input should be a valid string",
        hint="--set model.path=VALUE; Folder (or hub id) of a Hugging Face causal LM; empty: the embedded tiny model.",
    ),
    Wrong(
        line="train --set 'model.path=nowhere/at/all'",
        error="model folder 'nowhere/at/all' does not exist",
        hint="give a Hugging Face model folder (config.json, tokenizer.json, model.safetensors)",
    ),
    Wrong(
        line="train --set 'checkpoint.every=0'",
        error="checkpoint.every = 0: input should be greater than or equal to 1",
        hint="--set checkpoint.every=VALUE; Steps between checkpoints.",
    ),
    Wrong(
        line="train --set 'checkpoint.keep=0'",
        error="checkpoint.keep = 0: input should be greater than or equal to 1",
        hint="--set checkpoint.keep=VALUE; Checkpoints kept, the newest: one that is damaged is made good from the one before.",
    ),
    Wrong(
        line="train --set 'grading.timeout_seconds=0'",
        error="grading.timeout_seconds = 0: input should be greater than or equal to 1",
        hint="--set grading.timeout_seconds=VALUE; A grader worker that takes longer is killed; the response counts as a timeout.",
    ),
    Wrong(
        line="train --set 'grading.memory_megabytes=1'",
        error="grading.memory_megabytes = 1: input should be greater than or equal to 512",
        hint="--set grading.memory_megabytes=VALUE; Address space of a grader worker (Linux); beyond it the response counts as out of memory.",
    ),
    Wrong(
        line="train --set 'train.budget_unit=tokens'",
        error="train.budget_unit = 'tokens' without a budget",
        hint="--set train.budget=N, N of them; or --set train.budget_unit=steps",
    ),
    Wrong(
        line="train --set 'train.budget=-1'",
        error="train.budget = -1: input should be greater than or equal to 0",
        hint="--set train.budget=VALUE; Ends the run instead, after the step that reaches it; 0: train.steps ends it.",
    ),
    Wrong(
        line="train --set 'compare.seeds=[]'",
        error="compare.seeds = []: tuple should have at least 1 item after validation, not 0",
        hint="--set compare.seeds=VALUE; Training seeds of each.",
    ),
    Wrong(
        line="train --set 'compare.margin=2'",
        error="compare.margin = 2: input should be less than 1",
        hint="--set compare.margin=VALUE; The smallest difference in accuracy that matters: what verdicts are about.",
    ),
    Wrong(
        line="train --set 'certificate.max_mismatch=0'",
        error="certificate.max_mismatch = 0: input should be greater than 0",
        hint="--set certificate.max_mismatch=VALUE; Largest |log p(trainer) - log p(sampler)| of a token, nats.",
    ),
    Wrong(
        line="train --set 'warmstart.stages=5'",
        error="warmstart.stages = 5: input should be a valid array",
        hint="--set warmstart.stages=VALUE; Run in order; each with a fresh optimizer.",
    ),
    Wrong(
        line="train --set 'warmstart.stages=[{num_tokens=1}]'",
        error="config key 'warmstart.stages[0].learning_rate' is missing",
        hint="--set warmstart.stages=VALUE; Run in order; each with a fresh optimizer.",
    ),
    Wrong(
        line="train --set 'warmstart.stages=[{num_tokens=1,learning_rate=1,styles={}}]'",
        error="warmstart.stages[0].styles: the four shares add to 0, not to 1",
        hint="change warmstart.stages in the preset or by --set",
    ),
    Wrong(
        line="train --set 'warmstart.batch_size=0'",
        error="warmstart.batch_size = 0: input should be greater than or equal to 1",
        hint="--set warmstart.batch_size=VALUE; Examples per optimizer step.",
    ),
    Wrong(
        line="train --set 'größe=1'",
        error="unknown config key 'größe'",
        hint="known keys: preset, description, seed, runtime, model, data, warmstart, algorithm, optim, rollout, train, eval, grading, checkpoint, certificate, measure, ledger, compare",
    ),
    Wrong(
        line="train --set 'optim.lernrate=ä'",
        error="unknown config key 'optim.lernrate'",
        hint="did you mean 'optim.learning_rate'?",
    ),
    Wrong(
        line="train --set '[bold]x[/bold]=1'",
        error="unknown config key '[bold]x[/bold]'",
        hint="known keys: preset, description, seed, runtime, model, data, warmstart, algorithm, optim, rollout, train, eval, grading, checkpoint, certificate, measure, ledger, compare",
    ),
    Wrong(
        line="train --set 'train.steps=[red]3[/red]'",
        error="train.steps = '[red]3[/red]': input should be a valid integer",
        hint="--set train.steps=VALUE; Rollout batches.",
    ),
    Wrong(
        line='train --set "train.ste\nps=3"',
        error="unknown config key 'train.ste\\nps'",
        hint="did you mean 'train.steps'?",
    ),
    Wrong(
        line="train --set 'description=5'",
        error="description = 5: input should be a valid string",
        hint="--set description=VALUE; One line about the preset.",
    ),
    Wrong(
        line="train --set 'rollout.group_size=1e400'",
        error="rollout.group_size = inf: input should be a valid integer",
        hint="--set rollout.group_size=VALUE; Responses per prompt.",
    ),
    Wrong(
        line="train --set 'train.steps=0x'",
        error="train.steps = '0x': input should be a valid integer",
        hint="--set train.steps=VALUE; Rollout batches.",
    ),
    Wrong(
        line="train --set 'data.source=\"a\\u0000.jsonl\"'",
        error="data.source = 'a\\x00.jsonl': there is no such file",
        hint="the path counts from here",
    ),
    Wrong(
        line="train --set 'per_algorithm.opo=1'",
        error="unknown config key 'per_algorithm'",
        hint="did you mean 'algorithm'?",
    ),
    Wrong(
        line="train --set algorithm.kl_in=loss --set algorithm.kl_estimator=k1",
        error="algorithm.kl_estimator = 'k1' in the loss: its expected gradient is zero",
        hint="--set algorithm.kl_estimator=k2 (or k3+), or --set algorithm.kl_in=reward",
    ),
    Wrong(
        line="train -a gspo --set algorithm.reduction=token-mean",
        error="algorithm.reduction = 'token-mean' does not fit the 'gspo' loss, whose ratio belongs to a whole response",
        hint="--set algorithm.reduction=seq-mean-token-mean; or --set algorithm.allow_mismatched_reduction=true to measure just that",
    ),
    Wrong(
        line="train -a grpo --set algorithm.kl_in=reward",
        error="algorithm.kl_in = 'reward': the 'grpo' estimator divides by the group's spread, which would scale the penalty up wherever rewards are equal",
        hint="--set algorithm.kl_in=loss --set algorithm.kl_estimator=k2",
    ),
    Wrong(
        line="train -a remax --set rollout.group_size=1 --set algorithm.max_sampling_rounds=4",
        error="algorithm.max_sampling_rounds = 4: a group of one is always all right or all wrong",
        hint="--set rollout.group_size=8, or --set algorithm.max_sampling_rounds=1",
    ),
    Wrong(
        line="prepare --preset smoke --set data.num_problems=99999",
        error="data.num_problems = 99999: only 1086 distinct problems of 2 to 3 terms can be had",
        hint="lower data.num_problems or raise data.max_terms",
    ),
    Wrong(
        line="prepare --set data.source=deepscaler",
        error="unknown training set 'deepscaler'",
        hint="did you mean 'DeepScaleR'?; or a hub data set (owner/name), or a file (.jsonl, .json, .parquet, .csv)",
    ),
    Wrong(
        line="compare --preset tiny --set optim.lr=1",
        error="unknown config key 'optim.lr'",
        hint="known keys: learning_rate, beta1, beta2, weight_decay, max_gradient_norm, max_skipped_steps",
    ),
    Wrong(
        line="lab --preset smoke --set optim.lr=1",
        error="unknown config key 'optim.lr'",
        hint="known keys: learning_rate, beta1, beta2, weight_decay, max_gradient_norm, max_skipped_steps",
    ),
    Wrong(
        line="eval tiny-easy --run run --set evl.k=1",
        error="unknown config key 'evl'",
        hint="did you mean 'eval'?",
    ),
    Wrong(
        line="grade rows.jsonl --set grading.timeout=1",
        error="unknown config key 'grading.timeout'",
        hint="did you mean 'grading.timeout_seconds'?",
        makes=(file("rows.jsonl", '{"prediction": "1", "answer": "1"}'),),
    ),
]
