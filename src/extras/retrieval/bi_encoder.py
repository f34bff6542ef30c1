"""The network of dense retrieval: one encoder that makes a vector of a query and of a passage."""

from torch import Tensor, nn

from src.models import BERTConfig, BERTEncoder, mean_pool
from src.models.bert import init_weights
from src.models.network import Network, Step


class BiEncoder(Network):
    """One encoder for queries and for passages: a vector of length 1 for each, the mean over its tokens.

    The product of two vectors is the cosine between them (Reimers and Gurevych 2019).
    """

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = BERTEncoder(config)
        init_weights(self, config.init_std)

    def steps(
        self, query_input_ids: Tensor, query_attention_mask: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> list[Step]:
        """List the steps from queries (Q, T) and passages (P, T') to their vectors, (Q, C) and (P, C)."""

        def pool(queries: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
            return unit_vectors(queries, query_attention_mask), unit_vectors(passages, attention_mask)

        queries = self.encoder.steps(query_input_ids, attention_mask=query_attention_mask)
        passages = self.encoder.steps(input_ids, attention_mask=attention_mask)
        return [*map(side_by_side, queries, passages), Step(pool, [])]

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Make vectors (B, C) of texts (B, T)."""
        return unit_vectors(self.encoder(input_ids, attention_mask=attention_mask), attention_mask)


def unit_vectors(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Average over the real tokens and scale to length 1: (B, T, C) and (B, T) to (B, C)."""
    return nn.functional.normalize(mean_pool(hidden, attention_mask), dim=-1)


def side_by_side(query: Step, passage: Step) -> Step:
    """Make one step of the same one for queries and for passages."""

    def run(*vectors: Tensor) -> tuple[Tensor, Tensor]:
        return query.run(*vectors[:1]), passage.run(*vectors[1:])

    return Step(run, query.modules, [*query.shapes, *passage.shapes])
