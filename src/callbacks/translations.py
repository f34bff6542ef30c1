"""What a translation model writes while it learns."""

import lightning as L

from src.callbacks.recording import record_samples
from src.tasks import TransformerModule


class TranslationSamples(L.Callback):
    """After each validation, some of its translations beside their references, to the run's folder and TensorBoard.

    Args:
        examples: how many sentences, spread evenly over the split.
    """

    def __init__(self, examples: int = 5) -> None:
        self.examples = examples

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TransformerModule)
        found = pl_module.examples
        if trainer.is_global_zero and found:
            chosen = [found[i * len(found) // self.examples] for i in range(min(self.examples, len(found)))]
            lines = ["\n".join(f"{name}: {text}" for name, text in example._asdict().items()) for example in chosen]
            record_samples(trainer, lines)
