"""A tied weight has one value under all its names, in every file that is written and in every file that is read."""

import pytest
import torch

from src.checkpoint import read_checkpoint, save_checkpoint, tied_names
from src.errors import InputError
from tests.reliability.runs import checkpoints, config

EMBEDDING, HEAD = "model.token_embedding.weight", "model.head.weight"
PARTS = ("state_dict", "plain_weights")


@pytest.fixture
def trained(run, tmp_path):
    """The last checkpoints of a run with an average of the weights."""

    def fit(kind):
        status, _, err = run("fit", "--config", config(kind, tmp_path, trainer__max_steps=4))
        assert status == 0, err
        return [checkpoints(tmp_path / f"logs/{kind}/version_0")[step] for step in (3, 4)]

    return fit


@pytest.mark.parametrize(("kind", "names"), [("gpt", 2), ("transformer", 3)])
def test_averages_of_a_run_and_of_its_checkpoints(run, trained, tmp_path, kind, names):
    paths = trained(kind)
    assert run("average", "--checkpoints", *paths, "--output", tmp_path / "averaged.ckpt")[0] == 0
    for path in (*paths, tmp_path / "averaged.ckpt"):
        held = torch.load(path)
        (group,) = tied_names(held)
        assert len(group) == names
        for part in PARTS if path in paths else PARTS[:1]:
            for name in group[1:]:
                assert torch.equal(held[part][group[0]], held[part][name]), (path, part, name)
        if path in paths:
            assert not torch.equal(held["state_dict"][group[0]], held["plain_weights"][group[0]])


@pytest.mark.parametrize("part", PARTS)
def test_a_file_whose_tied_weights_differ_is_neither_written_nor_read(run, trained, tmp_path, part):
    path = trained("gpt")[-1]
    held = torch.load(path)
    held[part] = {**held[part], HEAD: held[part][HEAD] + 1e-3}
    other = tmp_path / "other.ckpt"
    with pytest.raises(InputError, match=f"two values for a tied weight, {EMBEDDING} and {HEAD}"):
        save_checkpoint(held, other)
    assert not other.exists()
    torch.save(held, other)
    status, _, err = run("generate", "--checkpoint", other, "--prompt", "the")
    assert status == 2
    assert "two values for a tied weight" in err
    assert err.count("\n") == 1


def test_a_weight_that_was_averaged_under_one_of_its_names_is_read_as_tied(trained, tmp_path, capsys):
    """As the average was once written: the head had the plain weights, and was loaded last."""
    path = trained("gpt")[-1]
    held = torch.load(path)
    average, plain = (held[part][EMBEDDING] for part in PARTS)
    held["state_dict"][HEAD] = plain
    del held["plain_weights"][HEAD]
    torch.save(held, tmp_path / "other.ckpt")
    capsys.readouterr()
    read = read_checkpoint(tmp_path / "other.ckpt")["state_dict"]
    assert torch.equal(read[HEAD], average)
    assert torch.equal(read[EMBEDDING], average)
    assert "model.head.weight was not averaged" in capsys.readouterr().err
