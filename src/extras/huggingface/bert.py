"""BERT and HuggingFace's: with both heads, some, none, or a classifier. `roberta.py` has that of norm ``pre``."""

# ruff: noqa: RUF012 -- the base class declares what is of the class

import re
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Tokenizer

from src.encoder import Pooling
from src.errors import InputError
from src.extras.huggingface.adapter import Adapter, Exported, Match, Settings, Tensors, head_by_head, layer, prelu
from src.extras.huggingface.json_files import setting
from src.extras.huggingface.sentence_encoder import NO_ACTIVATION
from src.extras.huggingface.tokenizer_files import with_bert_template, write_tokenizer
from src.models import BERTClassifierConfig, BERTConfig
from src.nn import NormPlacement
from src.tokenization import bert_tokens, require_token

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
    norms = ("attention.output.LayerNorm", "output.LayerNorm")  # of attention and of the feed-forward network
    prefix = "bert."
    buffers = re.compile(r"embeddings\.position_ids$")
    parts = {
        "encoder.pooler": "bert.pooler.",
        "masked_words": "cls.predictions.",
        "next_sentence": "cls.seq_relationship.",
    }

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
            Match("encoder.position_embedding.weight", (embeddings + "position_embeddings.weight",)),
            Match("encoder.segment_embedding.weight", (embeddings + "token_type_embeddings.weight",)),
            *layer("encoder.embedding_norm", embeddings + "LayerNorm"),
        ]
        if self.norm == "pre":
            found += layer("encoder.final_norm", self.prefix + "LayerNorm")
        for i in range(config.n_layers):
            a, b = f"encoder.blocks.{i}.", f"{self.prefix}encoder.layer.{i}."
            names = tuple(f"{b}attention.self.{name}" for name in ("query", "key", "value"))
            found += [
                *layer(a + "attention.qkv", names, rows=qkv),
                *layer(a + "attention.out", b + "attention.output.dense"),
                *layer(a + "attention_norm", b + self.norms[0]),
                *layer(a + "feed_forward.up", b + "intermediate.dense"),
                *layer(a + "feed_forward.down", b + "output.dense"),
                *layer(a + "feed_forward_norm", b + self.norms[1]),
                *prelu(config, a + "feed_forward.activation", b + "intermediate.intermediate_act_fn"),
            ]
        return found

    def special_tokens(self, theirs: Settings, folder: Path, source: Tokenizer, target: Tokenizer) -> dict[str, str]:
        return bert_tokens(target)

    def config_tokens(self, checkpoint: Settings) -> Settings:
        tokenizer = Tokenizer.from_str(checkpoint["tokenizer"])
        return {"pad_token_id": require_token(tokenizer, checkpoint["special_tokens"]["pad_token"], "pad_token")}

    def write_tokenizers(self, checkpoint: Settings, length: int, folder: Path) -> None:
        tokenizer, special = Tokenizer.from_str(checkpoint["tokenizer"]), checkpoint["special_tokens"]
        if tokenizer.post_processor is None:
            tokenizer = with_bert_template(tokenizer, special)
        settings = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
        write_tokenizer(tokenizer, special, length, settings, folder)


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
