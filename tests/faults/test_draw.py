"""Points are drawn by a seed, both kinds in turn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from opo_cli.faults.draw import Reference, draw_trial
from opo_cli.faults.trials import reference_of

REFERENCE = Reference(seconds=10.0, writes=[2.0, 3.0, 4.5, 6.0, 9.0], training=(3.0, 6.0))


def test_the_same_seed_draws_the_same_points():
    first, again, other = ([draw_trial(s, n, REFERENCE) for n in range(20)] for s in (3, 3, 4))
    assert first == again != other
    assert draw_trial(3, 0, REFERENCE, 1) != first[0]  # Where the first points were too late.


def test_half_begin_at_a_write_and_half_by_time_and_some_are_killed_again():
    trials = [draw_trial(0, number, REFERENCE) for number in range(200)]
    assert all((trial[0].action == "tell") == n % 2 for n, trial in enumerate(trials))
    kinds = Counter(trial[0].action for trial in trials)
    assert kinds["tell"] == 100
    assert min(kinds["die"], kinds["tear"]) > 30
    lengths = Counter(map(len, trials))
    assert set(lengths) == {1, 2, 3}
    assert lengths[1] > lengths[2] > lengths[3]


def test_every_point_lies_within_the_run():
    for doom in (doom for n in range(300) for doom in draw_trial(1, n, REFERENCE)):
        if doom.action == "tell":
            begin = [0.0, *REFERENCE.writes][doom.at]
            end = [*REFERENCE.writes, REFERENCE.seconds][doom.at]
            assert 0 <= doom.delay_seconds <= end - begin
        else:
            assert 1 <= doom.at <= len(REFERENCE.writes)
            assert doom.action == "die" or 1 <= doom.tear_bytes <= 2**16


def test_the_log_of_writes_tells_when_training_began_and_ended(tmp_path: Path):
    log = tmp_path / "writes.txt"
    log.write_text(
        "1.0 open /r/config.json\n2.5 os.rename /r/.steps.jsonl.x\n"
        "3.0 open /r/steps.jsonl\n4.0 open /r/steps.jsonl\n5.0 os.mkdir /r/model\n"
    )
    found = reference_of(log, 6.0)
    assert found == Reference(6.0, [1.0, 2.5, 3.0, 4.0, 5.0], (2.5, 4.0))
