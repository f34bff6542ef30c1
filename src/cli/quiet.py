"""What Lightning and its libraries say of themselves, left out."""

import logging
import threading
import warnings


def quieten() -> None:
    """Leave out what Lightning says of itself, and warnings that nobody here can act on."""
    # TensorBoard writes in a thread of its own, and raises again what it met there
    threading.excepthook = lambda met: None if isinstance(met.exc_value, OSError) else threading.__excepthook__(met)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*Experiment logs directory .* exists and is not empty",  # ours, just made, holds the configuration
        ".*isinstance.treespec, LeafSpec.. is deprecated",
        ".*does not have many workers",  # the data are memory-mapped: a worker costs more than it saves
        ".*The dirpath has changed from",  # a resumed run has a folder of its own
        ".*compute.. method of metric .* was called before",  # those of a pipeline's first stages
        ".*was deprecated in v4",  # what Lightning calls in jsonargparse
        ".*Checkpoint directory .* exists and is not empty",  # a run that goes on
        ".*You requested to overfit but enabled train dataloader shuffling",  # ours repeats the batches of one epoch
        ".*The number of training batches .* is smaller than the logging interval",
    ):
        warnings.filterwarnings("ignore", message)
