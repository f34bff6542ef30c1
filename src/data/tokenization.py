"""Tokenizers: byte-level BPE trained on the corpus, characters, bytes, or any ``tokenizer.json``."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from src.errors import InputError

END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "<|unknown|>"


def make_tokenizer(kind: str, vocab_size: int, texts: Iterable[str]) -> Tokenizer:
    """A tokenizer of a kind, trained on texts where it needs that.

    Args:
        kind: ``bpe``, ``char``, ``byte``, or the path of a ``tokenizer.json`` or of a folder that holds one.
        vocab_size: of a trained ``bpe``.
        texts: the training documents.

    Raises:
        InputError: an unknown kind, or a file that is no tokenizer.
    """
    if kind == "bpe":
        return train_bpe(texts, vocab_size)
    if kind == "char":
        return character_tokenizer(texts)
    if kind == "byte":
        return byte_tokenizer()
    return load_tokenizer(kind)


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level byte-pair encoding (Sennrich et al. 2016, Radford et al. 2019): loses nothing of any text."""
    tokenizer = _byte_level(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size <= len(alphabet):
        raise InputError(f"a byte-level vocabulary of {vocab_size} has no room for the {len(alphabet)} bytes")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def byte_tokenizer() -> Tokenizer:
    """One token a byte of UTF-8, and the end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return _byte_level(models.BPE(vocab={token: i for i, token in enumerate([END_OF_TEXT, *alphabet])}, merges=[]))


def _byte_level(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def character_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """One token a character of the texts, the end token, and one for every other character."""
    characters = sorted(set().union(*texts))
    vocabulary = {token: i for i, token in enumerate([END_OF_TEXT, UNKNOWN, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([END_OF_TEXT, UNKNOWN])
    return tokenizer


def load_tokenizer(path: str) -> Tokenizer:
    """The tokenizer of a ``tokenizer.json``, or of a folder that holds one.

    Raises:
        InputError: there is none, or the file is no tokenizer.
    """
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise InputError(f"there is no tokenizer {path!r}: choose bpe, char or byte, or give a tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{file} is no tokenizer.json: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def require_token(tokenizer: Tokenizer, token: str, option: str) -> int:
    """The id of a special token.

    Raises:
        InputError: the tokenizer has no such token; those that it has are named.
    """
    found = tokenizer.token_to_id(token)
    if found is None:
        special = [added.content for added in tokenizer.get_added_tokens_decoder().values() if added.special]
        raise InputError(f"the tokenizer has no {token!r}: set {option} to one of {', '.join(special) or 'its tokens'}")
    return found
