"""Documents, and their passages: cut by the tokens of an encoder or by words."""

from typing import NamedTuple

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from src.tokenization import UNSPACED

Span = tuple[int, int]  # the first character of a passage in its document, and the one after its last


class Document(NamedTuple):
    """A text and where it came from: the name that citations give, and that it is deleted by."""

    source: str
    text: str


def word_tokenizer() -> Tokenizer:
    """Make a tokenizer of words and punctuation marks: what passages are counted in where there is no encoder.

    In a script that puts no space between words, each letter is a token.
    """
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    letters = pre_tokenizers.Split(Regex(rf"{UNSPACED}\p{{M}}*"), "isolated")
    tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([letters, pre_tokenizers.BertPreTokenizer()])
    return tokenizer


def split_passages(texts: list[str], tokenizer: Tokenizer, size: int, overlap: int) -> list[list[Span]]:
    """Cut each document into passages of up to ``size`` tokens that share ``overlap`` with the one before.

    Passages begin and end between words, unless one word is longer than a passage. Every word of a document is in one
    of them; a document without words has none.
    """
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [_split(encoding.offsets, encoding.word_ids, size, overlap) for encoding in encodings]


def _split(offsets: list[Span], words: list[int | None], size: int, overlap: int) -> list[Span]:
    # where a passage may be cut: before the first token of each word
    may_cut = {i for i in range(len(words)) if i == 0 or words[i] is None or words[i] != words[i - 1]}
    spans, first = [], 0
    while first < len(offsets):
        last = min(first + size, len(offsets))
        if last < len(offsets):
            last = next((i for i in range(last, first, -1) if i in may_cut), last)
        spans.append((offsets[first][0], offsets[last - 1][1]))
        if last == len(offsets):
            break
        first = next((i for i in range(max(last - overlap, first + 1), last) if i in may_cut), last)
    return spans
