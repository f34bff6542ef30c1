"""Weights and configurations: in and out again bit for bit, and equal logits on both sides."""

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from src.architectures import architectures
from src.extras.huggingface.adapters import ADAPTERS
from src.extras.huggingface.exporting import export
from src.extras.huggingface.importing import import_folder
from tests.extras.huggingface.networks import BERTS, CASES, LABELS, bert, gpt2, inputs, network, save
from tests.random_networks import BPE, CONFIGS, WORDPIECE, checkpoint_of


def ours_of(checkpoint) -> nn.Module:
    config_class, model_class, *_ = architectures()[checkpoint["architecture"]]
    model = model_class(config_class(**checkpoint["model_config"])).eval()
    model.load_state_dict({name.removeprefix("model."): t for name, t in checkpoint["state_dict"].items()})
    return model


def outputs(model: nn.Module, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The output of a network here, or of one of HuggingFace's, at real tokens."""
    with torch.no_grad():
        found = model(**batch)
    if isinstance(found, transformers.utils.ModelOutput):
        found = list(found.values())
        names = ("prediction_logits", "seq_relationship_logits", "logits", "last_hidden_state", "pooler_output")
        with torch.no_grad():
            found = [value for name, value in model(**batch).items() if name in names]
    found = [value for value in found if value is not None] if isinstance(found, tuple | list) else [found]
    real = batch["attention_mask"].bool()
    return [value[real] if value.shape[:2] == real.shape else value for value in found]


def encoded(model: nn.Module, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The vectors of a BERT here without its heads."""
    with torch.no_grad():
        hidden = model.encoder(**batch)
        real = hidden[batch["attention_mask"].bool()]
        return [real, model.encoder.pool(hidden)] if model.encoder.pooler is not None else [real]


@pytest.mark.parametrize("case", CASES)
def test_in_and_out_again_is_the_same_bit_for_bit(case, tmp_path):
    theirs = network(case, tmp_path / "in")
    checkpoint, _, _ = import_folder(tmp_path / "in", "a model")
    export(checkpoint, tmp_path / "out")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("in", "out"))
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name], after[name]), name
    again, _, _ = import_folder(tmp_path / "out", "a model")
    assert again["model_config"] == checkpoint["model_config"]
    assert all(torch.equal(again["state_dict"][name], weight) for name, weight in checkpoint["state_dict"].items())

    more = {"add_pooling_layer": False} if case == "longformer: encoder" else {}  # nothing trains it
    loaded, report = type(theirs).from_pretrained(tmp_path / "out", output_loading_info=True, **more)
    assert not any(report.values())
    # where it was read, and the deviation of first weights, of which the networks here have none
    ignored = {"_name_or_path", "initializer_range", "init_std", "n_inner"}
    configs = [{k: v for k, v in m.config.to_dict().items() if k not in ignored} for m in (theirs, loaded)]
    assert {key: configs[1].get(key) for key in configs[0]} == configs[0]
    batch = inputs(theirs)
    for value, expected in zip(outputs(loaded.eval(), batch), outputs(theirs, batch), strict=True):
        assert torch.equal(value, expected)


MISSING = {  # parts of the network here that HuggingFace's has not
    "bert: encoder": 2,
    "bert: masked words": 2,
    "roberta-prelayernorm: encoder": 2,
    "roberta-prelayernorm: masked words": 2,
    "roberta: encoder": 2,
    "roberta: masked words": 2,
    "distilbert: encoder": 3,
    "distilbert: masked words": 2,
    "modernbert: encoder": 3,
    "modernbert: masked words": 2,
    "jina_embeddings_v3: encoder": 2,
    "jina_embeddings_v3: masked words": 2,
    "longformer: encoder": 1,
}


@pytest.mark.parametrize("case", CASES)
def test_logits_after_the_import_are_equal(case, tmp_path):
    theirs = network(case, tmp_path / "in")
    checkpoint, _, notes = import_folder(tmp_path / "in", "a model")
    ours, batch = ours_of(checkpoint), inputs(theirs)
    expected = outputs(theirs, batch)
    assert expected[0].std() > 0.1  # not a comparison of nothings
    found = (encoded if case.endswith("encoder") else outputs)(ours, batch)[: len(expected)]  # here with a pooler
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, wanted, atol=1e-5, rtol=0)
    assert len(checkpoint["untrained"]) == len(notes) == MISSING.get(case, 0)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_after_the_export_are_equal(name, tmp_path):
    ours, checkpoint = checkpoint_of(name)
    exported = export(checkpoint, tmp_path / "out")
    network = getattr(transformers, exported.config["architectures"][0])
    theirs, report = network.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    batch = inputs(theirs)
    found, expected = outputs(theirs.eval(), batch), outputs(ours, batch)
    assert len(expected) - len(found) == (len(exported.left_out) > 0)  # the head for next sentences
    for value, wanted in zip(found, expected, strict=False):
        assert wanted.std() > 0.1
        torch.testing.assert_close(value, wanted, atol=1e-5, rtol=0)
    again = ours_of(import_folder(tmp_path / "out", "a model").content)
    for value, wanted in zip(outputs(again, batch), expected[: len(found)], strict=False):
        torch.testing.assert_close(value, wanted, atol=1e-5, rtol=0)


def test_half_precision_stays_as_it_is(tmp_path):
    model = gpt2(BPE).to(torch.bfloat16)
    save(model, BPE, tmp_path / "in")
    export(import_folder(tmp_path / "in", "a model").content, tmp_path / "out")
    assert {tensor.dtype for tensor in load_file(tmp_path / "out/model.safetensors").values()} == {torch.bfloat16}
    assert transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_shards_and_older_files_are_read(tmp_path):
    theirs = gpt2(BPE)
    expected = ADAPTERS["gpt"][0].read(theirs.config.to_dict(), theirs.state_dict()).weights

    def weights(folder):
        return {k.removeprefix("model."): v for k, v in import_folder(folder, "a model").content["state_dict"].items()}

    for name in ("shards", "shards of pickles", "pickle"):
        save(theirs, BPE, tmp_path / name)
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    (tmp_path / "shards/model.safetensors").unlink(missing_ok=True)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    old = {key.removeprefix("transformer."): tensor for key, tensor in theirs.state_dict().items()}
    old |= {f"h.{i}.attn.bias": torch.ones(1, 1, 24, 24).tril() for i in range(2)}
    (tmp_path / "pickle/model.safetensors").unlink()
    torch.save(old, tmp_path / "pickle/pytorch_model.bin")
    (tmp_path / "shards of pickles/model.safetensors").unlink()
    for i, names in enumerate((list(old)[:9], list(old)[9:])):
        torch.save({key: old[key] for key in names}, tmp_path / f"shards of pickles/pytorch_model-{i}.bin")
    places = {key: f"pytorch_model-{int(i >= 9)}.bin" for i, key in enumerate(old)}
    index = str({"weight_map": places}).replace("'", '"')
    (tmp_path / "shards of pickles/pytorch_model.bin.index.json").write_text(index)
    for name in ("shards", "shards of pickles", "pickle"):
        found = weights(tmp_path / name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected), name


def test_an_older_bert_is_read(tmp_path):
    """Its norms are called otherwise, and it holds twice what is tied."""
    theirs = bert(WORDPIECE)
    save(theirs, WORDPIECE, tmp_path)
    expected = import_folder(tmp_path, "a model").content["state_dict"]
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor.clone()
        for key, tensor in theirs.state_dict().items()
    }
    assert "cls.predictions.decoder.weight" in old
    save_file({**old, "bert.embeddings.position_ids": torch.arange(24)[None]}, tmp_path / "model.safetensors")
    found = import_folder(tmp_path, "a model").content["state_dict"]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_labels_have_their_names(tmp_path):
    network("bert: classifier", tmp_path / "in")
    checkpoint = import_folder(tmp_path / "in", "a model").content
    assert checkpoint["label_names"] == ["no", "perhaps", "yes"]
    export(checkpoint, tmp_path / "out")
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").id2label == LABELS["id2label"]
    assert BERTS["classifier"].from_pretrained(tmp_path / "out").num_labels == 3
