"""What the inference of every BERT stands on: vectors, labels, masked words, and an extra's scores."""

from typing import Generic, TypeVar

from tokenizers import Tokenizer
from torch import nn

from src.hardware import to_device
from src.tokenization import bert_ids

M = TypeVar("M", bound=nn.Module)


class TrainedBERT(Generic[M]):
    """A trained network that reads BERT's rows, with its tokenizer, on a device.

    Args:
        model: in evaluation mode.
        tokenizer: its own.
        device: cpu, cuda, cuda:1, mps, ...
    """

    def __init__(self, model: M, tokenizer: Tokenizer, device: str = "cpu") -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.model, self.tokenizer = model, tokenizer
        self.special_ids = bert_ids(tokenizer)  # by HuggingFace's names for the tokens
        self.device = to_device(model, device)
