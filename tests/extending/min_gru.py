"""A decoder of gated linear recurrences: minGRU (Feng et al. 2024, "Were RNNs All We Needed?", section 3.1).

Shape letters: B batch, T tokens, C = d_model, V = vocab_size.
"""

from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from src.architectures import Architecture, register
from src.models.network import Network, Step
from src.nn import Block, BlockConfig, Dropout, Head, Mask
from src.tasks import GPTModule


@dataclass(frozen=True)
class MinGRUConfig:
    """The shape of a decoder of minGRUs.

    Args:
        vocab_size: number of tokens; a run takes it from its tokenizer.
        d_model: width of the residual stream, and of each block's state.
        n_layers: blocks.
        activation: of the feed-forward networks.
        dropout: of the embeddings and of each sub-layer's output.
    """

    vocab_size: int
    d_model: int = 256
    n_layers: int = 4
    activation: str = "gelu"
    dropout: float = 0.0

    @property
    def context(self) -> None:
        """The longest context: there is none."""


def scan(keep: Tensor, new: Tensor) -> Tensor:
    """``h_t = keep_t · h_(t-1) + new_t`` from ``h_0 = 0``, for all t of (B, T, C), in log2(T) parallel steps."""
    shift = 1
    while shift < keep.shape[1]:  # each position holds the recurrence over the last `shift` positions
        new = torch.cat([new[:, :shift], new[:, shift:] + keep[:, shift:] * new[:, :-shift]], 1)
        keep = torch.cat([keep[:, :shift], keep[:, shift:] * keep[:, :-shift]], 1)
        shift *= 2
    return new


class State:
    """What a block knows of the tokens before: (B, C), or None before the first."""

    h: Tensor | None = None


class MinGRU(nn.Module):
    """``h_t = (1 - z_t) h_(t-1) + z_t h~_t``, with gate ``z = sigmoid(W_z x)`` and candidate ``h~ = W_h x``.

    It stands where a block has its attention, and takes what that takes.
    """

    def __init__(self, config: BlockConfig, layer: int) -> None:
        super().__init__()
        shape = (config.d_model, config.d_model, config.bias)
        self.gate, self.candidate, self.out = nn.Linear(*shape), nn.Linear(*shape), nn.Linear(*shape)

    def forward(self, x: Tensor, mask: Mask, cache: State | None = None) -> Tensor:
        z = self.gate(x).sigmoid()
        if mask.attention_mask is not None:  # padding leaves the state as it is
            z = z * mask.attention_mask[:, -x.shape[1] :, None]
        keep, new = 1 - z, z * self.candidate(x)
        if mask.documents is not None:  # each begins without a state
            begins = mask.documents.diff(dim=1, prepend=mask.documents[:, :1]) != 0
            keep = keep.masked_fill(begins[..., None], 0)
        if cache is not None and cache.h is not None:
            new = torch.cat([new[:, :1] + keep[:, :1] * cache.h[:, None], new[:, 1:]], 1)
        h = scan(keep, new)
        if cache is not None:
            cache.h = h[:, -1]
        return self.out(h)


class MinGRUDecoder(Network):
    """Token ids (B, T) to next-token logits (B, T, V)."""

    def __init__(self, config: MinGRUConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.token_embedding.weight, std=config.d_model**-0.5)
        self.dropout = Dropout(config.dropout)
        shape = {"d_model": config.d_model, "activation": config.activation, "dropout": config.dropout}
        block = BlockConfig(n_heads=1, **shape)
        self.blocks = nn.ModuleList(Block(block, i, attention=MinGRU) for i in range(config.n_layers))
        self.final_norm = nn.LayerNorm(config.d_model)
        self.head = Head(config.d_model, config.vocab_size, bias=False)

    def new_cache(self, max_len: int | None = None) -> list[State]:
        """An empty cache for :meth:`steps`, one entry a block; of one size, however many tokens come."""
        return [State() for _ in self.blocks]

    def steps(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        cache: list[State] | None = None,
        documents: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> list[Step]:
        """Predict the token after each position; arguments and result are those of `GPT.steps`."""
        mask = Mask(input_ids.shape[1], attention_mask=attention_mask, documents=documents)
        shape, states = [input_ids.shape], cache or repeat(None, len(self.blocks))
        return [
            Step(lambda: self.dropout(self.token_embedding(input_ids)), [self.token_embedding], shape),
            *(Step(partial(b, mask=mask, cache=s), [b], shape) for b, s in zip(self.blocks, states, strict=True)),
            Step(self.final_norm, [self.final_norm], shape),
            Step(lambda x: self.head(x, labels=labels), [self.head]),
        ]


class MinGRUModule(GPTModule):
    """Train it to predict the next token, as a GPT."""

    architecture = "min_gru"

    def __init__(self, config: MinGRUConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)


entry = Architecture(MinGRUConfig, MinGRUDecoder, "MinGRUModule", "LMDataModule", ("eos_token",), writes="generate")
register("min_gru", entry)
