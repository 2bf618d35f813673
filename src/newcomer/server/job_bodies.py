"""Bodies of jobs."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from newcomer.server.bodies import Body, ClassName
from newcomer.settings import Json

Status = Literal["queued", "running", "done", "failed", "cancelled"]

Promote = Literal["if_better", "always", "never"]

ENDED = ("done", "failed", "cancelled")

VERSION_JOBS = ("train", "calibrate", "replay")
"""Jobs of the click model's versions."""


class Example(Body):
    """An input with its label."""

    input: str = Field(description="a text, or an image in base64")
    label: ClassName = Field(description="name of its class")


class NewJob(Body):
    """What every new job may have."""

    key: str | None = Field(
        default=None, max_length=64, description="with the key of an earlier job: that job, not anew"
    )


class LearnBody(NewJob):
    """Learn new classes, or more examples of known ones: the next stage of a classifier."""

    kind: Literal["learn"]
    model: str | None = Field(default=None, description="name of the classifier; needed if several are served")
    examples: list[Example] = Field(min_length=1)
    settings: dict[str, Json] = Field(default={}, description="settings that change from this stage on")


class NewVersion(NewJob):
    """What a job that makes a version of the click model may have."""

    eval_share: float = Field(
        default=0.1, gt=0, lt=1, description="share of the service's events, the latest, held out"
    )
    promote: Promote = Field(
        default="if_better",
        description="if_better: goes live if its log loss is not worse; never: gets all items and events, but no traffic",
    )
    tolerance: float = Field(default=0.001, ge=0, description="by how much its log loss may be worse")
    min_events: int = Field(
        default=100, ge=1, description="with fewer held-out events it goes live only if `promote` is 'always'"
    )


class TrainBody(NewVersion):
    """Train the click model anew, on the training log and the events that the service has counted."""

    kind: Literal["train"]
    settings: dict[str, Json] = Field(default={}, description="settings other than those of the live version")


class CalibrateBody(NewVersion):
    """Fit the click model's calibration anew, on the service's events of items that it was not trained on."""

    kind: Literal["calibrate"]
    tolerance: float = Field(default=0.0, ge=0, description="by how much its log loss may be worse")


class ReplayBody(NewJob):
    """Give a version of the click model all items and events that it missed: then it is ready."""

    kind: Literal["replay"]
    version: str


JobBody = Annotated[LearnBody | TrainBody | CalibrateBody | ReplayBody, Field(discriminator="kind")]


class Progress(BaseModel):
    """How far a job is: the part of it, and the step there."""

    part: str
    step: int
    steps: int


class Job(BaseModel):
    """A job and what became of it."""

    id: str
    kind: str
    model: str | None = None
    key: str | None = None
    status: Status = "queued"
    created: str
    started: str | None = None
    ended: str | None = None
    attempts: int = Field(default=0, description="how often it was started; a killed machine starts it again")
    progress: Progress | None = None
    detail: str | None = Field(default=None, description="why it failed")
    warnings: list[str] = Field(
        default=[], description="what was repaired, left out or not as usual; long ones are cut, and many end in a hint"
    )
    result: Mapping[str, Json] | None = None


class JobList(BaseModel):
    """Jobs of a service."""

    jobs: list[Job] = Field(description="newest first")
