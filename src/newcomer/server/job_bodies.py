"""Bodies of jobs."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, Field

from newcomer.server.bodies import Body
from newcomer.settings import Json

Status = Literal["queued", "running", "done", "failed", "cancelled"]

ENDED = ("done", "failed", "cancelled")


class Example(Body):
    input: str = Field(description="a text, or an image in base64")
    label: str = Field(min_length=1, description="name of its class")


class LearnBody(Body):
    """Learn new classes, or more examples of known ones: the next stage of a classifier."""

    kind: Literal["learn"]
    model: str | None = Field(default=None, description="name of the classifier; needed if several are served")
    examples: list[Example] = Field(min_length=1)
    settings: dict[str, Json] = Field(default={}, description="settings that change from this stage on")


JobBody = LearnBody


class Progress(BaseModel):
    part: str
    step: int
    steps: int


class Job(BaseModel):
    """A job and what became of it."""

    id: str
    kind: str
    model: str | None = None
    status: Status = "queued"
    created: str
    started: str | None = None
    ended: str | None = None
    attempts: int = Field(default=0, description="how often it was started; a killed machine starts it again")
    progress: Progress | None = None
    detail: str | None = Field(default=None, description="why it failed")
    result: Mapping[str, Json] | None = None


class JobList(BaseModel):
    jobs: list[Job] = Field(description="newest first")
