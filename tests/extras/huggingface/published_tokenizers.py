"""Tokenizers as the published networks have them: RoBERTa's and BART's bytes between <s> and </s>, ModernBERT's."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.random_networks import TEXT

ROBERTA_TOKENS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
MODERNBERT_TOKENS = {name: f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}


def _byte_level(first: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=first, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def roberta_tokenizer() -> Tokenizer:
    """Its special tokens first, and two separators between texts."""
    tokenizer = _byte_level(list(ROBERTA_TOKENS.values()))
    ends = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=False)
    return tokenizer


def modernbert_tokenizer() -> Tokenizer:
    """Its special tokens last, as they were added to those of another network."""
    tokenizer = _byte_level(["<|endoftext|>"])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens(list(MODERNBERT_TOKENS.values()))
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    return tokenizer
