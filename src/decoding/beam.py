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
    """A translation: its token ids without start and end token, and its log-probability by the length penalty."""

    ids: list[int]
    score: float


def wu_penalty(alpha: float) -> LengthPenalty:
    """``((5 + length) / 6) ** alpha`` (Wu et al. 2016, equation 14); 0 for no penalty, 0.6 in Vaswani et al. 2017."""
    return lambda length: ((5 + length) / 6) ** alpha


class _Decoder:
    """A batch of sources being translated, one or several rows each, a token at a time."""

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
        """Go on with these sentences alone, (B',) ascending, and let row i go on from ``rows[i]``, (B'·K,)."""
        for cache in self.cache:
            cache.target.reorder(rows)
        if len(sentences) < len(self.memory):
            for cache in self.cache:
                cache.source.reorder(sentences)
            self.memory = self.memory[sentences]
            self.attention_mask = None if self.attention_mask is None else self.attention_mask[sentences]


def _limits(model: Transformer, attention_mask: Tensor, max_len: int | None) -> Tensor:
    """How many tokens each translation may have, the end token among them: (B,)."""
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
    max_len: int | None = None,
) -> list[list[int]]:
    """The likeliest token at each place: ids without start and end token. Arguments as :func:`beam_search`."""
    limit = _limits(model, attention_mask, max_len)
    steps = int(limit.max())
    decoder = _Decoder(model, input_ids, attention_mask, steps)
    alive = torch.arange(len(input_ids), device=input_ids.device)
    token = torch.full_like(alive, start_id)
    written = torch.full((len(alive), steps), end_id, device=alive.device)
    for step in range(steps):
        token = decoder.step(token).argmax(1)
        written[alive, step] = token
        going_on = ((token != end_id) & (limit[alive] > step + 1)).nonzero()[:, 0]
        if not len(going_on):
            break
        if len(going_on) < len(alive):
            decoder.select(going_on, going_on)
            alive, token = alive[going_on], token[going_on]
    return [row[: row.index(end_id)] if end_id in row else row for row in written.tolist()]


@dataclass
class _Beams:
    """The running hypotheses of each sentence, best first, and the best that have ended."""

    sentences: Tensor  # (B,), which of the batch's
    limit: Tensor  # (B,)
    tokens: Tensor  # (B, K, longest), what was written
    scores: Tensor  # (B, K), log-probabilities; -inf for no hypothesis
    ended: Tensor  # (B, N, longest)
    ended_scores: Tensor  # (B, N), by the length penalty; -inf for no hypothesis

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
    beam: int = 4,
    length_penalty: LengthPenalty = wu_penalty(0.6),  # noqa: B008  a function of no state
    max_len: int | None = None,
    min_len: int = 0,
    n_best: int = 1,
) -> list[list[Hypothesis]]:
    """The best translations of each source, best first.

    A hypothesis ends with the end token, if it is then among the ``beam`` best continuations of its sentence, or when
    it is as long as is allowed. A sentence is done when no running hypothesis can come to a better score than the
    ``n_best``-th that has ended: a log-probability only falls, and a longer hypothesis is divided by more, so that its
    best score is that of ending at the limit at no further cost. Sentences that are done leave the batch.

    Args:
        model: in evaluation mode.
        input_ids: (B, S), padded on the right.
        attention_mask: (B, S), 1 at real tokens.
        start_id: what the decoder reads first; the end token in the original.
        end_id: ends a translation.
        beam: how many hypotheses run at once.
        length_penalty: divides the log-probability of a hypothesis of so many tokens, its end token among them. It
            must not fall with the length.
        max_len: tokens at most, with the end token; 50 more than the source has if null (Vaswani et al. 2017, 6.1).
        min_len: tokens at least, without the end token.
        n_best: how many translations of each; fewer if there are no more.

    Raises:
        ValueError: ``n_best`` is more than the beam, or a source has more tokens than the model has positions.
    """
    if not 1 <= n_best <= beam:
        raise ValueError(f"n_best is {n_best}: it must be between 1 and the beam of {beam}")
    limit = _limits(model, attention_mask, max_len)
    batch, longest = len(input_ids), int(limit.max())
    decoder = _Decoder(model, input_ids, attention_mask, longest)
    beams = _start(limit, longest, beam, n_best, end_id)
    token = torch.full((batch * beam,), start_id, device=limit.device)
    results: list[list[Hypothesis]] = [[] for _ in range(batch)]
    for step in range(longest):
        logits = decoder.step(token).float()
        normaliser = logits.logsumexp(1, keepdim=True)
        if step < min_len:
            logits[:, end_id] = -torch.inf
        rows = _advance(beams, logits, normaliser, step, end_id, length_penalty)
        best = beams.scores[:, 0] / length_penalty(beams.limit)
        done = beams.ended_scores[:, -1] >= best
        for i in done.nonzero()[:, 0].tolist():
            results[int(beams.sentences[i])] = _hypotheses(beams.ended[i], beams.ended_scores[i], end_id)
        if bool(done.all()):
            break
        going_on = (~done).nonzero()[:, 0]
        decoder.select(going_on, rows.view(-1, beam)[going_on].flatten())
        if len(going_on) < len(done):
            beams.keep(going_on)
        token = beams.tokens[:, :, step].flatten()
    return results


