"""Sentence encoders and rerankers against `sentence-transformers`: folders that it wrote, and folders that it reads."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from src.checkpoint import save_checkpoint
from src.encoder import Pooling, load_encoder
from src.errors import InputError
from src.extras.huggingface.exporting import export
from src.extras.huggingface.importing import import_folder
from tests.extras.huggingface.networks import bert, distilbert, modernbert, prenorm, roberta
from tests.random_networks import TEXT, WORDPIECE, checkpoint_of

sentence_transformers = pytest.importorskip("sentence_transformers")

WORDS = TEXT[0].split()
TEXTS = [" ".join(WORDS[i : i + 1 + 2 * i]) for i in range(6)] + ["", " ".join(WORDS * 9)]
SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
NETWORKS = {
    "bert": bert,
    "prenorm": prenorm,
    "roberta": roberta,
    "distilbert": distilbert,
    "modernbert": modernbert,
}


def saved(folder, network="bert", pooling="mean", normalize=False, length=24, **settings):
    """A sentence encoder of random weights, as `sentence-transformers` writes it."""
    export(checkpoint_of("bert_classifier")[1], folder / "tokenizer")  # one that writes [CLS] and [SEP]
    model = NETWORKS[network](WORDPIECE, "encoder")
    model.save_pretrained(folder / "network")
    for path in (folder / "tokenizer").glob("*token*"):
        path.rename(folder / "network" / path.name)
    from sentence_transformers import SentenceTransformer, models

    modules = [models.Transformer(str(folder / "network"), max_seq_length=length)]
    modules.append(models.Pooling(model.config.hidden_size, pooling_mode=pooling))
    modules += [models.Normalize()] if normalize else []
    written = SentenceTransformer(modules=modules, device="cpu", **settings)
    written.save(str(folder / "written"), create_model_card=False)
    return written


def encoder_of(content, folder):
    save_checkpoint(content, folder / "x.ckpt")
    return load_encoder(folder / "x.ckpt")


def vectors(encoder, texts, kind=None):
    return encoder.encode(encoder.rows(texts, kind)[0]).numpy()


def reads(folder):
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("network", "pooling", "normalize", "length"),
    [
        ("bert", "mean", True, 24),
        ("bert", "cls", False, 8),
        ("bert", "max", True, 24),
        ("prenorm", "cls", True, 12),
        ("roberta", "mean", True, 24),
        ("distilbert", "mean", False, 12),
        ("modernbert", "cls", True, 24),
    ],
)
def test_vectors_are_those_of_sentence_transformers_in_and_out(tmp_path, network, pooling, normalize, length):
    theirs = saved(tmp_path, network, pooling, normalize, length)
    expected = theirs.encode(TEXTS)
    content = import_folder(tmp_path / "written", "a sentence encoder").content
    encoder = encoder_of(content, tmp_path)
    assert encoder.pooling == Pooling(pooling, normalize, length, encoder.pooling.prompts)
    np.testing.assert_allclose(vectors(encoder, TEXTS), expected, atol=1e-5)
    export(content, tmp_path / "again")
    np.testing.assert_allclose(reads(tmp_path / "again").encode(TEXTS), expected, atol=1e-5)
    assert import_folder(tmp_path / "again", "again").content["sentence_encoder"] == content["sentence_encoder"]
    assert "SentenceTransformer(" in (tmp_path / "again/README.md").read_text()


def test_prompts_of_queries_and_documents_and_the_default_one(tmp_path):
    prompts = {"query": "the cat ", "document": "one dog ", "other": "said "}
    theirs = saved(tmp_path, prompts=prompts, default_prompt_name="other")
    content = import_folder(tmp_path / "written", "a sentence encoder").content
    export(content, tmp_path / "again")
    encoder = encoder_of(content, tmp_path)
    for model in (theirs, reads(tmp_path / "again")):
        np.testing.assert_allclose(vectors(encoder, TEXTS, "query"), model.encode_query(TEXTS), atol=1e-5)
        np.testing.assert_allclose(vectors(encoder, TEXTS, "document"), model.encode_document(TEXTS), atol=1e-5)
        np.testing.assert_allclose(vectors(encoder, TEXTS), model.encode(TEXTS), atol=1e-5)
    plain = encoder_of({**content, "sentence_encoder": {}}, tmp_path)
    assert plain.checksum() != encoder.checksum()  # an index of the one is not one of the other


def change(path, **keys):
    found = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**found, **keys}))


def add_module(path):
    path.write_text(json.dumps([*json.loads(path.read_text()), {"type": "sentence_transformers.models.Dense"}]))


DAMAGE = {
    "has the pooling weightedmean": lambda f: change(f / "1_Pooling/config.json", pooling_mode="weightedmean"),
    "include_prompt false": lambda f: change(f / "1_Pooling/config.json", include_prompt=False),
    "do_lower_case true": lambda f: change(f / "sentence_bert_config.json", do_lower_case=True),
    "similarity_fn_name 'dot'": lambda f: change(f / "config_sentence_transformers.json", similarity_fn_name="dot"),
    "default_prompt_name 'x'": lambda f: change(f / "config_sentence_transformers.json", default_prompt_name="x"),
    "lists Transformer, Pooling, Dense": lambda f: add_module(f / "modules.json"),
    "has no config.json": lambda f: (f / "1_Pooling/config.json").unlink(),
    "modules.json does not hold a list": lambda f: (f / "modules.json").write_text("{}"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoder")
    saved(root, prompts={"query": "the "})
    return root / "written"


@pytest.mark.parametrize("what", DAMAGE)
def test_what_would_give_other_vectors_is_refused(folder, what):
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    DAMAGE[what](folder)
    with pytest.raises(InputError, match=what):
        import_folder(folder, "a sentence encoder")
    for path, content in before.items():
        path.write_bytes(content)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_reranker_gives_the_scores_of_a_cross_encoder(tmp_path, norm):
    _, checkpoint = checkpoint_of("bert_classifier", n_labels=1, norm=norm)
    export(checkpoint, tmp_path / "out")
    found = sentence_transformers.CrossEncoder(str(tmp_path / "out"), device="cpu")
    pairs = [(WORDS[0], text) for text in TEXTS[:6]]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    batch = found.tokenizer([one for one, _ in pairs], [two for _, two in pairs], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**batch).logits[:, 0].numpy()
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found.predict(pairs), expected, atol=1e-5)
    found.activation_fn = torch.nn.Sigmoid()
    found.save(str(tmp_path / "other"), create_model_card=False)
    assert import_folder(tmp_path / "out", "a reranker").notes == []
    (note,) = import_folder(tmp_path / "other", "a reranker").notes
    assert "Sigmoid" in note
