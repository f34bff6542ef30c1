"""How fast training and decoding are, beside the machine's limit and beside other programs."""

from src.bench.decoding import DecodingBench
from src.bench.external import External
from src.bench.record import Decoded, Machine, Measured, Record, Round, Steps
from src.bench.report import check_output, show, write
from src.bench.training import TrainingBench

__all__ = [
    "Decoded",
    "DecodingBench",
    "External",
    "Machine",
    "Measured",
    "Record",
    "Round",
    "Steps",
    "TrainingBench",
    "check_output",
    "show",
    "write",
]
