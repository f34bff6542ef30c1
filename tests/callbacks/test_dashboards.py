"""What TensorBoard is given to show, read back as TensorBoard reads it."""

import csv
import io

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.architectures import architectures
from src.callbacks.dashboard import network_table
from src.callbacks.figures import attention_maps
from src.callbacks.heat_map import CARD, CELL, HEADING, heat_map
from src.checkpoint import load_trained
from src.models import BERT, GPT, BERTConfig, GPTConfig, Transformer, TransformerConfig
from tests.callbacks.charts import check_charts, events_of
from tests.distributed.jobs import HALFWAY, SAMPLES, STEPS, fit, run_job, write_config

MAPS = {
    "gpt": ["blocks.0.attention", "blocks.1.attention"],
    "bert": ["encoder.blocks.0.attention", "encoder.blocks.1.attention"],
    "longformer": ["encoder.blocks.0.attention", "encoder.blocks.1.attention"],
    "transformer": ["encoder.0.attention", "decoder.0.attention", "decoder.0.cross_attention"],
}
EMBEDDINGS = {
    "gpt": "token_embedding",
    "bert": "encoder.token_embedding",
    "longformer": "encoder.token_embedding",
    "transformer": "target_embedding",
}


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    kinds = (*SAMPLES, "bert_classifier")
    return {kind: write_config(kind, tmp_path_factory.mktemp(kind)) for kind in kinds}


@pytest.fixture(scope="module")
def runs(configs, tmp_path_factory):
    """A run of each kind in one process."""
    logs = tmp_path_factory.mktemp("logs")
    run_job(logs / "job", [fit(path, logs, kind) for kind, path in configs.items()], processes=1)
    return {kind: logs / kind / "version_0" for kind in configs}


def text_of(events: EventAccumulator, tag: str) -> str:
    return events.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode()


@pytest.mark.parametrize(
    "kind", [name for name, entry in architectures().items() if "extras" not in entry.network.__module__]
)
def test_the_charts_hold_what_is_logged(runs, kind):
    check_charts(runs[kind])


