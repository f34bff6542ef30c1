"""Random networks of HuggingFace's with weights that tell every tensor from every other, and tokenizers for them."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LongformerConfig,
    LongformerForMaskedLM,
    LongformerModel,
    MarianConfig,
    MarianMTModel,
    MistralConfig,
    MistralForCausalLM,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
    RobertaModel,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormForMaskedLM,
    RobertaPreLayerNormForSequenceClassification,
    RobertaPreLayerNormModel,
)

from src.extras.huggingface.tokenizer_files import with_bert_template
from src.tokenization import bert_tokens, train_bpe
from tests.extras.huggingface.light_networks import (
    DISTILBERTS,
    JINAS,
    MODERNBERTS,
    distilbert,
    jina,
    modernbert,
    shaken,
)
from tests.random_networks import BPE, STD, TEXT, WORDPIECE

BERTS = {
    "pretraining": BertForPreTraining,
    "masked words": BertForMaskedLM,
    "encoder": BertModel,
    "classifier": BertForSequenceClassification,
}
PRENORM = {
    "masked words": RobertaPreLayerNormForMaskedLM,
    "encoder": RobertaPreLayerNormModel,
    "classifier": RobertaPreLayerNormForSequenceClassification,
}

ROBERTAS = {
    "masked words": RobertaForMaskedLM,
    "encoder": RobertaModel,
    "classifier": RobertaForSequenceClassification,
}


DECODERS = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


def gpt2(tokenizer: Tokenizer, tied: bool = True, **changes) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    settings = {
        "vocab_size": tokenizer.get_vocab_size(),
        "n_positions": 24,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "tie_word_embeddings": tied,
        "initializer_range": STD,
        **dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.token_to_id("<|endoftext|>")),
    }
    return shaken(GPT2LMHeadModel(GPT2Config(**{**settings, **changes})))


def gpt_neox(tokenizer: Tokenizer, tied: bool = False, **changes) -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    settings = {
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": 24,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "use_parallel_residual": False,
        "rotary_pct": 1.0,
        "tie_word_embeddings": tied,
        "initializer_range": STD,
        **dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.token_to_id("<|endoftext|>")),
    }
    return shaken(GPTNeoXForCausalLM(GPTNeoXConfig(**{**settings, **changes})))


def decoder(kind: str, tokenizer: Tokenizer, **changes) -> PreTrainedModel:
    """A Llama, or what was made after it."""
    torch.manual_seed(0)
    config, network = DECODERS[kind]
    settings = {
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": 24,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
        "initializer_range": STD,
        **dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.token_to_id("<|endoftext|>")),
    }
    return shaken(network(config(**{**settings, **changes})))


def bert(tokenizer: Tokenizer, kind: str = "pretraining", **changes) -> PreTrainedModel:
    torch.manual_seed(0)
    settings = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 24,
        "initializer_range": STD,
    }
    return shaken(BERTS[kind](BertConfig(**{**settings, **changes})))


def prenorm(tokenizer: Tokenizer, kind: str = "masked words", **changes) -> PreTrainedModel:
    torch.manual_seed(0)
    config = RobertaPreLayerNormConfig(**{**_roberta_settings(tokenizer), **changes})
    return shaken(_without_padding(PRENORM[kind](config)))


def roberta(tokenizer: Tokenizer, kind: str = "masked words", **changes) -> PreTrainedModel:
    """With one segment, as those published."""
    torch.manual_seed(0)
    config = RobertaConfig(**{**_roberta_settings(tokenizer), "type_vocab_size": 1, **changes})
    return shaken(_without_padding(ROBERTAS[kind](config)))


def _roberta_settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """The shape, whose positions begin behind the padding's id, as RoBERTa's do."""
    pad = tokenizer.token_to_id("[PAD]")
    return {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 24 + pad + 1,
        "initializer_range": STD,
        "pad_token_id": pad,
        "bos_token_id": tokenizer.token_to_id("[CLS]"),
        "eos_token_id": tokenizer.token_to_id("[SEP]"),
    }


def _without_padding(model: PreTrainedModel) -> PreTrainedModel:
    """The model with zeros in the rows of its positions that no token has."""
    with torch.no_grad():
        positions = next(p for name, p in model.named_parameters() if "position" in name)
        positions[: model.config.pad_token_id + 1] = 0
    return model


def longformer(tokenizer: Tokenizer, kind: str = "masked words", **changes) -> PreTrainedModel:
    torch.manual_seed(0)
    own = {"attention_window": [4, 8], "layer_norm_eps": 1e-5, "sep_token_id": tokenizer.token_to_id("[SEP]")}
    settings = _roberta_settings(tokenizer) | own
    config = LongformerConfig(**{**settings, **changes})
    model = LongformerForMaskedLM(config) if kind == "masked words" else LongformerModel(config, False)
    return shaken(_without_padding(model))


def marian(source: Tokenizer, target: Tokenizer, shared: bool, **changes) -> MarianMTModel:
    torch.manual_seed(0)
    end = target.token_to_id("<|endoftext|>")
    settings = {
        "vocab_size": source.get_vocab_size(),
        "decoder_vocab_size": target.get_vocab_size(),
        "max_position_embeddings": 24,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "activation_function": "relu",
        "scale_embedding": True,
        "share_encoder_decoder_embeddings": shared,
        "tie_word_embeddings": shared,
        "init_std": STD,
        "forced_eos_token_id": None,
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 48),
        **dict.fromkeys(("eos_token_id", "pad_token_id", "decoder_start_token_id"), end),
    }
    return shaken(MarianMTModel(MarianConfig(**{**settings, **changes})))


def pegasus(tokenizer: Tokenizer, **changes) -> PegasusForConditionalGeneration:
    torch.manual_seed(0)
    end = tokenizer.token_to_id("<|endoftext|>")
    settings = {
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": 24,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "activation_function": "relu",
        "scale_embedding": True,
        "init_std": STD,
        "forced_eos_token_id": None,
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 48),
        **dict.fromkeys(("eos_token_id", "pad_token_id", "decoder_start_token_id"), end),
    }
    return shaken(PegasusForConditionalGeneration(PegasusConfig(**{**settings, **changes})))


def bart(tokenizer: Tokenizer, **changes) -> BartForConditionalGeneration:
    torch.manual_seed(0)
    end = tokenizer.token_to_id("<|endoftext|>")
    settings = {
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": 24,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "init_std": STD,
        "forced_eos_token_id": None,
        "bos_token_id": None,
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 48),
        **dict.fromkeys(("eos_token_id", "pad_token_id", "decoder_start_token_id"), end),
    }
    model = BartForConditionalGeneration(BartConfig(**{**settings, **changes}))
    with torch.no_grad():
        for side in (model.model.encoder, model.model.decoder):
            side.embed_positions.weight[:2] = 0  # which no token has
    return shaken(model)


def save(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path, target: Tokenizer | None = None) -> Path:
    """The folder that HuggingFace's own ``save_pretrained`` writes."""
    model.save_pretrained(folder)
    end = tokenizer.id_to_token(0)
    if tokenizer.token_to_id("[CLS]") is not None:
        tokenizer = with_bert_template(tokenizer, bert_tokens(tokenizer))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end).save_pretrained(folder)
    if target is not None:
        PreTrainedTokenizerFast(tokenizer_object=target, eos_token=end).save_pretrained(folder / "target_tokenizer")
    return folder


