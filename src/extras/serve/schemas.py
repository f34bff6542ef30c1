"""What each task is asked and answers, as JSON: the fields with their bounds, which `/docs` lists."""

from pydantic import BaseModel, ConfigDict, Field

MOST_LINES = 16  # of a text to translate, a sentence each


class Request(BaseModel):
    """What each request has: nothing that is not asked for, and no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class GenerateRequest(Request):
    """A prompt to continue, with the options of the verb `generate`."""

    text: str = Field("", description="what to continue; the empty text begins a document")
    max_new_tokens: int = Field(200, ge=1, description="length at most")
    temperature: float = Field(0.8, ge=0, le=100, description="0 is greedy")
    top_k: int | None = Field(None, ge=1, description="draw from the K likeliest tokens")
    top_p: float | None = Field(None, gt=0, le=1, description="draw from the likeliest tokens that make up P")
    seed: int | None = Field(None, ge=0, lt=1 << 53, description="of the draws; by chance, if not given")
    stream: bool = Field(False, description="send the text piece by piece, as server-sent events")


class GenerateAnswer(BaseModel):
    """The continuation."""

    text: str = Field(description="without the prompt")
    tokens: int
    end: str = Field(description="`end` of the document, or `length`")


class TranslateRequest(Request):
    """Sentences to translate, with options of the verb `translate`."""

    text: str = Field(min_length=1, description=f"a sentence a line, {MOST_LINES} at most")
    beam: int = Field(4, ge=1, le=16, description="hypotheses at a time; 1 is greedy")


class TranslateAnswer(BaseModel):
    """The translations."""

    text: str = Field(description="a line for each line")


class FillMaskRequest(Request):
    """A text with masks, with the options of the verb `fill-mask`."""

    text: str = Field(min_length=1, description="with masks in it, [MASK] or the tokenizer's own")
    top_k: int = Field(5, ge=1, le=100, description="candidates for each mask")


class Candidate(BaseModel):
    """A word, or a label, with its probability."""

    name: str
    probability: float


class FillMaskAnswer(BaseModel):
    """The words behind the masks."""

    masks: list[list[Candidate]] = Field(description="for each mask its candidates, the likeliest first")


class ClassifyRequest(Request):
    """A text to classify, or a pair of texts where the checkpoint was trained on pairs."""

    text: str = Field(min_length=1)
    second_text: str | None = Field(None, description="of a pair")


class ClassifyAnswer(BaseModel):
    """The labels."""

    labels: list[Candidate] = Field(description="all of them, the likeliest first")
