"""What a run shows of itself."""

from src.callbacks.ending import EndWithValidation
from src.callbacks.progress import ProgressBar
from src.callbacks.report import Report, print_results
from src.callbacks.samples import TextSamples
from src.callbacks.throughput import Throughput

__all__ = ["EndWithValidation", "ProgressBar", "Report", "TextSamples", "Throughput", "print_results"]
