"""What is served of a checkpoint: for each task how requests are encoded, which go in one batch, and their answers."""

from abc import abstractmethod
from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer

from src.architectures import architectures
from src.checkpoint import load_writer, read_checkpoint
from src.classifier import classifier_of
from src.decoding import TextStream, Translator, Writer, left_pad, stream
from src.discovery import parts
from src.errors import InputError
from src.extras.serve.batching import Job
from src.extras.serve.schemas import (
    MOST_LINES,
    Candidate,
    ClassifyAnswer,
    ClassifyRequest,
    FillMaskAnswer,
    FillMaskRequest,
    GenerateAnswer,
    GenerateRequest,
    TranslateAnswer,
    TranslateRequest,
)
from src.extras.serve.service import OneByOne, Service
from src.hardware import to_device
from src.mask_filler import mask_filler_of


class CheckpointService(Service):
    """A task of a checkpoint.

    Args:
        content: of the checkpoint.
        path: of the checkpoint.
        device: cpu, cuda, cuda:1, mps, ...
        max_new_tokens: tokens that a request may ask for.
    """

    model: Any

    def __init__(self, content: dict[str, Any], path: str, device: str, max_new_tokens: int) -> None:
        self.path, self.architecture = path, content["architecture"]
        self.load(content, path, device, max_new_tokens)

    @abstractmethod
    def load(self, content: dict[str, Any], path: str, device: str, max_new_tokens: int) -> None:
        """Build the network, in evaluation mode."""

    def facts(self) -> dict[str, Any]:
        n_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return {"checkpoint": self.path, "architecture": self.architecture, "parameters": n_parameters}


class Generate(CheckpointService):
    """Continue prompts with a GPT."""

    request, answer = GenerateRequest, GenerateAnswer

    def load(self, content: dict[str, Any], path: str, device: str, max_new_tokens: int) -> None:
        self.writer, self.max_new_tokens = Writer(*load_writer(content, path, "generate")), max_new_tokens
        self.model = self.writer.model
        self.device = to_device(self.model, device)

    def encode(self, request: GenerateRequest) -> list[int]:
        if request.max_new_tokens > self.max_new_tokens:
            raise InputError(
                f"max_new_tokens is {request.max_new_tokens}: here it may be {self.max_new_tokens} at most"
            )
        return self.writer.encode(request.text)

    def joins(self, batch: list[Job], job: Job) -> bool:
        """Greedy requests go together, and random ones of the same options; with a seed of its own one goes alone.

        When the context is full its later half is read again, padding included: rows of unequal prompts go together
        only where that does not happen.
        """
        first, asked = batch[0].request, job.request
        if first.temperature or asked.temperature:
            options = [(r.temperature, r.top_k, r.top_p) for r in (first, asked)]
            if options[0] != options[1] or first.seed is not None or asked.seed is not None:
                return False
        together = [*batch, job]
        lengths = {len(one.encoded) for one in together}
        context = self.model.config.context
        longest = max(lengths) + max(one.request.max_new_tokens for one in together)
        return len(lengths) == 1 or context is None or longest <= context

    def run(self, batch: list[Job]) -> None:
        options, eos = batch[0].request, self.writer.eos
        generator = torch.Generator(self.device)
        generator.manual_seed(options.seed) if options.seed is not None else generator.seed()
        input_ids, attention_mask = (t.to(self.device) for t in left_pad([job.encoded for job in batch], pad_id=0))
        steps = stream(
            self.model,
            input_ids,
            None if bool(attention_mask.all()) else attention_mask,
            max_new_tokens=max(job.request.max_new_tokens for job in batch),
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            eos_id=eos,
            generator=generator,
        )
        rows = {i: (job, TextStream(self.writer.tokenizer, job.encoded)) for i, job in enumerate(batch)}
        for tokens in steps:
            for i, token in enumerate(tokens.tolist()):
                if i in rows and self._ends(*rows[i], token):
                    del rows[i]
            if not rows:
                return

    def _ends(self, job: Job, text: TextStream, token: int) -> bool:
        """Add a token to a row, and hand over the text that is complete; tell whether the row is at its end."""
        if job.is_over:
            return True
        is_end = token == self.writer.eos
        if not is_end:
            if job.request.stream:
                piece = text.add(token)
                if piece:
                    job.put(piece)
            else:
                text.ids.append(token)
        if is_end or len(text.ids) == job.request.max_new_tokens:
            rest = text.rest()
            if job.request.stream and rest:
                job.put(rest)
            job.put(GenerateAnswer(text=text.text, tokens=len(text.ids), end="end" if is_end else "length"))
            return True
        return False

    def facts(self) -> dict[str, Any]:
        limits = {"context": self.model.config.context, "max_new_tokens": self.max_new_tokens}
        return {**super().facts(), **limits}


