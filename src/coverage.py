"""How much of a text a tokenizer can represent."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer, pre_tokenizers

from src.errors import InputError
from src.tokenization import vocabulary_size

LEAST = 0.99  # of the characters of a text, for a tokenizer that was made elsewhere
SHOWN = 5  # characters that a message names
# what tokenizers leave out on purpose: spaces, control and format characters, and accents
UNCOUNTED = {"Zs", "Zl", "Zp", "Cc", "Cf", "Mn"}
PROBE = "<|not represented|>"
# normalizers and pre-tokenizers that drop a character whatever is beside it, or none
BY_CHARACTER = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Sequence"}
BY_CHARACTER |= {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}


class MeasuredTokenizer:
    """A tokenizer that counts the characters it loses: those behind an unknown token, and those that it drops.

    Args:
        tokenizer: that is measured.
        where: its texts come from, for people.
    """

    def __init__(self, tokenizer: Tokenizer, where: str) -> None:
        self.tokenizer, self.where = tokenizer, where
        self.characters = 0
        self.lost: Counter[str] = Counter()
        state = json.loads(tokenizer.to_str())
        self._is_complete = _is_complete(tokenizer.get_vocab(), state)
        self._probe = tokenizer if self._is_complete else _with_unknown(tokenizer, state)
        self._unknown_id = _unknown_id(self._probe, state["model"])
        # whether a character that is lost without an unknown token is lost wherever it stands
        self._is_by_character = self._probe is tokenizer and _types(state) <= BY_CHARACTER
        self._seen, self._dropped = set[str](), set[str]()  # characters, and which of them are lost

    @property
    def coverage(self) -> float:
        """The fraction of the characters that are represented."""
        return 1 - self.lost.total() / max(self.characters, 1)

    @property
    def lost_bytes(self) -> int:
        """The lost characters in UTF-8."""
        return sum(n * len(character.encode()) for character, n in self.lost.items())

    @property
    def counts(self) -> dict[str, Any]:
        """What was counted so far, to be written down and set again."""
        return {"characters": self.characters, "lost": dict(self.lost)}

    @counts.setter
    def counts(self, counts: dict[str, Any]) -> None:
        self.characters, self.lost = counts["characters"], Counter(counts["lost"])

    def apart(self) -> "MeasuredTokenizer":
        """Give one that counts from zero, as another process needs it; what it has counted is to be added."""
        made = copy(self)
        made.characters, made.lost = 0, Counter()
        return made

    def add(self, counts: dict[str, Any]) -> None:
        """Add what another one has counted."""
        self.characters += counts["characters"]
        self.lost.update(counts["lost"])

    def encode(self, texts: Sequence[str], with_words: bool = False) -> list[Encoding]:
        """Encode texts without special tokens; only the ids are sure to be there, unless ``with_words``."""
        self.characters += sum(map(len, texts))
        encode = self.tokenizer.encode_batch if with_words else self.tokenizer.encode_batch_fast
        try:
            encodings = encode(list(texts), add_special_tokens=False)
        except Exception as error:  # the library raises nothing narrower
            raise InputError(
                f"the tokenizer cannot encode {self.where} ({error}): give it an unknown token, or take another one"
            ) from error
        if not self._is_complete:
            doubtful = self._doubtful(texts, encodings)
            probed = self._probe.encode_batch(doubtful, add_special_tokens=False)
            for text, encoding in zip(doubtful, probed, strict=True):
                self.lost.update(self._lost(text, encoding))
        return encodings

    def _doubtful(self, texts: Sequence[str], encodings: Sequence[Encoding]) -> list[str]:
        """Choose the texts of which something may be lost, by ids and characters: offsets take as long as to encode."""
        if not self._is_by_character:
            return list(texts)
        characters = set[str]().union(*texts)
        new = sorted(characters - self._seen)
        alone = self._probe.encode_batch(new, add_special_tokens=False)
        self._dropped |= {c for c, encoding in zip(new, alone, strict=True) if self._lost(c, encoding)}
        self._seen |= characters
        dropped = "".join(characters & self._dropped)
        any_dropped = dropped and re.compile(f"[{re.escape(dropped)}]")
        return [
            text
            for text, encoding in zip(texts, encodings, strict=True)
            if self._unknown_id in encoding.ids or (any_dropped and any_dropped.search(text))
        ]

    def _lost(self, text: str, encoding: Encoding) -> Counter[str]:
        spans = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        is_unknown = np.array(encoding.ids, np.int64) == self._unknown_id
        # of a character's bytes a byte-level vocabulary may know some: it is lost with any of them
        is_lost = (_depth(spans[~is_unknown], len(text)) == 0) | (_depth(spans[is_unknown], len(text)) > 0)
        found = Counter(text[i] for i in np.flatnonzero(is_lost))
        return Counter({c: n for c, n in found.items() if unicodedata.category(c) not in UNCOUNTED})

    def losses(self) -> str | None:
        """Say what is lost; nothing where nothing is."""
        if not self.lost:
            return None
        commonest = ", ".join(f"{character!r} {n:,}" for character, n in self.lost.most_common(SHOWN))
        more = ", ..." if len(self.lost) > SHOWN else ""
        return (
            f"the tokenizer cannot represent {self.lost.total():,} of {self.characters:,} characters of {self.where} "
            f"({commonest}{more})"
        )

    def check(self) -> None:
        """Refuse a tokenizer that does not serve for the texts so far."""
        if self.coverage < LEAST:
            raise InputError(
                f"{self.losses()}, which is more than {1 - LEAST:.0%}: take a tokenizer that was made for such text, "
                "or leave the option tokenizer as it is, to train one on it"
            )


def _depth(spans: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Count the spans that each of so many characters is in."""
    change = np.zeros(length + 1, np.int64)
    np.add.at(change, spans[:, 0], 1)
    np.add.at(change, spans[:, 1], -1)
    return change.cumsum()[:-1]


