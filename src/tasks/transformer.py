"""Translation: predict the next token of the target, given the source and the target before it."""

import math
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import sacrebleu
import torch
import torch.distributed as dist
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from src.data import Baselines, TextDataModule, TranslationDataModule
from src.data.baselines import MOST_PAIRS, extent, mean_losses, note
from src.decoding import beam_search, greedy_search, wu_penalty
from src.distributed import unsharded_model
from src.errors import InputError
from src.models import Transformer, TransformerConfig
from src.tasks.base import Batch, Charts, Task, update_mean

# of translations as text
SCORES = {"bleu": sacrebleu.BLEU, "chrf": sacrebleu.CHRF}


class Example(NamedTuple):
    """A sentence of an evaluation: as it was written, as a person translated it, and as the model did."""

    source: str
    reference: str
    translation: str


class TransformerModule(Task):
    """Train a Transformer to translate.

    Logs over the whole validation and test splits: the cross-entropy in nats per token without smoothing, perplexity
    and token accuracy, all given the reference before each token; and BLEU and chrF of the model's own translations,
    greedy in validation and by beam search in test, by sacrebleu on the text as it was written, with its signature.

    Args:
        config: shape of the network; the vocabulary sizes come from the data.
        label_smoothing: fraction of each target's probability that is spread over the vocabulary (Szegedy et al. 2015).
        beam: hypotheses of the beam search.
        length_penalty: alpha of Wu et al. 2016; above 0 it favours longer translations.
    """

    architecture = "transformer"
    data_class = TranslationDataModule
    charts: ClassVar[Charts] = {
        **Task.charts,
        "Quality": {
            "BLEU and chrF": ["val/bleu", "val/chrf"],
            "Token accuracy": ["val/token_accuracy"],
            "Perplexity": ["val/perplexity"],
        },
    }
    model: Transformer

    def __init__(
        self,
        config: TransformerConfig,
        label_smoothing: float = 0.1,
        beam: int = 4,
        length_penalty: float = 0.6,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, **kwargs)
        if not 0 <= label_smoothing < 1 or beam < 1 or length_penalty < 0:
            raise InputError(
                f"label_smoothing {label_smoothing}, beam {beam} or length_penalty {length_penalty} cannot be: they "
                "are at least 0, 1 and 0, and the first is less than 1"
            )
        self.label_smoothing, self.beam, self.length_penalty = label_smoothing, beam, length_penalty
        self.loss, self.accuracy = MeanMetric(), MeanMetric()
        self._translations: dict[int, str] = {}
        self.examples: list[Example] = []  # of the newest evaluation, in the order of the split

    @property
    def data(self) -> TranslationDataModule:
        data = super().data
        assert isinstance(data, TranslationDataModule)
        return data

    def check_data(self, data: TextDataModule) -> None:
        super().check_data(data)
        assert isinstance(data, TranslationDataModule)
        if data.max_length > self.config.max_seq_len:
            raise InputError(
                f"data.max_length {data.max_length} is more than the model's max_seq_len "
                f"{self.config.max_seq_len}: change one"
            )
        if self.config.tie_embeddings and not data.joint_vocabulary:
            raise InputError("tie_embeddings needs one vocabulary for both languages: set data.joint_vocabulary")
        self.config = replace(self.config, source_vocab_size=data.source_vocab_size)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        # the target's padding is behind its real tokens, which see nothing behind them: it needs no mask
        return {name: batch[name] for name in ("input_ids", "decoder_input_ids", "attention_mask")}

    def targets(self, batch: Batch) -> dict[str, Any]:
        return {"labels": batch["labels"], "label_smoothing": self.label_smoothing}

    def count_tokens(self, batch: Batch) -> Tensor:
        """Count the tokens of the targets, without padding: what translation's speed is told in."""
        return (batch["labels"] != -100).sum()

    # ---- evaluation

    def update_metrics(self, outputs: Tensor, batch: Batch) -> None:
        logits, labels = outputs.flatten(0, 1), batch["labels"].flatten()
        count = (labels != -100).sum()
        update_mean(self.loss, cross_entropy(logits, labels, reduction="sum"), count)
        update_mean(self.accuracy, (logits.argmax(-1) == labels).sum(), count)

    def translate(self, batch: Batch, beam: int) -> list[str]:
        """Translate each source of a batch, to text; greedily with a beam of 1."""
        assert isinstance(self._unsharded, Transformer)
        sources = (self._unsharded, batch["input_ids"], batch["attention_mask"])
        data = self.data
        special: dict[str, Any] = {"start_id": data.start_id, "end_id": data.end_id, "first_id": data.first_id}
        if beam == 1:
            ids = greedy_search(*sources, **special)
        else:
            found = beam_search(*sources, **special, beam=beam, length_penalty=wu_penalty(self.length_penalty))
            ids = [hypotheses[0].ids for hypotheses in found]
        return self.data.tokenizer.decode_batch(ids)

    def _collect(self, batch: Batch, beam: int) -> None:
        if self._unsharded is None:  # another rank translates these rows
            return
        texts = self.translate(batch, beam)
        self._translations |= {i: text for i, text in zip(batch["index"].tolist(), texts, strict=True) if i >= 0}

    def on_validation_epoch_start(self) -> None:
        """Have the whole network at hand to translate with: see :func:`unsharded_model`."""
        self._unsharded = unsharded_model(self, on="replicas")

    on_test_epoch_start = on_validation_epoch_start

    def on_predict_epoch_start(self) -> None:
        self._unsharded = unsharded_model(self, on="all")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch)
        self._collect(batch, beam=1)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch)
        self._collect(batch, self.beam)

    def log_metrics(self, split: str, prefix: str) -> None:
        loss, accuracy = self.loss.compute(), self.accuracy.compute()
        self.loss.reset()
        self.accuracy.reset()
        del self._unsharded
        self.log(f"{prefix}/loss", loss, prog_bar=True)
        self.log(f"{prefix}/perplexity", torch.exp(loss))
        self.log(f"{prefix}/token_accuracy", accuracy)
        translations = self._gathered()
        texts = self.data.texts(split)
        self.examples = [Example(*texts[i], translations[i]) for i in sorted(translations)]
        hypotheses, references = [e.translation for e in self.examples], [e.reference for e in self.examples]
        for name, kind in SCORES.items():
            metric = kind()
            score = metric.corpus_score(hypotheses, [references]).score
            self.log(f"{prefix}/{name}", torch.tensor(score, dtype=torch.float64), prog_bar=name == "bleu")
            self._log_signature(f"{prefix}/{name}", str(metric.get_signature()))

    def baselines(self) -> Baselines:
        """Compute a uniform, a unigram and a bigram model of the target alone, and leave the source as it is."""
        train, validation = self.data.targets("train"), self.data.targets("validation")
        losses = mean_losses(train, validation, self.data.vocab_size)
        figures = {model: {"loss": loss, "perplexity": math.exp(loss)} for model, loss in losses.items()}
        texts = self.data.texts("validation")
        sources, references = zip(*texts[:MOST_PAIRS], strict=True)
        figures["copied_source"] = {
            name: kind().corpus_score(sources, [references]).score for name, kind in SCORES.items()
        }
        extents = train.extent, validation.extent, extent(MOST_PAIRS, len(texts), "validation pairs")
        return Baselines(figures, note(*extents))

    def _gathered(self) -> dict[int, str]:
        """Gather the translations of all ranks, by the index of their sentence."""
        parts: list[Any] = [self._translations]
        if dist.is_available() and dist.is_initialized():
            parts = [None] * dist.get_world_size()
            dist.all_gather_object(parts, self._translations)
        self._translations = {}
        return {i: text for part in parts for i, text in part.items()}

    @rank_zero_only
    def _log_signature(self, metric: str, signature: str) -> None:
        """Write what a score cannot be compared without: to TensorBoard, and on the screen in a test."""
        if metric.startswith("test/"):
            print(f"{metric}: {signature}")
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger) and not self.trainer.sanity_checking:
                logger.experiment.add_text(f"{metric}_signature", signature, self.global_step)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[str]:
        """Translate each source by beam search."""
        return self.translate(batch, self.beam)

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the source's tokenizer to what every task saves."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["source_tokenizer"] = self.data.source_tokenizer.to_str()

    def check_checkpoint(self, checkpoint: dict[str, Any], data: TextDataModule) -> None:
        super().check_checkpoint(checkpoint, data)
        assert isinstance(data, TranslationDataModule)
        if checkpoint["source_tokenizer"] != data.source_tokenizer.to_str():
            raise InputError(
                "the checkpoint was trained with another tokenizer of the source: name that of its run by "
                "--data.init_args.source_tokenizer"
            )
