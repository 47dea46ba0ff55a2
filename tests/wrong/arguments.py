"""Wrong arguments and options: names, numbers, places, pairs that contradict each other."""

# ruff: noqa: E501 - a message is one line, as a user sees it.

from __future__ import annotations

from tests.wrong.places import Wrong, copied, edited, file, loop

ROWS = [
    Wrong(
        line="prepare --preset tiny --set data.source=d.txt",
        error="unknown training set 'd.txt'",
        hint="known training sets: MATH, GSM8K-train, DeepScaleR, DAPO-17k, Skywork-OR1; or a hub data set (owner/name), or a file (.jsonl, .json, .parquet, .csv)",
    ),
    Wrong(
        line="compare run two --measure pass@9",
        error="--measure pass@9: 'easy' has 4 samples per problem",
        hint="--measure avg, or pass@K with K up to 4",
        makes=(
            copied("run", "two"),
            edited("two/config.json", lambda c: c["algorithm"].update(name="grpo")),
        ),
    ),
    Wrong(line="prepare --preset tny", error="unknown preset 'tny'", hint="did you mean 'tiny'?"),
    Wrong(
        line="prepare --preset ''",
        error="an argument is empty: --preset ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="prepare --preset ../presets/tiny",
        error="unknown preset '../presets/tiny'",
        hint="known presets: qwen-math, qwen-math-7b, qwen-math-smoke, r1-distill-7b, smoke, tiny, tiny-search, tiny-short",
    ),
    Wrong(
        line="prepare --preset",
        error="Option '--preset' requires an argument",
        hint="opo prepare --help",
    ),
    Wrong(
        line="prepare --presett tiny",
        error="No such option: --presett (Possible options: --preset, --set)",
        hint="opo prepare --help",
    ),
    Wrong(
        line="prepare extra",
        error="Got unexpected extra argument(s) (extra)",
        hint="opo prepare --help",
    ),
    Wrong(
        line="prepare --benchmarks aime24",
        error="unknown benchmark 'aime24'",
        hint="did you mean 'AIME24'?",
    ),
    Wrong(
        line="prepare --benchmarks ,",
        error="--benchmarks ',' holds no name",
        hint="for example: --benchmarks a,b",
    ),
    Wrong(
        line="prepare --benchmarks ''",
        error="an argument is empty: --benchmarks ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="prepare --benchmarks occupied/file",
        error="unknown benchmark 'occupied/file'",
        hint="a data file's name ends in .jsonl, .json, .parquet, .csv",
    ),
    Wrong(
        line="prepare --benchmarks AIME24,bad",
        error="unknown benchmark 'bad'",
        hint="known benchmarks: AIME24, AIME25, AMC23, MATH-500, GSM8K, Minerva, OlympiadBench, tiny-easy, tiny-mid, tiny-hard, tiny-ood, tiny-validation, search-easy, search-mid, search-hard, search-ood, search-validation",
    ),
    Wrong(
        line="prepare --set", error="Option '--set' requires an argument", hint="opo prepare --help"
    ),
    Wrong(
        line="prepare --set eval.benchmark=['AIME24']",
        error="unknown config key 'eval.benchmark'",
        hint="did you mean 'eval.benchmarks'?",
    ),
    Wrong(
        line="train extra",
        error="Got unexpected extra argument(s) (extra)",
        hint="opo train --help",
    ),
    Wrong(line="train --preset tinny", error="unknown preset 'tinny'", hint="did you mean 'tiny'?"),
    Wrong(
        line="train --preset zzz",
        error="unknown preset 'zzz'",
        hint="known presets: qwen-math, qwen-math-7b, qwen-math-smoke, r1-distill-7b, smoke, tiny, tiny-search, tiny-short",
    ),
    Wrong(
        line="train --preset '[bold]tiny[/bold]'",
        error="unknown preset '[bold]tiny[/bold]'",
        hint="known presets: qwen-math, qwen-math-7b, qwen-math-smoke, r1-distill-7b, smoke, tiny, tiny-search, tiny-short",
    ),
    Wrong(
        line="train --preset 'ti\nny'",
        error="unknown preset 'ti\\nny'",
        hint="did you mean 'tiny'?",
    ),
    Wrong(
        line="train --algorithm gropo",
        error="unknown algorithm 'gropo'",
        hint="did you mean 'grpo'?",
    ),
    Wrong(
        line="train --algorithm ''",
        error="an argument is empty: --algorithm ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="train -a [red]opo",
        error="unknown algorithm '[red]opo'",
        hint="known algorithms: opo, opo-loo, grpo, grpo-on-policy, dr-grpo, dapo, rloo, reinforce++, reinforce++-baseline, gspo, cispo, remax, otb, gpg, ppo",
    ),
    Wrong(
        line="train --steps 0",
        error="train.steps = 0: input should be greater than or equal to 1",
        hint="--set train.steps=VALUE; Rollout batches.",
    ),
    Wrong(
        line="train --steps -3",
        error="train.steps = -3: input should be greater than or equal to 1",
        hint="--set train.steps=VALUE; Rollout batches.",
    ),
    Wrong(
        line="train --steps x",
        error="Invalid value for '--steps': Input should be a valid integer, unable to parse string as an integer: 'x'",
        hint="opo train --help",
    ),
    Wrong(
        line="train --steps ''",
        error="an argument is empty: --steps ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="train --steps 99999999999999999999999999",
        error="train.steps = 99999999999999999999999999: input should be less than or equal to 9223372036854775807",
        hint="--set train.steps=VALUE; Rollout batches.",
    ),
    Wrong(
        line="train --steps 1e3",
        error="Invalid value for '--steps': Input should be a valid integer, unable to parse string as an integer: '1e3'",
        hint="opo train --help",
    ),
    Wrong(
        line="train --seed -1",
        error="seed = -1: input should be greater than or equal to 0",
        hint="--set seed=VALUE; Training seed: prompts, sampling and shuffling follow from (seed, step, row).",
    ),
    Wrong(
        line="train --seed 1.5",
        error="Invalid value for '--seed': Input should be a valid integer, unable to parse string as an integer: '1.5'",
        hint="opo train --help",
    ),
    Wrong(
        line="train --seed 99999999999999999999999999999999999999",
        error="seed = 99999999999999999999999999999999999999: input should be less than or equal to 9223372036854775807",
        hint="--set seed=VALUE; Training seed: prompts, sampling and shuffling follow from (seed, step, row).",
    ),
    Wrong(
        line="train --engine vlm",
        error="runtime.engine = 'vlm': input should be 'auto', 'transformers' or 'vllm'",
        hint="--set runtime.engine=VALUE; Rollout engine; auto takes vLLM where it is installed and fits.",
    ),
    Wrong(
        line="train --engine ''",
        error="an argument is empty: --engine ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="train --stepps 3",
        error="No such option: --stepps (Possible options: --set, --steps)",
        hint="opo train --help",
    ),
    Wrong(
        line="train --step 3",
        error="No such option: --step (Possible options: --seed, --set, --steps)",
        hint="opo train --help",
    ),
    Wrong(
        line="train --resume",
        error="there is no run to resume at 'runs/tiny-opo-seed0'",
        hint="leave --resume out",
    ),
    Wrong(
        line="train --resume=yes",
        error="Option '--resume' does not take a value",
        hint="opo train --help",
    ),
    Wrong(
        line="train --model nowhere",
        error="model folder 'nowhere' does not exist",
        hint="give a Hugging Face model folder (config.json, tokenizer.json, model.safetensors)",
    ),
    Wrong(
        line="train --model ''",
        error="an argument is empty: --model ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="train --model occupied",
        error="model folder 'occupied' has no config.json",
        hint="give a Hugging Face model folder (config.json, tokenizer.json, model.safetensors)",
    ),
    Wrong(
        line="train --model occupied/file",
        error="model folder 'occupied/file' does not exist",
        hint="give a Hugging Face model folder (config.json, tokenizer.json, model.safetensors)",
    ),
    Wrong(
        line="train --model a/b/c",
        error="model folder 'a/b/c' does not exist",
        hint="give a Hugging Face model folder (config.json, tokenizer.json, model.safetensors)",
    ),
    Wrong(
        line="train --model [bold]x[/bold]",
        error="model folder '[bold]x[/bold]' does not exist",
        hint="give a Hugging Face model folder (config.json, tokenizer.json, model.safetensors)",
    ),
    Wrong(
        line="train --preset smoke --out occupied",
        error="'occupied' exists and is no run folder",
        hint="choose another with --out",
    ),
    Wrong(
        line="train --preset smoke --out occupied/file",
        error="'occupied/file' exists and is no run folder",
        hint="choose another with --out",
    ),
    Wrong(
        line="train --preset smoke --out occupied/file/run",
        error="cannot write 'occupied/file/run': '{here}/occupied/file' is not yours to write",
        hint="choose --out",
    ),
    Wrong(
        line="train --preset smoke --out /proc/run",
        error="cannot open or write '/proc/run': No such file or directory",
        hint="nothing can be made there, or it was removed; choose another with --out",
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --out ''",
        error="an argument is empty: --out ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="train --preset smoke --out foreign",
        error="'foreign' exists and is no run folder",
        hint="choose another with --out",
    ),
    Wrong(
        line="train --preset smoke --out run",
        error="'run' holds another configuration's run: train.steps is 2 there, 6 here",
        hint="choose another folder with --out",
    ),
    Wrong(
        line="train --preset smoke --steps 2 --out run",
        error="'run' holds this very run, finished",
        hint="opo eval --run run BENCHMARK, or run it anew with --out",
    ),
    Wrong(
        line="train --preset smoke --steps 2 --out unfinished",
        error="'unfinished' holds this run, stopped after step 1",
        hint="--resume goes on; --out starts another",
    ),
    Wrong(
        line="train --preset smoke --seed 1 --out unfinished --resume",
        error="'unfinished' holds another configuration's run: seed is 0 there, 1 here",
        hint="choose another folder with --out",
    ),
    Wrong(
        line="train --resume --out occupied",
        error="there is no run to resume at 'occupied'",
        hint="leave --resume out",
    ),
    Wrong(
        line="train --resume --out nowhere",
        error="there is no run to resume at 'nowhere'",
        hint="leave --resume out",
    ),
    Wrong(
        line="train --preset smoke --out {name}",
        error="cannot open or write '{name}/config.json': File name too long",
        hint="choose a shorter name",
    ),
    Wrong(
        line="train --preset smoke --out /dev/null",
        error="'/dev/null' exists and is no run folder",
        hint="choose another with --out",
    ),
    Wrong(
        line="train --preset smoke --out /dev/null/x",
        error="cannot write '/dev/null/x': '/dev/null' is not yours to write",
        hint="choose --out",
    ),
    Wrong(
        line="eval",
        error="no benchmark was given",
        hint="for example: opo eval MATH-500, or opo eval --data FILE; see: opo list benchmarks",
    ),
    Wrong(
        line="eval --data nowhere.jsonl",
        error="unknown benchmark 'nowhere.jsonl'",
        hint="there is no such file; the path counts from here",
    ),
    Wrong(
        line="eval --data occupied",
        error="unknown benchmark 'occupied'",
        hint="known benchmarks: AIME24, AIME25, AMC23, MATH-500, GSM8K, Minerva, OlympiadBench, tiny-easy, tiny-mid, tiny-hard, tiny-ood, tiny-validation, search-easy, search-mid, search-hard, search-ood, search-validation",
    ),
    Wrong(
        line="eval tiny-easy --run run --template boxd",
        error="unknown template 'boxd'",
        hint="did you mean 'boxed'?",
    ),
    Wrong(
        line="eval tiny-easy --run run --template occupied/file",
        error="template file 'occupied/file' holds {question} 0 times",
        hint="it must hold {question} once, as it stands",
    ),
    Wrong(
        line="eval tiny-easy --run run --template occupied",
        error="unknown template 'occupied'",
        hint="known templates: auto, line, plain, boxed, chat, qwen-math, qwen-boxed, r1-distill, r1-zero, dapo",
    ),
    Wrong(
        line="eval tiny-easy --run run --template ''",
        error="an argument is empty: --template ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="eval tiny-easy --run run --columns answer",
        error="--columns 'answer' is not KEY=COLUMN,...",
        hint="for example: --columns question=problem,answer=solution",
    ),
    Wrong(
        line="eval tiny-easy --run run --columns q=a",
        error="unknown config key 'eval.columns.q'",
        hint="known keys: question, answer, id, level, subject",
    ),
    Wrong(
        line="eval tiny-easy --run run --columns =",
        error="--columns '=' is not KEY=COLUMN,...",
        hint="for example: --columns question=problem,answer=solution",
    ),
    Wrong(
        line="eval tiny-easy --run run --temperature -1",
        error="eval.temperature = -1.0: input should be greater than or equal to 0",
        hint="--set eval.temperature=VALUE; 0 is greedy.",
    ),
    Wrong(
        line="eval tiny-easy --run run --temperature nan",
        error="eval.temperature = nan: input should be a finite number",
        hint="--set eval.temperature=VALUE; 0 is greedy.",
    ),
    Wrong(
        line="eval tiny-easy --run run --temperature inf",
        error="eval.temperature = inf: input should be a finite number",
        hint="--set eval.temperature=VALUE; 0 is greedy.",
    ),
    Wrong(
        line="eval tiny-easy --run run --temperature hot",
        error="Invalid value for '--temperature': Input should be a valid number, unable to parse string as a number: 'hot'",
        hint="opo eval --help",
    ),
    Wrong(
        line="eval tiny-easy --run run --max-new-tokens -1",
        error="eval.max_new_tokens = -1: input should be greater than or equal to 0",
        hint="--set eval.max_new_tokens=VALUE; Longest response, tokens; 0: the benchmark's own limit, or what the model can take.",
    ),
    Wrong(
        line="eval tiny-easy --run run --max-new-tokens 1.5",
        error="Invalid value for '--max-new-tokens': Input should be a valid integer, unable to parse string as an integer: '1.5'",
        hint="opo eval --help",
    ),
    Wrong(
        line="eval tiny-easy --run run --samples -1",
        error="eval.samples = -1: input should be greater than or equal to 0",
        hint="--set eval.samples=VALUE; Responses per problem; 0: the benchmark's own number.",
    ),
    Wrong(
        line="eval tiny-easy --run run --samples many",
        error="Invalid value for '--samples': Input should be a valid integer, unable to parse string as an integer: 'many'",
        hint="opo eval --help",
    ),
    Wrong(
        line="eval tiny-easy --run run --limit -2",
        error="eval.limit = -2: input should be greater than or equal to 0",
        hint="--set eval.limit=VALUE; Only the first problems of each benchmark; 0: all.",
    ),
    Wrong(
        line="eval tiny-easy --run run --limit ''",
        error="an argument is empty: --limit ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="eval tiny-easy --run run --k some",
        error="--k 'some' is no list of numbers",
        hint="for example: --k 1,2,4",
    ),
    Wrong(
        line="eval tiny-easy --run run --k 0",
        error="eval.k[0] = 0: input should be greater than or equal to 1",
        hint="--set eval.k=VALUE; The k of pass@k and maj@k; empty: 1, 4, 16, 64 as far as there are so many samples.",
    ),
    Wrong(
        line="eval tiny-easy --run run --k -1",
        error="--k '-1' is no list of numbers",
        hint="for example: --k 1,2,4",
    ),
    Wrong(
        line="eval tiny-easy --run run --k 1,,2",
        error="--k '1,,2' is no list of numbers",
        hint="for example: --k 1,2,4",
    ),
    Wrong(
        line="eval tiny-easy --run run --k 4-1",
        error="--k '4-1' is no list of numbers",
        hint="for example: --k 1,2,4",
    ),
    Wrong(
        line="eval tiny-easy --run run --samples 2 --k 4",
        error="eval: k 4 exceeds the 2 samples per problem",
        hint="change eval in the preset or by --set",
    ),
    Wrong(
        line="eval tiny-easy --run run --set eval.samples=0 --k 16",
        error="k 16 exceeds the 8 samples per problem of 'tiny-easy'",
        hint="--set eval.samples=16, or a smaller eval.k",
    ),
    Wrong(line="eval AIME42", error="unknown benchmark 'AIME42'", hint="did you mean 'AIME25'?"),
    Wrong(
        line="eval zzz",
        error="unknown benchmark 'zzz'",
        hint="known benchmarks: AIME24, AIME25, AMC23, MATH-500, GSM8K, Minerva, OlympiadBench, tiny-easy, tiny-mid, tiny-hard, tiny-ood, tiny-validation, search-easy, search-mid, search-hard, search-ood, search-validation",
    ),
    Wrong(
        line="eval ''",
        error="an argument is empty: eval ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="eval tiny-esy --run run",
        error="unknown benchmark 'tiny-esy'",
        hint="did you mean 'tiny-easy'?",
    ),
    Wrong(
        line="eval [bold]tiny-easy",
        error="unknown benchmark '[bold]tiny-easy'",
        hint="did you mean 'tiny-easy'?",
    ),
    Wrong(
        line="eval tiny-easy",
        error="no finished run under 'runs/'",
        hint="opo train first, or name one: --run RUN, --model PATH",
    ),
    Wrong(
        line="eval tiny-easy --run nowhere",
        error="no run at 'nowhere'",
        hint="there is none yet: opo train",
    ),
    Wrong(
        line="eval tiny-easy --run ''",
        error="an argument is empty: --run ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="eval tiny-easy --run foreign",
        error="no run at 'foreign'",
        hint="there is none yet: opo train",
    ),
    Wrong(
        line="eval tiny-easy --run occupied/file",
        error="no run at 'occupied/file'",
        hint="there is none yet: opo train",
    ),
    Wrong(
        line="eval tiny-easy --model nowhere",
        error="model folder 'nowhere' does not exist",
        hint="give a Hugging Face model folder (config.json, tokenizer.json, model.safetensors)",
    ),
    Wrong(
        line="eval tiny-easy --run run --model m",
        error="--run run and --model m: one of them",
        hint="leave one out",
    ),
    Wrong(
        line="eval tiny-easy --run run --format html",
        error="Invalid value for '--format' / '-f': Value error, 'html' is not one of 'rich', 'markdown', 'csv', 'json', 'latex': 'html'",
        hint="opo eval --help",
    ),
    Wrong(
        line="eval tiny-easy --run run --set eval=3",
        error="eval = 3: input should be an object",
        hint="it is a section: --set eval.benchmarks=VALUE and the like",
    ),
    Wrong(
        line="eval tiny-easy --run run --set eval.k=4",
        error="eval.k = 4: input should be a valid array",
        hint="--set eval.k=VALUE; The k of pass@k and maj@k; empty: 1, 4, 16, 64 as far as there are so many samples.",
    ),
    Wrong(
        line="eval tiny-easy --run run --set eval.samples=abc",
        error="eval.samples = 'abc': input should be a valid integer",
        hint="--set eval.samples=VALUE; Responses per problem; 0: the benchmark's own number.",
    ),
    Wrong(
        line="eval tiny-easy --run run --set seed=x",
        error="seed = 'x': input should be a valid integer",
        hint="--set seed=VALUE; Training seed: prompts, sampling and shuffling follow from (seed, step, row).",
    ),
    Wrong(
        line="eval tiny-easy --run run --seed 1",
        error="No such option: --seed (Possible options: --set)",
        hint="opo eval --help",
    ),
    Wrong(line="grade", error="Missing argument 'FILE'", hint="opo grade --help"),
    Wrong(
        line="grade nowhere.jsonl",
        error="file 'nowhere.jsonl' does not exist",
        hint="give a JSONL file of predictions",
    ),
    Wrong(
        line="grade occupied",
        error="'occupied' is a folder, not a file",
        hint="opo grade FOLDER/FILE.jsonl",
    ),
    Wrong(
        line="grade occupied/file",
        error="'occupied/file' line 1 is no JSON: Expecting value",
        hint='one row a line, like {"prediction": "... \\\\boxed{7}", "answer": "7"}',
    ),
    Wrong(
        line="grade a.jsonl b.jsonl",
        error="Got unexpected extra argument(s) (b.jsonl)",
        hint="opo grade --help",
    ),
    Wrong(
        line="grade rows.jsonl --answer-format boxed",
        error="unknown answer format 'boxed'",
        hint="did you mean 'box'?",
        makes=(file("rows.jsonl", '{"prediction": "1", "answer": "1"}'),),
    ),
    Wrong(
        line="grade rows.jsonl --out rows.jsonl",
        error="--out 'rows.jsonl' is the file that is read",
        hint="choose another name",
        makes=(file("rows.jsonl", '{"prediction": "1", "answer": "1"}'),),
    ),
    Wrong(
        line="grade rows.jsonl --out occupied",
        error="--out 'occupied' is a folder",
        hint="--out occupied/graded.jsonl",
        makes=(file("rows.jsonl", '{"prediction": "1", "answer": "1"}'),),
    ),
    Wrong(
        line="grade rows.jsonl --out no/where.jsonl",
        error="--out 'no/where.jsonl': no folder 'no'",
        hint="make the folder first",
        makes=(file("rows.jsonl", '{"prediction": "1", "answer": "1"}'),),
    ),
    Wrong(
        line="grade rows.jsonl --out occupied/file/x",
        error="--out 'occupied/file/x': no folder 'occupied/file'",
        hint="make the folder first",
        makes=(file("rows.jsonl", '{"prediction": "1", "answer": "1"}'),),
    ),
    Wrong(
        line="grade rows.jsonl --out /dev/null",
        error="--out '/dev/null' is no file",
        hint="--format json prints the rows",
        makes=(file("rows.jsonl", '{"prediction": "1", "answer": "1"}'),),
    ),
    Wrong(
        line="grade rows.jsonl --out {name}",
        error="cannot open or write '{name}': File name too long",
        hint="choose a shorter name",
        makes=(file("rows.jsonl", '{"prediction": "1", "answer": "1"}'),),
    ),
    Wrong(
        line="grade rows.jsonl --out ''",
        error="an argument is empty: --out ''",
        hint="give it a value, or leave it out",
        makes=(file("rows.jsonl", '{"prediction": "1", "answer": "1"}'),),
    ),
    Wrong(
        line="grade rows.jsonl --set grading.num_workers=0",
        error="grading.num_workers = 0: input should be greater than or equal to 1",
        hint="--set grading.num_workers=VALUE; Worker processes; started when the first answer needs one.",
        makes=(file("rows.jsonl", '{"prediction": "1", "answer": "1"}'),),
    ),
    Wrong(
        line="grade rows.jsonl --set grading.memory_megabytes=1",
        error="grading.memory_megabytes = 1: input should be greater than or equal to 512",
        hint="--set grading.memory_megabytes=VALUE; Address space of a grader worker (Linux); beyond it the response counts as out of memory.",
        makes=(file("rows.jsonl", '{"prediction": "1", "answer": "1"}'),),
    ),
    Wrong(
        line="grade rows.jsonl --format yaml",
        error="Invalid value for '--format' / '-f': Value error, 'yaml' is not one of 'rich', 'markdown', 'csv', 'json', 'latex': 'yaml'",
        hint="opo grade --help",
        makes=(file("rows.jsonl", '{"prediction": "1", "answer": "1"}'),),
    ),
    Wrong(
        line="grade 'a\nb'",
        error="file 'a\\nb' does not exist",
        hint="give a JSONL file of predictions",
    ),
    Wrong(line="show", error="Missing argument 'RUN'", hint="opo show --help"),
    Wrong(line="show nowhere", error="no run at 'nowhere'", hint="there is none yet: opo train"),
    Wrong(
        line="show ''",
        error="an argument is empty: show ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="show run extra",
        error="Got unexpected extra argument(s) (extra)",
        hint="opo show --help",
    ),
    Wrong(
        line="show run --best --worst",
        error="--best and --worst: one group at a time",
        hint="leave out all but --best",
    ),
    Wrong(
        line="show run --problem a --random",
        error="--problem and --random: one group at a time",
        hint="leave out all but --problem",
    ),
    Wrong(
        line="show run --step 9",
        error="no rollouts of step 9 in 'run/rollouts'",
        hint="it holds steps 1 to 2",
    ),
    Wrong(
        line="show run --step x",
        error="Invalid value for '--step': Input should be a valid integer, unable to parse string as an integer: 'x'",
        hint="opo show --help",
    ),
    Wrong(
        line="show run --problem zzz",
        error="no problem 'zzz' in steps 1 to 2 of the ledger",
        hint="known problems: a/0",
    ),
    Wrong(
        line="show run --problem '[bold]x'",
        error="no problem '[bold]x' in steps 1 to 2 of the ledger",
        hint="known problems: a/0",
    ),
    Wrong(
        line="show run --problem ''",
        error="an argument is empty: --problem ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="show run --responses -1",
        error="Invalid value for '--responses': Input should be greater than or equal to 0: '-1'",
        hint="opo show --help",
    ),
    Wrong(
        line="show run --format csv",
        error="Invalid value for '--format' / '-f': Value error, 'csv' is not one of 'rich', 'json': 'csv'",
        hint="opo show --help",
    ),
    Wrong(
        line="show begun",
        error="no rollouts in 'begun/rollouts'",
        hint="opo train keeps them from its first step on, unless ledger.every = 0",
    ),
    Wrong(line="show foreign", error="no run at 'foreign'", hint="there is none yet: opo train"),
    Wrong(line="replay", error="Missing argument 'RUN'", hint="opo replay --help"),
    Wrong(line="replay nowhere", error="no run at 'nowhere'", hint="there is none yet: opo train"),
    Wrong(
        line="replay run --as gropo",
        error="unknown advantage estimator 'gropo'",
        hint="did you mean 'grpo'?",
    ),
    Wrong(line="replay run --as ,", error="--as ',' holds no name", hint="for example: --as a,b"),
    Wrong(
        line="replay run --as ppo",
        error="unknown advantage estimator 'ppo'",
        hint="did you mean 'opo'?",
    ),
    Wrong(
        line="replay run --format html",
        error="Invalid value for '--format' / '-f': Value error, 'html' is not one of 'rich', 'markdown', 'csv', 'json', 'latex': 'html'",
        hint="opo replay --help",
    ),
    Wrong(
        line="replay run --step 1.5",
        error="Invalid value for '--step': Input should be a valid integer, unable to parse string as an integer: '1.5'",
        hint="opo replay --help",
    ),
    Wrong(
        line="compare",
        error="neither runs nor a preset were given",
        hint="opo compare RUN RUN ..., or opo compare --preset tiny",
    ),
    Wrong(line="compare nowhere", error="no run at 'nowhere'", hint="there is none yet: opo train"),
    Wrong(
        line="compare ''",
        error="an argument is empty: compare ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="compare unfinished",
        error="run 'unfinished' is not finished",
        hint="opo train --resume --out unfinished",
    ),
    Wrong(
        line="compare begun",
        error="run 'begun' is not finished",
        hint="opo train --resume --out begun",
    ),
    Wrong(line="compare foreign", error="no run at 'foreign'", hint="there is none yet: opo train"),
    Wrong(
        line="compare run --preset tiny",
        error="both runs and a preset were given",
        hint="opo compare RUN RUN ..., or opo compare --preset tiny",
    ),
    Wrong(
        line="compare run --seeds 0",
        error="--seeds 0 goes with --preset, not with finished runs",
        hint="leave it out, or give a preset instead of runs",
    ),
    Wrong(
        line="compare run --jobs 0",
        error="--jobs 0 goes with --preset, not with finished runs",
        hint="leave it out, or give a preset instead of runs",
    ),
    Wrong(
        line="compare run --dry-run",
        error="--dry-run goes with --preset, not with finished runs",
        hint="leave it out, or give a preset instead of runs",
    ),
    Wrong(
        line="compare run --set train.steps=3",
        error="--set train.steps=3 goes with --preset, not with finished runs",
        hint="leave it out, or give a preset instead of runs",
    ),
    Wrong(
        line="compare --preset tiny --set seed=3",
        error="--set seed=3: a comparison sets that itself",
        hint="use --seeds instead",
    ),
    Wrong(
        line="compare --preset tiny --set algorithm.name=opo",
        error="--set algorithm.name=opo: a comparison sets that itself",
        hint="use --algorithms instead",
    ),
    Wrong(
        line="compare --preset tiny --algorithms ,",
        error="--algorithms ',' holds no name",
        hint="for example: --algorithms a,b",
    ),
    Wrong(
        line="compare --preset tiny --algorithms opo,rlo",
        error="unknown algorithm 'rlo'",
        hint="did you mean 'rloo'?",
    ),
    Wrong(
        line="compare --preset tiny --algorithms all,opo",
        error="unknown algorithm 'all'",
        hint="known algorithms: opo, opo-loo, grpo, grpo-on-policy, dr-grpo, dapo, rloo, reinforce++, reinforce++-baseline, gspo, cispo, remax, otb, gpg, ppo",
    ),
    Wrong(
        line="compare --preset tiny --seeds one",
        error="--seeds 'one' is no list of numbers",
        hint="for example: --seeds 1,2,4",
    ),
    Wrong(
        line="compare --preset tiny --seeds -1",
        error="--seeds '-1' is no list of numbers",
        hint="for example: --seeds 1,2,4",
    ),
    Wrong(
        line="compare --preset tiny --seeds 1-",
        error="--seeds '1-' is no list of numbers",
        hint="for example: --seeds 1,2,4",
    ),
    Wrong(
        line="compare --preset tiny --seeds 3-1",
        error="--seeds '3-1' is no list of numbers",
        hint="for example: --seeds 1,2,4",
    ),
    Wrong(
        line="compare --preset tiny --curves rewards",
        error="unknown metric 'rewards'",
        hint="did you mean 'reward'?",
    ),
    Wrong(
        line="compare --preset tiny --curves ''",
        error="an argument is empty: --curves ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="compare --preset tiny --match token",
        error="Invalid value for '--match': Value error, 'token' is not one of 'steps', 'samples', 'gradient-steps', 'tokens': 'token'",
        hint="opo compare --help",
    ),
    Wrong(
        line="compare --preset tiny --match tokens",
        error="--match tokens without a budget: how long responses get is not known beforehand",
        hint="--budget 737280: that many, train.steps = 40 steps of 'opo' take at most",
    ),
    Wrong(
        line="compare --preset tiny --budget 0",
        error="--budget 0: at least 1",
        hint="leave it out: the preset's train.steps",
    ),
    Wrong(
        line="compare --preset tiny --budget -1",
        error="--budget -1: at least 1",
        hint="leave it out: the preset's train.steps",
    ),
    Wrong(
        line="compare --preset tiny --budget 1 --match samples",
        error="a budget of 1 samples: one step of 'opo' takes 192",
        hint="--budget 192 or more",
    ),
    Wrong(
        line="compare --preset tiny --sweep optim.beta1=0,0.5 --sweep optim.beta2=0,0.5",
        error="--sweep optim.beta1=0,0.5 --sweep optim.beta2=0,0.5: one setting is swept at a time",
        hint="the others by --set, or in comparisons of their own",
    ),
    Wrong(
        line="compare --preset tiny --sweep optim.lr=1,2",
        error="unknown config key 'optim.lr'",
        hint="known keys: learning_rate, beta1, beta2, weight_decay, max_gradient_norm, max_skipped_steps",
    ),
    Wrong(
        line="compare --preset tiny --sweep optim.beta2=0.5",
        error="--sweep 'optim.beta2=0.5' is not section.key=VALUE,VALUE,... with two values or more",
        hint="for example: --sweep optim.learning_rate=1e-4,3e-4",
    ),
    Wrong(
        line="compare --preset tiny --sweep optim=1,2",
        error="config key 'optim' is a section",
        hint="name a setting: optim.learning_rate",
    ),
    Wrong(
        line="compare --preset tiny --sweep seed=1,2",
        error="--sweep seed: a comparison sets that itself",
        hint="use --seeds",
    ),
    Wrong(
        line="compare --preset tiny --sweep train.steps=1,2",
        error="--sweep train.steps: runs that differ in it share no base, no problems or no measure",
        hint="sweep a setting of algorithm, optim, rollout, or compare such runs by their names",
    ),
    Wrong(
        line="compare --preset tiny --sweep optim.beta2=2,3",
        error="optim.beta2 = 2: input should be less than 1",
        hint="--set optim.beta2=VALUE; AdamW.",
    ),
    Wrong(
        line="compare --preset tiny --sweep ''",
        error="an argument is empty: --sweep ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="compare --preset tiny --measure pass@9",
        error="--measure pass@9: 'tiny-easy' has 8 samples per problem",
        hint="--measure avg, or pass@K with K up to 8",
    ),
    Wrong(
        line="compare --preset tiny --measure best",
        error="--measure 'best' is neither avg nor pass@K",
        hint="for example: --measure pass@4",
    ),
    Wrong(
        line="compare --preset tiny --measure pass@0",
        error="--measure 'pass@0' is neither avg nor pass@K",
        hint="for example: --measure pass@4",
    ),
    Wrong(
        line="compare --preset tiny --measure pass@",
        error="--measure 'pass@' is neither avg nor pass@K",
        hint="for example: --measure pass@4",
    ),
    Wrong(
        line="compare run --against nobody", error="unknown arm 'nobody'", hint="known arms: opo"
    ),
    Wrong(
        line="compare --preset tiny --against pop",
        error="unknown algorithm of these 'pop'",
        hint="did you mean 'ppo'?",
    ),
    Wrong(
        line="compare --preset tiny --margin 2",
        error="--margin 2 is not between 0 and 1",
        hint="for example: --margin 0.02",
    ),
    Wrong(
        line="compare --preset tiny --margin nan",
        error="--margin nan is not between 0 and 1",
        hint="for example: --margin 0.02",
    ),
    Wrong(
        line="compare run --threshold nan",
        error="--threshold nan is no reward",
        hint="for example: --threshold 0.5",
    ),
    Wrong(
        line="compare run --threshold x",
        error="Invalid value for '--threshold': Input should be a valid number, unable to parse string as a number: 'x'",
        hint="opo compare --help",
    ),
    Wrong(
        line="compare --preset tiny --html a/", error="'a/' is a folder", hint="name a file in it"
    ),
    Wrong(line="compare --preset tiny --html .", error="'.' is a folder", hint="name a file in it"),
    Wrong(
        line="compare --preset tiny --html ''",
        error="an argument is empty: --html ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="compare --preset tiny --out ''",
        error="an argument is empty: --out ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="compare --preset tiny --out occupied/file",
        error="'occupied/file' is a file",
        hint="name a folder",
    ),
    Wrong(
        line="compare --preset tiny --out /dev/null/x",
        error="'/dev/null/x' cannot be written",
        hint="name another place",
    ),
    Wrong(
        line="compare --preset tiny --out {name}",
        error="cannot open or write '{name}': File name too long",
        hint="choose a shorter name",
    ),
    Wrong(
        line="compare --preset tiny --jobs 0",
        error="--jobs 0: at least one run at a time",
        hint="leave it out: one per core",
    ),
    Wrong(
        line="compare --preset tiny --jobs x",
        error="Invalid value for '--jobs': Input should be a valid integer, unable to parse string as an integer: 'x'",
        hint="opo compare --help",
    ),
    Wrong(
        line="compare --preset tiny --launcher torchrn",
        error="unknown launcher 'torchrn'",
        hint="did you mean 'torchrun'?",
    ),
    Wrong(
        line="compare --preset tiny --launcher slurm --ranks 2",
        error="unknown launcher 'slurm'",
        hint="known launchers: none, torchrun",
    ),
    Wrong(
        line="compare --preset tiny --ranks 2",
        error="--ranks 2 goes with --launcher torchrun",
        hint="give both or neither",
    ),
    Wrong(
        line="compare --preset tiny --launcher none --ranks 2",
        error="--ranks 2 goes with --launcher torchrun",
        hint="give both or neither",
    ),
    Wrong(
        line="compare --preset tiny --launcher torchrun --ranks 0",
        error="--ranks 0: at least one",
        hint="leave --ranks out: one for each GPU",
    ),
    Wrong(
        line="compare --preset tiny --launcher torchrun --ranks two",
        error="Invalid value for '--ranks': Input should be a valid integer, unable to parse string as an integer: 'two'",
        hint="opo compare --help",
    ),
    Wrong(
        line="compare --preset tiny --launcher torchrun --jobs 2",
        error="--jobs 2 with --launcher torchrun, whose runs go one after the other",
        hint="leave --jobs out",
    ),
    Wrong(
        line="compare run --launcher torchrun",
        error="--launcher torchrun goes with --preset, not with finished runs",
        hint="leave it out, or give a preset instead of runs",
    ),
    Wrong(
        line="lab --preset smoke --set rollout.tensor_parallel=2",
        error="rollout.tensor_parallel = 2: in the lab each rank has the whole policy, and an engine of its own",
        hint="--set rollout.tensor_parallel=1",
    ),
    Wrong(
        line="compare --preset tiny --preset smoke --algorithms zzz",
        error="unknown algorithm 'zzz'",
        hint="known algorithms: opo, opo-loo, grpo, grpo-on-policy, dr-grpo, dapo, rloo, reinforce++, reinforce++-baseline, gspo, cispo, remax, otb, gpg, ppo",
    ),
    Wrong(
        line="compare run 'run\nx'",
        error="no run at 'run\\nx'",
        hint="there is none yet: opo train",
    ),
    Wrong(
        line="compare run --format pdf",
        error="Invalid value for '--format' / '-f': Value error, 'pdf' is not one of 'rich', 'markdown', 'csv', 'json', 'latex': 'pdf'",
        hint="opo compare --help",
    ),
    Wrong(
        line="lab extra", error="Got unexpected extra argument(s) (extra)", hint="opo lab --help"
    ),
    Wrong(
        line="lab --preset tiny --run run",
        error="--preset tiny with a run, which has its own",
        hint="leave --preset out",
    ),
    Wrong(line="lab --preset tny", error="unknown preset 'tny'", hint="did you mean 'tiny'?"),
    Wrong(line="lab --prompts 1", error="--prompts 1: a lab needs 2 at least", hint="--prompts 64"),
    Wrong(
        line="lab --prompts x",
        error="Invalid value for '--prompts': Input should be a valid integer, unable to parse string as an integer: 'x'",
        hint="opo lab --help",
    ),
    Wrong(
        line="lab --prompts -5", error="--prompts -5: a lab needs 2 at least", hint="--prompts 64"
    ),
    Wrong(
        line="lab --responses 2",
        error="--responses 2: a lab needs 4 at least",
        hint="--responses 32",
    ),
    Wrong(
        line="lab --group-size 1",
        error="--group-size 1 with --responses 32: groups have 2 or more, and two of them are drawn at a time",
        hint="--group-size 16, or --responses 4",
    ),
    Wrong(
        line="lab --group-size 8,x",
        error="--group-size '8,x' is no list of numbers",
        hint="for example: --group-size 1,2,4",
    ),
    Wrong(
        line="lab --group-size 64",
        error="--group-size 64 with --responses 32: groups have 2 or more, and two of them are drawn at a time",
        hint="--group-size 16, or --responses 128",
    ),
    Wrong(
        line="lab --group-size ''",
        error="an argument is empty: --group-size ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="lab --estimators ,",
        error="--estimators ',' holds no name",
        hint="for example: --estimators a,b",
    ),
    Wrong(
        line="lab --parameters last",
        error="unknown parameters 'last'",
        hint="known parameters: all, last-block, lm-head, lora",
    ),
    Wrong(
        line="lab --precondition adm",
        error="unknown precondition 'adm'",
        hint="did you mean 'adam'?",
    ),
    Wrong(
        line="lab --precondition adam --parameters lora",
        error="--precondition adam with --parameters lora: the optimizer knows no fresh adapters",
        hint="leave one of the two out",
    ),
    Wrong(line="lab --memory 0", error="--memory 0 is no size in GB", hint="--memory 4"),
    Wrong(line="lab --memory nan", error="--memory nan is no size in GB", hint="--memory 4"),
    Wrong(
        line="lab --memory lots",
        error="Invalid value for '--memory': Input should be a valid number, unable to parse string as a number: 'lots'",
        hint="opo lab --help",
    ),
    Wrong(line="lab --seed -1", error="--seed -1 is below 0", hint="--seed 0"),
    Wrong(
        line="lab --run nowhere", error="no run at 'nowhere'", hint="there is none yet: opo train"
    ),
    Wrong(
        line="lab --run ''",
        error="an argument is empty: --run ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(
        line="lab --model nowhere",
        error="model folder 'nowhere' does not exist",
        hint="give a Hugging Face model folder (config.json, tokenizer.json, model.safetensors)",
    ),
    Wrong(
        line="lab --preset smoke --set rollout.temperature=0.5",
        error="rollout.temperature = 0.5: the lab measures the policy that is sampled from",
        hint="--set rollout.temperature=1",
    ),
    Wrong(
        line="lab --preset smoke --set rollout.top_p=0.5",
        error="rollout.top_p = 0.5: the lab measures the policy that is sampled from",
        hint="--set rollout.top_p=1",
    ),
    Wrong(
        line="lab --preset smoke --set lab=1",
        error="unknown config key 'lab'",
        hint="known keys: preset, description, seed, runtime, model, data, warmstart, algorithm, optim, rollout, train, eval, grading, checkpoint, certificate, measure, ledger, compare",
    ),
    Wrong(
        line="lab --preset smoke --format html",
        error="Invalid value for '--format' / '-f': Value error, 'html' is not one of 'rich', 'markdown', 'csv', 'json', 'latex': 'html'",
        hint="opo lab --help",
    ),
    Wrong(
        line="list",
        error="Missing argument 'presets|benchmarks|datasets|templates|algorithms|estimators|losses|reductions|engines|metrics|runs'",
        hint="opo list --help",
    ),
    Wrong(line="list preset", error="unknown list 'preset'", hint="did you mean 'presets'?"),
    Wrong(
        line="list zzz",
        error="unknown list 'zzz'",
        hint="known lists: presets, benchmarks, datasets, templates, algorithms, estimators, losses, reductions, engines, metrics, runs",
    ),
    Wrong(
        line="list presets extra",
        error="Got unexpected extra argument(s) (extra)",
        hint="opo list --help",
    ),
    Wrong(
        line="list presets --format html",
        error="Invalid value for '--format' / '-f': Value error, 'html' is not one of 'rich', 'markdown', 'csv', 'json', 'latex': 'html'",
        hint="opo list --help",
    ),
    Wrong(
        line="list ''",
        error="an argument is empty: list ''",
        hint="give it a value, or leave it out",
    ),
    Wrong(line="lists", error="No such command 'lists'. Did you mean 'list'?", hint="opo --help"),
    Wrong(line="--zzz", error="No such option: --zzz", hint="opo --help"),
    Wrong(line="'[bold]x[/bold]'", error="No such command '[bold]x[/bold]'", hint="opo --help"),
    Wrong(
        line="grade rows.jsonl",
        error="cannot read 'rows.jsonl': Too many levels of symbolic links",
        hint="check its permissions",
        makes=(loop("rows.jsonl"),),
    ),
]
