"""Bad input of every kind to every verb: one line that says what, a status, no traceback, and no file touched."""

import contextlib
import gzip
import io
import pickle
import shutil
import string
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import src.cli
from tests.reliability.refusals import Evil, changed, check_refusal, tree
from tests.reliability.runs import config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A trained network of each kind, and bad files of many."""
    root = tmp_path_factory.mktemp("bad")
    for kind in ("gpt", "bert", "transformer"):
        path = config(kind, root, checkpoint__every_n_train_steps=None, trainer__callbacks=None)
        src.cli.main(["fit", "--config", str(path), "--trainer.max_steps", "2"])
        shutil.copy(root / f"logs/{kind}/version_0/checkpoints/last.ckpt", root / f"{kind}.ckpt")
    _bad_checkpoints(root)
    _bad_texts(root)
    _bad_configs(root)
    return root


def _bad_checkpoints(root: Path) -> None:
    good = (root / "gpt.ckpt").read_bytes()
    (root / "empty.ckpt").touch()
    (root / "text.ckpt").write_text("weights")
    (root / "cut.ckpt").write_bytes(good[: len(good) // 2])
    (root / "flipped.ckpt").write_bytes(
        good[: len(good) // 2] + bytes([good[len(good) // 2] ^ 1]) + good[len(good) // 2 + 1 :]
    )
    (root / "folder.ckpt").mkdir()
    (root / "half.ckpt").mkdir()
    torch.save({"architecture": "gpt"}, root / "half.ckpt/meta.pt")
    torch.save(Evil(root / "evil was here"), root / "evil.ckpt")
    (root / "pickle.ckpt").write_bytes(pickle.dumps({"state_dict": Evil(root / "evil was here")}))
    torch.save([1, 2, 3], root / "list.ckpt")
    torch.save({"state_dict": {}}, root / "foreign.ckpt")
    changed(root / "gpt.ckpt", root / "unknown.ckpt", architecture="rnn")
    changed(root / "gpt.ckpt", root / "shapeless.ckpt", model_config={"d_model": "wide"})
    changed(root / "gpt.ckpt", root / "headless.ckpt", model_config={"n_heads": False})
    changed(root / "gpt.ckpt", root / "weightless.ckpt", state_dict={})
    changed(root / "gpt.ckpt", root / "speechless.ckpt", tokenizer="{}")
    changed(root / "gpt.ckpt", root / "endless.ckpt", special_tokens={"eos_token": "<none>"})
    changed(root / "gpt.ckpt", root / "nameless.ckpt", special_tokens={})
    changed(root / "gpt.ckpt", root / "numbered.ckpt", special_tokens={"eos_token": 5})
    changed(root / "gpt.ckpt", root / "stepless.ckpt", global_step="many")
    changed(root / "transformer.ckpt", root / "sourceless.ckpt", source_tokenizer=None)
    changed(root / "transformer.ckpt", root / "source.ckpt", source_tokenizer="{}")
    changed(root / "gpt.ckpt", root / "untold.ckpt", config="a: [1\nb: {")
    changed(root / "gpt.ckpt", root / "stateless.ckpt", optimizer_states=None, loops=None)
    wider = {name: torch.cat([w, w]) for name, w in torch.load(root / "gpt.ckpt")["state_dict"].items()}
    changed(root / "gpt.ckpt", root / "wider.ckpt", state_dict=wider)
    other = yaml.safe_load(torch.load(root / "gpt.ckpt")["config"])
    other["model"]["class_path"] = "os.system"
    changed(root / "gpt.ckpt", root / "calling.ckpt", config=yaml.safe_dump(other))


def _bad_texts(root: Path) -> None:
    (root / "latin.txt").write_bytes(b"caf\xe9\n" * 3)
    (root / "nothing.txt").touch()
    (root / "blank.txt").write_text("\n \n")
    (root / "three.txt").write_text("one\ntwo\nthree\n")
    (root / "four.txt").write_text("one\ntwo\nthree\nfour\n")
    (root / "cut.txt.gz").write_bytes(gzip.compress(b"one\n" * 1000)[:-9])
    (root / "no.parquet").write_text("text")
    (root / "no.json").write_text('[{"text": ')
    (root / "numbers.jsonl").write_text('{"text": 1}\n')
    (root / "beside.tokenizer.json").mkdir()
    (root / "taken").mkdir()
    (root / "taken/file").touch()
    (root / "no-tokenizer.json").write_text("{}")
    with zipfile.ZipFile(root / "climbing.zip", "w") as archive:
        archive.writestr("../climbed", "x")


def _bad_configs(root: Path) -> None:
    good = yaml.safe_load((root / "gpt.yaml").read_text())

    def write(name: str, **changes: object) -> None:
        layer = yaml.safe_load(yaml.safe_dump(good))
        for key, value in changes.items():
            *parents, leaf = key.split("__")
            place = layer
            for parent in parents:
                place = place[parent]
            place[leaf] = value
        (root / name).write_text(yaml.safe_dump(layer))

    write("steps.yaml", trainer__max_steps="many")
    write("typo.yaml", trainer__max_step=3)
    write("negative.yaml", data__init_args__batch_size=-1)
    write("heads.yaml", model__init_args__config={"d_model": 16, "n_heads": 3})
    write("null.yaml", model=None)
    write("list.yaml", model=[1, 2])
    write("system.yaml", model__class_path="os.system")
    write("module.yaml", trainer__callbacks=[{"class_path": "tests.reliability.imported.Callback"}])
    write("function.yaml", trainer__callbacks=[{"class_path": "subprocess.run", "init_args": {"args": "touch x"}}])
    write("hub.yaml", trainer__logger={"class_path": "torch.hub.load", "init_args": {"repo_or_dir": "a/b"}})
    write("open.yaml", resume="auto")
    write("allowed.yaml", allow_class_paths="os")
    write("nan.yaml", model__init_args__optimizer__init_args__lr="fast")
    write("mismatch.yaml", data=yaml.safe_load((root / "bert.yaml").read_text())["data"])
    (root / "tags.yaml").write_text("model: !!python/object/apply:os.system [touch evil]\n")
    (root / "bomb.yaml").write_text(
        "a: &a [x, x]\n" + "".join(f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcd", "bcde", strict=True))
    )
    (root / "binary.yaml").write_bytes(b"\x00\xff\xfe")
    (root / "tab.yaml").write_text("model:\n\tclass_path: GPTModule\n")
    (root / "twice.yaml").write_text("- a\n- b\n")


GPT, BERT, TRANSFORMER = (
    ("--checkpoint", "gpt.ckpt"),
    ("--checkpoint", "bert.ckpt"),
    ("--checkpoint", "transformer.ckpt"),
)
FIT = ("fit", "--config", "gpt.yaml")
BAD = [
    # command lines
    ("fitt",),
    ("--config", "gpt.yaml"),
    ("fit",),
    ("fit", "--config"),
    (*FIT, "extra"),
    (*FIT, "--trainer.max_steps"),
    (*FIT, "--trainer.max_steps", "ten"),
    (*FIT, "--trainer.max_steps", "-5"),
    (*FIT, "--trainer.devices", "0"),
    (*FIT, "--trainer.precision", "17"),
    (*FIT, "--trainer", "latin.txt"),
    (*FIT, "--trainer", "three.txt"),
    (*FIT, "--model.config", "latin.txt"),
    (*FIT, "--trainer.val_check_interval", "-1"),
    (*FIT, "--trainer.accumulate_grad_batches", "0"),
    (*FIT, "--trainer.limit_train_batches", "0.001"),
    (*FIT, "--trainer.check_val_every_n_epoch", "1", "--trainer.val_check_interval", "999"),
    (*FIT, "--trainer.default_root_dir", "three.txt"),
    (*FIT, "--model.optimizer", "Adamm"),
    (*FIT, "--model.optimizer.lr", "-1"),
    (*FIT, "--model.config.dropout", "2"),
    (*FIT, "--model.config.d_model", "0"),
    (*FIT, "--model.config.n_layers", "-1"),
    (*FIT, "--model.schedule.warmup_steps", "x"),
    (*FIT, "--seed_everything", "one"),
    (*FIT, "--seed_everything", "-1"),
    (*FIT, "--seed_everything", "9" * 17),
    (*FIT, "--trainer.gradient_clip_val", "-1"),
    (*FIT, "--resume", "yesterday"),
    (*FIT, "--resume", "auto", "--ckpt_path", "gpt.ckpt"),
    (*FIT, "--allow_class_paths", "not a module"),
    (*FIT, "--allow_class_paths", "jsonargparse"),
    (*FIT, "--guard.on_fault", "pray"),
    (*FIT, "--guard.max_faults", "0"),
    (*FIT, "--checkpoint.save_top_k", "-7"),
    (*FIT, "--checkpoint.mode", "sideways"),
    (*FIT, "--data.source", "no.parquet"),
    (*FIT, "--data.source", "no.json"),
    (*FIT, "--data.source", "latin.txt"),
    (*FIT, "--data.source", "nothing.txt"),
    (*FIT, "--data.source", "blank.txt"),
    (*FIT, "--data.source", "cut.txt.gz"),
    (*FIT, "--data.source", "numbers.jsonl"),
    (*FIT, "--data.source", "taken"),
    (*FIT, "--data.tokenizer", "no-tokenizer.json"),
    (*FIT, "--data.tokenizer", "words"),
    (*FIT, "--data.cache_dir", "three.txt"),
    (*FIT, "--data.num_workers", "-1"),
    (*FIT, "--data.validation_fraction", "1.5"),
    # configurations
    *[("fit", "--config", name) for name in (
        "missing.yaml", "steps.yaml", "typo.yaml", "negative.yaml", "heads.yaml", "null.yaml", "list.yaml",
        "system.yaml", "module.yaml", "function.yaml", "hub.yaml", "open.yaml", "allowed.yaml", "nan.yaml",
        "mismatch.yaml", "tags.yaml", "bomb.yaml", "binary.yaml", "tab.yaml", "twice.yaml", "gpt.ckpt", "taken",
    )],
    # checkpoints to train on from, to start from, to evaluate, to decode with
    *[("fit", "--ckpt_path", f"{name}.ckpt") for name in (
        "missing", "empty", "text", "cut", "flipped", "folder", "half", "evil", "pickle", "list", "foreign", "unknown",
        "shapeless", "untold", "stateless", "calling",
    )],
    *[(*FIT, "--model.pretrained", f"{name}.ckpt") for name in ("missing", "evil", "bert", "weightless", "wider")],
    *[("validate", "--ckpt_path", f"{name}.ckpt") for name in ("missing", "cut", "evil", "wider", "weightless")],
    *[("generate", "--checkpoint", f"{name}.ckpt") for name in (
        "missing", "empty", "cut", "flipped", "folder", "evil", "pickle", "list", "foreign", "unknown", "shapeless",
        "weightless", "speechless", "endless", "nameless", "numbered", "headless", "wider", "bert",
    )],
    # prompts and options of the other verbs
    ("generate",),
    ("generate", *GPT, "--prompt", "word " * 50),
    ("generate", *GPT, "--prompt", "\udcff"),
    ("generate", *GPT, "--prompt", "☃"),
    ("generate", *GPT, "--seed", "9" * 40),
    ("generate", *GPT, "--max-new-tokens", "0"),
    ("generate", *GPT, "--device", "toaster"),
    ("generate", *GPT, "--device", "meta"),
    ("fill-mask", *BERT, "--text", "no mask here"),
    ("fill-mask", *BERT, "--text", "[MASK] " * 99),
    ("fill-mask", *BERT, "--text", "[MASK]", "--device", "toaster"),
    ("fill-mask", *GPT, "--text", "[MASK]"),
    ("embed", *BERT, "--input", "missing.txt", "--output", "x.npy"),
    ("embed", *BERT, "--input", "latin.txt", "--output", "x.npy"),
    ("embed", *BERT, "--input", "nothing.txt", "--output", "x.npy"),
    ("embed", *BERT, "--input", "three.txt", "--output", "nowhere/x.npy"),
    ("embed", *BERT, "--input", "three.txt", "--output", "x.npy", "--device", "toaster"),
    ("embed", *GPT, "--input", "three.txt", "--output", "x.npy"),
    ("translate", *TRANSFORMER, "--input", "missing.txt"),
    ("translate", *TRANSFORMER, "--input", "latin.txt"),
    ("translate", *TRANSFORMER, "--input", "cut.txt.gz"),
    ("translate", *TRANSFORMER, "--text", "a", "--output", "nowhere/out.txt"),
    ("translate", *TRANSFORMER, "--text", "a", "--output", "taken"),
    ("translate", *TRANSFORMER, "--text", "a", "--output", "three.txt/out.txt"),
    ("translate", "--checkpoint", "sourceless.ckpt", "--text", "a"),
    ("translate", "--checkpoint", "source.ckpt", "--text", "a"),
    ("translate", *TRANSFORMER, "--text", "a", "--beam", "0"),
    ("translate", *TRANSFORMER, "--text", "a", "--device", "toaster"),
    ("translate", *TRANSFORMER, "--text", "\udcff"),
    ("translate", *GPT, "--text", "a"),
    ("fit", "--config", "transformer.yaml", "--model.config.window", "[]"),
    ("compare", "--system", "three.txt", "--reference", "four.txt"),
    ("compare", "--system", "three.txt", "--reference", "missing.txt"),
    ("compare", "--system", "nothing.txt", "--reference", "three.txt"),
    ("compare", "--system", "latin.txt", "--system", "latin.txt", "--reference", "three.txt"),
    ("average", "--checkpoints", "gpt.ckpt", "--output", "x.ckpt"),
    ("average", "--checkpoints", "gpt.ckpt", "bert.ckpt", "--output", "x.ckpt"),
    ("average", "--checkpoints", "gpt.ckpt", "evil.ckpt", "--output", "x.ckpt"),
    ("average", "--checkpoints", "unknown.ckpt", "unknown.ckpt", "--output", "x.ckpt"),
    ("average", "--checkpoints", "gpt.ckpt", "stepless.ckpt", "--output", "x.ckpt"),
    ("average", "--checkpoints", "gpt.ckpt", "gpt.ckpt", "--output", "three.txt/x.ckpt"),
    ("extend-context", "--checkpoint", "unknown.ckpt", "--max-seq-len", "99", "--output", "x.ckpt"),
    ("extend-context", *GPT, "--max-seq-len", "1", "--output", "x.ckpt"),
    ("extend-context", *GPT, "--max-seq-len", "9" * 14, "--output", "x.ckpt"),  # more memory than there is
    ("extend-context", *GPT, "--max-seq-len", "99", "--output", "beside.ckpt"),
    ("extend-context", *GPT, "--max-seq-len", "99", "--output", "gpt.ckpt"),  # whose gpt.yaml is there, too
    ("average", "--checkpoints", "gpt.ckpt", "gpt.ckpt", "--output", "gpt.ckpt"),
    ("consolidate", "--checkpoint", "taken", "--output", "gpt.ckpt"),
    ("average", "--checkpoints", "gpt.ckpt", "weightless.ckpt", "--output", "x.ckpt"),
    ("average", "--checkpoints", "gpt.ckpt", "gpt.ckpt", "--output", "nowhere/x.ckpt"),
    ("average", "--checkpoints", "gpt.ckpt", "gpt.ckpt", "--output", "taken"),
    ("consolidate", "--checkpoint", "gpt.ckpt", "--output", "x.ckpt"),
    ("consolidate", "--checkpoint", "half.ckpt", "--output", "x.ckpt"),
    ("consolidate", "--checkpoint", "taken", "--output", "x.ckpt"),
    ("reproduce", "taken"),
    ("reproduce",),
]  # fmt: skip


@pytest.fixture(scope="module")
def before(root):
    return tree(root)


def test_there_are_enough_of_them():
    assert len(BAD) == len(set(BAD)) >= 60


@pytest.mark.parametrize("command", BAD, ids=lambda command: " ".join(command)[:60])
def test_bad_input_is_refused_in_one_line_and_touches_nothing(run, root, before, monkeypatch, command):
    monkeypatch.chdir(root)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check_refusal(run, root, before, command)
    assert "tests.reliability.imported" not in sys.modules


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("fit", "--ckpt_path", "bert.ckpt"), "--ckpt_path bert.ckpt holds a bert, and GPTModule trains a gpt: "),
        (("validate", "--ckpt_path", "bert.ckpt"), "--ckpt_path bert.ckpt holds a bert, and GPTModule trains a gpt: "),
        (("fit", "--model.pretrained", "bert.ckpt"), "--model.pretrained bert.ckpt: the checkpoint holds a bert: "),
    ],
)
def test_a_checkpoint_of_another_architecture_is_named_before_what_else_differs(
    run, root, monkeypatch, command, message
):
    monkeypatch.chdir(root)
    _, out, err = run(command[0], "--config", "gpt.yaml", *command[1:])
    assert err.startswith(f"error: {message}")
    assert "changed from" not in out


# ---- fuzzed

KEYS = [
    "model",
    "data",
    "trainer",
    "init_args",
    "class_path",
    "config",
    "d_model",
    "max_steps",
    "optimizer",
    "callbacks",
]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=8)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
WORDS = st.sampled_from(
    ["--config", "gpt.yaml", "--trainer.max_steps", "3", "--model", "GPTModule", "--ckpt_path", "gpt.ckpt",
     "--checkpoint", "--prompt", "--resume", "auto", "--data.seq_len", "--help", "--output", "taken", "--", "-", "=",
     "", "\0", "é", "\udcff"]
) | st.text(max_size=6)  # fmt: skip
FUZZED = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def outcome(command: list[str]) -> tuple[int, str, str]:
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            src.cli.main(command)
        except SystemExit as end:
            status = int(end.code or 0)
    return status, out.getvalue(), err.getvalue()


@FUZZED
@given(TREES)
def test_a_configuration_of_anything_is_refused_or_printed(root, before, monkeypatch, layer):
    monkeypatch.chdir(root)
    path = root / "cache" / "fuzzed.yaml"
    path.write_text(yaml.safe_dump(layer, allow_unicode=True), encoding="utf-8")
    status, _, err = outcome(["fit", "--config", "gpt.yaml", "--config", str(path), "--print_config"])
    assert status in (0, 2)
    assert status == 0 or (err.startswith("error: ") and err.count("\n") == 1), err
    assert tree(root) == before


@FUZZED
@given(st.sampled_from([verb for verb in src.cli.VERBS if verb not in ("fit",)]), st.lists(WORDS, max_size=6))
def test_a_command_line_of_anything_is_refused_or_understood(root, before, monkeypatch, verb, words):
    monkeypatch.chdir(root)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    if "--help" not in words:
        words = [*words, "--no_such_option"]
    status, _, err = outcome([verb, *words])
    assert status in (0, 2)
    assert status == 0 or (err.startswith("error: ") and err.count("\n") == 1), err
    assert tree(root) == before
