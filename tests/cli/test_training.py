"""The command line as a user types it: a run's files, layers of configuration, resuming, and what is refused."""

import csv
import os
import re
import shlex
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import Thread

import pytest
import torch
import yaml

from src.errors import InputError
from src.optim import Muon
from src.tasks.configuration import check_optimizer


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_a_run_leaves_all_that_belongs_to_it(run, config, text_file, tmp_path):
    status, out, _ = run("fit", "--config", config, "--trainer.callbacks", "[{class_path: TextSamples}]")
    assert status == 0
    folder = tmp_path / "logs/tiny/version_0"
    for name in ("config.yaml", "tokenizer.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        assert (folder / name).is_file(), name
    assert only(folder, "events.out.tfevents.*").stat().st_size > 0
    assert [path.name for path in sorted((folder / "samples").iterdir())] == ["step_000006.txt", "step_000012.txt"]
    # one sample begins a document, the other goes on with the first whole words of one that is not trained on
    _, continued = (folder / "samples/step_000012.txt").read_text().split("\n\n--------\n\n")
    beginnings = [document[:16].rpartition(" ")[0] for document in text_file.read_text().split("\n\n")]
    assert any(len(words) > 3 and continued.startswith(words) for words in beginnings)
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    validations = [row for row in rows if row["val/loss"]]
    assert [int(row["step"]) for row in validations] == [6, 12]
    assert {"val/perplexity", "val/bits_per_byte", "train/gradient_norm", "train/learning_rate"} <= rows[0].keys()
    assert {"throughput/tokens_per_second", "throughput/hardware_utilisation"} <= rows[0].keys()
    # what is printed are the last validation's figures, and commands that can be copied
    assert f"{float(validations[-1]['val/loss']):.4f}" in out
    assert "./run.sh tensorboard --logdir" in out
    assert "12 optimizer steps of" in out


def test_paths_and_commands_are_printed_whole_and_can_be_pasted(run, config, tmp_path, monkeypatch):
    monkeypatch.setenv("RUN_SH", "/tmp/x y/run.sh")
    logs = tmp_path / f"a folder {'of a long name ' * 8}é [1]"
    status, out, err = run("fit", "--config", config, "--trainer.max_steps", 1, "--trainer.default_root_dir", logs)
    assert status == 0, err
    folder = logs / "tiny/version_0"
    assert re.findall(r"^  run +(.*)$", out, re.M) == [str(folder)] * 2
    assert f" {folder / 'checkpoints/last.ckpt'}\n" in out
    (command,) = re.findall(r"look at it +(.*)\n", out)
    assert shlex.split(command) == ["/tmp/x y/run.sh", "tensorboard", "--logdir", str(logs / "tiny")]


def test_the_logged_loss_of_an_epochs_last_step_is_a_mean_as_the_others_are(run, config, tmp_path):
    """That step has fewer batches than are accumulated: the shares that these have in it are larger."""
    options = ["--trainer.accumulate_grad_batches", 16, "--trainer.log_every_n_steps", 1, "--trainer.max_steps", 6]
    status, _, err = run("fit", "--config", config, *options, "--trainer.val_check_interval", 20)
    assert status == 0, err
    with (tmp_path / "logs/tiny/version_0/metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert len(losses) == 6
    assert all(later < earlier + 0.05 for earlier, later in pairwise(losses)), losses


STREAM = ["--data.streaming", True, "--data.holdout_documents", 5]


@pytest.mark.parametrize("data", [[], STREAM], ids=["packed", "streamed"])
def test_the_last_step_of_a_limited_epoch_has_the_whole_gradient(run, config, tmp_path, data):
    """Of 3 batches, two to a step: the loss of the second step is that of one batch, and not half of it."""
    limits = ["--trainer.limit_train_batches", 3, "--trainer.accumulate_grad_batches", 2, "--trainer.max_epochs", 2]
    quiet = ["--trainer.max_steps", -1, "--trainer.log_every_n_steps", 1, "--model.optimizer.lr", 1e-5]
    status, _, err = run("fit", "--config", config, *limits, *quiet, *data)
    assert status == 0, err
    with (tmp_path / "logs/tiny/version_0/metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert losses == pytest.approx([losses[0]] * 4, rel=0.1)


def test_what_was_prepared_beforehand_is_what_is_trained_on(run, config, tmp_path):
    status, out, err = run("prepare", "--config", config, "--model.config.d_model", 1 << 40)  # no network is made
    assert status == 0, err
    assert re.search(r"\ntrain: 54 documents, .* blocks\nvalidation: 3 documents", out)
    assert not (tmp_path / "logs").exists()
    status, out, err = run("fit", "--config", config, "--trainer.max_steps", 1)
    assert status == 0, err
    assert "preparing" not in out
    status, _, err = run("prepare", "--config", config, "--data.seq_len", 100_000)
    assert status == 2
    assert re.fullmatch(r"error: the train split has .* tokens, fewer than one block.*\n", err)


def test_a_new_run_never_writes_into_an_old_one(run, config, tmp_path):
    assert run("fit", "--config", config, "--trainer.max_steps", 2)[0] == 0
    folder = tmp_path / "logs/tiny/version_0"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run("fit", "--config", config, "--trainer.max_steps", 2)[0] == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert (tmp_path / "logs/tiny/version_1/checkpoints/last.ckpt").is_file()


def test_the_saved_configuration_starts_the_same_run_again(run, config, tmp_path):
    run("fit", "--config", config)
    run("fit", "--config", tmp_path / "logs/tiny/version_0/config.yaml")
    runs = [torch.load(tmp_path / f"logs/tiny/version_{n}/checkpoints/last.ckpt") for n in (0, 1)]
    for name, weights in runs[0]["state_dict"].items():
        assert torch.equal(weights, runs[1]["state_dict"][name])


def test_layers_lie_over_each_other_and_the_command_line_over_all(run, config, tmp_path):
    layer = tmp_path / "layer.yaml"
    layer.write_text("trainer: {max_steps: 3, gradient_clip_val: 0.5}\nmodel: {init_args: {config: {d_model: 8}}}\n")
    assert run("fit", "--config", config, "--config", layer, "--trainer.max_steps", 2)[0] == 0
    saved = yaml.safe_load((tmp_path / "logs/tiny/version_0/config.yaml").read_text())
    assert saved["trainer"]["max_steps"] == 2
    assert saved["trainer"]["gradient_clip_val"] == 0.5
    assert saved["model"]["init_args"]["config"]["d_model"] == 8
    assert saved["model"]["init_args"]["config"]["n_heads"] == 2


def test_resuming_continues_the_same_run_exactly(run, config, tmp_path):
    """With dropout, shuffling and a schedule: stopped after 7 of 12 steps, within an epoch."""
    settings = yaml.safe_load(config.read_text())
    settings["model"]["init_args"]["schedule"] = {"class_path": "Constant", "init_args": {"warmup_steps": 2}}
    config.write_text(yaml.safe_dump(settings))
    run("fit", "--config", config)
    run("fit", "--config", config, "--trainer.max_steps", 7)
    run("fit", "--ckpt_path", tmp_path / "logs/tiny/version_1/checkpoints/last.ckpt", "--trainer.max_steps", 12)
    whole, resumed = (torch.load(tmp_path / f"logs/tiny/version_{n}/checkpoints/last.ckpt") for n in (0, 2))
    assert resumed["global_step"] == 12
    for name, weights in whole["state_dict"].items():
        assert torch.equal(weights, resumed["state_dict"][name]), name


def test_on_resuming_the_command_line_rules_over_the_checkpoint(run, config, tmp_path):
    """Lightning alone would go on at the checkpoint's learning rate, silently."""
    run("fit", "--config", config, "--trainer.max_steps", 4)
    last = tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt"
    arguments = ("--trainer.max_steps", 6, "--model.optimizer.lr", 0.5, "--model.schedule", "Constant")
    status, out, _ = run("fit", "--ckpt_path", last, *arguments)
    assert status == 0
    assert re.search(r"model\.init_args\.optimizer\.init_args\.lr: 0\.01 -> 0\.5", out)
    assert re.search(r"trainer\.max_steps: 4 -> 6", out)
    group = torch.load(tmp_path / "logs/tiny/version_1/checkpoints/last.ckpt")["optimizer_states"][0]["param_groups"][0]
    assert group["lr"] == 0.5
    with (tmp_path / "logs/tiny/version_1/metrics.csv").open() as file:
        rates = [float(row["train/learning_rate"]) for row in csv.DictReader(file) if row["train/learning_rate"]]
    assert rates == [0.5]


def test_a_checkpoint_alone_is_enough_to_evaluate(run, config, tmp_path):
    run("fit", "--config", config)
    last = tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt"
    with (tmp_path / "logs/tiny/version_0/metrics.csv").open() as file:
        expected = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]][-1]
    status, out, err = run("validate", "--ckpt_path", last)
    assert status == 0, err
    with (tmp_path / "logs/tiny/version_1/metrics.csv").open() as file:
        assert float(next(csv.DictReader(file))["val/loss"]) == pytest.approx(expected, rel=1e-6)
    status, out, err = run("test", "--ckpt_path", last)
    assert status == 0, err
    assert "test/bits_per_byte" in out
    assert out.endswith(f"metrics: {tmp_path / 'logs/tiny/version_2'}\n")


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_an_untrained_network_is_not_evaluated(run, config, tmp_path, verb):
    status, _, err = run(verb, "--config", config, "--model.pretrained", "any.ckpt")
    assert status == 2
    assert err == f"error: {verb} is of a trained network: name a checkpoint by --ckpt_path\n"
    assert not (tmp_path / "logs").exists()


def test_an_experiment_may_be_a_folder_of_experiments(run, config, tmp_path):
    arguments = ["--config", config, "--experiment", "a/b", "--resume", "auto", "--trainer.max_steps"]
    for steps in (1, 2):
        status, _, err = run("fit", *arguments, steps)
        assert status == 0, err
    assert torch.load(only(tmp_path, "logs/a/b/version_*/checkpoints/last.ckpt"))["global_step"] == 2
    assert (tmp_path / "logs/a/b/version_0/metrics.csv").is_file()


def test_predictions_are_the_log_probabilities_of_the_test_split(run, config, tmp_path):
    run("fit", "--config", config)
    last = tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt"
    assert run("test", "--ckpt_path", last)[0] == 0
    with (tmp_path / "logs/tiny/version_1/metrics.csv").open() as file:
        loss = float(next(csv.DictReader(file))["test/loss"])
    status, _, err = run("predict", "--ckpt_path", last)
    assert status == 0, err
    predictions = torch.cat(torch.load(tmp_path / "logs/tiny/version_2/predictions_0.pt"))
    assert -predictions.sum().item() / (predictions != 0).sum().item() == pytest.approx(loss, rel=1e-5)


def test_evaluation_is_of_the_whole_split_whatever_the_batch(run, config, tmp_path):
    run("fit", "--config", config)
    last = tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt"
    losses = []
    for n, size in enumerate((1, 3, 64), start=1):
        assert run("validate", "--ckpt_path", last, "--data.eval_batch_size", size)[0] == 0
        with (tmp_path / f"logs/tiny/version_{n}/metrics.csv").open() as file:
            losses.append(float(next(csv.DictReader(file))["val/loss"]))
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.max_step", "4"], r"unknown key 'trainer\.max_step'; did you mean 'trainer\.max_steps'"),
        (["--trainer.max_steps", "four"], r"trainer\.max_steps is four: it must be a whole number"),
        (["--trainer.max_steps", ""], r"trainer\.max_steps is '': it must be a whole number"),
        (["--trainer.fast_dev_run", "x"], r"trainer\.fast_dev_run is x: it must be a whole number or true or false"),
        (["--data.batch_size", "many"], r"data\.batch_size is many: it must be a whole number"),
        (["--model.config.norm", "top"], r"model\.config\.norm is top: it must be one of pre, post$"),
        (["--model.groups", "3"], r"model\.groups is 3: it must be keys and values"),
        (["--trainer.callbacks", "TextSample"], r"no class 'TextSample'; did you mean 'TextSamples'"),
        (
            ["--model.config.d_modle", "8"],
            r"unknown key 'model\.config\.d_modle'; did you mean 'model\.config\.d_model'",
        ),
        (  # no abbreviation, neither of a field nor of an argument
            ["--model.config.n_layer", "2"],
            r"unknown key 'model\.config\.n_layer'; did you mean 'model\.config\.n_layers'",
        ),
        (["--model.comp", "true"], r"unknown key 'model\.comp'; did you mean 'model\.compile'"),
        (["--data.seq_le", "8"], r"unknown key 'data\.seq_le'; did you mean 'data\.seq_len'"),
        (["--model.confg.d_model", "8"], r"unknown key 'model\.confg\.d_model'; did you mean 'model\.config\.d_model'"),
        (["--model.optimizer.lrr", "1"], r"unknown key 'model\.optimizer\.lrr'; did you mean 'model\.optimizer\.lr'"),
        (["--model.optimizer.lr", "fast"], r"model\.optimizer\.lr is fast: it must be a number"),
        (["--model.optimizer", "AdmW"], r"model\.optimizer.*'AdmW'; did you mean 'AdamW'"),
        (["--model.optimizer", "adamw"], r"model\.optimizer.*'adamw'; did you mean 'AdamW'"),
        (["--model.schedule", "Cosinus"], r"model\.schedule.*'Cosinus'; did you mean 'Cosine'"),
        (["--model", "GTPModule"], r"model.*'GTPModule'; did you mean 'GPTModule'"),
        (["--model.optimizer", "LBFGS"], r"model\.optimizer: LBFGS doesn't support"),
        (["--model.optimizer", "torch.optim.SparseAdam"], r"model\.optimizer: SparseAdam does not support dense"),
        (["--model.optimizer", "torch.optim.Muon"], r"model\.optimizer: Muon only supports 2D"),
        (
            ["--model.optimizer", "Muon", "--model.optimizer.momentum", "1.5"],
            r"model\.optimizer: Muon: momentum is 1\.5",
        ),
        (["--model.optimizer", "SGD", "--model.optimizer.momentum", ".nan"], r"model\.optimizer: momentum is nan: it"),
        (["--model.optimizer.lr", ".inf"], r"model\.optimizer: lr is inf: it must be finite"),
        (["--model.optimizer.lr", "1e300"], r"model\.optimizer: .*overflow"),
        (
            ["--model.optimizer", "SGD", "--model.config.mup_width", "8"],
            r"model\.optimizer: mup_width has no rule for SGD",
        ),
        (["--model.groups", "null"], r"groups is None: it must be keys and values"),
        (["--model.groups", "[1]"], r"groups is \[1\]: it must be keys and values"),
        (["--model.config", "null"], r"config is None: it must be keys and values"),
        (["--model.config.n_heads", "3"], r"d_model 16 is not divisible by n_heads 3"),
        (["--model.config.activation", "gelo"], r"unknown activation 'gelo'"),
        (["--model.schedule.warmup_steps", "-1"], r"warmup_steps is -1"),
        (["--data.seq_lenn", "8"], r"unknown key 'data\.seq_lenn'; did you mean 'data\.seq_len'"),
        (["--data.seq_len", "0"], r"seq_len is 0"),
        (["--data.seq_len", "64"], r"seq_len 64 is more than the model.s max_seq_len 32"),
        (["--data.batch_size", "0"], r"batch_size is 0"),
        (["--data.source", "missing.txt"], r"there is no file missing\.txt"),
        (["--data.tokenizer", "bpe", "--data.tokenizer_vocab_size", "100"], r"vocabulary of 100 has no room"),
        (["--config", "missing.yaml"], r"--config missing\.yaml: there is no such file; .* fit --help"),
        (["--ckpt_path", "missing.ckpt"], r"there is no checkpoint missing\.ckpt"),
        (["--experiment", ""], r"experiment is '': name a folder within trainer\.default_root_dir"),
        (["--experiment", "../../out"], r"experiment is '\.\./\.\./out'"),
        (["--experiment", "/tmp/out", "--resume", "auto"], r"experiment is '/tmp/out'"),
        (["--trainer.precision", "33"], r"trainer\.precision is 33: it must be one of 64, 32, 16, .*bf16-mixed"),
        (["--trainer.devices", "-3"], r"devices"),
        (["--trainer.devices", "0"], r"trainer\.devices is 0: it must be at least 1"),
        (["--trainer.accelerator", "gpuu"], r"gpuu"),
        (["--trainer.strategy", "dpd"], r"dpd"),
    ],
)
def test_bad_command_lines_are_refused_in_one_line(run, config, tmp_path, arguments, message):
    status, out, err = run("fit", "--config", config, *arguments)
    assert status == 2
    assert re.search(message, err), err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert not re.search("typing|<", err)
    assert list((tmp_path / "logs").glob("*/*")) == []  # no run was begun


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("modell", 1, r"unknown key 'modell' in .*config\.yaml; did you mean 'model'"),
        (
            "trainer.max_step",
            1,
            r"unknown key 'trainer\.max_step' in .*config\.yaml; did you mean 'trainer\.max_steps'",
        ),
        ("model.init_args.config.d_modle", 8, r"'model\.config\.d_modle' in .*config\.yaml; did you mean"),
        ("model.init_args.optimizer.init_args.betas", "x", r"betas"),
        ("model.class_path", "os.system", r"model.*os\.system"),
        ("model.init_args.groups", [1], r"groups is \[1\]: it must be keys and values"),
        ("model.init_args.config", None, r"config is None: it must be keys and values"),
        ("guard", None, r"guard in .* is None: it must be keys and values"),
        ("data.init_args.cache", "x", r"unknown key 'data\.cache' in .*config\.yaml; did you mean 'data\.cache_dir'"),
    ],
)
def test_bad_configurations_are_refused_in_one_line(run, config, path, value, message):
    settings = yaml.safe_load(config.read_text())
    *parents, leaf = path.split(".")
    place = settings
    for key in parents:
        place = place[key]
    place[leaf] = value
    config.write_text(yaml.safe_dump(settings))
    status, _, err = run("fit", "--config", config)
    assert status == 2
    assert re.search(message, err), err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1\nb: {", r'is no YAML: .*"\S+broken\.yaml", line 2, column 2'),
        (b"model: !!python/object/apply:os.system [x]", r'is no YAML: .*"\S+broken\.yaml", line 1, column 8'),
        (b"\xff\xfe\x00", "cannot be read: .*utf-8"),
        (b"just words\n" * 4000, "must hold YAML keys and values"),
        (b"", "must hold YAML keys and values"),
        (b"- a\n- b\n", "must hold YAML keys and values"),
    ],
)
def test_broken_configuration_files_are_refused_in_one_line(run, config, tmp_path, content, message):
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    for rest in ((), ("--resume", "auto")):
        status, _, err = run("fit", "--config", config, "--config", path, *rest)
        assert status == 2
        assert re.match(rf"error: --config \S+broken\.yaml {message}", err), err
        assert err.count("\n") == 1
        assert len(err) < 400


