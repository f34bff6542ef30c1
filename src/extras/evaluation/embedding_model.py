"""An encoder as mteb asks a model: vectors of texts, and their cosines."""

from typing import Any

import torch
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

from src.encoder import Encoder


class MTEBEncoder(AbsEncoder):
    """An encoder for mteb, without an export; its vectors are those of `embed`.

    Args:
        encoder: on the device where it is to run.
        name: of the checkpoint.
    """

    def __init__(self, encoder: Encoder, name: str) -> None:
        self.encoder = encoder
        described = {
            "name": f"local/{name}",
            "revision": encoder.checksum(),
            "max_tokens": encoder.max_tokens,
            "embed_dim": encoder.dimension,
            "similarity_fn_name": ScoringFunction.COSINE,
        }
        self.mteb_model_meta = ModelMeta.create_empty(described)

    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> torch.Tensor:
        """Make a vector of each text of a loader's batches: (texts, dimension), behind the prompt of its kind."""
        texts = [text for batch in inputs for text in batch["text"]]
        rows, _cut = self.encoder.rows(texts, None if prompt_type is None else prompt_type.value)
        return self.encoder.encode(rows)
