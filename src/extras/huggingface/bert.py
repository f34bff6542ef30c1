"""BERT and HuggingFace's: with both heads, some, none, or a classifier."""

import re
from typing import Any, ClassVar

from src.errors import InputError
from src.extras.huggingface.adapter import Adapter, Exported
from src.extras.huggingface.config_table import ConfigTable
from src.extras.huggingface.matching import Match, Tensors, head_by_head, layer
from src.extras.huggingface.settings import setting
from src.models import BERTClassifierConfig, BERTConfig

SOFTMAX = "single_label_classification"  # HuggingFace's name of what a classifier is trained for, if nothing is said


class BERTAdapter(Adapter):
    """HuggingFace's q, k and v are three matrices, here they are one, head by head.

    The masked-word head is tied to the token embeddings, as in the paper.
    """

    architecture = "bert"
    table = ConfigTable(
        model_type="bert",
        keys={
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
        },
        activation=("hidden_act", "gelu"),
        norm="post",
        fixed={
            "position_embedding_type": "absolute",
            "is_decoder": False,
            "add_cross_attention": False,
            "tie_word_embeddings": True,
        },
        only={"window": None},
    )
    reads: ClassVar[tuple[str, ...]] = (
        "BertForPreTraining",
        "BertForMaskedLM",
        "BertForNextSentencePrediction",
        "BertModel",
    )
    prefix = "bert."
    derived = re.compile(r"embeddings\.position_ids$")

    def parts(self) -> dict[str, str]:
        return {
            "encoder.pooler": "bert.pooler.",
            "masked_words": "cls.predictions.",
            "next_sentence": "cls.seq_relationship.",
        }

    def model_class(self, untrained: tuple[str, ...]) -> str:
        if "masked_words" not in untrained:
            return "BertForMaskedLM" if "next_sentence" in untrained else "BertForPreTraining"
        return "BertModel" if "next_sentence" in untrained else "BertForNextSentencePrediction"

    def today(self, name: str) -> str:
        return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))

    def tied(self, config: BERTConfig) -> dict[str, str]:
        return {"masked_words.decoder.weight": "encoder.token_embedding.weight"}

    def same(self, config: BERTConfig) -> dict[str, str]:
        return {
            "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        }

    def matches(self, config: BERTConfig) -> list[Match]:
        found = [
            *encoder_matches(config),
            *layer("encoder.pooler", "bert.pooler.dense"),
            *layer("masked_words.dense", "cls.predictions.transform.dense"),
            *layer("masked_words.norm", "cls.predictions.transform.LayerNorm"),
            Match("masked_words.decoder.bias", ("cls.predictions.bias",)),
            *layer("next_sentence", "cls.seq_relationship"),
        ]
        if config.activation == "prelu":
            found.append(
                Match("masked_words.activation.weight", ("cls.predictions.transform.transform_act_fn.weight",))
            )
        return found


class BERTClassifierAdapter(BERTAdapter):
    """A BERT with a classifier on [CLS] and HuggingFace's ``BertForSequenceClassification``."""

    architecture = "bert_classifier"
    reads = ("BertForSequenceClassification",)

    def parts(self) -> dict[str, str]:
        return {}

    def model_class(self, untrained: tuple[str, ...]) -> str:
        return "BertForSequenceClassification"

    def read_fields(self, theirs: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
        """As the base class, with as many labels as the classifier has biases: one is the score of a reranker.

        Raises:
            InputError: also for a classifier that was trained with another loss than that of a softmax.
        """
        problem = setting(theirs, "problem_type", str, SOFTMAX)
        n_labels = tensors["classifier.bias"].numel() if "classifier.bias" in tensors else 2
        if problem != SOFTMAX:
            raise InputError(
                f"config.json describes a {self.reads[0]} with problem_type {problem!r}: here a classifier chooses one "
                "of several labels, by a softmax"
            )
        return {**super().read_fields(theirs, tensors), "n_labels": n_labels}

    def tied(self, config: BERTConfig) -> dict[str, str]:
        return {}

    def same(self, config: BERTConfig) -> dict[str, str]:
        return {}

    def matches(self, config: BERTClassifierConfig) -> list[Match]:  # type: ignore[override]
        pooler = layer("encoder.pooler", "bert.pooler.dense")
        return [*encoder_matches(config), *pooler, *layer("classifier", "classifier")]


class BiEncoderAdapter(BERTAdapter):
    """A retriever's encoder and HuggingFace's ``BertModel`` less its pooler; read back, it is a BERT without heads."""

    architecture = "bi_encoder"
    reads = ()

    def parts(self) -> dict[str, str]:
        return {"encoder.pooler": "bert.pooler."}

    def model_class(self, untrained: tuple[str, ...]) -> str:
        return "BertModel"

    def tied(self, config: BERTConfig) -> dict[str, str]:
        return {}

    def same(self, config: BERTConfig) -> dict[str, str]:
        return {}

    def matches(self, config: BERTConfig) -> list[Match]:
        return encoder_matches(config)

    def write(self, config: BERTConfig, weights: Tensors, untrained: tuple[str, ...] = ()) -> Exported:
        return super().write(config, weights, ("encoder.pooler",))


def encoder_matches(config: BERTConfig, prefix: str = "bert.") -> list[Match]:
    """The tensors of the encoder, without its pooler."""
    qkv = head_by_head(config.d_model, config.n_heads, 3)
    embeddings = prefix + "embeddings."
    found = [
        Match("encoder.token_embedding.weight", (embeddings + "word_embeddings.weight",)),
        Match("encoder.position_embedding.weight", (embeddings + "position_embeddings.weight",)),
        Match("encoder.segment_embedding.weight", (embeddings + "token_type_embeddings.weight",)),
        *layer("encoder.embedding_norm", embeddings + "LayerNorm"),
    ]
    for i in range(config.n_layers):
        a, b = f"encoder.blocks.{i}.", f"{prefix}encoder.layer.{i}."
        names = tuple(f"{b}attention.self.{name}" for name in ("query", "key", "value"))
        found += [
            *layer(a + "attention.qkv", names, rows=qkv),
            *layer(a + "attention.out", b + "attention.output.dense"),
            *layer(a + "attention_norm", b + "attention.output.LayerNorm"),
            *layer(a + "feed_forward.up", b + "intermediate.dense"),
            *layer(a + "feed_forward.down", b + "output.dense"),
            *layer(a + "feed_forward_norm", b + "output.LayerNorm"),
        ]
        if config.activation == "prelu":
            found.append(Match(a + "feed_forward.activation.weight", (b + "intermediate.intermediate_act_fn.weight",)))
    return found
