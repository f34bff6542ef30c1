"""From lines of one language to their best translations."""

import sys
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from tokenizers import Tokenizer

from src.decoding.beam import Hypothesis, beam_search, greedy_search, wu_penalty
from src.hardware import to_device
from src.models import Transformer
from src.tokenization import require_token


class Translator:
    """A trained Transformer with both tokenizers, and how it is to search.

    Args:
        model: in evaluation mode.
        target: tokenizer of the translations.
        special_tokens: those of its checkpoint.
        source: tokenizer of the lines to translate.
        beam: hypotheses at a time; 1 is greedy.
        n_best: translations of each line; one if None.
        length_penalty: of Wu et al. 2016; more is longer.
        max_length: tokens at most; 50 more than the source if None.
        min_length: tokens at least.
        batch_size: sentences at a time.
        device: cpu, cuda, cuda:1, mps, ...
    """

    def __init__(
        self,
        model: Transformer,
        target: Tokenizer,
        special_tokens: dict[str, str],
        source: Tokenizer,
        *,
        beam: int = 4,
        n_best: int | None = None,
        length_penalty: float = 0.6,
        max_length: int | None = None,
        min_length: int = 0,
        batch_size: int = 64,
        device: str = "cpu",
    ) -> None:
        self.model, self.source, self.target = model, source, target
        self.beam, self.n_best, self.length_penalty = beam, n_best or 1, length_penalty
        self.max_length, self.min_length, self.batch_size = max_length, min_length, batch_size
        self.device = to_device(model, device)
        end, start = special_tokens["eos_token"], special_tokens["decoder_start_token"]
        self.source_end = require_token(source, end, "end_token")
        self.end = require_token(target, end, "end_token")
        self.start = require_token(target, start, "start_token")
        begin, first = (special_tokens.get(name) for name in ("bos_token", "forced_bos_token"))
        self.source_begin = [] if begin is None else [require_token(source, begin, "begin_token")]
        self.first = None if first is None else require_token(target, first, "begin_token")

    def translate(self, lines: list[str]) -> list[list[Hypothesis]]:
        """Search for the best translations of each line, in order; an empty line has an empty one."""
        sources = [(i, self._cut(line)) for i, line in enumerate(lines) if line.strip()]
        sources.sort(key=lambda source: len(source[1]))
        found: list[list[Hypothesis]] = [[Hypothesis([], 0.0)] for _ in lines]
        batches = [sources[i : i + self.batch_size] for i in range(0, len(sources), self.batch_size)]
        is_shown = len(batches) > 1 and sys.stderr.isatty()
        for batch in track(batches, "translate", console=Console(stderr=True), disable=not is_shown):
            for (i, _), hypotheses in zip(batch, self._search([ids for _, ids in batch]), strict=True):
                found[i] = hypotheses
        return found

    def encode(self, line: str) -> list[int]:
        """Make the tokens of a line: behind the token that begins a text, if there is one, and before the end token."""
        ids = self.source.encode(line, add_special_tokens=False).ids
        return [*self.source_begin, *ids, self.source_end]

    def _cut(self, line: str) -> list[int]:
        ids, room = self.encode(line), self.model.config.max_seq_len
        if len(ids) > room:
            print(f"warning: {line[:40]!r}... is {len(ids)} tokens: its first {room} are translated", file=sys.stderr)
            ids = [*ids[: room - 1], self.source_end]
        return ids

    def _search(self, sources: list[list[int]]) -> list[list[Hypothesis]]:
        longest = max(map(len, sources))
        rows = [ids + [self.source_end] * (longest - len(ids)) for ids in sources]
        masks = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in sources]
        input_ids, mask = (torch.tensor(content, device=self.device) for content in (rows, masks))
        limits: dict[str, Any] = {"start_id": self.start, "end_id": self.end, "first_id": self.first}
        limits["max_len"] = self.max_length
        if self.beam == 1 and not self.min_length:
            return [[Hypothesis(row, 0.0)] for row in greedy_search(self.model, input_ids, mask, **limits)]
        return beam_search(
            self.model,
            input_ids,
            mask,
            beam=self.beam,
            length_penalty=wu_penalty(self.length_penalty),
            min_len=self.min_length,
            n_best=self.n_best,
            **limits,
        )
