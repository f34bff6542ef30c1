"""Tokenizers in HuggingFace's format, in and out."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from src.errors import InputError
from src.extras.huggingface.json_files import list_setting, read_json, setting, token_setting, write_json
from src.files import check_file
from src.tokenization import BERT_SPELLINGS, END_OF_TEXT, load_tokenizer, require_token

Settings = dict[str, Any]

SETTINGS, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
SENTENCEPIECE = ("*.spm", "tokenizer.model")
# settings that a tokenizer.json holds, too -> in which part of it, of which type, and by which name
HELD_TWICE = {
    "do_lower_case": ("normalizer", "BertNormalizer", "lowercase"),
    "tokenize_chinese_chars": ("normalizer", "BertNormalizer", "handle_chinese_chars"),
    "add_prefix_space": ("pre_tokenizer", "ByteLevel", "add_prefix_space"),
}


def read_tokenizer(folder: Path, model_type: str) -> Tokenizer:
    """Read the tokenizer of a folder: its ``tokenizer.json``, or the older files of GPT-2, RoBERTa, BART or a BERT."""
    if (folder / "tokenizer.json").is_file():
        tokenizer = load_tokenizer(str(folder / "tokenizer.json"))
        _check_beside(tokenizer, folder)
        return tokenizer
    settings = read_json(folder / SETTINGS)
    if model_type == "gpt2" and (folder / "merges.txt").is_file():
        tokenizer = _from_merges(folder, settings)
    elif model_type in ("roberta", "bart") and (folder / "merges.txt").is_file():
        tokenizer = _between_robertas_tokens(_from_merges(folder, settings), folder)
    elif model_type in ("bert", "distilbert") and (folder / "vocab.txt").is_file():
        tokenizer = _from_vocabulary(folder, settings)
    elif found := next((name for name in SENTENCEPIECE if any(folder.glob(name))), None):
        raise InputError(
            f"{folder} has SentencePiece files ({found}) and no tokenizer.json: they cannot be converted exactly"
        )
    else:
        raise InputError(f"{folder} has no tokenizer: neither tokenizer.json nor the older files of a {model_type}")
    added = read_json(folder / ADDED)
    ids = {token: setting(added, token, int, 0, ADDED) for token in added if added[token] is not None}
    for token, i in sorted(ids.items(), key=lambda item: (item[1], item[0])):
        tokenizer.add_tokens([token])
        if tokenizer.token_to_id(token) != i:
            raise InputError(f"added_tokens.json of {folder} gives {token!r} the id {i}: it leaves a gap or is taken")
    return tokenizer


def _check_beside(tokenizer: Tokenizer, folder: Path) -> None:
    """Refuse files beside a ``tokenizer.json`` that contradict it: `transformers` goes by some of them."""
    settings, parts = read_json(folder / SETTINGS), json.loads(tokenizer.to_str())
    for key, (part, kind, name) in HELD_TWICE.items():
        value, held = setting(settings, key, bool, None, SETTINGS), parts[part] or {}
        if value is not None and held.get("type") == kind and held[name] != value:
            raise InputError(
                f"{SETTINGS} of {folder} has {key} {value}, but its tokenizer.json {name} {held[name]}: make them equal"
            )
    named: dict[str, tuple[str, int | None]] = {}  # token -> the file that names it, and its id there
    for key in ("additional_special_tokens", "extra_special_tokens"):
        for file in (SETTINGS, SPECIAL):
            found = read_json(folder / file).get(key) or []
            tokens = found if isinstance(found, list) else found.values() if isinstance(found, dict) else [found]
            named |= {token: (file, None) for one in tokens if (token := token_setting({key: one}, key, file))}
    for i, token in setting(settings, "added_tokens_decoder", dict, {}, SETTINGS).items():
        content = token_setting({i: token}, i, f"added_tokens_decoder of {SETTINGS}")
        named |= {content: (SETTINGS, int(i) if i.isdecimal() else None)} if content else {}
    added = read_json(folder / ADDED)
    named |= {token: (ADDED, setting(added, token, int, None, ADDED)) for token in added}
    for token, (file, i) in named.items():
        if (held_id := tokenizer.token_to_id(token)) is None or i not in (None, held_id):
            which = "" if i is None else f" of the id {i}"
            raise InputError(f"{file} of {folder} names a token {token!r}{which}, which its tokenizer.json has not")


def _from_merges(folder: Path, settings: Settings) -> Tokenizer:
    """Make GPT-2's byte-level byte-pair encoding of ``vocab.json`` and ``merges.txt``."""
    read_json(folder / "vocab.json", needed=True)
    try:
        model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"vocab.json and merges.txt of {folder} are no tokenizer: {error}") from error
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=setting(settings, "add_prefix_space", bool, False, SETTINGS)
    )
    tokenizer.decoder = decoders.ByteLevel()
    end = special_token(folder, "eos_token") or END_OF_TEXT
    if tokenizer.token_to_id(end) is not None:
        tokenizer.add_special_tokens([end])
    return tokenizer


