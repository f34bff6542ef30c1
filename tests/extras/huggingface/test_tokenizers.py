"""Tokenizers in and out: equal ids on a thousand real sentences."""

import re
from pathlib import Path

import pytest
import transformers
from gensim.test.utils import datapath

from src.errors import InputError
from src.extras.huggingface.exporting import export
from src.extras.huggingface.importing import import_folder
from src.extras.huggingface.tokenizer_files import read_tokenizer
from src.tokenization import END_OF_TEXT, bert_tokens, train_bpe, train_unigram, train_wordpiece
from tests.extras.huggingface.networks import bert, gpt2, marian, save
from tests.extras.huggingface.published_tokenizers import roberta_tokenizer
from tests.random_networks import checkpoint_of


@pytest.fixture(scope="module")
def sentences():
    """Of news articles that come with gensim, and a few that try a tokenizer."""
    text = Path(datapath("lee_background.cor")).read_text(encoding="utf-8")
    found = [s.strip() for s in re.split(r"(?<=[.?!]) ", text) if s.strip()][:1000]
    assert len(found) == 1000
    return [*found, "Zürich, naïve — 中文 🙂", "  two  spaces\tand a tab ", "don't we're I'll", END_OF_TEXT + " x"]


def exported(name, tokenizer, folder, target=None):
    size = tokenizer.get_vocab_size()
    sizes = {"vocab_size": size} | ({"source_vocab_size": size} if name == "transformer" else {})
    _, checkpoint = checkpoint_of(name, **sizes)
    special = bert_tokens(tokenizer) if name == "bert" else checkpoint["special_tokens"]
    tokenizers = {"tokenizer": (target or tokenizer).to_str(), "source_tokenizer": tokenizer.to_str()}
    export({**checkpoint, **tokenizers, "special_tokens": special}, folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_a_language_models_ids_are_equal(sentences, tmp_path):
    ours = train_bpe(sentences, 2000)
    theirs = exported("gpt", ours, tmp_path / "out")
    assert [theirs(s).input_ids for s in sentences] == [ours.encode(s).ids for s in sentences]
    assert [theirs.decode(ours.encode(s).ids) for s in sentences] == sentences
    assert theirs.eos_token == theirs.pad_token == END_OF_TEXT


def test_a_berts_ids_are_equal(sentences, tmp_path):
    ours = train_wordpiece(sentences, 2000)
    theirs = exported("bert", ours, tmp_path / "out")
    cls, sep = (ours.token_to_id(t) for t in ("[CLS]", "[SEP]"))
    bare = [ours.encode(s, add_special_tokens=False).ids for s in sentences]
    assert [theirs(s).input_ids for s in sentences] == [[cls, *ids, sep] for ids in bare]
    pair = theirs(sentences[0], sentences[1])
    assert pair.input_ids == [cls, *bare[0], sep, *bare[1], sep]
    assert pair.token_type_ids == [0] * (len(bare[0]) + 2) + [1] * (len(bare[1]) + 1)
    assert theirs.mask_token == "[MASK]"


@pytest.mark.parametrize("train", [train_bpe, train_unigram])
def test_a_translators_ids_are_equal(sentences, tmp_path, train):
    """One tokenizer for both sides, or one each: the target's is in a folder below."""
    ours, other = train(sentences, 1500), train([s.upper() for s in sentences], 1500)
    end = ours.token_to_id(END_OF_TEXT)
    theirs = exported("transformer", ours, tmp_path / "one")
    assert [theirs(s).input_ids for s in sentences] == [[*ours.encode(s).ids, end] for s in sentences]
    assert not (tmp_path / "one/target_tokenizer").exists()
    exported("transformer", ours, tmp_path / "two", other)
    target = transformers.AutoTokenizer.from_pretrained(tmp_path / "two", subfolder="target_tokenizer")
    assert [target.decode(other.encode(s).ids) for s in sentences[:100]] == sentences[:100]


def test_older_files_of_gpt2(sentences, tmp_path):
    ours = train_bpe(sentences, 2000)
    ours.model.save(str(tmp_path))
    theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    read = read_tokenizer(tmp_path, "gpt2")
    assert [read.encode(s).ids for s in sentences] == [theirs(s).input_ids for s in sentences]


@pytest.mark.parametrize("model_type", ["roberta", "bart"])
def test_older_files_of_roberta_and_bart(sentences, tmp_path, model_type):
    roberta_tokenizer().model.save(str(tmp_path))
    theirs = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    read = read_tokenizer(tmp_path, model_type)
    assert [read.encode(s).ids for s in sentences] == [theirs(s).input_ids for s in sentences]
    assert read.encode(*sentences[:2]).ids == theirs(*sentences[:2]).input_ids
    assert read.token_to_id("<mask>") in read.encode("the <mask> sat").ids


def test_a_vocabulary_without_robertas_tokens_is_refused(sentences, tmp_path):
    train_bpe(sentences[:20], 300).model.save(str(tmp_path))
    with pytest.raises(InputError, match=r"vocab\.json has no <pad>: it is no vocabulary of a RoBERTa"):
        read_tokenizer(tmp_path, "roberta")


def test_older_files_of_bert(sentences, tmp_path):
    ours = train_wordpiece(sentences, 2000)
    by_id = sorted(ours.get_vocab().items(), key=lambda item: item[1])
    (tmp_path / "vocab.txt").write_text("".join(token + "\n" for token, _ in by_id), encoding="utf-8")
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    read = read_tokenizer(tmp_path, "bert")
    ids = [read.encode(s, add_special_tokens=False).ids for s in sentences]
    assert ids == [theirs(s, add_special_tokens=False).input_ids for s in sentences]


def test_tokenizers_go_in_and_out_again(sentences, tmp_path):
    bpe, pieces = train_bpe(sentences, 400), train_wordpiece(sentences, 400)
    for name, model, tokenizer in (
        ("gpt2", gpt2(bpe), bpe),
        ("bert", bert(pieces), pieces),
        ("marian", marian(bpe, bpe, shared=True), bpe),
    ):
        save(model, tokenizer, tmp_path / name)
        export(import_folder(tmp_path / name, name).content, tmp_path / f"{name} again")
        before, after = (
            transformers.AutoTokenizer.from_pretrained(tmp_path / f"{name}{end}") for end in ("", " again")
        )
        for s in sentences[:300]:
            assert before(s, add_special_tokens=False).input_ids == after(s, add_special_tokens=False).input_ids
