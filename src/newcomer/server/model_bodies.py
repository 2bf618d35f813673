"""Bodies of versions."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from newcomer.server.bodies import Body

Share = Annotated[float, Field(gt=0, le=1)]


class ModelsBody(Body):
    """What is to change; keys that are absent stay as they are."""

    live: str | None = Field(default=None, description="version of the click model that scores")
    shares: dict[str, Share] | None = Field(
        default=None, description="shares of the users for whom other versions score; {} ends this"
    )
    shadow: list[str] | None = Field(default=None, description="versions that score after the answer, to be compared")
    retire: list[str] = Field(default=[], description="versions that get no items and events any more")
    model: str | None = Field(default=None, description="name of a classifier, for `stages`")
    stages: int | None = Field(default=None, ge=1, description="number of stages to serve; null: all of them")


class VersionInfo(BaseModel):
    """A version of the click model, and what it does."""

    name: str
    model: str = Field(description="fingerprint of its weights, as in answers")
    status: Literal["trained", "preparing", "ready"] = Field(
        description="trained: gets no items and events; preparing: those before are replayed; ready: may be live"
    )
    live: bool
    shadow: bool
    share: float = Field(description="share of the users for whom it scores instead of the live version")
    created: str
    job: str | None


class ClassifierInfo(BaseModel):
    """A classifier, and how much of it is served."""

    model: str
    stages: int = Field(description="number of stages that the store has")
    served: int = Field(description="number of stages that are served")


class ModelList(BaseModel):
    """All models of a service."""

    versions: list[VersionInfo] = Field(description="versions of the click model")
    classifiers: list[ClassifierInfo]