@pytest.mark.parametrize(
    ("layer", "arguments", "message"),
    [
        # an option, or a key of another file, that ends alike
        ("traner: {max_steps: 5}", ["--trainer.max_steps", 1], r"unknown key 'traner\.max_steps' in \S+layer\.yaml"),
        ("trainer: {max_steps: x}", [], r"trainer\.max_steps in \S+layer\.yaml is x: it must be a whole number"),
        ("trainer: 3", [], r"trainer in \S+layer\.yaml is 3: it must be keys and values"),
        ("seed_everything: 3", ["--seed_everything", "x"], r"error: seed_everything is x"),
        (
            "trainer: {callbacks: [{class_path: AttentionMaps}, {class_path: TextSamples, init_args: {promts: x}}]}",
            [],
            r"'trainer\.callbacks\.promts' in \S+layer\.yaml; did you mean 'trainer\.callbacks\.prompts'",
        ),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_file(run, config, tmp_path, layer, arguments, message):
    path = tmp_path / "layer.yaml"
    path.write_text(layer)
    status, _, err = run("fit", "--config", config, "--config", path, *arguments)
    assert status == 2
    assert re.search(message, err), err


def test_without_model_and_data_it_is_said_where_to_find_them(run, tmp_path):
    (tmp_path / "layer.yaml").write_text("trainer: {max_steps: 5}")
    for command in (("fit",), ("validate",), ("fit", "--config", tmp_path / "layer.yaml")):
        status, _, err = run(*command)
        assert status == 2
        assert re.match(r"error: no --config sets model and data: .* --config \S+gpt\.yaml .* --ckpt_path FILE\n$", err)
        assert f"{command[0]} --help" in err


def test_a_configuration_of_the_project_is_found_from_elsewhere(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run("fit", "--config", "configs/gpt.yaml")
    assert status == 2
    own = Path(__file__).parents[2] / "configs/gpt.yaml"
    assert err == f"error: --config configs/gpt.yaml: there is no such file; the project's own is {own}\n"


def test_a_checkpoint_that_does_not_fit_is_refused(run, config, tmp_path):
    run("fit", "--config", config, "--trainer.max_steps", 2)
    last = tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt"
    for arguments, message in [
        (["--model.config.d_model", 8], r"the checkpoint has d_model 16, this configuration 8"),
        (["--data.tokenizer", "byte"], r"vocab_size|another tokenizer"),
    ]:
        status, _, err = run("fit", "--ckpt_path", last, *arguments)
        assert status == 2
        assert re.search(message, err), err
    whole = last.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:1000] + b"\0" * 8 + whole[1008:], b"no checkpoint"):
        other = tmp_path / "damaged.ckpt"
        other.write_bytes(damaged)
        status, _, err = run("fit", "--ckpt_path", other)
        assert status == 2
        assert re.search(r"damaged\.ckpt.*(truncated|damaged)", err), err
    assert last.read_bytes() == whole


@pytest.mark.parametrize(("before", "after"), [("Muon", "AdamW"), ("AdamW", "Lion")])
def test_going_on_with_another_optimizer_is_refused_in_one_line(run, config, tmp_path, before, after):
    """Its state is another's: AdamW's mean of gradients would be Lion's momentum."""
    run("fit", "--config", config, "--trainer.max_steps", 2, "--model.optimizer", before)
    last = tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt"
    for road in (["--ckpt_path", last], ["--config", config, "--resume", "auto"]):
        status, _, err = run("fit", *road, "--trainer.max_steps", 3, "--model.optimizer", after)
        assert status == 2
        assert re.match(rf"error: the checkpoint's run had \S+\.{before}, this configuration has \S*{after}: ", err), (
            err
        )
        assert err.count("\n") == 1
    assert len(list((tmp_path / "logs/tiny").iterdir())) == 1


@pytest.mark.parametrize("said", ["AdamW", "torch.optim.AdamW", {"class_path": "torch.optim.adamw.AdamW"}, None])
def test_an_optimizer_is_the_same_by_any_of_its_names(said):
    checkpoint = {"config": yaml.safe_dump({"model": {"init_args": {"optimizer": said}}} if said else {})}
    check_optimizer(checkpoint, partial(torch.optim.AdamW, lr=1e-3))
    if said:
        with pytest.raises(InputError, match=r"AdamW, this configuration has .*Muon"):
            check_optimizer(checkpoint, Muon)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--trainer.check_val_every_n_epoch", 1, "--trainer.val_check_interval", 1000],
            r"`val_check_interval` \(1000\)",
        ),
        (["--trainer.limit_train_batches", 0.001], r"limit_train_batches"),
        (["--trainer.limit_val_batches", 0.001], r"limit_val_batches"),
    ],
)
def test_what_lightning_refuses_once_it_has_the_data_is_one_line_too(run, config, tmp_path, arguments, message):
    status, out, err = run("fit", "--config", config, *arguments)
    assert status == 2
    assert re.match(rf"error: trainer: .*{message}", err), err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert list((tmp_path / "logs").glob("*/*")) == []


