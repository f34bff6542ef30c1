"""Each run of a study is done once, whoever works on it and whoever dies."""

import multiprocessing
from collections import Counter
from dataclasses import asdict

import pytest
from optuna.trial import TrialState

from src.extras.sweep import queue as queue_module
from src.extras.sweep.queue import Run, current_trials, is_lost, run_of, wanted_runs
from src.extras.sweep.study import find_study, open_storage
from tests.extras.sweep.pretend import opened, sweep, work

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


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


def pass_time(queue, seconds):
    """Let all heartbeats of a study be older."""
    with queue.storage.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-{seconds} seconds')")


@pytest.mark.slow
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
    assert sum(map(is_lost, trials)) == dead


def test_all_cells_have_a_seed_before_the_next_seed(folder):
    claims = run_all(opened(folder, sweep()))
    assert [run_of(claim) for claim in claims] == [Run(cell, seed) for seed in range(2) for cell in range(6)]
    assert [claim.params for claim in claims[:6]] == sweep().grid()


def test_more_seeds_are_run_and_nothing_again(folder):
    run_all(opened(folder, sweep()))
    claims = run_all(opened(folder, sweep(seeds=[0, 1, 2])))
    assert [run_of(claim).seed for claim in claims] == [2] * 6


def test_what_is_given_back_is_run_again_and_counted_once(folder):
    queue = opened(folder, sweep())
    queue.release(queue.claim())
    assert len(run_all(queue)) == 12
    assert queue.progress() == (12, 12)


def test_a_run_of_another_machine_is_lost_without_heartbeats(folder, monkeypatch):
    monkeypatch.setattr(queue_module, "HEARTBEAT_SECONDS", 0)
    there, here = opened(folder, sweep()), opened(folder, sweep())

    claim = there.claim()
    there._lock_of(there.worker).unlink()  # its folder is not this machine's
    for _ in range(3):
        there.heartbeat()
        pass_time(here, 60)
        here.is_done()
        assert here.storage.get_trial(claim._trial_id).state == TrialState.RUNNING
    pass_time(here, 61)
    here.is_done()
    assert here.storage.get_trial(claim._trial_id).state == TrialState.FAIL
    assert run_of(claim) in {run_of(c) for c in run_all(here)}
    finish(there, claim, 5.0)  # too late: what was done instead of it counts
    assert current_trials(here.trials())[run_of(claim)].value == 0.0


def test_a_process_takes_none_of_its_own_runs_for_lost(folder):
    """The machine may have slept for longer than a run may be without a heartbeat."""
    queue = opened(folder, sweep())
    claim = queue.claim()
    pass_time(queue, 86400)
    queue._last_heartbeat -= 86400
    queue.claim()
    assert queue.storage.get_trial(claim._trial_id).state == TrialState.RUNNING


def test_tuning_judges_no_choice_by_the_seed_that_chose_it(folder):
    """Of each ``a`` the ``b`` that was best with seed 9 is run with the other seeds, and no other."""
    own = [{"name": a, "value": a, "parameters": {"b": [10, 20, 30]}} for a in ("x", "y", "z")]
    made = sweep(parameters={"a": own}, seeds=[0, 1], tuning_seeds=[9])
    queue = opened(folder, made)
    best = {"x": 20, "y": 30}
    tuned = []
    for _ in range(9):
        claim = queue.claim()
        (a, b) = claim.params["a"], claim.params[f"{claim.params['a']}: b"]
        tuned.append((a, b, run_of(claim).seed))
        finish(queue, claim, abs(b - best.get(a, 0)), "diverged" if a == "z" else "complete")
    assert set(tuned) == {(a, b, 9) for a in "xyz" for b in (10, 20, 30)}
    claims = run_all(queue)  # all rates of z diverged: it has no best
    assert [(c.params["a"], c.params[f"{c.params['a']}: b"], run_of(c).seed) for c in claims] == [
        ("x", 20, 0),
        ("y", 30, 0),
        ("x", 20, 1),
        ("y", 30, 1),
    ]


def test_pruned_cells_are_not_tried_with_more_seeds(folder):
    queue = opened(folder, sweep(pruner="median"))
    for _ in range(6):
        claim = queue.claim()
        finish(queue, claim, 1.0, "pruned" if run_of(claim).cell == 3 else "complete")
    assert {run_of(claim).cell for claim in run_all(queue)} == {0, 1, 2, 4, 5}


def test_the_pruner_stops_what_is_worse_than_the_median(folder):
    made = sweep(pruner="median", parameters={"a": list(range(8))})
    queue = opened(folder, made)
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
    cells = {run_of(claim).cell: claim.params for claim in first if run_of(claim).seed == 0}
    other = opened(tmp_path / "other", made)
    claims = [other.claim() for _ in range(6)]
    assert {run_of(claim).cell: claim.params for claim in claims} == cells
    assert len({parameters["lr"] for parameters in cells.values()}) == 6
    assert {run_of(claim).cell: claim.params for claim in first if run_of(claim).seed == 1} == cells
    assert all(1e-4 <= p["lr"] <= 1e-1 and p["n"] in range(1, 10) and p["kind"] in "xy" for p in cells.values())


def test_a_chosen_cell_stays_what_it_is_when_its_process_dies(folder):
    made = sweep(parameters=RANGES, sampler="tpe", cells=3)
    queue = opened(folder, made)
    claim = queue.claim()
    queue.release(claim)
    again = queue.claim()
    assert (run_of(again), again.params) == (run_of(claim), claim.params)


def test_tpe_learns_where_it_is_good(folder):
    """A slope over three decades: what it chooses late is better than what it chose blindly, the first ten."""
    made = sweep(parameters={"x": {"low": 1e-3, "high": 1.0, "log": True}}, sampler="tpe", cells=30, seeds=[0])
    values = [claim.params["x"] for claim in run_all(opened(folder, made), lambda claim: claim.params["x"])]
    assert sum(values[20:]) < 0.5 * sum(values[:10])


def test_what_others_added_twice_is_never_run(folder):
    queue = opened(folder, sweep())
    queue.is_done()
    for trial in queue.trials()[:3]:
        queue._enqueue(Run(trial.user_attrs["cell"], trial.user_attrs["seed"]), queue.trials())
    assert len(run_all(queue)) == 12
    assert len(wanted_runs(queue.sweep, current_trials(queue.trials()))) == 12


def test_the_study_is_found_again(folder):
    queue = opened(folder, sweep())
    storage = open_storage(folder)
    assert find_study(storage, folder.name).user_attrs["sweep"] == asdict(queue.sweep)
    assert find_study(storage, "another") is None
