"""BERT (Devlin et al. 2018): a bidirectional encoder, pretrained on masked words and on next sentences.

Shape letters: B batch, T tokens, M predicted positions, N documents of a row at most, C = d_model, V = vocab_size,
L = n_labels.
"""

import math
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.models.network import Network, Step, stack
from src.nn import (
    POSITIONS,
    Block,
    BlockConfig,
    Dropout,
    Head,
    Mask,
    NormPlacement,
    Packing,
    SelfAttention,
    activation,
    init_outputs,
    make_norm,
    position_ids,
)


@dataclass(frozen=True)
class BERTConfig(BlockConfig):
    """The shape of a BERT. The defaults are BERT base, 110M parameters.

    Args:
        vocab_size: number of tokens; a run takes it from its tokenizer.
        max_seq_len: how many positions there are, and so the longest input.
        n_segments: kinds of segment, told apart by ``token_type_ids`` unless there is one alone; 0 for none.
        n_layers: blocks.
        activation: of the feed-forward network and the masked-word head.
        init_std: deviation of the initial matrices and token embeddings; those of positions and segments start with
            the paper's 0.02. A narrow network needs about d_model^-0.5: with 0.02 at a width of 128, tokens are a
            third of the input, attention sees little of them, and next sentences are not learnt.
    """

    vocab_size: int = 30522
    max_seq_len: int = 512
    n_segments: int = 2
    _: KW_ONLY
    n_layers: int = 12
    d_model: int = 768
    n_heads: int = 12
    activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    norm: NormPlacement = "post"
    norm_eps: float = 1e-12  # of the paper's code
    init_std: float = 0.02


@dataclass(frozen=True)
class BERTClassifierConfig(BERTConfig):
    """The shape of a BERT with a classifier on top.

    Args:
        n_labels: number of classes; a run takes it from its data.
    """

    n_labels: int = 2


def init_weights(network: nn.Module, std: float) -> None:
    """Normal, cut at two deviations; biases zero (as the paper's code)."""
    for name, parameter in network.named_parameters():
        if parameter.dim() == 2:
            deviation = 0.02 if name.endswith(("position_embedding.weight", "segment_embedding.weight")) else std
            nn.init.trunc_normal_(parameter, std=deviation, a=-2 * deviation, b=2 * deviation)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    init_outputs(network)


