"""Each run of a study is done once, whoever works on it and whoever dies."""

import multiprocessing
from collections import Counter

import pytest
from optuna.trial import TrialState

from src.extras.sweep import queue as queue_module
from src.extras.sweep.queue import Slot, current_trials, wanted_slots
from src.extras.sweep.study import default_storage, find_study, open_storage
from tests.extras.sweep.pretend import opened, sweep, work


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "study"


def finish(queue, claim, value=0.0, state="complete"):
    queue.finish(claim, {"state": state, "value": value})


def run_all(queue, value=lambda claim: 0.0):
    """Run all that there is; gives what was claimed, in order."""
    claims = []
    while (claim := queue.claim()) is not None:
        claims.append(claim)
        finish(queue, claim, value(claim))
    assert queue.is_done()
    return claims


def test_processes_share_a_study_and_take_up_what_the_dead_left(folder, tmp_path):
    """Four start at once on nothing; two of them die with a run in hand. Each of the 12 runs is done once."""
    log = tmp_path / "log"
    opened(folder, sweep()).close()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(folder, log, die_at)) for die_at in (None, None, 0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    done = Counter(log.read_text().splitlines())
    assert done == {f"{cell} {seed}": 1 for cell in range(6) for seed in range(2)}
    trials = opened(folder, sweep()).trials()
    assert sum(trial.state == TrialState.COMPLETE for trial in trials) == 12
    dead = sum(worker.exitcode == 1 for worker in workers)
    assert sum(bool(trial.user_attrs.get("lost")) for trial in trials) == dead


def test_all_cells_have_a_seed_before_the_next_seed(folder):
    claims = run_all(opened(folder, sweep()))
    assert [claim.slot for claim in claims] == [Slot(cell, seed) for seed in range(2) for cell in range(6)]
    assert [claim.parameters for claim in claims[:6]] == sweep().grid()


def test_more_seeds_are_run_and_nothing_again(folder):
    run_all(opened(folder, sweep()))
    claims = run_all(opened(folder, sweep(seeds=[0, 1, 2])))
    assert [claim.slot.seed for claim in claims] == [2] * 6


def test_what_is_given_back_is_run_again_and_counted_once(folder):
    queue = opened(folder, sweep())
    queue.release(queue.claim())
    assert len(run_all(queue)) == 12
    assert queue.progress() == (12, 12)


def test_a_run_of_another_machine_is_lost_without_signs_of_life(folder, monkeypatch):
    monkeypatch.setattr(queue_module, "LOST_SECONDS", 10)
    now = [0.0]
    monkeypatch.setattr(queue_module, "monotonic", lambda: now[0])
    there, here = opened(folder, sweep()), opened(folder, sweep())
    claim = there.claim()
    there._lock_of(there.worker).unlink()  # its folder is not this machine's
    for beat in range(3):
        there.heartbeat(claim, beat)
        here.is_done()
        now[0] += 9
        assert here.storage.get_trial(claim.trial_id).state == TrialState.RUNNING
    here.is_done()
    now[0] += 2
    here.is_done()
    assert here.storage.get_trial(claim.trial_id).state == TrialState.FAIL
    assert claim.slot in {c.slot for c in run_all(here)}
    finish(there, claim, 5.0)  # too late: what was done instead of it counts
    assert current_trials(here.trials())[claim.slot].value == 0.0


def test_tuning_judges_no_choice_by_the_seed_that_chose_it(folder):
    """Of each ``a`` the ``b`` that was best with seed 9 is run with the other seeds, and no other."""
    own = [{"name": a, "value": a, "parameters": {"b": [10, 20, 30]}} for a in ("x", "y", "z")]
    made = sweep(parameters={"a": own}, seeds=[0, 1], tuning_seeds=[9])
    queue = opened(folder, made)
    best = {"x": 20, "y": 30}
    tuned = []
    for _ in range(9):
        claim = queue.claim()
        (a, b) = claim.parameters["a"], claim.parameters[f"{claim.parameters['a']}: b"]
        tuned.append((a, b, claim.slot.seed))
        finish(queue, claim, abs(b - best.get(a, 0)), "diverged" if a == "z" else "complete")
    assert set(tuned) == {(a, b, 9) for a in "xyz" for b in (10, 20, 30)}
    claims = run_all(queue)  # all rates of z diverged: it has no best
    assert [(c.parameters["a"], c.parameters[f"{c.parameters['a']}: b"], c.slot.seed) for c in claims] == [
        ("x", 20, 0),
        ("y", 30, 0),
        ("x", 20, 1),
        ("y", 30, 1),
    ]


def test_hopeless_cells_are_not_tried_with_more_seeds(folder):
    queue = opened(folder, sweep(pruner="median"))
    for _ in range(6):
        claim = queue.claim()
        finish(queue, claim, 1.0, "pruned" if claim.slot.cell == 3 else "complete")
    assert {claim.slot.cell for claim in run_all(queue)} == {0, 1, 2, 4, 5}


def test_the_pruner_stops_what_is_worse_than_the_median(folder):
    made = sweep(pruner="median", parameters={"a": list(range(8))})
    from src.extras.sweep.study import with_pruner

    queue = opened(folder, made)
    with_pruner(queue.study, made)
    stopped = []
    for value in (1, 2, 3, 4, 0, 9):
        claim = queue.claim()
        stopped.append(queue.report(claim, 10, float(value)))
        finish(queue, claim, float(value))
    assert stopped == [False, False, False, False, False, True]


RANGES = {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "n": {"low": 1, "high": 9}, "kind": ["x", "y"]}


def test_random_cells_are_the_same_in_any_order_and_in_a_second_study(folder, tmp_path):
    made = sweep(parameters=RANGES, sampler="random", cells=6)
    first = run_all(opened(folder, made))
    cells = {claim.slot.cell: claim.parameters for claim in first if claim.slot.seed == 0}
    other = opened(tmp_path / "other", made)
    claims = [other.claim() for _ in range(6)]
    assert {claim.slot.cell: claim.parameters for claim in claims} == cells
    assert len({parameters["lr"] for parameters in cells.values()}) == 6
    assert {claim.slot.cell: claim.parameters for claim in first if claim.slot.seed == 1} == cells
    assert all(1e-4 <= p["lr"] <= 1e-1 and p["n"] in range(1, 10) and p["kind"] in "xy" for p in cells.values())


def test_a_chosen_cell_stays_what_it_is_when_its_process_dies(folder):
    made = sweep(parameters=RANGES, sampler="tpe", cells=3)
    queue = opened(folder, made)
    claim = queue.claim()
    queue.release(claim)
    again = queue.claim()
    assert (again.slot, again.parameters) == (claim.slot, claim.parameters)


def test_tpe_learns_where_it_is_good(folder):
    """A slope over three decades: what it chooses late is better than what it chose blindly, the first ten."""
    made = sweep(parameters={"x": {"low": 1e-3, "high": 1.0, "log": True}}, sampler="tpe", cells=30, seeds=[0])
    values = [claim.parameters["x"] for claim in run_all(opened(folder, made), lambda claim: claim.parameters["x"])]
    assert sum(values[20:]) < 0.5 * sum(values[:10])


def test_what_others_added_twice_is_never_run(folder):
    queue = opened(folder, sweep())
    queue.is_done()
    for trial in queue.trials()[:3]:
        queue._add(Slot(trial.user_attrs["cell"], trial.user_attrs["seed"]), queue.trials())
    assert len(run_all(queue)) == 12
    assert len(wanted_slots(queue.sweep, current_trials(queue.trials()))) == 12


def test_the_study_is_found_again(folder):
    queue = opened(folder, sweep())
    storage = open_storage(default_storage(folder), folder)
    assert find_study(storage, folder.name).user_attrs["sweep"] == queue.sweep.as_dict()
    assert find_study(storage, "another") is None
