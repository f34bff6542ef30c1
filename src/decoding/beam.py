"""Beam search and greedy search with an encoder-decoder (Wu et al. 2016, section 7).

Shape letters: B sentences, K beam, V vocabulary, N hypotheses kept, T tokens so far.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from src.models.transformer import DecoderCache, Transformer

LengthPenalty = Callable[[Tensor], Tensor]


class Hypothesis(NamedTuple):
    """A translation: its token ids without start and end token, and its log-probability over the length penalty."""

    ids: list[int]
    score: float


def wu_penalty(alpha: float) -> LengthPenalty:
    """``((5 + length) / 6) ** alpha`` (Wu et al. 2016, equation 14); 0 for no penalty, 0.6 in Vaswani et al. 2017."""
    return lambda length: ((5 + length) / 6) ** alpha


class _Decoder:
    """A batch of sources that are translated a token at a time, in one or several rows each."""

    def __init__(self, model: Transformer, input_ids: Tensor, attention_mask: Tensor, max_len: int) -> None:
        self.model = model
        self.attention_mask: Tensor | None = None if bool(attention_mask.all()) else attention_mask
        self.memory = model.encode(input_ids, self.attention_mask)
        self.cache: list[DecoderCache] = model.new_cache(input_ids.shape[1], max_len)

    def step(self, token: Tensor) -> Tensor:
        """The logits after the next token of each row: (B·K,) to (B·K, V)."""
        hidden = self.model.decode(token[:, None], self.memory, self.attention_mask, cache=self.cache)
        return self.model.head(hidden[:, 0])

    def select(self, sentences: Tensor, rows: Tensor) -> None:
        """Keep these sentences alone, (B',) ascending, and let row i continue ``rows[i]``, (B'·K,)."""
        for cache in self.cache:
            cache.target.reorder(rows)
        if len(sentences) < len(self.memory):
            for cache in self.cache:
                cache.source.reorder(sentences)
            self.memory = self.memory[sentences]
            self.attention_mask = None if self.attention_mask is None else self.attention_mask[sentences]


def _limits(model: Transformer, attention_mask: Tensor, max_len: int | None) -> Tensor:
    """The length limit of each translation in tokens, with the end token: (B,)."""
    limit = attention_mask.sum(1) + 50 if max_len is None else torch.full_like(attention_mask[:, 0], max_len)
    return limit.clamp(max=model.config.max_seq_len)


@torch.inference_mode()
def greedy_search(
    model: Transformer,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    start_id: int,
    end_id: int,
    first_id: int | None = None,
    max_len: int | None = None,
) -> list[list[int]]:
    """Take the likeliest token at each position: ids without start and end token. Arguments as :func:`beam_search`."""
    limit = _limits(model, attention_mask, max_len)
    steps = int(limit.max())
    decoder = _Decoder(model, input_ids, attention_mask, steps)
    alive = torch.arange(len(input_ids), device=input_ids.device)
    token = torch.full_like(alive, start_id)
    written = torch.full((len(alive), steps), end_id, device=alive.device)
    for step in range(steps):
        logits = decoder.step(token)
        token = logits.argmax(1) if step or first_id is None else torch.full_like(token, first_id)
        written[alive, step] = token
        running = ((token != end_id) & (limit[alive] > step + 1)).nonzero()[:, 0]
        if not len(running):
            break
        if len(running) < len(alive):
            decoder.select(running, running)
            alive, token = alive[running], token[running]
    return [row[: row.index(end_id)] if end_id in row else row for row in written.tolist()]


@dataclass
class _Beams:
    """The running hypotheses of each sentence, best first, and the best finished ones."""

    sentences: Tensor  # (B,), their indices in the batch
    limit: Tensor  # (B,)
    tokens: Tensor  # (B, K, longest), of the running hypotheses
    scores: Tensor  # (B, K), log-probabilities; -inf for no hypothesis
    finished: Tensor  # (B, N, longest)
    finished_scores: Tensor  # (B, N), over the length penalty; -inf for no hypothesis

    def keep(self, rows: Tensor) -> None:
        for name, tensor in vars(self).items():
            setattr(self, name, tensor[rows])


@torch.inference_mode()
def beam_search(
    model: Transformer,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    start_id: int,
    end_id: int,
    first_id: int | None = None,
    beam: int = 4,
    length_penalty: LengthPenalty = wu_penalty(0.6),  # noqa: B008  a function of no state
    max_len: int | None = None,
    min_len: int = 0,
    n_best: int = 1,
) -> list[list[Hypothesis]]:
    """Find the best translations of each source, best first.

    A hypothesis is finished by the end token, if it is then among the ``beam`` best continuations of its sentence, or
    at the length limit. A sentence is done when no running hypothesis can reach a better score than its ``n_best``-th
    finished one: a log-probability only falls, and a longer hypothesis is divided by more, so that the best it can
    reach is its log-probability now over the penalty at the limit. Sentences that are done leave the batch.

    Args:
        model: in evaluation mode.
        input_ids: (B, S), padded on the right.
        attention_mask: (B, S), 1 at real tokens.
        start_id: what the decoder reads first; the end token in the original.
        end_id: ends a translation.
        first_id: what each translation begins with, of a probability of 1; anything if None.
        beam: how many hypotheses run at once.
        length_penalty: divides the log-probability of a hypothesis, by its number of tokens with the end token. It
            must not fall with the length.
        max_len: tokens at most, with the end token; by default 50 more than the source (Vaswani et al. 2017, 6.1).
        min_len: tokens at least, without the end token.
        n_best: how many translations of each; fewer if there are no more.
    """
    if not 1 <= n_best <= beam:
        raise ValueError(f"n_best is {n_best}: it must be between 1 and the beam of {beam}")
    limit = _limits(model, attention_mask, max_len)
    batch, longest = len(input_ids), int(limit.max())
    decoder = _Decoder(model, input_ids, attention_mask, longest)
    scores = torch.full((batch, beam), -torch.inf, device=limit.device)
    scores[:, 0] = 0  # of one hypothesis a sentence, without any token
    beams = _Beams(
        sentences=torch.arange(batch, device=limit.device),
        limit=limit,
        tokens=torch.full((batch, beam, longest), end_id, device=limit.device),
        scores=scores,
        finished=torch.full((batch, n_best, longest), end_id, device=limit.device),
        finished_scores=scores.new_full((batch, n_best), -torch.inf),
    )
    token = torch.full((batch * beam,), start_id, device=limit.device)
    results: list[list[Hypothesis]] = [[] for _ in range(batch)]
    for step in range(longest):
        logits = decoder.step(token).float()
        if not step and first_id is not None:
            logits = torch.full_like(logits, -torch.inf).index_fill_(1, token.new_tensor([first_id]), 0)
        normaliser = logits.logsumexp(1, keepdim=True)
        if step < min_len:
            logits[:, end_id] = -torch.inf
        rows = _advance(beams, logits, normaliser, step, end_id, length_penalty)
        best = beams.scores[:, 0] / length_penalty(beams.limit)
        done = beams.finished_scores[:, -1] >= best
        for i in done.nonzero()[:, 0].tolist():
            results[int(beams.sentences[i])] = _hypotheses(beams.finished[i], beams.finished_scores[i], end_id)
        if bool(done.all()):
            break
        running = (~done).nonzero()[:, 0]
        decoder.select(running, rows.view(-1, beam)[running].flatten())
        if len(running) < len(done):
            beams.keep(running)
        token = beams.tokens[:, :, step].flatten()
    return results


def _advance(
    beams: _Beams, logits: Tensor, normaliser: Tensor, step: int, end_id: int, length_penalty: LengthPenalty
) -> Tensor:
    """Add a token to each running hypothesis, and move those that end to the finished ones.

    Returns:
        The row of the batch that each row continues, (B·K,).
    """
    batch, beam = beams.scores.shape
    width = min(2 * beam, logits.shape[1])  # of so many at least ``beam`` do not end
    likeliest, token = logits.topk(width, dim=1)
    candidates = beams.scores[:, :, None] + (likeliest - normaliser).view(batch, beam, width)
    scores, chosen = candidates.flatten(1).topk(min(2 * beam, beam * width), dim=1)
    token = token.view(batch, -1).gather(1, chosen)
    parent = chosen // width
    tokens = beams.tokens.gather(1, parent[:, :, None].expand(-1, -1, beams.tokens.shape[2]))
    tokens[:, :, step] = token
    ends = (token == end_id) | (beams.limit == step + 1)[:, None]

    n_best = beams.finished_scores.shape[1]
    length = torch.full((), step + 1, device=scores.device)
    finished_scores = (scores / length_penalty(length)).masked_fill(~ends, -torch.inf)[:, :beam]
    beams.finished_scores, best = torch.cat([beams.finished_scores, finished_scores], 1).topk(n_best, dim=1)
    beams.finished = torch.cat([beams.finished, tokens[:, :beam]], 1).gather(
        1, best[:, :, None].expand(-1, -1, tokens.shape[2])
    )

    beams.scores, order = scores.masked_fill(ends, -torch.inf).topk(beam, dim=1)
    beams.tokens = tokens.gather(1, order[:, :, None].expand(-1, -1, tokens.shape[2]))
    first_row = torch.arange(batch, device=scores.device)[:, None] * beam
    return (first_row + parent.gather(1, order)).flatten()


def _hypotheses(tokens: Tensor, scores: Tensor, end_id: int) -> list[Hypothesis]:
    """The finished hypotheses of one sentence, (N, longest) and (N,)."""
    rows = [(row, score) for row, score in zip(tokens.tolist(), scores.tolist(), strict=True) if score > -torch.inf]
    return [Hypothesis(row[: row.index(end_id)] if end_id in row else row, score) for row, score in rows]