def network(case: str, folder: Path) -> PreTrainedModel:
    """A model of HuggingFace's of a kind, saved."""
    kind, _, detail = case.partition(": ")
    other = train_bpe([text[::-1] for text in TEXT], 280)
    if kind == "gpt2":
        model = gpt2(BPE, **GPT2[detail])
        save(model, BPE, folder)
    elif kind == "gpt_neox":
        model = gpt_neox(BPE, detail == "tied")
        save(model, BPE, folder)
    elif kind in DECODERS:
        model = decoder(kind, BPE, **DECODER_CHANGES[case])
        save(model, BPE, folder)
    elif kind == "bert":
        model = bert(WORDPIECE, detail, **(LABELS if detail == "classifier" else {}))
        save(model, WORDPIECE, folder)
    elif kind == "roberta-prelayernorm":
        model = prenorm(WORDPIECE, detail, **(LABELS if detail == "classifier" else {}))
        save(model, WORDPIECE, folder)
    elif kind in ENCODERS:
        model = ENCODERS[kind](WORDPIECE, detail, **(LABELS if detail == "classifier" else {}))
        save(model, WORDPIECE, folder)
    elif kind == "pegasus":
        model = pegasus(BPE)
        save(model, BPE, folder)
    elif kind == "bart":
        model = bart(BPE, scale_embedding=detail == "scaled")
        save(model, BPE, folder)
    elif kind == "longformer":
        model = longformer(WORDPIECE, detail)
        save(model, WORDPIECE, folder)
    else:
        shared = detail == "shared"
        model = marian(BPE, BPE if shared else other, shared)
        save(model, BPE, folder, None if shared else other)
    return model