def test_the_loss_beside_that_of_validation_is_of_the_same_kind(run, config, tmp_path):
    """With further tokens predicted, that of the next one: the sum over all is several times as large."""
    status, out, err = run("fit", "--config", config, "--model.config.n_future_tokens", 3)
    assert status == 0, err
    version = tmp_path / "logs/tiny/version_0"
    check_charts(version)
    with (version / "metrics.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["step"] == "10" and row["train/loss"])
    assert float(row["train/next_token_loss"]) < 0.5 * float(row["train/loss"])
    assert f"loss {float(row['train/next_token_loss']):.3f}  val" in out


@pytest.mark.parametrize("kind", SAMPLES)
def test_training_and_validation_are_logged_by_the_optimizer_steps_made(runs, kind):
    events = events_of(runs[kind])
    for tag in events.Tags()["scalars"]:
        expected = range(1, STEPS + 1) if tag.startswith(("train/", "throughput/")) else (HALFWAY, STEPS)
        if not tag.startswith(("epoch", "val_baseline/")):
            assert [point.step for point in events.Scalars(tag)] == list(expected), tag


# of the lines that stand in a task's charts
LINES = {
    "gpt": ["loss/uniform", "loss/unigram", "loss/bigram", "bits_per_byte/uniform"],
    "bert": ["mlm_loss/unigram", "nsp_loss/uniform", "nsp_accuracy/majority"],
    "longformer": ["loss/unigram", "mlm_loss/unigram", "mlm_accuracy/unigram"],
    "transformer": ["loss/bigram", "bleu/copied_source", "chrf/copied_source"],
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_what_the_baselines_reach_is_a_line_as_long_as_the_curve(runs, kind):
    events = events_of(runs[kind])
    found = [tag.removeprefix("val_baseline/") for tag in events.Tags()["scalars"] if tag.startswith("val_baseline/")]
    assert set(LINES[kind]) <= set(found)
    assert not any("perplexity" in tag for tag in found)
    for tag in found:
        line = events.Scalars(f"val_baseline/{tag}")
        assert [point.step for point in line] == [0, 5, 10]
        assert len({point.value for point in line}) == 1
        assert np.isfinite(line[0].value)
    with (runs[kind] / "metrics.csv").open() as rows:
        assert "baseline" not in rows.readline()


@pytest.mark.parametrize("kind", SAMPLES)
def test_attention_is_shown_for_each_layer_at_each_validation(runs, kind):
    events = events_of(runs[kind])
    assert events.Tags()["images"] == [f"val_maps_{name}/head_{head}" for name in MAPS[kind] for head in (0, 1)]
    assert min(events.Tags()["images"]) > max(events.Tags()["scalars"])  # which is their order on the screen
    for tag in events.Tags()["images"]:
        pictures = events.Images(tag)
        assert [picture.step for picture in pictures] == [5, 10]
        first, last = (np.asarray(Image.open(io.BytesIO(p.encoded_image_string))) for p in pictures)
        assert first.shape == last.shape  # of the same row
        assert (first != last).any()


@pytest.mark.parametrize("kind", SAMPLES)
def test_samples_are_text_and_files(runs, kind):
    events = events_of(runs[kind])
    written = (runs[kind] / "samples/step_000010.txt").read_text()
    shown = text_of(events, "samples/0")
    assert "".join(shown.split()) in "".join(written.split())  # but for the lines
    assert max(map(len, shown.splitlines())) <= 120


def test_mask_fills_name_the_word_and_the_guesses(runs):
    lines = (runs["bert"] / "samples/step_000010.txt").read_text().splitlines()
    fills = [line for line in lines if " was " in line]
    assert len(fills) >= 3
    assert all(line.count("%") == 3 for line in fills)
    assert sum("[MASK]" in line for line in lines if not line.startswith(" ")) >= 2


@pytest.mark.parametrize("kind", SAMPLES)
def test_the_projector_has_the_trained_embeddings_with_their_tokens(runs, kind):
    run, name = runs[kind], EMBEDDINGS[kind]
    assert (run / "projector_config.pbtxt").read_text().count("embeddings {") == 1
    folder = run / "00010" / name
    header, *rows = (folder / "metadata.tsv").read_text(encoding="utf-8").splitlines()
    assert header == "token\tcount"
    vectors = np.loadtxt(folder / "tensors.tsv")
    labels, counts = zip(*(row.split("\t") for row in rows), strict=True)
    assert list(map(int, counts)) == sorted(map(int, counts), reverse=True)
    assert len(vectors) == len(set(labels)) == len(labels)
    last = run / "checkpoints/last.ckpt"
    trained = load_trained(last, architectures()[kind].network)
    weight = trained.model.get_submodule(name).weight.detach()
    for label, vector in list(zip(labels, vectors, strict=True))[:30]:
        ids = [i for i in range(len(weight)) if trained.tokenizer.decode([i], skip_special_tokens=False) == label]
        assert any(np.allclose(weight[i], vector, atol=1e-5) for i in ids) or label in ("·", "\\n"), label


@pytest.mark.parametrize("kind", SAMPLES)
def test_the_network_is_a_table(runs, kind):
    table = text_of(events_of(runs[kind]), "network")
    model = load_trained(runs[kind] / "checkpoints/last.ckpt", architectures()[kind].network).model
    assert f"**{sum(p.numel() for p in model.parameters()):,}**" in table


def test_the_parts_of_the_table_add_up():
    model = GPT(GPTConfig(vocab_size=11, max_seq_len=8, d_model=8, n_heads=2, n_layers=3, tie_embeddings=False))
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in network_table(model).splitlines()[2:-1]]
    parts = {name: int(n.replace(",", "")) for name, _, n, _ in cells if n}
    top = [n for name, n in parts.items() if "." not in name]
    assert sum(top) == sum(p.numel() for p in model.parameters())
    assert parts["blocks"] == 3 * parts["blocks.0"]
    assert "| blocks.1 … 2 | as blocks.0 | | |" in network_table(model)


SHAPE = {"max_seq_len": 16, "d_model": 12, "n_heads": 3}
NETWORKS = {
    "gpt": lambda: GPT(GPTConfig(vocab_size=20, n_layers=2, **SHAPE)),
    "bert": lambda: BERT(BERTConfig(vocab_size=20, n_layers=2, **SHAPE)),
    "transformer": lambda: Transformer(TransformerConfig(20, 20, n_encoder_layers=1, n_decoder_layers=1, **SHAPE)),
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("state", ["training", "evaluating"])
def test_maps_are_of_every_attention_and_leave_no_trace(kind, state):
    model = NETWORKS[kind]().train(state == "training")
    ids = torch.arange(7)[None]
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids[:, :4]} if kind == "transformer" else {})
    maps = attention_maps(model, inputs)
    assert list(maps) == MAPS[kind]
    for name, weights in maps.items():
        rows = 4 if "decoder" in name else 7
        columns = rows if name == "decoder.0.attention" else 7
        assert weights.shape == (3, rows, columns)
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, rows))
        causal = kind == "gpt" or name == "decoder.0.attention"
        assert bool((weights.triu(1) == 0).all()) is causal
    assert model.training is (state == "training")
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_maps_are_of_the_attentions_that_evaluation_calls():
    """Not of the blocks that predict further tokens in training."""
    model = GPT(GPTConfig(vocab_size=20, n_layers=2, n_future_tokens=3, **SHAPE))
    assert list(attention_maps(model, {"input_ids": torch.arange(7)[None]})) == MAPS["gpt"]


