"""BERT and HuggingFace's: with both heads, some, none, or a classifier. `roberta.py` has that of norm ``pre``."""

# ruff: noqa: RUF012 -- the base class declares what is of the class

import re
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Tokenizer

from src.encoder import Pooling
from src.errors import InputError
from src.extras.huggingface.adapter import Adapter, Exported, Settings
from src.extras.huggingface.json_files import setting
from src.extras.huggingface.matches import Match, Tensors, head_by_head, layer, prelu
from src.extras.huggingface.sentence_encoder import NO_ACTIVATION
from src.extras.huggingface.tokenizer_files import special_token, with_bert_template, write_tokenizer
from src.models import BERTClassifierConfig, BERTConfig
from src.nn import NormPlacement
from src.tokenization import bert_ids, bert_row, bert_tokens, require_token

SOFTMAX = "single_label_classification"  # HuggingFace's name of what a classifier is trained for, if nothing is said


class BERTAdapter(Adapter):
    """HuggingFace's q, k and v are three matrices, here they are one, head by head.

    The masked-word head is tied to the token embeddings, as in the paper.
    """

    architecture = "bert"
    model_type = "bert"
    programs: ClassVar[tuple[str, ...]] = ("CTranslate2", "ONNX Runtime")
    classes = {
        "BertForPreTraining": ("AutoModelForPreTraining", "fill-mask"),
        "BertForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
        "BertForNextSentencePrediction": ("AutoModelForNextSentencePrediction", "text-classification"),
        "BertModel": ("AutoModel", "feature-extraction"),
    }
    keys = {
        "vocab_size": ("vocab_size", 30522),
        "max_seq_len": ("max_position_embeddings", 512),
        "n_segments": ("type_vocab_size", 2),
        "d_model": ("hidden_size", 768),
        "n_heads": ("num_attention_heads", 12),
        "n_layers": ("num_hidden_layers", 12),
        "d_ff": ("intermediate_size", 3072),
        "dropout": ("hidden_dropout_prob", 0.1),
        "attention_dropout": ("attention_probs_dropout_prob", 0.1),
        "init_std": ("initializer_range", 0.02),
        "norm_eps": ("layer_norm_eps", 1e-12),
    }
    activation = ("hidden_act", "gelu")
    norm: ClassVar[NormPlacement] = "post"
    fixed = {
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
        "tie_word_embeddings": True,
    }
    fine_tuning_lr = 3e-5  # of 2e-5, 3e-5 and 5e-5 (Devlin et al. 2018, appendix A.3); of Longformer too
    embedding_norm: ClassVar[str] = "embeddings.LayerNorm"
    layers: ClassVar[str] = "encoder.layer"
    # of each of them: name here -> HuggingFace's
    layer_names: ClassVar[dict[str, str | tuple[str, ...]]] = {
        "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention.out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "feed_forward.up": "intermediate.dense",
        "feed_forward.down": "output.dense",
        "feed_forward_norm": "output.LayerNorm",
    }
    layer_activation = "intermediate.intermediate_act_fn"
    token_ids: ClassVar[dict[str, str]] = {"pad_token_id": "pad_token"}  # key of config.json -> the special token
    prefix = "bert."
    buffers = re.compile(r"embeddings\.position_ids$")
    parts = {
        "encoder.pooler": "bert.pooler.",
        "masked_words": "cls.predictions.",
        "next_sentence": "cls.seq_relationship.",
    }

    def suits(self, config: BERTConfig) -> bool:
        """Leave what has one segment to RoBERTa, whose head has GELU, and what has none to DistilBERT."""
        fewest = 2 if config.activation == "gelu" else 1
        return super().suits(config) and config.n_segments >= fewest and config.positions != "rotary"

    def check(self, config: BERTConfig) -> None:
        super().check(config)
        if not config.n_segments and "n_segments" not in self.only:
            raise InputError(
                f"HuggingFace's {self.model_type} has segments: a network with n_segments 0 cannot be exported"
            )

    def model_class(self, untrained: tuple[str, ...]) -> str:
        if "masked_words" not in untrained:
            return "BertForMaskedLM" if "next_sentence" in untrained else "BertForPreTraining"
        return "BertModel" if "next_sentence" in untrained else "BertForNextSentencePrediction"

    def matches(self, config: BERTConfig) -> list[Match]:
        head = "cls.predictions."
        return [
            *self.encoder_matches(config, ("masked_words.decoder.weight",), (head + "decoder.weight",)),
            *layer("encoder.pooler", "bert.pooler.dense"),
            *layer("masked_words.dense", head + "transform.dense"),
            *layer("masked_words.norm", head + "transform.LayerNorm"),
            *prelu(config, "masked_words.activation", head + "transform.transform_act_fn"),
            Match("masked_words.decoder.bias", (head + "bias",), aliases=(head + "decoder.bias",)),
            *layer("next_sentence", "cls.seq_relationship"),
        ]

    def encoder_matches(
        self, config: BERTConfig, tied: tuple[str, ...] = (), aliases: tuple[str, ...] = ()
    ) -> list[Match]:
        """List the tensors of the encoder, without its pooler.

        Args:
            config: the shape.
            tied: names here of the token embeddings in a head.
            aliases: HuggingFace's names of them there.
        """
        qkv = head_by_head(config.d_model, config.n_heads, 3)
        embeddings = self.prefix + "embeddings."
        words = (embeddings + "word_embeddings.weight",)
        found = [
            Match("encoder.token_embedding.weight", words, tied=tied, aliases=aliases),
            *layer("encoder.embedding_norm", self.prefix + self.embedding_norm),
        ]
        if config.positions == "learned":
            positions = (embeddings + "position_embeddings.weight",)
            found.append(Match("encoder.position_embedding.weight", positions))
        if config.n_segments:
            found.append(Match("encoder.segment_embedding.weight", (embeddings + "token_type_embeddings.weight",)))
        if self.norm == "pre":
            found += layer("encoder.final_norm", self.prefix + "LayerNorm")
        for i in range(config.n_layers):
            a, b = f"encoder.blocks.{i}.", f"{self.prefix}{self.layers}.{i}."
            for ours, names in self.layer_names.items():
                theirs = b + names if isinstance(names, str) else tuple(b + name for name in names)
                found += layer(a + ours, theirs, rows=qkv if ours == "attention.qkv" else None)
            found += prelu(config, a + "feed_forward.activation", b + self.layer_activation)
        return found

    def special_tokens(self, theirs: Settings, folder: Path, source: Tokenizer, target: Tokenizer) -> dict[str, str]:
        """Find the tokens of BERT's rows; refuse a tokenizer that makes other rows, or names other tokens."""
        found, ids = bert_tokens(target), bert_ids(target)
        for name, token in found.items():
            if (other := special_token(folder, name)) not in (None, token):
                raise InputError(
                    f"{folder} names {other!r} as its {name}, and its tokenizer has {token!r}, which is taken"
                )
        if target.num_special_tokens_to_add(is_pair=False):
            texts = [target.encode(text, add_special_tokens=False).ids for text in ("a", "b")]
            for framed, parts in ((target.encode("a"), texts[:1]), (target.encode("a", "b"), texts)):
                ours, _ = bert_row(parts, len(framed.ids) + len(ids), ids)
                if framed.ids != ours:
                    said = " ".join(str(target.id_to_token(i)) for i in ours)
                    raise InputError(f"the tokenizer makes the row {' '.join(framed.tokens)}: here it is {said}")
        return found

    def config_tokens(self, checkpoint: Settings) -> Settings:
        tokenizer, special = Tokenizer.from_str(checkpoint["tokenizer"]), checkpoint["special_tokens"]
        return {key: require_token(tokenizer, special[name], name) for key, name in self.token_ids.items()}

    def write_tokenizers(self, checkpoint: Settings, length: int, folder: Path) -> None:
        tokenizer, special = Tokenizer.from_str(checkpoint["tokenizer"]), checkpoint["special_tokens"]
        if not tokenizer.num_special_tokens_to_add(is_pair=False):
            tokenizer = with_bert_template(tokenizer, special)
        names = ["input_ids", "attention_mask"]
        if checkpoint["model_config"].get("n_segments", 2) > 1:
            names.insert(1, "token_type_ids")
        settings = {"model_input_names": names}
        write_tokenizer(tokenizer, special, length, settings, folder)


