"""Queries and bodies of the studio's routes as pydantic models. A parameter that is not listed is an error."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tinyllm.serving.schemas import Body

MOST_POINTS = 4_000
MOST_CHARACTERS = 20_000
"""Characters of a text whose pieces are shown."""
LONGEST_SEARCH = 200

ItemId = Annotated[str, Field(max_length=4_096)]
Step = Annotated[int, Field(ge=0, lt=2**53)]
Split = Literal["train", "validation"]


class Query(BaseModel):
    """The parameters of an address, which are texts."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ItemQuery(Query):
    """Names a run or shards."""

    id: ItemId


class MetricsQuery(ItemQuery):
    """The curves of a run."""

    points: int = Field(default=1_500, ge=2, le=MOST_POINTS)
    from_step: Step | None = None
    to_step: Step | None = None


class EventsQuery(ItemQuery):
    """The stream of a run."""

    cursor: str | None = Field(default=None, max_length=100)


class SamplesQuery(ItemQuery):
    """Samples of a run."""

    from_step: Step | None = None
    limit: int = Field(default=20, ge=1, le=100)
    steps: bool = True


class SplitQuery(ItemQuery):
    """A split of shards."""

    split: Split = "train"


class DocumentsQuery(SplitQuery):
    """Documents of shards."""

    start: Step = Field(default=0, alias="from")
    limit: int = Field(default=20, ge=1, le=50)


class SearchQuery(SplitQuery):
    """A text to find in shards."""

    text: str = Field(min_length=1, max_length=LONGEST_SEARCH)
    start: Step = Field(default=0, alias="from")


class LoadBody(Body):
    """The body of `POST /studio/api/models/load`."""

    model: ItemId


class PiecesBody(Body):
    """The body of `POST /studio/api/pieces`: a text, and whose tokenizer cuts it."""

    tokenizer: ItemId | None = None
    model: ItemId | None = None
    text: str = Field(max_length=MOST_CHARACTERS)

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.tokenizer is None) == (self.model is None):
            raise ValueError("tokenizer or model: give one of them")
        return self