def _is_complete(vocabulary: dict[str, int], state: dict[str, Any]) -> bool:
    """Tell whether a tokenizer can write every byte, and so every text."""
    if state["model"].get("byte_fallback"):
        return all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
    is_byte_level = '"ByteLevel"' in json.dumps([state["normalizer"], state["pre_tokenizer"]])
    return is_byte_level and all(byte in vocabulary for byte in pre_tokenizers.ByteLevel.alphabet())


def _types(state: dict[str, Any]) -> set[str]:
    """Name the normalizers and pre-tokenizers of a tokenizer's state."""
    found, todo = set(), [state["normalizer"], state["pre_tokenizer"]]
    while todo:
        part = todo.pop()
        if part is not None:
            found.add(part["type"])
            todo += part.get("normalizers", []) + part.get("pretokenizers", [])
    return found


def _with_unknown(tokenizer: Tokenizer, state: dict[str, Any]) -> Tokenizer:
    """Show as an unknown token what byte-pair encoding without such a token drops; ``state`` is the tokenizer's.

    Where a character was dropped, the offsets of those behind it are wrong, so that it cannot be told from a gap.
    """
    model = state["model"]
    if model["type"] != "BPE" or model["unk_token"] is not None:
        return tokenizer
    unknown = {PROBE: vocabulary_size(tokenizer)}
    model |= {"unk_token": PROBE, "vocab": model["vocab"] | unknown}
    return Tokenizer.from_str(json.dumps(state))


def _unknown_id(tokenizer: Tokenizer, model: dict[str, Any]) -> int:
    """Find the id of the unknown token; -1 where there is none."""
    if model.get("unk_id") is not None:  # of a unigram model
        return model["unk_id"]
    found = tokenizer.token_to_id(model.get("unk_token") or "")
    return -1 if found is None else found