class MaskedWordsAdapter(BERTAdapter):
    """Networks of HuggingFace's with a head for masked words, or without; none has one for next sentences.

    Beside the head they have no pooler, and without it some have one.
    """

    head: ClassVar[tuple[str, str]]  # its linear layer, and its norm
    head_activation = ""
    decoder: ClassVar[str]  # its output layer
    decoder_bias: ClassVar[str]
    has_pooler: ClassVar[bool] = False  # whether the network without that head has one

    def model_class(self, untrained: tuple[str, ...]) -> str:
        with_head, without = self.classes
        return without if "masked_words" in untrained else with_head

    def left_out(self, untrained: tuple[str, ...] = ()) -> tuple[str, ...]:
        has_pooler = self.has_pooler and "masked_words" in untrained
        parts = ("next_sentence",) if has_pooler else ("encoder.pooler", "next_sentence")
        return tuple(part for part in parts if part not in untrained)

    def matches(self, config: BERTConfig) -> list[Match]:
        biased, (dense, norm) = slice(1 + config.bias), self.head
        return [
            *self.encoder_matches(config, ("masked_words.decoder.weight",), (f"{self.decoder}.weight",)),
            *layer("encoder.pooler", self.prefix + "pooler.dense"),
            *layer("masked_words.dense", dense)[biased],
            *layer("masked_words.norm", norm)[biased],
            *prelu(config, "masked_words.activation", self.head_activation),
            Match("masked_words.decoder.bias", (self.decoder_bias,), aliases=(f"{self.decoder}.bias",)),
            *layer("next_sentence", "next_sentence"),
        ]