def mean_pool(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean over the real tokens: (B, T, C) and (B, T) to (B, C)."""
    weights = attention_mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def at(hidden: Tensor, positions: Tensor | None) -> Tensor:
    """The vectors at some positions, (B, T, C) and (B, M) to (B, M, C); at all of them if None."""
    return hidden if positions is None else hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[2]))


class BERTEncoder(Network):
    """Token ids (B, T) to vectors (B, T, C).

    Args:
        config: its shape.
        pooler: whether it has one, for :meth:`pool`.
    """

    attention: type[SelfAttention] = SelfAttention

    def __init__(self, config: BERTConfig, pooler: bool = False) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        table, attention = POSITIONS[config.positions]
        self.position_embedding = table(config.max_seq_len, config.d_model) if table else None
        self.segment_embedding = nn.Embedding(config.n_segments, config.d_model) if config.n_segments else None
        self.embedding_norm = make_norm(config)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(config, i, attention=attention or self.attention) for i in range(config.n_layers)
        )
        # the last block of a post-norm stack has normed its output already
        self.final_norm = make_norm(config) if config.norm == "pre" else nn.Identity()
        self.pooler = nn.Linear(config.d_model, config.d_model) if pooler else None

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None = None, documents: Tensor | None = None) -> Tensor:
        """What the first block sees: (B, T, C)."""
        if documents is None and input_ids.shape[1] > self.config.max_seq_len:
            raise ValueError(
                f"{input_ids.shape[1]} tokens are more than the {self.config.max_seq_len} positions of this model"
            )
        x = self.token_embedding(input_ids)
        if self.config.positions == "sinusoidal":
            x = x * math.sqrt(self.config.d_model)  # else the positions drown the tokens
        if self.segment_embedding is not None:
            if token_type_ids is None or self.config.n_segments == 1:  # as RoBERTa's, which are all alike
                token_type_ids = torch.zeros_like(input_ids)
            x = x + self.segment_embedding(token_type_ids)
        if self.position_embedding is not None:
            x = x + self.position_embedding(position_ids(input_ids, documents=documents))
        return self.dropout(self.embedding_norm(x))

    def mask(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, document_starts: Tensor | None = None
    ) -> Mask:
        """Say which tokens each block may look at."""
        length = input_ids.shape[1]
        if document_starts is None:
            return Mask(length, attention_mask=attention_mask)
        packing = Packing(document_starts, min(length, self.config.max_seq_len))
        return Mask(length, documents=packing.documents(length), packing=packing)

    def steps(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **masks: Tensor | None,
    ) -> list[Step]:
        """Read each token in the light of all.

        Args:
            input_ids: (B, T), padded on the right.
            token_type_ids: (B, T), the segment of each token; all 0 if None.
            attention_mask: (B, T), 1 at real tokens and 0 at padding; every row has a real token.
            masks: what else :meth:`mask` takes.

        Returns:
            The steps to (B, T, C).
        """
        mask, shape = self.mask(input_ids, attention_mask, **masks), input_ids.shape
        embeddings = [self.token_embedding, self.segment_embedding, self.position_embedding, self.embedding_norm]
        return [
            Step(lambda: self.embed(input_ids, token_type_ids, mask.documents), embeddings, [shape]),
            *stack(self.blocks, self.config, mask, shape),
            Step(lambda x, *_: self.final_norm(x), [self.final_norm], [shape]),
        ]

    def pool(self, hidden: Tensor) -> Tensor:
        """Make the vector of the whole input of that of [CLS]: (B, T, C) to (B, C)."""
        assert self.pooler is not None
        return torch.tanh(self.pooler(hidden[:, 0]))


class MaskedWordHead(nn.Module):
    """Which word stands behind each vector: (..., C) to logits (..., V), by the token embeddings and a bias.

    Given labels (...), their summed loss instead: see :class:`Head`.
    """

    def __init__(self, config: BERTConfig, token_embedding: nn.Embedding) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.activation = activation(config.activation)
        self.norm = make_norm(config)
        self.decoder = Head(config.d_model, config.vocab_size)
        self.decoder.weight = token_embedding.weight

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decoder(self.norm(self.activation(self.dense(x))), labels=labels)


class BERTOutput(NamedTuple):
    """The output of both heads."""

    masked_words: Tensor  # logits (B, M, V), or (B, T, V) at all positions; given labels their summed loss, 0-dim
    next_sentence: Tensor | None  # logits (B, 2): 0 says that B follows A, 1 that it does not; None without that head


MASKED = 0.15  # of the positions are predicted


class BERT(Network):
    """The encoder with both heads of its pretraining."""

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = BERTEncoder(config, pooler=True)
        self.masked_words = MaskedWordHead(config, self.encoder.token_embedding)
        self.next_sentence = nn.Linear(config.d_model, 2)
        init_weights(self, config.init_std)

    def steps(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        masked_positions: Tensor | None = None,
        document_starts: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> list[Step]:
        """Predict the masked words, and whether the second segment follows the first.

        Args:
            input_ids: (B, T), as the next two in :meth:`BERTEncoder.steps`.
            token_type_ids: (B, T).
            attention_mask: (B, T).
            masked_positions: (B, M), the positions to predict; the projection onto the vocabulary, the most expensive
                part of the network, is computed there alone. All positions if None.
            document_starts: (B, N), where each document begins in rows that several fill without padding, T in unused
                places. Each is read as if it stood alone, of ``max_seq_len`` tokens at most; its next sentence is not
                predicted.
            labels: (B, M), the words there; -100 where none is to be predicted.

        Returns:
            The steps to a :class:`BERTOutput`.
        """

        def predict(hidden: Tensor) -> BERTOutput:
            next_sentence = self.next_sentence(self.encoder.pool(hidden))
            return BERTOutput(self.masked_words(at(hidden, masked_positions), labels), next_sentence)

        heads = [self.encoder.pooler, self.masked_words, self.next_sentence]
        encoder = self.encoder.steps(input_ids, token_type_ids, attention_mask, document_starts=document_starts)
        return [*encoder, Step(predict, heads, fraction=MASKED)]


class BERTClassifier(Network):
    """The encoder with a classifier on [CLS] (section 4.1)."""

    def __init__(self, config: BERTClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = BERTEncoder(config, pooler=True)
        self.dropout = Dropout(config.dropout)
        self.classifier = nn.Linear(config.d_model, config.n_labels)
        init_weights(self, config.init_std)

    def steps(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> list[Step]:
        """Classify each input: the steps to logits (B, L). Arguments as :meth:`BERTEncoder.steps`."""

        def classify(hidden: Tensor) -> Tensor:
            return self.classifier(self.dropout(self.encoder.pool(hidden)))

        encoder = self.encoder.steps(input_ids, token_type_ids, attention_mask)
        return [*encoder, Step(classify, [self.encoder.pooler, self.classifier])]
