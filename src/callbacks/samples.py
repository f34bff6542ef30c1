"""What a language model writes while it learns."""

from typing import Any

import lightning as L
import torch

from src.callbacks.recording import check_writes, record_samples
from src.decoding import decode_continuation, encode_prompt, generate
from src.distributed import unsharded_model
from src.tasks import Task


class TextSamples(L.Callback):
    """After each validation, continue some prompts: to ``samples/step_N.txt`` in the run and to TensorBoard as text.

    Args:
        prompts: what is continued; the empty prompt starts a new document.
        max_new_tokens: length of each sample at most.
        temperature: divides the logits.
        top_k: draw from the k likeliest tokens only.
    """

    def __init__(
        self,
        prompts: list[str] | None = None,
        max_new_tokens: int = 100,
        temperature: float = 0.8,
        top_k: int | None = 200,
    ) -> None:
        self.prompts = [""] if prompts is None else prompts
        self.max_new_tokens, self.temperature, self.top_k = max_new_tokens, temperature, top_k
        self.latest: list[str] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, Task)
        check_writes(self, pl_module, "generate")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        model = unsharded_model(pl_module)  # on every rank; what follows is for the first alone
        if trainer.is_global_zero:
            self._sample(trainer, pl_module, model)

    def _sample(self, trainer: L.Trainer, pl_module: Task, model: Any) -> None:
        data = pl_module.data
        eos = data.tokenizer.token_to_id(data.special_tokens["eos_token"])
        assert eos is not None
        prompts = [encode_prompt(data.tokenizer, prompt, eos) for prompt in self.prompts]
        with trainer.precision_plugin.val_step_context():
            texts = generate(
                model,
                prompts,
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                top_k=self.top_k,
                eos_id=eos,
                # the same draws at each validation, apart from the training's own random numbers
                generator=torch.Generator(pl_module.device).manual_seed(0),
            )
        rows = zip(self.prompts, prompts, texts, strict=True)
        self.latest = [text + decode_continuation(data.tokenizer, prompt, ids) for text, prompt, ids in rows]
        record_samples(trainer, self.latest, "\n\n--------\n\n")
