"""Tokenizers as other projects make them."""

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from src.tokenization import BERT_SPELLINGS, byte_tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyzT.,"


def llama_like() -> Tokenizer:
    """Pieces that begin with the space before them, the first one too, and bytes for all else."""
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS]
    merges = [("▁", letter) for letter in LETTERS]
    vocabulary += ["".join(merge) for merge in merges]
    ids = {token: i for i, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def space_before(words: list[str]) -> Tokenizer:
    """A token a word, with the space before it."""
    vocabulary = ["<unk>", "<s>", "</s>", *(f"▁{word}" for word in words)]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def with_template(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, which puts its own tokens around each text."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    special = [(token, copy.token_to_id(token)) for token in ("<s>", "</s>")]
    copy.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=special)
    return copy


def without_unknown(letters: str = LETTERS) -> Tokenizer:
    """Letters, of which those that it does not know are dropped."""
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(["</s>", *letters])}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Whitespace(), decoders.BPEDecoder()
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


def some_bytes(text: str) -> Tokenizer:
    """The bytes of a text, and no others."""
    symbols = {symbol for token in byte_tokenizer().encode(text).tokens for symbol in token}
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(["</s>", *sorted(symbols)])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def pieces_with_gaps(words: list[str], gap: int = 70_000) -> Tokenizer:
    """BERT's, every other id of whose words is far away."""
    special = [spellings[0] for spellings in BERT_SPELLINGS.values()]
    vocabulary = {token: i for i, token in enumerate(special)}
    vocabulary |= {word: len(special) + i + gap * (i % 2) for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    return tokenizer


def letters_with_gaps(letters: str, gap: int = 70_000) -> Tokenizer:
    """A token a letter, the last id far away."""
    vocabulary = {token: i for i, token in enumerate(["</s>", "<unk>", *letters])}
    vocabulary["</s>"] = gap
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated"), decoders.Fuse()
    tokenizer.add_special_tokens(["</s>", "<unk>"])
    return tokenizer
