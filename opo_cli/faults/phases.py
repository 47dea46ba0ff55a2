"""What a process was doing when it was killed: from the functions on its stack."""

from __future__ import annotations

import re
from pathlib import Path

PHASE_OF = {
    "cli/train.py:command": "start",
    "train/loop.py:__init__": "start",
    "train/warmstart.py:prepare": "start",
    "train/outputs.py:start_run": "start",
    "grading/workers.py:__init__": "start",
    "train/checkpoint.py:load": "resuming",
    "records.py:go_back": "resuming",
    "train/rollouts.py:sample_groups": "rollout",
    "train/rollouts.py:greedy_answers": "rollout",
    "train/measure.py:sample_probe": "rollout",
    "grading/pool.py:grade": "grading",
    "train/step.py:score_batch": "scoring",
    "train/step.py:with_advantages": "scoring",
    "train/measure.py:measure_kl": "measuring",
    "train/measure.py:measure_probe": "measuring",
    "train/measure.py:measure_diversity": "measuring",
    "train/measure.py:measure_shift": "measuring",
    "train/update.py:update": "update",
    "train/step.py:training_step": "between phases",
    "train/loop.py:_train": "between phases",
    "train/loop.py:run": "between phases",
    "train/loop.py:_certify": "certificate",
    "train/loop.py:_keep_rollouts": "ledger",
    "records.py:add_step": "log",
    "train/loop.py:_keep_snapshot": "snapshot",
    "train/loop.py:_checkpoint": "checkpoint",
    "train/best.py:save_best": "checkpoint",
    "train/best.py:load_best": "evaluation",
    "evaluate/run.py:evaluate": "evaluation",
    "records.py:write_evals": "log",
    "train/loop.py:_save_model": "saving the model",
    "report/evals.py:print_run": "end",
}
"""`file:function` of this package -> phase; the innermost one on a stack counts."""

_PACKAGE = Path(__file__).parent.parent
_FRAME = re.compile(r'^  File "(.+)", line \d+ in (.+)$', re.MULTILINE)


def phase_of(stack: str) -> str | None:
    """Of a dump by faulthandler, most recent call first, the main thread last; None: no known
    function is among the hundred calls that it shows of that."""
    for file, function in _FRAME.findall(stack.split("\n\n")[-1]):
        path = Path(file)
        if path.is_relative_to(_PACKAGE):
            name = f"{path.relative_to(_PACKAGE).as_posix()}:{function}"
            if name in PHASE_OF:
                return PHASE_OF[name]
    return None
