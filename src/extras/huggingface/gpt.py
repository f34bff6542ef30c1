"""What the formats of a GPT share: its embeddings, its special tokens, and how text is generated."""

from pathlib import Path
from typing import ClassVar

from tokenizers import Tokenizer

from src.errors import InputError
from src.extras.huggingface.adapter import Adapter, Settings
from src.extras.huggingface.matches import Match
from src.extras.huggingface.tokenizer_files import end_token, special_token, tokens_before, write_tokenizer
from src.models import GPTConfig
from src.tokenization import require_token, start_ids, vocabulary_size

LONGEST_ROW = 1024  # of fine-tuning, as in HuggingFace's examples/pytorch/language-modeling/run_clm.py
# special tokens by HuggingFace's names, beside that of the end of a text
OPTIONAL_TOKENS = ("bos_token", "pad_token", "unk_token")


class GPTAdapter(Adapter):
    """A GPT and one of HuggingFace's causal language models."""

    architecture = "gpt"
    norm = "pre"
    only: ClassVar[Settings] = {
        "window": None,
        "logit_softcap": None,
        "mup_width": None,
        "n_value_embeddings": 0,
        "n_future_tokens": 1,
    }
    unwritten: ClassVar[Settings] = {"is_causal": True}
    end_id: ClassVar[int | None] = None  # of the end token, where config.json has none

    def embeddings(self, config: GPTConfig, words: str, head: str, *aliases: str) -> list[Match]:
        """Match the token embedding and the output layer, which may be one tensor."""
        if config.tie_embeddings:
            return [Match("token_embedding.weight", (words,), tied=("head.weight",), aliases=(head, *aliases))]
        return [Match("token_embedding.weight", (words,)), Match("head.weight", (head,), aliases=aliases)]

    def special_tokens(self, theirs: Settings, folder: Path, source: Tokenizer, target: Tokenizer) -> dict[str, str]:
        end = end_token(target, theirs, folder, self.end_id)
        named = {name: special_token(folder, name) for name in OPTIONAL_TOKENS}
        # a GPT-2 names its end token for each of them
        known = {
            n: token for n, token in named.items() if token not in (None, end) and target.token_to_id(token) is not None
        }
        if before := tokens_before(target):
            if len(before) > 1:
                raise InputError(f"the tokenizer puts {' '.join(before)} before a text: here one token can begin it")
            known["bos_token"] = before[0]
        return {"eos_token": end, **known}

    def config_tokens(self, checkpoint: Settings) -> Settings:
        tokenizer, special = Tokenizer.from_str(checkpoint["tokenizer"]), checkpoint["special_tokens"]
        end = require_token(tokenizer, special["eos_token"], "eos_token")
        begin = require_token(tokenizer, special.get("bos_token", special["eos_token"]), "bos_token")
        return {"bos_token_id": begin, "eos_token_id": end}

    def data_options(self, config: GPTConfig, special: dict[str, str], tokenizer: Tokenizer) -> Settings:
        options: Settings = {"seq_len": min(config.max_seq_len, LONGEST_ROW)}
        if start_ids(tokenizer, special):
            options["start_token"] = special["bos_token"]
        if config.vocab_size > vocabulary_size(tokenizer):
            options["padded_vocab_size"] = config.vocab_size
        return options

    def generation(self, config: GPTConfig, tokens: Settings) -> Settings:
        return {"pad_token_id": tokens["eos_token_id"]}

    def write_tokenizers(self, checkpoint: Settings, length: int, folder: Path) -> None:
        # each is named, as in GPT-2's own files: CTranslate2 asks for an unk_token
        special = {**dict.fromkeys(OPTIONAL_TOKENS, checkpoint["special_tokens"]["eos_token"])}
        special |= checkpoint["special_tokens"]
        settings = {"padding_side": "left", "model_input_names": ["input_ids", "attention_mask"]}
        write_tokenizer(Tokenizer.from_str(checkpoint["tokenizer"]), special, length, settings, folder)