def _start(limit: Tensor, longest: int, beam: int, n_best: int, end_id: int) -> _Beams:
    """One hypothesis a sentence, of no token."""
    batch, device = len(limit), limit.device
    scores = torch.full((batch, beam), -torch.inf, device=device)
    scores[:, 0] = 0
    return _Beams(
        torch.arange(batch, device=device),
        limit,
        torch.full((batch, beam, longest), end_id, device=device),
        scores,
        torch.full((batch, n_best, longest), end_id, device=device),
        torch.full((batch, n_best), -torch.inf, device=device),
    )


def _advance(
    beams: _Beams, logits: Tensor, normaliser: Tensor, step: int, end_id: int, length_penalty: LengthPenalty
) -> Tensor:
    """Write one more token to each running hypothesis, and move those that end to the ended.

    Returns:
        Which row of the batch each row goes on from, (B·K,).
    """
    batch, beam = beams.scores.shape
    width = min(2 * beam, logits.shape[1])  # so many hold at least ``beam`` that do not end
    likeliest, token = logits.topk(width, dim=1)
    candidates = beams.scores[:, :, None] + (likeliest - normaliser).view(batch, beam, width)
    scores, chosen = candidates.flatten(1).topk(min(2 * beam, beam * width), dim=1)
    token = token.view(batch, -1).gather(1, chosen)
    parent = chosen // width
    tokens = beams.tokens.gather(1, parent[:, :, None].expand(-1, -1, beams.tokens.shape[2]))
    tokens[:, :, step] = token
    ends = (token == end_id) | (beams.limit == step + 1)[:, None]

    n_best = beams.ended_scores.shape[1]
    length = torch.full((), step + 1, device=scores.device)
    ended_scores = (scores / length_penalty(length)).masked_fill(~ends, -torch.inf)[:, :beam]
    beams.ended_scores, best = torch.cat([beams.ended_scores, ended_scores], 1).topk(n_best, dim=1)
    beams.ended = torch.cat([beams.ended, tokens[:, :beam]], 1).gather(
        1, best[:, :, None].expand(-1, -1, tokens.shape[2])
    )

    beams.scores, order = scores.masked_fill(ends, -torch.inf).topk(beam, dim=1)
    beams.tokens = tokens.gather(1, order[:, :, None].expand(-1, -1, tokens.shape[2]))
    first_row = torch.arange(batch, device=scores.device)[:, None] * beam
    return (first_row + parent.gather(1, order)).flatten()


def _hypotheses(tokens: Tensor, scores: Tensor, end_id: int) -> list[Hypothesis]:
    """The ended hypotheses of one sentence, (N, longest) and (N,)."""
    rows = [(row, score) for row, score in zip(tokens.tolist(), scores.tolist(), strict=True) if score > -torch.inf]
    return [Hypothesis(row[: row.index(end_id)] if end_id in row else row, score) for row, score in rows]