def _between_robertas_tokens(tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    """Mark RoBERTa's special tokens, to write ``<s> A </s>`` and ``<s> A </s></s> B </s>``."""
    special = {name: special_token(folder, name) or token for name, (_, token) in BERT_SPELLINGS.items()}
    ids = {token: i for token in special.values() if (i := tokenizer.token_to_id(token)) is not None}
    if missing := [token for token in special.values() if token not in ids]:
        raise InputError(f"{folder / 'vocab.json'} has no {missing[0]}: it is no vocabulary of a RoBERTa")
    tokenizer.add_special_tokens(list(special.values()))
    sep, cls = ((token, ids[token]) for token in (special["sep_token"], special["cls_token"]))
    tokenizer.post_processor = processors.RobertaProcessing(sep, cls)
    return tokenizer


def _from_vocabulary(folder: Path, settings: Settings) -> Tokenizer:
    """Make BERT's WordPiece of ``vocab.txt``."""
    names = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    names["mask_token"] = "[MASK]"
    special = {name: special_token(folder, name) or token for name, token in names.items()}
    check_file(folder / "vocab.txt", is_text=True)
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    vocabulary = {line: i for i, line in enumerate(lines)}
    missing = [token for token in special.values() if token not in vocabulary]
    if missing:
        raise InputError(f"{folder / 'vocab.txt'} has no {missing[0]}: it is no vocabulary of a BERT")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=setting(settings, "tokenize_chinese_chars", bool, True, SETTINGS),
        strip_accents=setting(settings, "strip_accents", bool, None, SETTINGS),
        lowercase=setting(settings, "do_lower_case", bool, True, SETTINGS),
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    tokenizer.add_special_tokens(list(special.values()))
    return with_bert_template(tokenizer, special)


def special_token(folder: Path, name: str) -> str | None:
    """Find a special token that a folder names, by HuggingFace's name such as ``unk_token``; None without one."""
    named = [token_setting(read_json(folder / file), name, file) for file in (SETTINGS, SPECIAL)]
    return next((token for token in named if token is not None), None)


def tokens_before(tokenizer: Tokenizer) -> list[str]:
    """List the tokens that a tokenizer puts before a text."""
    text = str(next(iter(tokenizer.get_vocab())))
    framed, bare = (tokenizer.encode(text, add_special_tokens=with_them).tokens for with_them in (True, False))
    return next((framed[:n] for n in range(len(framed)) if framed[n : n + len(bare)] == bare), [])


def token_of(tokenizer: Tokenizer, theirs: Settings, key: str, default: int | None = None) -> str:
    """Find the token whose id a key of ``config.json`` holds: the first, where it holds several."""
    i = next(iter(list_setting(theirs, key, int)), default)
    if i is None:
        raise InputError(f"config.json has no {key}, which says what begins or ends a text")
    token = tokenizer.id_to_token(i) if i >= 0 else None
    if token is None:
        raise InputError(f"config.json has {key} {i}, which is no token of the tokenizer")
    return token


def end_token(tokenizer: Tokenizer, theirs: Settings, folder: Path, default: int | None = None) -> str:
    """Find the token that ends a text: of ``eos_token_id``, or where that is not set, the tokenizer's ``eos_token``."""
    named = special_token(folder, "eos_token")
    if default is None and named is not None and not list_setting(theirs, "eos_token_id", int):
        require_token(tokenizer, named, "eos_token")
        return named
    return token_of(tokenizer, theirs, "eos_token_id", default)


def write_tokenizer(
    tokenizer: Tokenizer, special: dict[str, str], length: int, settings: Settings, folder: Path
) -> None:
    """Write ``tokenizer.json`` and what ``AutoTokenizer`` reads beside it.

    Args:
        tokenizer: marked with ``special`` on the way.
        special: special tokens by HuggingFace's names.
        length: tokens of the longest text.
        settings: further ones for ``tokenizer_config.json``.
        folder: to write into.
    """
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    marked = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    tokenizer.add_special_tokens([token for token in dict.fromkeys(special.values()) if token not in marked])
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    common = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    write_json(folder / SETTINGS, common | special | {"model_max_length": length} | settings)
    write_json(folder / SPECIAL, special)


def with_end(tokenizer: Tokenizer, end: str, begin: str | None = None) -> Tokenizer:
    """Copy a tokenizer, to put an end token behind a text, and perhaps another token before it."""
    begins = [] if begin is None else [begin]
    return _with_template(tokenizer, " ".join([*begins, "$A", end]), None, [*begins, end])


def with_bert_template(tokenizer: Tokenizer, special: dict[str, str]) -> Tokenizer:
    """Copy a tokenizer, to write ``[CLS] A [SEP]`` and ``[CLS] A [SEP] B [SEP]``, B in the second segment."""
    cls, sep = special["cls_token"], special["sep_token"]
    return _with_template(tokenizer, f"{cls} $A {sep}", f"{cls} $A {sep} $B:1 {sep}:1", [cls, sep])


def _with_template(tokenizer: Tokenizer, single: str, pair: str | None, tokens: list[str]) -> Tokenizer:
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    ids = [(token, tokenizer.token_to_id(token)) for token in tokens]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    return tokenizer