def test_what_lightning_refuses_in_the_middle_of_a_run_leaves_what_was_done(run, config, tmp_path):
    status, _, err = run("fit", "--config", config, "--checkpoint.monitor", "val/nothing")
    assert status == 2
    assert err.count("\n") == 1
    assert "val/nothing" in err
    assert (tmp_path / "logs/tiny/version_0/config.yaml").is_file()


def test_an_evaluation_that_lightning_refuses_is_one_line_too(run, config, tmp_path):
    run("fit", "--config", config, "--trainer.max_steps", 2)
    last = tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt"
    status, _, err = run("validate", "--ckpt_path", last, "--trainer.limit_val_batches", 0.001)
    assert status == 2
    assert re.match(r"error: trainer: .*limit_val_batches", err), err
    assert err.count("\n") == 1
    assert [path.name for path in (tmp_path / "logs/tiny").iterdir()] == ["version_0"]


def test_a_run_that_keeps_no_checkpoint_says_so(run, config):
    kept = ("--checkpoint.save_last", "false", "--checkpoint.save_top_k", 0)
    status, out, _ = run("fit", "--config", config, "--trainer.max_steps", 1, *kept)
    assert status == 0
    assert re.search(r"^  checkpoint +none: checkpoint\.save_last is false", out, re.MULTILINE)