GPT2 = {"tied": {}, "untied": {"tied": False}, "prelu": {"activation_function": "prelu", "n_inner": 48}}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 12}
DECODER_CHANGES = {
    "llama": {},
    "llama: biases": {"attention_bias": True, "tie_word_embeddings": True},
    "llama: scaled": {"rope_parameters": {**LLAMA3, "low_freq_factor": 1.0, "high_freq_factor": 4.0}},
    "mistral": {"sliding_window": 5},
    "qwen3": {"head_dim": 12, "hidden_act": "gelu", "max_window_layers": 2},
    "qwen3: windows": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
}
LABELS = {"id2label": {0: "no", 1: "perhaps", 2: "yes"}, "label2id": {"no": 0, "perhaps": 1, "yes": 2}}
ENCODERS = {"roberta": roberta, "distilbert": distilbert, "modernbert": modernbert, "jina_embeddings_v3": jina}
CASES = [
    *(f"gpt2: {name}" for name in GPT2),
    "gpt_neox: tied",
    "gpt_neox: untied",
    *DECODER_CHANGES,
    *(f"bert: {name}" for name in BERTS),
    *(f"roberta-prelayernorm: {name}" for name in PRENORM),
    *(f"roberta: {name}" for name in ROBERTAS),
    *(f"distilbert: {name}" for name in DISTILBERTS),
    *(f"modernbert: {name}" for name in MODERNBERTS),
    *(f"jina_embeddings_v3: {name}" for name in JINAS),
    "longformer: masked words",
    "longformer: encoder",
    "marian: shared",
    "marian: separate",
    "pegasus",
    "bart: scaled",
    "bart: unscaled",
]


def inputs(model: nn.Module, rows: int = 3, width: int = 20) -> dict[str, torch.Tensor]:
    """A batch of rows of several lengths, for any of the models."""
    generator = torch.Generator().manual_seed(0)
    size = model.config.vocab_size
    attention_mask = (torch.arange(width) < torch.tensor([[width], [9], [1]])[:rows]).long()
    batch = {
        "input_ids": torch.randint(size, (rows, width), generator=generator),
        "attention_mask": attention_mask,
    }
    kind = model.config.model_type
    if kind in ("longformer", "roberta", "roberta-prelayernorm"):  # positions are counted by which ids are padding
        pad = model.config.pad_token_id
        batch["input_ids"] = batch["input_ids"].masked_fill(batch["input_ids"] == pad, pad + 1)
    if kind == "longformer":
        batch["global_attention_mask"] = (torch.arange(width) % torch.tensor([[7], [99], [99]])[:rows] == 0).long()
    if getattr(model.config, "type_vocab_size", 0) > 1:
        batch["token_type_ids"] = (torch.arange(width) > torch.tensor([[11], [5], [1]])[:rows]).long()
    if kind in ("marian", "pegasus", "bart"):
        size = getattr(model.config, "decoder_vocab_size", None) or size
        batch["decoder_input_ids"] = torch.randint(size, (rows, width - 3), generator=generator)
    return batch
