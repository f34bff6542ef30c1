"""Numbers that are not finite: caught at their step, named, and dealt with as the configuration says."""

import csv
import random
import re

import pytest
import torch
import yaml

from tests.conftest import prepared
from tests.reliability.runs import assert_same, checkpoints, config, final


def poisoned(tmp_path, where, steps, kind="gpt", **changes):
    """The command of a run to which it happens."""
    path = config(kind, tmp_path, **changes)
    settings = yaml.safe_load(path.read_text())
    probe = {"class_path": "tests.reliability.probes.Poison", "init_args": {"where": where, "steps": steps}}
    settings["trainer"]["callbacks"].append(probe)
    path.write_text(yaml.safe_dump(settings))
    return ["fit", "--config", path, "--allow_class_paths", "tests"]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("weight", r"loss nan .*the weights of blocks\.0\.attention_norm\.weight are not finite"),
        ("output", r"loss nan .*first module whose output is not finite is blocks\.0\.attention_norm \(LayerNorm\)"),
        ("loss", r"loss inf .*the first module whose output is not finite is the loss itself, out of finite outputs"),
        ("gradient", r"gradient norm nan .*the first gradient that is not is that of final_norm\.weight"),
    ],
)
def test_the_run_stops_at_that_step_and_says_where_it_came_from(run, tmp_path, where, message):
    status, out, err = run(*poisoned(tmp_path, where, [4]))
    assert status == 3
    assert re.search(message, err), err
    assert re.search(r"at step 5, epoch 0, batch 8, 9 \(rows \d+(, \d+){15}, \.\.\. of the training split\)", err), err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    held = torch.load(checkpoints(tmp_path / "logs/gpt/version_0")[4])["state_dict"]
    assert all(tensor.isfinite().all() for tensor in held.values())


def test_the_rows_that_are_named_are_those_of_the_batch(run, tmp_path):
    """Found again by the sampler of a fresh data module."""
    from src.data import LMDataModule

    status, _, err = run(*poisoned(tmp_path, "loss", [2], data__init_args__batch_size=4))
    assert status == 3
    settings = yaml.safe_load((tmp_path / "gpt.yaml").read_text())["data"]["init_args"]
    sampler = prepared(LMDataModule(**settings)).train_dataloader().sampler
    rows = [int(row) for batch in sampler.batches(0)[4:6] for row in batch]
    assert f"(rows {', '.join(map(str, rows))} of the training split)" in err


@pytest.mark.parametrize("kind", ["gpt", "bert", "transformer"])
def test_skipping_leaves_the_step_out_and_counts(run, tmp_path, kind):
    status, out, err = run(*poisoned(tmp_path, "gradient", [4, 6], kind), "--guard.on_fault", "skip")
    assert status == 0, err
    assert "fault 1 of at most 10, skip" in out
    assert "fault 2 of at most 10, skip" in out
    before, after = (torch.load(checkpoints(tmp_path / f"logs/{kind}/version_0")[step]) for step in (4, 5))
    for name, weight in before["plain_weights"].items():
        assert torch.equal(after["plain_weights"][name], weight), name
    assert_same(
        [state["exp_avg"] for state in after["optimizer_states"][0]["state"].values()],
        [state["exp_avg"] for state in before["optimizer_states"][0]["state"].values()],
    )
    last = final(tmp_path / f"logs/{kind}/version_0")
    assert last["global_step"] == 12
    assert all(tensor.isfinite().all() for tensor in last["state_dict"].values())


def test_skipping_has_a_limit_which_a_resume_does_not_begin_anew(run, tmp_path):
    command = poisoned(tmp_path, "gradient", [2, 5, 8])
    options = ("--guard.on_fault", "skip", "--guard.max_faults", 2)
    status, _, err = run(*command, *options)
    assert status == 3
    assert "it is fault 3, and guard.max_faults is 2" in err
    resume = ("fit", "--ckpt_path", checkpoints(tmp_path / "logs/gpt/version_0")[7], "--allow_class_paths", "tests")
    status, _, err = run(*resume)
    assert status == 3
    assert "step 9," in err
    assert "it is fault 3" in err


