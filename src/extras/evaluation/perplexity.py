"""perplexity: how well a GPT predicts any text."""

import hashlib
import math
from pathlib import Path

from src.checkpoint import load_writer, read_checkpoint
from src.cli.verb import Positive
from src.coverage import MeasuredTokenizer
from src.errors import InputError
from src.extras.evaluation.results import Evaluation, Part, Score
from src.extras.evaluation.scoring import context_length, log_likelihoods, sliding_windows
from src.files import check_file, decode, open_binary
from src.hardware import to_device
from src.tokenization import require_token, start_ids


def perplexity(
    checkpoint: str, input_: Path, stride: Positive | None = None, batch_size: Positive = 8, device: str = "cpu"
) -> Evaluation:
    """Compute the perplexity of a text by a sliding window, and its bits per byte, which no tokenizer changes.

    Args:
        checkpoint: a checkpoint of a GPT
        input_: a UTF-8 text, also .gz, taken as one document
        stride: tokens that the window moves by; fewer give each token a longer context (half the context)
        batch_size: windows at a time
        device: cpu, cuda, cuda:1, mps, ...
    """
    content = read_checkpoint(checkpoint)
    model, tokenizer, special_tokens = load_writer(content, checkpoint, "generate")
    to_device(model, device)
    length = context_length(model)
    stride = max(1, length // 2) if stride is None else stride
    if stride > length:
        raise InputError(f"--stride {stride} is more than the context of {length} tokens: it would leave tokens out")
    check_file(input_, is_text=True)
    with open_binary(input_) as file:
        text = decode(file.read())
    measured = MeasuredTokenizer(tokenizer, str(input_))
    (encoding,) = measured.encode([text])
    if not encoding.ids:
        raise InputError(f"{input_} has no token to predict")
    end = require_token(tokenizer, special_tokens["eos_token"], "eos_token")
    first, *_ = [*start_ids(tokenizer, special_tokens), end]
    windows = list(sliding_windows(encoding.ids, first, length, stride))
    n_tokens, n_words, n_bytes = len(encoding.ids), len(text.split()), len(text.encode())

    def run(folder: Path) -> list[Score]:
        total = -sum(score for score, _ in log_likelihoods(model, windows, batch_size))
        values = {
            "loss": total / n_tokens,
            "perplexity": _exp(total / n_tokens),
            "word_perplexity": _exp(total / max(n_words, 1)),
            "bits_per_byte": total / math.log(2) / n_bytes,
        }
        return [Score(input_.name, name, value) for name, value in values.items()]

    settings = {"text": hashlib.sha256(text.encode()).hexdigest(), "stride": stride}
    notes = [
        f"{n_tokens:,} tokens, {n_words:,} words, {n_bytes:,} bytes; a window of {length} tokens moves by {stride}. "
        "The loss is in nats a token."
    ]
    if losses := measured.losses():
        notes.append(f"{losses}: each is one unknown token, and bits_per_byte counts its bytes")
    return Evaluation(content.get("global_step"), [Part(input_.name, settings, run)], notes=notes)


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf
