"""Tokenizers: byte-level BPE or WordPiece trained on the corpus, characters, bytes, or any ``tokenizer.json``.

And the rows that a BERT reads: one or two texts between special tokens, cut to a length, and padded to a batch.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from src.errors import InputError

# letters of the scripts that put no space between words
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "<|unknown|>"
# special tokens by HuggingFace's names for them, as BERT and as RoBERTa write them; the order is that of the ids in a
# trained WordPiece
BERT_SPELLINGS = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
LENGTH_STEP = 8  # rows are padded to a multiple of it, as far as there is room: few shapes, and aligned ones
PRIVATE = 0xF0000  # the first of 131,000 characters that Unicode leaves to private use
ASCII_FRACTION = 0.995  # of the letters of a text in English; in German it is about 0.98


def make_tokenizer(kind: str, vocab_size: int, texts: Iterable[str], cased: bool | None = None) -> Tokenizer:
    """Make a tokenizer of a kind, trained on texts where it needs that.

    Args:
        kind: ``bpe``, ``wordpiece``, ``char``, ``byte``, or the path of a ``tokenizer.json`` or of a folder that holds
            one.
        vocab_size: of a trained ``bpe`` or ``wordpiece``.
        texts: the training documents.
        cased: of a trained ``wordpiece``: see :func:`train_wordpiece`.
    """
    if kind == "bpe":
        return train_bpe(texts, vocab_size)
    if kind == "unigram":
        return train_unigram(texts, vocab_size)
    if kind == "wordpiece":
        return train_wordpiece(texts, vocab_size, cased)
    if kind == "char":
        return character_tokenizer(texts)
    if kind == "byte":
        return byte_tokenizer()
    return load_tokenizer(kind)


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train byte-level byte-pair encoding (Sennrich et al. 2016, Radford et al. 2019): loses nothing of any text."""
    return _train_byte_level(models.BPE(), trainers.BpeTrainer, texts, vocab_size)


