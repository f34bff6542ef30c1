"""The network of dense retrieval: one encoder that makes a vector of a query and of a passage."""

from torch import Tensor, nn

from src.models import BERTConfig, BERTEncoder, mean_pool
from src.models.bert import init_weights


class BiEncoder(nn.Module):
    """One encoder for queries and for passages: a vector of length 1 for each, the mean over its tokens.

    The product of two vectors is the cosine between them (Reimers and Gurevych 2019).
    """

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = BERTEncoder(config, pooler=False)
        init_weights(self, config.init_std)

    def forward(
        self, query_input_ids: Tensor, query_attention_mask: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Queries (Q, T) and passages (P, T') to their vectors, (Q, C) and (P, C)."""
        return self.encode(query_input_ids, query_attention_mask), self.encode(input_ids, attention_mask)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Texts (B, T) to vectors (B, C)."""
        return unit_vectors(self.encoder(input_ids, attention_mask=attention_mask), attention_mask)


def unit_vectors(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean over the real tokens, at length 1: (B, T, C) and (B, T) to (B, C)."""
    return nn.functional.normalize(mean_pool(hidden, attention_mask), dim=-1)
