"""Decoding as both programs can do it, and so comparable token for token."""

from typing import NamedTuple

from torch import Tensor

from src.decoding import beam_search, generate, greedy_search
from src.errors import InputError
from src.tasks import GPTModule, Task, TransformerModule
from src.tokenization import require_token

Batch = dict[str, Tensor]


class Search(NamedTuple):
    """How a batch is decoded.

    Args:
        beam: hypotheses; 1 is greedy.
        alpha: a log-probability is divided by ``length ** alpha``, the only penalty that both know.
        max_len: tokens at most.
        end_id: ends a sentence.
    """

    beam: int
    alpha: float
    max_len: int
    end_id: int


def prompt(task: Task, batch: Batch) -> tuple[Batch, Search]:
    """What is decoded of an evaluation batch, and how.

    A source with the task's beam, to at most 50 tokens more than the longest source has; or a quarter of the context,
    continued greedily until it is full.

    Raises:
        InputError: the task does not decode.
    """
    if isinstance(task, TransformerModule):
        max_len = min(batch["input_ids"].shape[1] + 50, task.config.max_seq_len - 1)
        given = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return given, Search(task.beam, task.length_penalty, max_len, task.data.end_id)
    if isinstance(task, GPTModule):
        context = task.config.max_seq_len
        ids = batch["input_ids"][:, : max(1, context // 4)]
        end_id = require_token(task.data.tokenizer, task.data.special_tokens["eos_token"], "end_token")
        given = {"input_ids": ids, "attention_mask": ids.new_ones(ids.shape)}
        return given, Search(1, 0.0, context - ids.shape[1], end_id)
    raise InputError(f"--decode is for networks that write text, which {type(task).__name__} trains none of")


def decode(task: Task, given: Batch, search: Search) -> list[list[int]]:
    """Token ids without start, prompt and end token, by this project's own search."""
    if isinstance(task, GPTModule):
        prompts = given["input_ids"].tolist()
        return generate(task.model, prompts, max_new_tokens=search.max_len, temperature=0.0, eos_id=search.end_id)
    assert isinstance(task, TransformerModule)
    start_id, end_id = task.data.start_id, task.data.end_id
    sources = (task.model, given["input_ids"], given["attention_mask"])
    if search.beam == 1:
        return greedy_search(*sources, start_id=start_id, end_id=end_id, max_len=search.max_len)
    found = beam_search(
        *sources,
        start_id=start_id,
        end_id=end_id,
        beam=search.beam,
        length_penalty=lambda length: length**search.alpha,
        max_len=search.max_len,
    )
    return [hypotheses[0].ids for hypotheses in found]
