"""What a run shows of itself, and what keeps it safe."""

from src.callbacks.attention import AttentionMaps
from src.callbacks.checkpoints import Checkpoints
from src.callbacks.dashboard import Dashboard
from src.callbacks.ema import EMA
from src.callbacks.embeddings import TokenEmbeddings
from src.callbacks.ending import EndWithValidation
from src.callbacks.guard import Guard
from src.callbacks.hparams import HParams, log_hparams
from src.callbacks.mask_fills import MaskFills
from src.callbacks.predictions import Predictions
from src.callbacks.progress import ProgressBar
from src.callbacks.report import Report, print_results
from src.callbacks.resume import ExactResume
from src.callbacks.samples import TextSamples
from src.callbacks.throughput import Throughput
from src.callbacks.translations import TranslationSamples

__all__ = [
    "EMA",
    "AttentionMaps",
    "Checkpoints",
    "Dashboard",
    "EndWithValidation",
    "ExactResume",
    "Guard",
    "HParams",
    "MaskFills",
    "Predictions",
    "ProgressBar",
    "Report",
    "TextSamples",
    "Throughput",
    "TokenEmbeddings",
    "TranslationSamples",
    "log_hparams",
    "print_results",
]
