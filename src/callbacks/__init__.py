"""What a run shows of itself, and what keeps it safe."""

from src.callbacks.checkpoints import Checkpoints, EndWithValidation, ExactResume, Predictions
from src.callbacks.dashboard import Dashboard
from src.callbacks.ema import EMA
from src.callbacks.figures import AttentionMaps, TokenEmbeddings
from src.callbacks.guard import Guard
from src.callbacks.logs_by_step import LogsByStep
from src.callbacks.progress import ProgressBar
from src.callbacks.summary import RunSummary, print_results
from src.callbacks.tensorboard import HParams, log_hparams
from src.callbacks.text_examples import MaskFills, TextSamples, TranslationSamples
from src.callbacks.throughput import Throughput

__all__ = [
    "EMA",
    "AttentionMaps",
    "Checkpoints",
    "Dashboard",
    "EndWithValidation",
    "ExactResume",
    "Guard",
    "HParams",
    "LogsByStep",
    "MaskFills",
    "Predictions",
    "ProgressBar",
    "RunSummary",
    "TextSamples",
    "Throughput",
    "TokenEmbeddings",
    "TranslationSamples",
    "log_hparams",
    "print_results",
]