def test_a_configuration_comes_through_a_pipe(run, config, tmp_path):
    """As a shell's <(...) is one; whoever reads it again finds nothing."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def feed():
        pipe.write_text(config.read_text())
        while True:
            pipe.write_text("")

    Thread(target=feed, daemon=True).start()
    status, _, err = run("fit", "--config", pipe, "--trainer.max_steps", 1)
    assert status == 0, err


def test_a_trial_of_a_few_batches_writes_nothing(run, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("fit", "--config", config, "--trainer.max_steps", 2)[0] == 0  # which prepares the data
    before = sorted(tmp_path.rglob("*"))
    last = "logs/tiny/version_0/checkpoints/last.ckpt"
    shown = ("--trainer.callbacks", "[{class_path: TextSamples}, {class_path: AttentionMaps}]")
    for command in (
        ("fit", "--config", config, *shown),
        ("validate", "--ckpt_path", last),
        ("predict", "--ckpt_path", last),
    ):
        status, out, err = run(*command, "--trainer.fast_dev_run", 1)
        assert status == 0, err
        assert ".ckpt" not in out
        assert sorted(tmp_path.rglob("*")) == before


def test_a_resume_to_fewer_steps_than_were_done_is_refused(run, config, tmp_path):
    run("fit", "--config", config, "--trainer.max_steps", 4)
    last = tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt"
    for resume in (("--ckpt_path", last), ("--resume", "auto")):
        status, _, err = run("fit", "--config", config, *resume, "--trainer.max_steps", 2)
        assert status == 2
        assert re.search(r"trainer\.max_steps is 2, and .*last\.ckpt has done 4 steps", err), err
        assert err.count("\n") == 1
    assert [path.name for path in (tmp_path / "logs/tiny").iterdir()] == ["version_0"]


def test_a_resume_to_as_many_steps_as_were_done_names_no_file_that_is_not_there(run, config, tmp_path):
    run("fit", "--config", config, "--trainer.max_steps", 4)
    status, out, _ = run("fit", "--ckpt_path", tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt")
    assert status == 0
    assert "version_1" in out
    assert "version_1/checkpoints" not in "".join(out.split())


def test_a_resume_to_fewer_epochs_than_were_done_is_refused(run, config, tmp_path):
    epochs = ("--trainer.max_steps", -1, "--trainer.limit_train_batches", 2, "--trainer.max_epochs")
    assert run("fit", "--config", config, *epochs, 3, "--checkpoint.every_n_epochs", 1)[0] == 0
    last = tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt"
    status, out, err = run("fit", "--ckpt_path", last, "--trainer.max_epochs", 1)
    assert status == 2, out + err
    assert "max_epochs=1" in err
    assert err.count("\n") == 1
    assert [path.name for path in (tmp_path / "logs/tiny").iterdir()] == ["version_0"]
