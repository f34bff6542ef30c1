"""What `serve` offers of an index: to search it and, with a GPT, to answer from it. Each is the verb of its name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from src.decoding import Writer
from src.errors import InputError
from src.extras.retrieval.answers import answer_from, is_relevant
from src.extras.retrieval.cli.search import SearchOptions
from src.extras.retrieval.index_files import Mode
from src.extras.retrieval.searcher import Hit, Searcher

PANEL = Path(__file__).parent / "panel.html"


class SearchRequest(BaseModel):
    """What to look for, with the options of the verb `rag search`."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    text: str = Field(min_length=1, description="the query, or the question")
    k: int = Field(5, ge=1, le=100, description="passages at most")


class AnswerRequest(SearchRequest):
    """A question, with the options of the verb `rag answer`."""

    k: int = Field(4, ge=1, le=100, description="passages to answer from, at most")
    min_similarity: float = Field(0.25, description="cosine of what is relevant")
    max_new_tokens: int = Field(64, ge=1, description="length at most")
    temperature: float = Field(0.0, ge=0, le=100, description="0 is greedy")
    top_k: int | None = Field(None, ge=1, description="draw from the K likeliest tokens")
    top_p: float | None = Field(None, gt=0, le=1, description="draw from the likeliest tokens that make up P")
    seed: int = Field(0, ge=0, lt=1 << 53, description="of the draws")
    stream: bool = Field(False, description="send the text piece by piece, as server-sent events")


class FoundPassage(BaseModel):
    """A passage with its scores by the names of the searches that found it."""

    source: str = Field(description="its document")
    start: int = Field(description="its first character there")
    end: int = Field(description="the character behind its last")
    scores: dict[str, float]
    text: str


class SearchAnswer(BaseModel):
    """The passages."""

    passages: list[FoundPassage] = Field(description="the best first")


class Answered(BaseModel):
    """The answer."""

    text: str | None = Field(description="without the question; null where nothing relevant is found")
    passages: list[FoundPassage] = Field(description="those that it was given, as [1], [2], ...")


class Search:
    """Search an index of documents."""

    request: type[BaseModel] = SearchRequest
    answer: type[BaseModel] = SearchAnswer
    panel = PANEL

    def __init__(self, searcher: Searcher, mode: Mode) -> None:
        self.searcher, self.mode = searcher, mode

    def respond(self, request: Any) -> Iterator[str | BaseModel]:
        hits = self.searcher.search(request.text, self.mode, request.k)
        yield SearchAnswer(passages=list(map(found, hits)))

    def facts(self) -> dict[str, Any]:
        index = self.searcher.index
        size = {"documents": len(index.documents()), "passages": len(index)}
        return {"index": str(index.folder), "mode": self.mode, **size}


class Answer(Search):
    """Answer a question from what is found for it."""

    request, answer = AnswerRequest, Answered

    def __init__(self, searcher: Searcher, mode: Mode, writer: Writer, max_new_tokens: int) -> None:
        super().__init__(searcher, mode)
        self.writer, self.max_new_tokens = writer, max_new_tokens

    def respond(self, request: Any) -> Iterator[str | BaseModel]:
        if request.max_new_tokens > self.max_new_tokens:
            raise InputError(
                f"max_new_tokens is {request.max_new_tokens}: here it may be {self.max_new_tokens} at most"
            )
        hits = self.searcher.search(request.text, self.mode, request.k)
        hits = [hit for hit in hits if is_relevant(hit, request.min_similarity)]
        if not hits:
            yield Answered(text=None, passages=[])
            return
        device = self.writer.model.token_embedding.weight.device
        sampling = {name: getattr(request, name) for name in ("temperature", "top_k", "top_p")}
        generator = torch.Generator(device).manual_seed(request.seed)
        pieces, sources = answer_from(
            hits, request.text, self.writer, request.max_new_tokens, generator=generator, **sampling
        )
        text = ""
        for piece in pieces:
            text += piece
            yield piece
        yield Answered(text=text, passages=list(map(found, sources)))

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "max_new_tokens": self.max_new_tokens}


def found(hit: Hit) -> FoundPassage:
    """Write a hit as JSON has it."""
    return FoundPassage(**hit.passage._asdict(), scores=hit.scores)


def services(index: str, device: str, writer: Writer | None, max_new_tokens: int) -> dict[str, Search]:
    """Open an index that `rag index` made, as the server offers it.

    Args:
        index: its folder.
        device: of its encoder.
        writer: the GPT to answer with, if one is served.
        max_new_tokens: of an answer.
    """
    options = SearchOptions(Path(index), device=device)
    mode = options.best_mode(None)
    searcher = options.searcher(mode != "bm25")
    offered = {"search": Search(searcher, mode)}
    if writer:
        offered["answer"] = Answer(searcher, mode, writer, max_new_tokens)
    return offered
