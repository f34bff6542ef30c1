"""bench: what it prints is what it measured, and the other side does the same work."""

import json
import re
from itertools import cycle, islice

import pytest
import torch

from src.cli import VERBS
from src.errors import InputError
from src.extras.bench.benchmark import Machine, Record, Steps
from src.extras.bench.decoding_bench import DecodingBench
from src.extras.bench.huggingface import HuggingFaceTraining, counterpart
from src.extras.bench.training_bench import TrainingBench
from tests.distributed.jobs import write_config

SHORT = ("--steps", 4, "--warmup", 1, "--rounds", 2)
# of the networks of those configurations, what HuggingFace has not
CHANGED = {"transformer": ("--model.config.activation", "relu")}
KINDS = ("gpt", "bert", "transformer")
NEEDS_EXPORT = pytest.mark.skipif("export" not in VERBS, reason="the extra huggingface is not here")


@pytest.fixture
def bench(run, tmp_path, monkeypatch):
    """Run the verb on a small network of a kind; gives what it printed, and the JSON."""
    monkeypatch.chdir(tmp_path)

    def command(kind, *arguments):
        path = tmp_path / f"{kind}.yaml"
        if not path.exists():
            write_config(kind, tmp_path).rename(path)
        folder = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        status, out, err = run("bench", "--config", path, *CHANGED.get(kind, ()), *arguments, "--output", folder)
        assert status == 0, err
        assert f"wrote {folder}/bench.json" in re.sub(r"\s+", " ", out)
        return re.sub(r"\s+", " ", out), json.loads((folder / "bench.json").read_text())

    return command


def test_the_parts_are_the_whole_and_the_figures_follow_from_it(bench, tmp_path):
    out, record = bench("gpt", *SHORT)
    steps = record["steps"]
    assert sum(steps["parts"].values()) == pytest.approx(steps["seconds"], rel=1e-9)
    assert all(seconds > 0 for seconds in steps["parts"].values())
    batch, seq = map(int, re.search(r"input_ids (\d+) x (\d+)", record["settings"]["first batch"]).groups())
    assert steps["tokens"] == 4 * 2 * batch * seq  # two batches accumulated
    # 6 N D for the matrix products and 12 L T d a token for attention, by hand
    vocabulary = record["parameters"]
    vocabulary = (vocabulary - 2 * (12 * 16**2 + 13 * 16) - 32 * 16 - 2 * 16) // 16
    matrices = 2 * 12 * 16**2 + vocabulary * 16
    assert steps["flops"] == steps["tokens"] * (6 * matrices + 12 * 2 * seq * 16)
    for text, value in (
        (r"tokens/s ([\d,.]+) \(", steps["tokens"] / steps["seconds"]),
        (r"milliseconds a step ([\d,.]+)", 1000 * steps["seconds"] / 4),
        (
            r"hardware utilisation ([\d.]+)%",
            100 * steps["flops"] / steps["seconds"] / record["machine"]["peaks"]["float32"],
        ),
    ):
        assert float(re.search(text, out)[1].replace(",", "")) == pytest.approx(value, rel=1e-2, abs=0.06)
    assert len(record["own"]) == 2
    flops_per_second = sum(record["own"]) / 2 * steps["flops"] / steps["tokens"]
    assert record["utilisations"] == {"hardware utilisation": pytest.approx(flops_per_second / steps["peak"])}
    assert not list(tmp_path.glob("logs*"))


@NEEDS_EXPORT
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "transformer" else pytest.mark.slow) for kind in KINDS]
)
def test_transformers_does_the_same_work(kind, bench, monkeypatch):
    """The same network by its size and by its loss on the same weights, and the very batches of the run here."""
    seen, given, original = [], [], HuggingFaceTraining.rate

    def rate(self, batches):
        hook = self.model.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
        )
        found = original(self, batches)
        hook.remove()
        given.extend(islice(cycle(batches), (1 + 4) * 2))
        return found

    monkeypatch.setattr(HuggingFaceTraining, "rate", rate)
    out, record = bench(kind, *SHORT, "--against", "transformers")
    assert len(given) == len(seen) == 2 * (1 + 4) * 2  # rounds, steps, accumulated batches
    assert all(torch.equal(there, batch["input_ids"]) for there, batch in zip(seen, given, strict=True))
    assert record["against"]["parameters"] == record["parameters"]
    assert record["against"]["loss_there"] == pytest.approx(record["against"]["loss_here"], rel=1e-5)
    ratios = [each["ours"] / each["theirs"] for each in record["rounds"]]
    assert [each["ratio"] for each in record["rounds"]] == pytest.approx(ratios)
    assert record["ratio"] == {"min": min(ratios), "median": pytest.approx(sum(ratios) / 2), "max": max(ratios)}
    assert f"{min(ratios):.3f} to {max(ratios):.3f}" in out


