"""Wrong run folders and labs: damaged, edited, unfinished, of another configuration."""

# ruff: noqa: E501 - a message is one line, as a user sees it.

from __future__ import annotations

from tests.wrong.places import Wrong, copied, cut, edited, edited_line, file, gone, table

ROWS = [
    Wrong(
        line="show run",
        error="run/config.json is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        hint="restore or remove it",
        makes=(file("run/config.json", "{"),),
    ),
    Wrong(
        line="compare run",
        error="run/config.json is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        hint="restore or remove it",
        makes=(file("run/config.json", "{"),),
    ),
    Wrong(
        line="train --preset smoke --steps 2 --out run --resume",
        error="run/config.json is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        hint="restore or remove it",
        makes=(file("run/config.json", "{"),),
    ),
    Wrong(
        line="train --out unfinished --resume",
        error="unfinished/config.json: unknown config key 'rollout.temperatur'",
        hint="restore the file from a copy, or go on with the version that wrote it",
        makes=(edited("unfinished/config.json", lambda c: c["rollout"].update(temperatur=1.0)),),
    ),
    Wrong(
        line="show run",
        error="run/config.json is not as it was written: [] is no table",
        hint="restore the file from a copy, or remove the run",
        makes=(file("run/config.json", "[]"),),
    ),
    Wrong(
        line="compare run",
        error="run/config.json is not as it was written: [] is no table",
        hint="restore the file from a copy, or remove the run",
        makes=(file("run/config.json", "[]"),),
    ),
    Wrong(
        line="train --preset smoke --steps 2 --out run --resume",
        error="run/config.json is not as it was written: [] is no table",
        hint="restore the file from a copy, or remove the run",
        makes=(file("run/config.json", "[]"),),
    ),
    Wrong(
        line="show run",
        error="run/config.json is not as it was written: there is no preset",
        hint="restore the file from a copy, or remove the run",
        makes=(file("run/config.json", "{}"),),
    ),
    Wrong(
        line="compare run",
        error="run/config.json is not as it was written: there is no preset",
        hint="restore the file from a copy, or remove the run",
        makes=(file("run/config.json", "{}"),),
    ),
    Wrong(
        line="train --preset smoke --steps 2 --out run --resume",
        error="run/config.json is not as it was written: there is no preset",
        hint="restore the file from a copy, or remove the run",
        makes=(file("run/config.json", "{}"),),
    ),
    Wrong(
        line="show run",
        error="run/config.json is not valid JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        hint="restore or remove it",
        makes=(file("run/config.json", b"\xff"),),
    ),
    Wrong(
        line="compare run",
        error="run/config.json is not valid JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        hint="restore or remove it",
        makes=(file("run/config.json", b"\xff"),),
    ),
    Wrong(
        line="show run",
        error="run/config.json is not valid JSON: Expecting value: line 1 column 1 (char 0)",
        hint="restore or remove it",
        makes=(file("run/config.json", ""),),
    ),
    Wrong(
        line="train --preset smoke --steps 2 --out run --resume",
        error="'run' holds another configuration's run: optim.lr is 1 there, None here",
        hint="choose another folder with --out",
        makes=(edited("run/config.json", lambda c: c["optim"].update(lr=1)),),
    ),
    Wrong(
        line="train --resume --out run",
        error="run/config.json: unknown config key 'optim.lr'",
        hint="restore the file from a copy, or go on with the version that wrote it",
        makes=(edited("run/config.json", lambda c: c["optim"].update(lr=1)),),
    ),
    Wrong(
        line="train --preset smoke --steps 2 --out run --resume",
        error="'run' holds another configuration's run: optim.learning_rate is 'fast' there, 0.0002 here",
        hint="choose another folder with --out",
        makes=(edited("run/config.json", lambda c: c["optim"].update(learning_rate="fast")),),
    ),
    Wrong(
        line="train --resume --out run",
        error="run/config.json: optim.learning_rate = 'fast': input should be a valid number",
        hint="restore the file from a copy, or go on with the version that wrote it",
        makes=(edited("run/config.json", lambda c: c["optim"].update(learning_rate="fast")),),
    ),
    Wrong(
        line="train --preset smoke --steps 2 --out run --resume",
        error="'run' holds another configuration's run: algorithm.name is 'opoo' there, 'opo' here",
        hint="choose another folder with --out",
        makes=(edited("run/config.json", lambda c: c["algorithm"].update(name="opoo")),),
    ),
    Wrong(
        line="show run",
        error="run/config.json is not as it was written: algorithm is 5",
        hint="restore the file from a copy, or remove the run",
        makes=(edited("run/config.json", lambda c: c.update(algorithm=5)),),
    ),
    Wrong(
        line="compare run",
        error="run/config.json is not as it was written: algorithm is 5",
        hint="restore the file from a copy, or remove the run",
        makes=(edited("run/config.json", lambda c: c.update(algorithm=5)),),
    ),
    Wrong(
        line="train --preset smoke --steps 2 --out run --resume",
        error="run/config.json is not as it was written: algorithm is 5",
        hint="restore the file from a copy, or remove the run",
        makes=(edited("run/config.json", lambda c: c.update(algorithm=5)),),
    ),
    Wrong(
        line="show run",
        error="run/config.json is not as it was written: there is no algorithm.name",
        hint="restore the file from a copy, or remove the run",
        makes=(edited("run/config.json", lambda c: c.pop("algorithm") and None),),
    ),
    Wrong(
        line="compare run",
        error="run/config.json is not as it was written: there is no algorithm.name",
        hint="restore the file from a copy, or remove the run",
        makes=(edited("run/config.json", lambda c: c.pop("algorithm") and None),),
    ),
    Wrong(
        line="train --preset smoke --steps 2 --out run --resume",
        error="run/config.json is not as it was written: there is no algorithm.name",
        hint="restore the file from a copy, or remove the run",
        makes=(edited("run/config.json", lambda c: c.pop("algorithm") and None),),
    ),
    Wrong(
        line="compare run",
        error="run/config.json is not as it was written: seed is 'x'",
        hint="restore the file from a copy, or remove the run",
        makes=(edited("run/config.json", lambda c: c.update(seed="x")),),
    ),
    Wrong(
        line="train --preset smoke --steps 2 --out run --resume",
        error="run/config.json is not as it was written: seed is 'x'",
        hint="restore the file from a copy, or remove the run",
        makes=(edited("run/config.json", lambda c: c.update(seed="x")),),
    ),
    Wrong(
        line="show run",
        error="run/config.json is not as it was written: train.steps is 'x'",
        hint="restore the file from a copy, or remove the run",
        makes=(edited("run/config.json", lambda c: c["train"].update(steps="x")),),
    ),
    Wrong(
        line="compare run",
        error="run/config.json is not as it was written: train.steps is 'x'",
        hint="restore the file from a copy, or remove the run",
        makes=(edited("run/config.json", lambda c: c["train"].update(steps="x")),),
    ),
    Wrong(
        line="show run",
        error="no run at 'run'",
        hint="there is none yet: opo train",
        makes=(gone("run/config.json"),),
    ),
    Wrong(
        line="compare run",
        error="no run at 'run'",
        hint="there is none yet: opo train",
        makes=(gone("run/config.json"),),
    ),
    Wrong(
        line="train --resume --out run",
        error="there is no run to resume at 'run'",
        hint="leave --resume out",
        makes=(gone("run/environment.json"),),
    ),
    Wrong(
        line="compare run",
        error="run/environment.json is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        hint="restore or remove it",
        makes=(file("run/environment.json", "{"),),
    ),
    Wrong(
        line="compare run",
        error="run/environment.json is not as it was written: [] is no table",
        hint="restore the file from a copy, or remove the run",
        makes=(file("run/environment.json", "[]"),),
    ),
    Wrong(
        line="show run",
        error="run/steps.jsonl:1: not a JSON record",
        hint="restore the file from a copy, or remove the run",
        makes=(file("run/steps.jsonl", "x\n{}\n"),),
    ),
    Wrong(
        line="compare run",
        error="run/steps.jsonl:1: not a JSON record",
        hint="restore the file from a copy, or leave the run out",
        makes=(file("run/steps.jsonl", "x\n{}\n"),),
    ),
    Wrong(
        line="compare run",
        error="run/steps.jsonl is damaged: 2 steps of 2",
        hint="restore it, or leave the run out",
        makes=(file("run/steps.jsonl", "{}\n{}\n"),),
    ),
    Wrong(
        line="show run",
        error="run/steps.jsonl:2 is not as it was written: step is 'two'",
        hint="restore the file from a copy, or remove the run",
        makes=(edited_line("run/steps.jsonl", 1, lambda s: s.update(step="two")),),
    ),
    Wrong(
        line="compare run",
        error="run/steps.jsonl:2: step is 'two', no number",
        hint="restore the file from a copy, or leave the run out",
        makes=(edited_line("run/steps.jsonl", 1, lambda s: s.update(step="two")),),
    ),
    Wrong(
        line="compare run",
        error="run/steps.jsonl:2: reward is 'high', no number",
        hint="restore the file from a copy, or leave the run out",
        makes=(edited_line("run/steps.jsonl", 1, lambda s: s.update(reward="high")),),
    ),
    Wrong(
        line="show run",
        error="run/steps.jsonl:2 is not as it was written: off_policy_reasons is 5",
        hint="restore the file from a copy, or remove the run",
        makes=(edited_line("run/steps.jsonl", 1, lambda s: s.update(off_policy_reasons=5)),),
    ),
    Wrong(
        line="compare run",
        error="run/evals.jsonl:1: not a JSON record",
        hint="restore the file from a copy, or remove the run",
        makes=(file("run/evals.jsonl", "x\n{}\n"),),
    ),
    Wrong(
        line="compare run",
        error="run/evals.jsonl:1 is not as it was written: there is no policy",
        hint="restore it, or leave the run out",
        makes=(file("run/evals.jsonl", "{}\n"),),
    ),
    Wrong(
        line="compare run",
        error="run/evals.jsonl:2 is not as it was written: there is no accuracy",
        hint="restore it, or leave the run out",
        makes=(edited_line("run/evals.jsonl", 1, lambda e: e.pop("accuracy") and None),),
    ),
    Wrong(
        line="compare run",
        error="run/evals.jsonl:2 is not as it was written: accuracy is 'good'",
        hint="restore the file from a copy, or remove the run",
        makes=(edited_line("run/evals.jsonl", 1, lambda e: e.update(accuracy="good")),),
    ),
    Wrong(
        line="compare run",
        error="run/evals.jsonl:2 is not as it was written: problems is 5",
        hint="restore the file from a copy, or remove the run",
        makes=(edited_line("run/evals.jsonl", 1, lambda e: e.update(problems=5)),),
    ),
    Wrong(
        line="compare run",
        error="run/evals.jsonl:2 is not as it was written: step is 'x'",
        hint="restore the file from a copy, or remove the run",
        makes=(edited_line("run/evals.jsonl", 1, lambda e: e.update(step="x")),),
    ),
    Wrong(
        line="compare run",
        error="run/evals.jsonl:2 is not as it was written: benchmark is [1]",
        hint="restore the file from a copy, or remove the run",
        makes=(edited_line("run/evals.jsonl", 1, lambda e: e.update(benchmark=[1])),),
    ),
    Wrong(
        line="show run",
        error="'run/rollouts/step-000002.parquet' does not read: Could not open Parquet input source 'run/rollouts/step-000002.parquet': Parquet file size is 4 bytes, smaller than the minimum file footer (8 bytes)",
        hint="the file is damaged; choose another step",
        makes=(file("run/rollouts/step-000002.parquet", b"PAR1"),),
    ),
    Wrong(
        line="show run",
        error="'run/rollouts/step-000002.parquet' does not read: Could not open Parquet input source 'run/rollouts/step-000002.parquet': Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file.",
        hint="the file is damaged; choose another step",
        makes=(cut("run/rollouts/step-000002.parquet", 500),),
    ),
    Wrong(
        line="show run --step 2",
        error="'run/rollouts/step-000002.parquet' does not read: No match for FieldRef.Name(group) in a: int64",
        hint="the file is damaged; choose another step",
        makes=(table("run/rollouts/step-000002.parquet", {"a": [1]}),),
    ),
    Wrong(
        line="list runs",
        error="runs/a/config.json is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        hint="restore or remove it",
        makes=(
            copied("run", "runs/a"),
            file("runs/a/config.json", "{"),
        ),
    ),
    Wrong(
        line="list runs",
        error="runs/a/config.json is not as it was written: [] is no table",
        hint="restore the file from a copy, or remove the run",
        makes=(
            copied("run", "runs/a"),
            file("runs/a/config.json", "[]"),
        ),
    ),
    Wrong(
        line="list runs",
        error="runs/a/config.json is not as it was written: there is no preset",
        hint="restore the file from a copy, or remove the run",
        makes=(
            copied("run", "runs/a"),
            file("runs/a/config.json", "{}"),
        ),
    ),
    Wrong(
        line="list runs",
        error="runs/a/steps.jsonl:1: not a JSON record",
        hint="restore the file from a copy, or remove the run",
        makes=(
            copied("run", "runs/a"),
            file("runs/a/steps.jsonl", "x\n{}\n"),
        ),
    ),
    Wrong(
        line="show b", error="no run at 'b'", hint="known runs: a", makes=(copied("run", "runs/a"),)
    ),
    Wrong(
        line="eval tiny-easy --run ../x",
        error="no run at '../x'",
        hint="there is none yet: opo train",
    ),
    Wrong(
        line="compare run two --measure pass@9",
        error="--measure pass@9: 'easy' has 4 samples per problem",
        hint="--measure avg, or pass@K with K up to 4",
        makes=(
            copied("run", "two"),
            edited("two/config.json", lambda c: c["algorithm"].update(loss="ppo-clip")),
        ),
    ),
    Wrong(
        line="compare run two",
        error="these runs do not compare (opo, opo loss=ppo-clip): they started from different policies",
        hint="--allow-incomparable tabulates them all the same, and says what differs",
        makes=(
            copied("run", "two"),
            edited("two/environment.json", lambda e: e.update(initial_policy_id="b")),
            edited("two/config.json", lambda c: c["algorithm"].update(loss="ppo-clip")),
        ),
    ),
    Wrong(
        line="compare run two",
        error="these runs do not compare (run, two): 'two' has no evaluation of its final policy",
        hint="--allow-incomparable tabulates them all the same, and says what differs",
        makes=(
            copied("run", "two"),
            file("two/evals.jsonl", ""),
        ),
    ),
    Wrong(
        line="compare run two",
        error="these runs do not compare (opo, opo loss=ppo-clip): no benchmark is common to all of them",
        hint="--allow-incomparable tabulates them all the same, and says what differs",
        makes=(
            copied("run", "two"),
            edited_line("two/evals.jsonl", 1, lambda e: e.update(benchmark="hard")),
            edited("two/config.json", lambda c: c["algorithm"].update(loss="ppo-clip")),
        ),
    ),
    Wrong(
        line="compare run two --against three",
        error="unknown arm 'three'",
        hint="known arms: opo, grpo advantage=opo loss=policy-gradient reduction=token-mean kl_in=none",
        makes=(
            copied("run", "two"),
            edited("two/config.json", lambda c: c["algorithm"].update(name="grpo")),
        ),
    ),
    Wrong(
        line="compare run unfinished",
        error="run 'unfinished' is not finished",
        hint="opo train --resume --out unfinished",
    ),
    Wrong(
        line="train --preset tiny --out run",
        error="'run' holds another configuration's run: preset is 'smoke' there, 'tiny' here",
        hint="choose another folder with --out",
    ),
    Wrong(
        line="train --preset smoke --steps 2 -a grpo --out run --resume",
        error="'run' holds another configuration's run: algorithm.name is 'opo' there, 'grpo' here",
        hint="choose another folder with --out",
    ),
    Wrong(
        line="train --preset smoke --steps 2 --out begun --engine transformers",
        error="'begun' holds another configuration's run: runtime.engine is 'auto' there, 'transformers' here",
        hint="choose another folder with --out",
    ),
    Wrong(
        line="eval tiny-easy --run run",
        error="run/config.json is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        hint="restore or remove it",
        makes=(file("run/config.json", "{"),),
    ),
    Wrong(
        line="eval tiny-easy --run run",
        error="run/config.json is not as it was written: [] is no table",
        hint="restore the file from a copy, or remove the run",
        makes=(file("run/config.json", "[]"),),
    ),
    Wrong(
        line="eval tiny-easy --run run",
        error="run/config.json is not as it was written: there is no preset",
        hint="restore the file from a copy, or remove the run",
        makes=(file("run/config.json", "{}"),),
    ),
    Wrong(
        line="eval tiny-easy --run run",
        error="run/config.json: unknown config key 'optim.lr'",
        hint="restore the file from a copy, or go on with the version that wrote it",
        makes=(edited("run/config.json", lambda c: c["optim"].update(lr=1)),),
    ),
    Wrong(
        line="eval tiny-easy --run run",
        error="run/config.json: optim.learning_rate = 'fast': input should be a valid number",
        hint="restore the file from a copy, or go on with the version that wrote it",
        makes=(edited("run/config.json", lambda c: c["optim"].update(learning_rate="fast")),),
    ),
]
