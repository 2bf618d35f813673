"""What a run's record and a comparison's file must hold before anything is made of them: they may come from others.

Only the shape is asked for here, strictly and without changing a value; what a learner says of itself is its own.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import (
    Any,
    Literal,
    NotRequired,  # what pydantic asks for before Python 3.12
)

from jinja2 import TemplateError
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from newcomer.errors import NewcomerError, StoreError
from newcomer.settings import Json
from newcomer.store.names import unfit
from newcomer.store.record import Event


class Recipe(TypedDict):
    """What every filled recipe says of itself."""

    name: str
    row: str
    title: str
    seed: int
    family: Literal["classes", "items"]
    learner: NotRequired[dict[str, Any]]


class Machine(TypedDict):
    """On what a run ran."""

    processor: str
    threads: int


class Start(TypedDict):
    """The first event of a record."""

    event: Literal["start"]
    place: int
    recipe: Recipe
    stream: dict[str, Any]
    versions: dict[str, Any]
    commit: str | None
    machine: Machine


class Score(TypedDict):
    """The result of one evaluation."""

    stage: str
    exam: str
    values: dict[str, float]


class Stage(TypedDict):
    """The end of a stage."""

    stage: str
    study_seconds: float
    exam_seconds: float
    facts: dict[str, Any]


class Try(TypedDict):
    """One try of a row's search; without `seconds` it is not over."""

    settings: dict[str, Any]
    counts: bool
    score: NotRequired[float | None]
    seconds: NotRequired[float]
    failure: NotRequired[str | None]


class Row(TypedDict):
    """What was found for one row."""

    place: int
    base: NotRequired[dict[str, Any]]
    combinations: int
    tries: list[Try]
    chosen: dict[str, Any] | None
    score: float | None
    ran: NotRequired[dict[str, Any] | None]
    seeds: list[int]
    failures: NotRequired[dict[str, str]]


class Compared(TypedDict):
    """What a comparison wrote down."""

    title: str
    family: Literal["classes", "items"]
    floor: list[str]
    ceiling: list[str]
    rows: dict[str, Row]


ASKED = {"classes": ("accuracy", "examples"), "items": ("auc", "logloss")}
"""Scores without which no table or picture of a family can be made."""
QUERY = "query"
"""The exam that new items sit after every phase."""
EVENTS: Mapping[str, type] = {"start": Start, "score": Score, "stage": Stage}


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def require_events(events: Sequence[Event], path: Path) -> None:
    """Raises StoreError where these are not the events of a run, naming the first that is none."""
    for number, event in enumerate(events, 1):
        kind = Start if number == 1 else EVENTS.get(event["event"])
        if kind and (wrong := _wrong(kind, event)):
            raise _no_event(path, number, wrong)
    family = events[0]["recipe"]["family"] if events else ""
    for number, event in enumerate(events, 1):
        if event["event"] == "score" and (family == "classes" or event["exam"] == QUERY):
            for name in ASKED[family]:
                if name not in event["values"]:
                    raise _no_event(path, number, f"values.{name}: field required")


def _no_event(path: Path, number: int, wrong: str) -> StoreError:
    return StoreError(f"{path}: line {number} is no event of a run ({wrong}); remove the run and start it again")


def read_compared(path: Path) -> dict[str, Json]:
    """What a comparison wrote down.

    Raises StoreError where it cannot be read, or is none: no name in it leads out of its folder.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read as a comparison ({error}); give a folder 'compare' wrote") from None
    try:
        told: dict[str, Json] = json.loads(content)
        wrong = _wrong(Compared, told)
    except (ValueError, RecursionError) as error:
        told, wrong = {}, str(error) or type(error).__name__
    for row in () if wrong else told["rows"]:
        if why := unfit(row):
            wrong = f"a row '{row}' can have no folder: {why}"
    if wrong:
        raise StoreError(f"{path}: is no comparison; remove it, or choose another --out ({wrong})")
    return told


@contextmanager
def telling(folders: Sequence[Path]) -> Iterator[None]:
    """Within, records of which no table or plot can be made are one line."""
    try:
        yield
    except NewcomerError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, TemplateError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        places = ", ".join(map(str, folders))
        raise StoreError(f"{places}: its records hold what cannot be shown ({reason}); run it again") from error


def _wrong(kind: type, content: Json) -> str | None:
    """Where in it the first thing is that cannot be, and why."""
    try:
        _adapter(kind).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg'].lower()}" if place else first["msg"].lower()
    return None
