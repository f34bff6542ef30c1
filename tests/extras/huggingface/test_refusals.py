"""Bad input of every kind to `import` and `export`: refused in one line, with no file touched."""

import json
import shutil

import pytest
import torch

from src.extras.huggingface.exporting import export
from tests.random_networks import checkpoint_of
from tests.reliability.refusals import Evil, changed, check_refusal, tree

BAD = [
    *[("import", "--from", f"hf-{name}", "--output", "x.ckpt") for name in (
        "missing/../../x", "no-config", "no-weights", "bad-config", "bad-weights", "pickle", "unknown",
    )],
    ("import", "--from", "hf", "--output", "x.bin"),
    ("import", "--from", "hf", "--output", "beside.ckpt"),
    ("import", "--from", "hf", "--output", "mine.ckpt"),
    ("import", "--from", "hf", "--output", "gpt.ckpt"),
    ("import", "--from", "three.txt/hf", "--output", "x.ckpt"),
    ("import", "--from", "hf", "--output", "nowhere/x.ckpt"),
    ("import", "--from", "taken", "--output", "x.ckpt"),
    *[("export", "--checkpoint", f"{name}.ckpt", "--output", output) for name, output in (
        ("gpt", "taken"), ("gpt", "three.txt"), ("weightless", "out"), ("unknown", "out"), ("nameless", "out"),
        ("evil", "out"),
    )],
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A checkpoint and its export, and damaged copies of both."""
    root = tmp_path_factory.mktemp("bad")
    checkpoint = checkpoint_of("gpt")[1]
    torch.save(checkpoint, root / "gpt.ckpt")
    changed(root / "gpt.ckpt", root / "weightless.ckpt", state_dict={})
    changed(root / "gpt.ckpt", root / "unknown.ckpt", architecture="rnn")
    changed(root / "gpt.ckpt", root / "nameless.ckpt", special_tokens={})
    torch.save(Evil(root / "evil was here"), root / "evil.ckpt")
    export(checkpoint, root / "hf")
    for name in ("no-config", "no-weights", "bad-config", "bad-weights", "pickle", "unknown"):
        shutil.copytree(root / "hf", root / f"hf-{name}")
    (root / "hf-no-config/config.json").unlink()
    (root / "hf-no-weights/model.safetensors").unlink()
    (root / "hf-bad-config/config.json").write_text("{")
    (root / "hf-bad-weights/model.safetensors").write_bytes(b"\xff" * 100)
    (root / "hf-pickle/model.safetensors").unlink()
    torch.save({"x": Evil(root / "evil was here")}, root / "hf-pickle/pytorch_model.bin")
    described = json.loads((root / "hf/config.json").read_text())
    (root / "hf-unknown/config.json").write_text(json.dumps({**described, "model_type": "rnn"}))
    (root / "three.txt").write_text("one\ntwo\nthree\n")
    (root / "beside.tokenizer.json").mkdir()
    (root / "mine.yaml").write_text("not: ours")
    (root / "taken").mkdir()
    (root / "taken/file").touch()
    return root


@pytest.fixture(scope="module")
def before(root):
    return tree(root)


@pytest.mark.parametrize("command", BAD, ids=lambda command: " ".join(command)[:60])
def test_bad_input_is_refused_in_one_line_and_touches_nothing(run, root, before, monkeypatch, command):
    monkeypatch.chdir(root)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check_refusal(run, root, before, command)