class Translate(CheckpointService):
    """Translate with a Transformer."""

    request, answer = TranslateRequest, TranslateAnswer

    def load(self, content: dict[str, Any], path: str, device: str, max_new_tokens: int) -> None:
        trained, source = load_writer(content, path, "translate"), Tokenizer.from_str(content["source_tokenizer"])
        self.model = trained.model
        self.translator = cache(lambda beam: Translator(*trained, source, beam=beam, device=device))

    def encode(self, request: TranslateRequest) -> list[str]:
        lines, room = request.text.split("\n"), self.model.config.max_seq_len
        if len(lines) > MOST_LINES:
            raise InputError(f"the text has {len(lines)} lines: send {MOST_LINES} at most")
        for i, line in enumerate(lines, 1):
            n = len(self.translator(request.beam).encode(line))
            if n > room:
                raise InputError(f"line {i} is {n} tokens, the network has {room} positions: shorten it")
        return lines

    def joins(self, batch: list[Job], job: Job) -> bool:
        return job.request.beam == batch[0].request.beam

    def run(self, batch: list[Job]) -> None:
        translator = self.translator(batch[0].request.beam)
        found = iter(translator.translate([line for job in batch for line in job.encoded]))
        for job in batch:
            texts = [translator.target.decode(next(found)[0].ids) for _ in job.encoded]
            job.put(TranslateAnswer(text="\n".join(" ".join(text.splitlines()) for text in texts)))


class FillMask(CheckpointService):
    """Fill masks with a BERT or a Longformer."""

    request, answer = FillMaskRequest, FillMaskAnswer

    def load(self, content: dict[str, Any], path: str, device: str, max_new_tokens: int) -> None:
        self.filler = mask_filler_of(content, path, device)
        self.model = self.filler.model

    def encode(self, request: FillMaskRequest) -> list[int]:
        return self.filler.encode(request.text)

    def joins(self, batch: list[Job], job: Job) -> bool:
        return True

    def run(self, batch: list[Job]) -> None:
        found = self.filler.fill([job.encoded for job in batch], max(job.request.top_k for job in batch))
        for job, masks in zip(batch, found, strict=True):
            best = [[Candidate(name=w, probability=p) for w, p in mask[: job.request.top_k]] for mask in masks]
            job.put(FillMaskAnswer(masks=best))

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "mask": self.filler.mask}


class Classify(CheckpointService):
    """Classify texts."""

    request, answer = ClassifyRequest, ClassifyAnswer

    def load(self, content: dict[str, Any], path: str, device: str, max_new_tokens: int) -> None:
        self.classifier = classifier_of(content, path, device)
        self.model = self.classifier.model

    def encode(self, request: ClassifyRequest) -> tuple[list[int], int]:
        texts = [text for text in (request.text, request.second_text) if text is not None]
        if not all(map(str.strip, texts)):
            raise InputError("the text is empty: write one")
        if len(texts) != 1 + self.classifier.takes_pairs:
            needed = (
                "pairs: send a second_text too"
                if self.classifier.takes_pairs
                else "single texts: leave second_text out"
            )
            raise InputError(f"the checkpoint was trained on {needed}")
        (row,), cut = self.classifier.rows([texts])
        if cut:
            raise InputError(
                f"the text is longer than the {self.classifier.max_tokens} positions of the network: shorten it"
            )
        return row

    def joins(self, batch: list[Job], job: Job) -> bool:
        return True

    def run(self, batch: list[Job]) -> None:
        probabilities = self.classifier.probabilities([job.encoded for job in batch]).tolist()
        for job, row in zip(batch, probabilities, strict=True):
            pairs = zip(self.classifier.label_names, row, strict=True)
            best_first = sorted((Candidate(name=n, probability=p) for n, p in pairs), key=lambda one: -one.probability)
            job.put(ClassifyAnswer(labels=best_first))

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "pairs": self.classifier.takes_pairs}


SERVICES: dict[str, type[CheckpointService]] = {
    "generate": Generate,
    "translate": Translate,
    "fill-mask": FillMask,
    "classify": Classify,
}


def load_services(
    paths: list[str], index: str | None = None, device: str = "cpu", max_new_tokens: int = 512
) -> dict[str, Service]:
    """Load a checkpoint for each task, by the names of the verbs, and what the extras offer of an index."""
    found: dict[str, CheckpointService] = {}
    for path in paths:
        content = read_checkpoint(path)
        verb = architectures()[content["architecture"]].writes
        if verb is None:
            able = ", ".join(name for name, entry in architectures().items() if entry.writes)
            raise InputError(f"checkpoint {path} holds a {content['architecture']}: what can be served is {able}")
        if verb in found:
            raise InputError(f"checkpoints {found[verb].path} and {path} are both for {verb}: serve one of them")
        found[verb] = SERVICES[verb](content, path, device, max_new_tokens)
    services: dict[str, Service] = {**found}
    if index:
        writer = getattr(found.get("generate"), "writer", None)
        for part in parts("served"):
            offered = part.services(index, device, writer, max_new_tokens)
            services |= {name: OneByOne(one) for name, one in offered.items()}
        if len(services) == len(found):
            raise InputError(f"--index {index}: no extra that is here searches an index")
    if not services:
        raise InputError("nothing is to be served: name a --checkpoint or an --index")
    return services
