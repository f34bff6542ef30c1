"""A GPT as lm-eval asks a model: log-likelihoods of continuations and of whole texts, and continuations."""

from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs

from src.checkpoint import Trained
from src.data.progress import with_progress
from src.decoding import decode_continuation, encode_prompt, left_pad, stream
from src.extras.evaluation.scoring import Window, context_length, log_likelihoods, sliding_windows
from src.models import GPT
from src.tokenization import require_token, start_ids


class GPTHarness(TemplateLM):
    """A trained GPT for lm-eval, without an export.

    Args:
        trained: on the device where it is to run.
        batch_size: requests at a time.
    """

    def __init__(self, trained: Trained[GPT], batch_size: int) -> None:
        super().__init__()
        self.model, self.batch_size = trained.model, batch_size
        self.text_tokenizer = trained.tokenizer  # `tokenizer` is HuggingFace's to lm-eval
        self.max_length = context_length(trained.model)
        self.n_cut = 0  # requests whose beginning was cut off, since they are longer than the context
        self._eos = require_token(trained.tokenizer, trained.special_tokens["eos_token"], "eos_token")
        self._start = start_ids(trained.tokenizer, trained.special_tokens)

    @property
    def eot_token_id(self) -> int:
        return self._eos

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context stands behind."""
        return self._start[0] if self._start else self._eos

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Make the tokens of a text, as those of a training document: without special ones but what begins it."""
        start = [] if add_special_tokens is False else self._start
        return [*start, *self.text_tokenizer.encode(string, add_special_tokens=False).ids]

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Score continuations, (texts, context, continuation) each, in the order of the requests."""
        return self._scores([self._windows(context, targets) for _, context, targets in requests])

    def _windows(self, context: list[int], targets: list[int]) -> list[Window]:
        """Keep as much of the context as there is room for; a continuation that is longer takes several windows."""
        room = self.max_length + 1 - len(targets)
        self.n_cut += len(context) > max(room, 1)
        if room < 1:
            return list(sliding_windows(targets, context[-1], self.max_length, self.max_length))
        return [Window(context[-room:], targets)] if targets else []

    def _scores(self, windows: Sequence[Sequence[Window]]) -> list[tuple[float, bool]]:
        """Score texts of several windows each."""
        flat = iter(log_likelihoods(self.model, [one for of_text in windows for one in of_text], self.batch_size))
        found = [[next(flat) for _ in of_text] for of_text in windows]
        return [(sum(score for score, _ in scores), all(greedy for _, greedy in scores)) for scores in found]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Score whole texts, each behind its start token or an end token, in windows that do not overlap."""
        ids = [self.tok_encode(request.args[0], add_special_tokens=False) for request in requests]
        first, length = self.prefix_token_id, self.max_length
        return [score for score, _ in self._scores([list(sliding_windows(i, first, length, length)) for i in ids])]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continue texts until a stop sequence of the task, the end token, or as many tokens as it says."""
        groups: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(i)
        texts = [""] * len(requests)
        batches = []
        for group in groups.values():
            group.sort(key=lambda i: -len(requests[i].args[0]))  # prompts of like length go together
            batches += [group[start : start + self.batch_size] for start in range(0, len(group), self.batch_size)]
        for batch in with_progress(batches, "generate"):
            settings = requests[batch[0]].args[1]
            for i, text in zip(batch, self._generate([requests[i].args[0] for i in batch], settings), strict=True):
                texts[i] = text
        return texts

    def _generate(self, contexts: list[str], settings: dict[str, Any]) -> list[str]:
        options: dict[str, Any] = dict(normalize_gen_kwargs(settings))
        longest = options["max_gen_toks"]
        room = max(self.max_length - longest, self.max_length // 2, 1)
        prompts = [encode_prompt(self.text_tokenizer, context, self._eos, self._start) for context in contexts]
        self.n_cut += sum(len(prompt) > room for prompt in prompts)
        prompts = [prompt[-room:] for prompt in prompts]
        input_ids, mask = (tensor.to(self.model.token_embedding.weight.device) for tensor in left_pad(prompts, 0))
        drawn: list[list[int]] = [[] for _ in prompts]
        texts, running = [""] * len(prompts), set(range(len(prompts)))
        for tokens in stream(
            self.model,
            input_ids,
            None if bool(mask.all()) else mask,
            max_new_tokens=longest,
            temperature=options["temperature"] if options["do_sample"] else 0.0,
            top_k=options.get("top_k") or None,
            top_p=options.get("top_p"),
            eos_id=self._eos,
            generator=torch.Generator(input_ids.device).manual_seed(0),
        ):
            for row, token in enumerate(tokens.tolist()):
                if row not in running:
                    continue
                if token != self._eos:
                    drawn[row].append(token)
                    texts[row] = decode_continuation(self.text_tokenizer, prompts[row], drawn[row])
                stops = [at for stop in options["until"] if stop and (at := texts[row].find(stop)) >= 0]
                if stops:
                    texts[row] = texts[row][: min(stops)]
                if stops or token == self._eos:
                    running.discard(row)
            if not running:
                break
        return texts