def train_unigram(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a unigram language model over bytes (Kudo 2018): the likeliest pieces, not the most frequent merges."""
    tokenizer = _train_byte_level(models.Unigram(), trainers.UnigramTrainer, texts, vocab_size)
    # as it is when it is read again: fresh from training it has another id for its special token
    return Tokenizer.from_str(tokenizer.to_str())


def _train_byte_level(
    model: models.Model,
    trainer: type[trainers.BpeTrainer] | type[trainers.UnigramTrainer],
    texts: Iterable[str],
    vocab_size: int,
) -> Tokenizer:
    tokenizer = _byte_level(model)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size <= len(alphabet):
        raise InputError(f"a byte-level vocabulary of {vocab_size} has no room for the {len(alphabet)} bytes")
    settings: dict[str, Any] = {"vocab_size": vocab_size, "initial_alphabet": alphabet, "show_progress": False}
    tokenizer.train_from_iterator(texts, trainer(special_tokens=[END_OF_TEXT], **settings))
    return tokenizer


def train_wordpiece(texts: Iterable[str], vocab_size: int, cased: bool | None = None) -> Tokenizer:
    """Train WordPiece as BERT's (Devlin et al. 2018, section 3), uncased or cased.

    The library's own trainer numbers the characters within words in an order that differs from run to run, and breaks
    ties by it. So byte-pair encoding is trained instead, which is the same, on words whose characters after the first
    stand for themselves as ones of their own.

    Args:
        texts: the training documents.
        vocab_size: with the special tokens.
        cased: whether case and accents are kept. If None, they are unless ``ASCII_FRACTION`` of the letters are ASCII:
            English loses little without them, where German loses the difference of schön and schon.
    """
    special = [spellings[0] for spellings in BERT_SPELLINGS.values()]
    if vocab_size <= len(special):
        raise InputError(f"a vocabulary of {vocab_size} has no room beside its {len(special)} special tokens")
    normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    words = _count_words(normalizer, ((text, 1) for text in texts))
    if cased is None:
        cased = not _is_nearly_ascii(words)
    if not cased:
        normalizer = normalizers.BertNormalizer()
        words = _count_words(normalizer, words.items())
    characters = sorted(set().union(*words))
    inside = {ord(character): PRIVATE + i for i, character in enumerate(characters)}
    outside = {PRIVATE + i: character for i, character in enumerate(characters)}
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    marked = ((word[0] + word[1:].translate(inside), n) for word, n in sorted(words.items()))
    trained.train_from_iterator((" ".join([word] * n) for word, n in marked), trainer)
    vocabulary = {
        ("##" if ord(token[0]) >= PRIVATE else "") + token.translate(outside): i
        for token, i in trained.get_vocab().items()
    }
    # in Thai and Japanese a word is all that stands between two spaces, and one above this limit is unknown
    limit = min(max([100, *map(len, words)]), 1000)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=limit))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    return tokenizer


def _count_words(normalizer: normalizers.Normalizer, texts: Iterable[tuple[str, int]]) -> Counter[str]:
    """Count the words of texts, each text that many times."""
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text, n in texts:
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)):
            words[word] += n
    return words


def _is_nearly_ascii(words: Counter[str]) -> bool:
    letters = ascii_letters = 0
    for word, n in words.items():
        found = [character.isascii() for character in word if character.isalpha()]
        letters, ascii_letters = letters + n * len(found), ascii_letters + n * sum(found)
    return ascii_letters >= ASCII_FRACTION * letters


def byte_tokenizer() -> Tokenizer:
    """Make one token a byte of UTF-8, and the end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return _byte_level(models.BPE(vocab={token: i for i, token in enumerate([END_OF_TEXT, *alphabet])}, merges=[]))


def _byte_level(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def character_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Make one token a character of the texts, the end token, and one for every other character."""
    characters = sorted(set().union(*texts))
    vocabulary = {token: i for i, token in enumerate([END_OF_TEXT, UNKNOWN, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([END_OF_TEXT, UNKNOWN])
    return tokenizer


def bert_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """Find a tokenizer's own tokens for what BERT needs, by HuggingFace's names: as BERT or RoBERTa writes them."""
    found = {}
    for name, spellings in BERT_SPELLINGS.items():
        held = [token for token in spellings if tokenizer.token_to_id(token) is not None]
        if not held:
            raise InputError(
                f"the tokenizer has no {' or '.join(spellings)}, its {name}: BERT needs one; take another "
                "tokenizer.json, or train one with the tokenizer wordpiece"
            )
        found[name] = held[0]
    return found


def bert_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Find the ids of :func:`bert_tokens`, and of ``second_token``, if one stands before the second of two texts.

    So it does in RoBERTa's tokenizers, which put two separators between them (Liu et al. 2019's code).
    """
    found = {name: require_token(tokenizer, token, name) for name, token in bert_tokens(tokenizer).items()}
    with_two_between = tokenizer.num_special_tokens_to_add(is_pair=True) == 4
    return {**found, "second_token": found["sep_token"]} if with_two_between else found


def text_ids(tokenizer: Tokenizer) -> list[int]:
    """List the ids of the tokens that stand for text, in order: no special tokens, and none that is left out."""
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return sorted(set(tokenizer.get_vocab().values()) - special)


def load_tokenizer(path: str) -> Tokenizer:
    """Load the tokenizer of a ``tokenizer.json``, or of a folder that holds one."""
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise InputError(
            f"there is no tokenizer {path!r}: give a tokenizer.json or, where one is trained, bpe, wordpiece, char or "
            "byte"
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{file} is no tokenizer.json: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Give the highest id and one: more than the number of tokens where a tokenizer leaves ids out."""
    return max(tokenizer.get_vocab().values()) + 1


def tokenizer_text(kind: str) -> str:
    """Read the text of a given ``tokenizer.json``, to tell whether it has changed; empty for what is trained."""
    path = Path(kind) / "tokenizer.json" if Path(kind).is_dir() else Path(kind)
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def require_token(tokenizer: Tokenizer, token: str, option: str) -> int:
    """Find the id of a special token; refuse a tokenizer without it."""
    found = tokenizer.token_to_id(token)
    if found is None:
        special = [added.content for added in tokenizer.get_added_tokens_decoder().values() if added.special]
        raise InputError(f"the tokenizer has no {token!r}: set {option} to one of {', '.join(special) or 'its tokens'}")
    return found


def start_ids(tokenizer: Tokenizer, special_tokens: dict[str, str]) -> list[int]:
    """Find the ids that begin each text: of the ``bos_token``, where there is one and the tokenizer puts it there."""
    start = tokenizer.token_to_id(special_tokens.get("bos_token", ""))
    return [start] if start is not None and tokenizer.encode("").ids[:1] == [start] else []


def bert_row(parts: Sequence[Sequence[int]], seq_len: int, special_ids: dict[str, int]) -> tuple[list[int], int]:
    """Make ``[CLS] text [SEP]`` or ``[CLS] first [SEP] second [SEP]`` in at most ``seq_len`` tokens.

    Args:
        parts: one or two texts.
        seq_len: tokens at most.
        special_ids: of :func:`bert_ids`.

    Returns:
        The ids, and where the second text begins: at the end of the row, where there is none.
    """
    cls, sep = special_ids["cls_token"], special_ids["sep_token"]
    before = [special_ids["second_token"]] if len(parts) == 2 and "second_token" in special_ids else []
    first, *second = cut_parts(parts, seq_len - 1 - len(parts) - len(before))
    ids = [cls, *first, sep]
    for part in second:
        ids += [*before, *part, sep]
    return ids, len(first) + 2


def cut_parts(parts: Sequence[Sequence[int]], room: int) -> list[Sequence[int]]:
    """Cut one or two texts so that they fit together; of two, the longer is cut first."""
    if len(parts) == 1:
        return [parts[0][:room]]
    first, second = map(len, parts)
    first = min(first, max(room - second, room - room // 2))
    return [parts[0][:first], parts[1][: room - first]]


def pad_rows(
    rows: Sequence[Sequence[int] | NDArray[np.integer]], pad_id: int, longest: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stack rows as one array, padded on the right, and its attention mask, 1 at real tokens: (rows, width) each.

    Args:
        rows: of ``longest`` tokens at most.
        pad_id: fills the rows up.
        longest: the width at most, so that there is a position for each column.
    """
    lengths = np.array([len(row) for row in rows])
    width = min(-(-int(lengths.max()) // LENGTH_STEP) * LENGTH_STEP, longest)
    input_ids = np.full((len(rows), width), pad_id, np.int64)
    for i, row in enumerate(rows):
        input_ids[i, : len(row)] = row
    return input_ids, (np.arange(width) < lengths[:, None]).astype(np.int64)


def pad_pairs(
    pairs: Sequence[tuple[Sequence[int] | NDArray[np.integer], int]], pad_id: int, longest: int
) -> dict[str, NDArray[np.int64]]:
    """Make ``input_ids``, ``attention_mask`` and ``token_type_ids``, (rows, width) each, of rows of one or two texts.

    Args:
        pairs: as :func:`bert_row` gives them.
        pad_id: fills the rows up.
        longest: the width at most.
    """
    input_ids, attention_mask = pad_rows([ids for ids, _ in pairs], pad_id, longest)
    positions, begins = np.arange(input_ids.shape[1]), np.array([begin for _, begin in pairs])[:, None]
    segments = ((positions >= begins) & (attention_mask > 0)).astype(np.int64)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": segments}
