"""Texts to vectors, by a trained BERT or a retriever."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from tokenizers import Tokenizer
from torch import Tensor

from src.architectures import architectures
from src.checkpoint import read_checkpoint
from src.errors import InputError
from src.models import BERTEncoder, mean_pool
from src.tokenization import bert_row, pad_rows
from src.trained_bert import TrainedBERT

PREFIX = "model.encoder."


@dataclass(frozen=True)
class Pooling:
    """How a text is encoded: what a checkpoint holds under ``sentence_encoder``, if it was trained otherwise.

    Args:
        mode: the mean or the maximum over a text's tokens, or the vector of [CLS].
        normalize: whether vectors are scaled to length 1.
        max_length: tokens of a text, with the special ones; as many as there are positions if None.
        prompts: what stands before a text, by what the text is: a ``query``, a ``document``.
        default_prompt: the name of the prompt where nothing is said of the text.
    """

    mode: Literal["mean", "cls", "max"] = "mean"
    normalize: bool = False
    max_length: int | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None

    def __call__(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Make a vector of those of a text's tokens: (B, T, C) and (B, T) to (B, C)."""
        if self.mode == "cls":
            vectors = hidden[:, 0]
        elif self.mode == "max":
            vectors = hidden.masked_fill(attention_mask[..., None] == 0, -torch.inf).amax(1)
        else:
            vectors = mean_pool(hidden, attention_mask)
        return torch.nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors

    def prompt(self, name: str | None) -> str:
        """Find what stands before a text: the prompt of that name, else the default one, else nothing."""
        return self.prompts.get(name or "") or self.prompts.get(self.default_prompt or "", "")


class Encoder(TrainedBERT[BERTEncoder]):
    """A network that makes a vector of a text, as its ``pooling`` says."""

    def __init__(self, model: BERTEncoder, tokenizer: Tokenizer, device: str, pooling: Pooling) -> None:
        super().__init__(model, tokenizer, device)
        self.pooling = pooling

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        return self.model.config.d_model

    @property
    def max_tokens(self) -> int:
        """Of a text, without the special ones."""
        return (self.pooling.max_length or self.model.config.max_seq_len) - 2

    def checksum(self) -> str:
        """Hash all that the vectors depend on: weights, tokenizer and pooling."""
        found = hashlib.sha256(self.tokenizer.to_str().encode())
        if self.pooling != Pooling():  # without, the checksum is that of an index of before there was a choice
            found.update(str(asdict(self.pooling)).encode())
        for name, weight in sorted(self.model.state_dict().items()):
            if not name.startswith("pooler."):
                found.update(name.encode())
                found.update(weight.detach().float().cpu().numpy().tobytes())
        return found.hexdigest()[:16]

    def rows(self, texts: Sequence[str], kind: str | None = None) -> tuple[list[list[int]], int]:
        """Make ``[CLS] prompt text [SEP]`` of each text, cut to the longest; gives how many were cut, too.

        Args:
            texts: to encode.
            kind: of their prompt: ``query`` or ``document``; the default one if None.
        """
        prompt = self.pooling.prompt(kind)
        found = self.tokenizer.encode_batch([prompt + text for text in texts], add_special_tokens=False)
        rows = [bert_row([encoding.ids], self.max_tokens + 2, self.special_ids)[0] for encoding in found]
        return rows, sum(len(encoding.ids) > self.max_tokens for encoding in found)

    def encode(self, rows: list[list[int]], batch_size: int = 64) -> Tensor:
        """Pool the token vectors of each row: (rows, d_model), on the CPU. Rows of like length go together."""
        vectors = torch.empty(len(rows), self.dimension)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
        starts = range(0, len(rows), batch_size)
        shown = track(starts, "encode", console=Console(stderr=True), transient=True) if len(starts) > 1 else starts
        for start in shown:
            batch = order[start : start + batch_size]
            vectors[batch] = self._encode([rows[i] for i in batch])
        return vectors

    @torch.inference_mode()
    def _encode(self, rows: list[list[int]]) -> Tensor:
        arrays = pad_rows(rows, self.special_ids["pad_token"], self.model.config.max_seq_len)
        input_ids, attention_mask = (torch.from_numpy(array).to(self.device) for array in arrays)
        return self.pooling(self.model(input_ids, attention_mask=attention_mask), attention_mask).float().cpu()

    def vectors(self, texts: Sequence[str], kind: str | None = None) -> NDArray[np.float32]:
        """Make a vector of length 1 of each text: (texts, dimension). Their products are cosines. See :meth:`rows`."""
        rows, _ = self.rows(texts, kind)
        return torch.nn.functional.normalize(self.encode(rows), dim=-1).numpy()


def load_encoder(path: str | Path, device: str = "cpu") -> Encoder:
    """Load the encoder of a checkpoint of a BERT, a Longformer or a retriever."""
    checkpoint = read_checkpoint(path)
    entry = architectures()[checkpoint["architecture"]]
    if entry.encoder is None:
        known = ", ".join(name for name, other in architectures().items() if other.encoder)
        raise InputError(f"checkpoint {path} holds a {checkpoint['architecture']}: this needs one of {known}")
    model = entry.encoder(entry.config(**checkpoint["model_config"]))
    model.load_state_dict({name: checkpoint["state_dict"][PREFIX + name] for name in model.state_dict()})
    pooling = Pooling(**checkpoint.get("sentence_encoder", {}))
    return Encoder(model.eval(), Tokenizer.from_str(checkpoint["tokenizer"]), device, pooling)