class BERTClassifierAdapter(BERTAdapter):
    """A BERT with a classifier on [CLS] and HuggingFace's ``BertForSequenceClassification``."""

    architecture = "bert_classifier"
    programs: ClassVar[tuple[str, ...]] = ("ONNX Runtime",)
    classes = {"BertForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification")}
    parts = {}
    head = ("bert.pooler.dense", "classifier")  # its two layers

    def model_class(self, untrained: tuple[str, ...]) -> str:
        return next(iter(self.classes))

    def read_fields(self, theirs: Settings, tensors: Tensors) -> Settings:
        """As many labels as the classifier has biases: one is the score of a reranker."""
        bias = f"{self.head[1]}.bias"
        n_labels = tensors[bias].numel() if bias in tensors else 2
        if (problem := setting(theirs, "problem_type", str, SOFTMAX)) != SOFTMAX:
            raise InputError(
                f"config.json describes a {self.model_class(())} with problem_type {problem!r}: here a classifier "
                "chooses one of several labels, by a softmax"
            )
        return {**super().read_fields(theirs, tensors), "n_labels": n_labels}

    def matches(self, config: BERTClassifierConfig) -> list[Match]:  # type: ignore[override]
        pooler, classifier = self.head
        return [*self.encoder_matches(config), *layer("encoder.pooler", pooler), *layer("classifier", classifier)]

    def config_tokens(self, checkpoint: Settings) -> Settings:
        n_labels = checkpoint["model_config"]["n_labels"]
        names = checkpoint.get("label_names") or [f"LABEL_{i}" for i in range(n_labels)]
        ids = {name: i for i, name in enumerate(names)}
        id2label: dict[str, Any] = {str(i): name for name, i in ids.items()}
        labels = {**super().config_tokens(checkpoint), "id2label": id2label, "label2id": ids}
        return {**labels, "sentence_transformers": {"activation_fn": NO_ACTIVATION}} if n_labels == 1 else labels


class BiEncoderAdapter(BERTAdapter):
    """A retriever's encoder and HuggingFace's ``BertModel`` less its pooler; read back, it is a BERT without heads."""

    architecture = "bi_encoder"
    programs: ClassVar[tuple[str, ...]] = ("sentence-transformers", "ONNX Runtime")
    reads_back = False
    parts = {"encoder.pooler": "bert.pooler."}

    def model_class(self, untrained: tuple[str, ...]) -> str:
        return next(name for name in self.classes if name.endswith("Model"))

    def matches(self, config: BERTConfig) -> list[Match]:
        return self.encoder_matches(config)

    def write(
        self, config: BERTConfig, weights: Tensors, tokens: Settings, untrained: tuple[str, ...] = ()
    ) -> Exported:
        return super().write(config, weights, tokens, ("encoder.pooler",))

    def pooling(self, checkpoint: Settings) -> Pooling:
        return Pooling(normalize=True)