def test_rounds_take_turns_and_hand_on_their_batches(bench, monkeypatch):
    """A script has its turn between two rounds of the run: it is no part of either."""
    script = "sleep 0.5; echo 250 tokens/s"
    ends, original = [], TrainingBench._end_round

    def end_round(self, trainer, task):
        ends.append([len(self._batches), trainer.global_step])
        original(self, trainer, task)

    monkeypatch.setattr(TrainingBench, "_end_round", end_round)
    with open("peer.sh", "w") as file:  # noqa: PTH123  in the folder of the test
        file.write(script)
    _, record = bench("gpt", *SHORT, "--against", "peer.sh")
    assert ends == [[10, 5], [10, 10], [10, 15]]
    assert [each["theirs"] for each in record["rounds"]] == [250, 250]
    assert script in record["against"]["script"]
    assert all(each["ours"] > 4 * 16 * 2 / 0.4 for each in record["rounds"])  # without the half second


def test_transformers_needs_the_verb_export(monkeypatch):
    monkeypatch.delitem(VERBS, "export", raising=False)
    with pytest.raises(InputError, match="needs the verb export, of the extra huggingface"):
        counterpart(None)


@NEEDS_EXPORT
@pytest.mark.parametrize("kind", ["gpt", "transformer"])
def test_decoding_finds_the_same_tokens(kind, bench):
    _, record = bench(kind, "--decode", "--steps", 2, "--rounds", 2, "--against", "transformers")
    assert record["unit"] == "sentences/s"
    assert record["decoded"]["sentences"] > 4
    assert record["decoded"]["equal"] == record["decoded"]["sentences"]
    assert len(record["rounds"]) == 2


def test_decoding_with_the_weights_of_a_checkpoint(bench, run, tmp_path, monkeypatch):
    config = write_config("gpt", tmp_path)
    config.rename(tmp_path / "gpt.yaml")
    fit = ("fit", "--config", tmp_path / "gpt.yaml", "--trainer.default_root_dir", tmp_path / "logs")
    assert run(*fit, "--trainer.precision", "bf16-mixed")[0] == 0
    checkpoint = next((tmp_path / "logs").rglob("last.ckpt"))
    weights, original = [], DecodingBench._rounds

    def rounds(self, task, device):
        weights.append({name: tensor.clone() for name, tensor in task.model.state_dict().items()})
        original(self, task, device)

    monkeypatch.setattr(DecodingBench, "_rounds", rounds)
    status, out, err = run("bench", "--ckpt_path", checkpoint, "--decode", "--steps", 1, "--rounds", 1)
    assert status == 0, err
    trained = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, trained[f"model.{name}"]) for name, tensor in weights[0].items())
    assert str(checkpoint)[-20:] in re.sub(r"\s+", "", out)
    assert "32-true on cpu" in out  # as the verbs that decode, however it was trained


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        ("gpt", ["--against", "peer.sh"], "there is no file peer.sh"),
        ("gpt", ["--rounds", "0"], "no whole number of at least 1"),
        ("gpt", ["--trainer.devices", "2"], "bench measures one device, not 2"),
        ("gpt", ["--stepz", "2"], "stepz"),
        ("gpt", ["--output", "full"], "holds a bench.json already"),
        pytest.param(
            "gpt",
            ["--against", "transformers", "--model.config.norm", "post"],
            "'post' cannot be exported",
            marks=NEEDS_EXPORT,
        ),
        pytest.param(
            "bert",
            ["--against", "transformers", "--model.config.norm", "pre"],
            "next_sentence is left out",
            marks=NEEDS_EXPORT,
        ),
        pytest.param(
            "longformer",
            ["--against", "transformers", "--model.config.dilation", "1"],
            "its Longformer expects the global tokens in each batch",
            marks=NEEDS_EXPORT,
        ),
        ("bert", ["--decode"], "--decode is for networks that write text"),
    ],
)
def test_bad_input(kind, arguments, said, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/bench.json").write_text("{}")
    config = write_config(kind, tmp_path)
    status, _, err = run("bench", "--config", config, "--steps", 1, "--warmup", 1, *CHANGED.get(kind, ()), *arguments)
    assert status == 2
    assert said in err
    assert err.count("\n") == 1


def test_mfu_is_by_the_peak_of_the_data_sheet():
    """Of the rounds, whose median is 300 tokens/s at 20 FLOP a token: 6,000 of 24,000 and of 60,000 FLOP/s."""
    steps = Steps(steps=1, tokens=10, seconds=1.0, parts={}, flops=200, peak=24e3, data_sheet=60e3, peak_memory=0)
    record = Record("bench", Machine("GPU", 1, {}, {}), "tokens/s", own=[200, 300, 900], steps=steps)
    assert record.utilisations == {"hardware utilisation": pytest.approx(0.25), "MFU": pytest.approx(0.1)}
    assert ("MFU of the rounds", "10.0%") in record.rows()