def test_labels_stand_at_their_rows_and_columns():
    """Of four columns the second has the long name, of three rows the last: nowhere else is ink."""
    picture = heat_map(np.zeros((3, 4)), ["", "wwwwww", "", "i"], ["", "", "mmm"])
    ink = np.asarray(Image.fromarray(picture).convert("L")) < 128
    height = len(ink)
    top, left = height - 3 * CELL - 1, int(np.argmax((picture == 128).all(-1)[-1]))
    above = ink[HEADING:top, left : left + 4 * CELL]
    assert [bool(above[:, i * CELL : (i + 1) * CELL].any()) for i in range(4)] == [False, True, False, True]
    assert above[-6:, 3 * CELL :].any()  # a short one begins at the map, and is read from below
    assert not above[: len(above) // 2, 3 * CELL :].any()
    beside = ink[top : top + 3 * CELL, :left]
    assert [bool(beside[i * CELL : (i + 1) * CELL - 1].any()) for i in range(3)] == [False, False, True]


def test_the_darkest_cell_is_the_largest_weight_and_its_value_is_named():
    weights = np.full((3, 4), 0.1)
    weights[2, 1] = 0.5
    picture = heat_map(weights, list("abcd"), list("xyz"))
    dark = np.argwhere((picture == [8, 48, 107]).all(-1))
    dark = dark[dark[:, 0] >= HEADING]
    assert np.ptp(dark, axis=0).tolist() == pytest.approx([CELL - 1, CELL - 1], abs=1)
    assert dark[:, 0].max() >= len(picture) - 3  # the last row
    assert (heat_map(weights / 2, list("abcd"), list("xyz"))[HEADING:] == picture[HEADING:]).all()


def test_a_label_without_room_is_shortened():
    wide = heat_map(np.zeros((1, 2)), ["m" * 90, "b"], ["m" * 90])
    assert wide.shape[1] == CARD


def test_without_loggers_the_callbacks_write_their_files(run, config, tmp_path):
    names = ("TextSamples", "AttentionMaps", "TokenEmbeddings")
    command = ["fit", "--config", config, "--trainer.logger", "false", "--trainer.max_steps", 6]
    status, _, err = run(*command, *(f"--trainer.callbacks+={name}" for name in names))
    assert status == 0, err
    assert list((tmp_path / "logs/tiny/version_0/samples").iterdir())
    assert not list(tmp_path.rglob("events.out.tfevents*"))