def test_a_rollback_takes_the_last_checkpoint_a_lower_rate_and_the_next_batches(run, tmp_path):
    changes = {"checkpoint__every_n_train_steps": 3, "trainer__log_every_n_steps": 1}
    command = poisoned(tmp_path, "loss", [4], **changes)
    status, out, err = run(*command, "--guard.on_fault", "rollback", "--guard.rollback_factor", 0.1)
    assert status == 0, err
    assert "back to the weights of step 3, learning rate x 0.1 from here" in out
    whole = run("fit", "--config", config("gpt", tmp_path, **changes))
    assert whole[0] == 0
    rates = []
    for n in (0, 1):
        with (tmp_path / f"logs/gpt/version_{n}/metrics.csv").open() as file:
            rates.append(
                {r["step"]: float(r["train/learning_rate"]) for r in csv.DictReader(file) if r["train/learning_rate"]}
            )
    assert rates[0]["3"] == rates[1]["3"]
    assert rates[0]["6"] == pytest.approx(0.1 * rates[1]["6"])
    # the rate stays low in a run that goes on from it
    resume = ("fit", "--ckpt_path", checkpoints(tmp_path / "logs/gpt/version_0")[6], "--allow_class_paths", "tests")
    assert run(*resume)[0] == 0
    assert_same(final(tmp_path / "logs/gpt/version_2"), final(tmp_path / "logs/gpt/version_0"))


def test_a_rollback_without_a_checkpoint_stops(run, tmp_path):
    command = poisoned(tmp_path, "loss", [1], checkpoint__every_n_train_steps=None)
    status, _, err = run(*command, "--guard.on_fault", "rollback")
    assert status == 3
    assert "there is no checkpoint yet to go back to" in err


def spikes(out):
    return [line for line in out.splitlines() if "loss spike" in line]


def test_a_poisoned_row_is_the_cause_of_its_spike_and_is_named(run, tmp_path):
    """One document of noise among good ones; that the loss falls before it is no spike."""
    from src.data import LMDataModule

    good = "the cat sat on the mat while seven dogs ran over it. " * 12
    noise = "".join(random.Random(0).choices("0123456789#@%&", k=20))
    still = {"dropout": 0.0, "attention_dropout": 0.0}
    changes = {"trainer__max_steps": 165, "trainer__accumulate_grad_batches": 1, "data__init_args__batch_size": 4}
    path = config("gpt", tmp_path, checkpoint__every_n_train_steps=None, trainer__limit_val_batches=0, **changes)
    (tmp_path / "text.txt").write_text("\n\n".join([*[good] * 18, noise, *[good] * 6]))
    settings = yaml.safe_load(path.read_text())
    settings["model"]["init_args"]["config"] |= still
    settings["data"]["init_args"]["max_documents"] = None
    path.write_text(yaml.safe_dump(settings))
    status, out, err = run("fit", "--config", path)
    assert status == 0, err
    (line,) = spikes(out)
    assert "the weights are not the cause, but the rows of the step" in line
    data = prepared(LMDataModule(**settings["data"]["init_args"]))
    named = map(int, re.search(r"\(rows ([\d, ]+) of the training split\)", line)[1].split(", "))
    texts = [data.tokenizer.decode(data.dataset("train")[0, row]["input_ids"].tolist()) for row in named]
    assert [set(text) & set(noise) != set() for text in texts].count(True) == 1


def test_weights_gone_bad_are_the_cause_of_their_spike_and_no_rows_are_named(run, tmp_path):
    command = poisoned(tmp_path, "rate", [30], checkpoint__every_n_train_steps=None, trainer__max_steps=34)
    status, out, err = run(*command, "--trainer.limit_val_batches", 0, "--trainer.gradient_clip_val", "null")
    assert status == 0, err
    first = spikes(out)[0]
    assert "at step 32: " in first
    assert "the weights are the cause, not the rows of the step" in first
    assert "(rows" not in first


@pytest.mark.parametrize("n_future_tokens", [1, 2])
def test_to_look_into_spikes_changes_nothing(run, tmp_path, n_future_tokens):
    """With dropout and weight averaging; every other step is taken for a spike."""
    changes = {"checkpoint__every_n_train_steps": None, "trainer__max_steps": 30}
    path = config("gpt", tmp_path, **changes, model__init_args__config__n_future_tokens=n_future_tokens)
    for spike in (1e9, 1e-9):
        status, out, err = run("fit", "--config", path, "--guard.spike", spike, "--model.optimizer.lr", 1e-5)
        assert status == 0, err
    assert len(spikes(out)) >= 2
    assert_same(final(tmp_path / "logs/gpt/version_1"), final(tmp_path / "logs/gpt/version_0"))
