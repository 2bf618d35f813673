"""Schemas of record.jsonl and comparison.json, and their validation: such files may come from somebody else.

Validation is strict and converts no value. A learner's own `info` is not validated.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import (
    Any,
    Literal,
    NotRequired,
)

from jinja2 import TemplateError
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from newcomer.errors import NewcomerError, StoreError
from newcomer.settings import Json
from newcomer.store.names import invalid_reason
from newcomer.store.record import Event


class Recipe(TypedDict):
    """The part of a resolved recipe that reports need."""

    name: str
    row: str
    title: str
    seed: int
    family: Literal["classes", "items"]
    learner: NotRequired[dict[str, Any]]


class Machine(TypedDict):
    """The machine of a run."""

    processor: str
    threads: int


class Start(TypedDict):
    """The first event of a record."""

    event: Literal["start"]
    position: int
    recipe: Recipe
    stream: dict[str, Any]
    versions: dict[str, Any]
    commit: str | None
    machine: Machine


class Score(TypedDict):
    """The result of one evaluation."""

    stage: str
    eval_set: str
    values: dict[str, float]


class Stage(TypedDict):
    """The end of a stage."""

    stage: str
    train_seconds: float
    eval_seconds: float
    info: dict[str, Any]


class Draw(TypedDict):
    """A trial on one draw of validation data."""

    score: float | None
    seconds: float
    failure: str | None


class Trial(TypedDict):
    """One trial of a row's hyper-parameter search; without `seconds` it is unfinished. `score`: the mean over `draws`."""

    settings: dict[str, Any]
    within_budget: bool
    score: NotRequired[float | None]
    seconds: NotRequired[float]
    failure: NotRequired[str | None]
    draws: NotRequired[dict[str, Draw]]


class Row(TypedDict):
    """One row of a comparison: its trials, the chosen settings, and the seeds of its runs."""

    position: int
    base: NotRequired[dict[str, Any]]
    combinations: int
    trials: list[Trial]
    chosen: dict[str, Any] | None
    score: float | None
    ran_with: NotRequired[dict[str, Any] | None]
    seeds: list[int]
    failures: NotRequired[dict[str, str]]


class ComparisonFile(TypedDict):
    """The content of comparison.json."""

    title: str
    family: Literal["classes", "items"]
    floor: list[str]
    ceiling: list[str]
    rows: dict[str, Row]


REQUIRED_SCORES = {"classes": ("accuracy", "examples"), "items": ("auc", "logloss")}
"""The scores that tables and plots of a family need."""
QUERY = "query"
"""The evaluation set of new items, used after every phase."""
EVENT_SCHEMAS: Mapping[str, type] = {"start": Start, "score": Score, "stage": Stage}


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def require_events(events: Sequence[Event], path: Path) -> None:
    """Raises StoreError at the first event that does not fit its schema."""
    for number, event in enumerate(events, 1):
        schema = Start if number == 1 else EVENT_SCHEMAS.get(event["event"])
        if schema and (problem := _problem(schema, event)):
            raise _invalid_event(path, number, problem)
    family = events[0]["recipe"]["family"] if events else ""
    for number, event in enumerate(events, 1):
        if event["event"] == "score" and (family == "classes" or event["eval_set"] == QUERY):
            for name in REQUIRED_SCORES[family]:
                if name not in event["values"]:
                    raise _invalid_event(path, number, f"values.{name}: field required")


def _invalid_event(path: Path, number: int, problem: str) -> StoreError:
    return StoreError(
        f"{path}: line {number} is not a valid event of a run ({problem}); remove the run and start it again"
    )


def read_comparison_file(path: Path) -> dict[str, Json]:
    """The validated content of comparison.json.

    Raises StoreError if it cannot be read, is invalid, or names a row that would lead out of its folder.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be read as a comparison ({error}); give a folder written by 'newcomer compare'"
        ) from None
    try:
        comparison: dict[str, Json] = json.loads(content)
        problem = _problem(ComparisonFile, comparison)
    except (ValueError, RecursionError) as error:
        comparison, problem = {}, str(error) or type(error).__name__
    for row in () if problem else comparison["rows"]:
        if why := invalid_reason(row):
            problem = f"row '{row}' cannot be the name of a folder: {why}"
    if problem:
        raise StoreError(f"{path}: not a valid comparison ({problem}); remove it, or choose another --out")
    return comparison


@contextmanager
def store_errors(folders: Sequence[Path]) -> Iterator[None]:
    """Turns errors from malformed records into one StoreError that names their folders."""
    try:
        yield
    except NewcomerError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, TemplateError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        names = ", ".join(map(str, folders))
        raise StoreError(f"{names}: malformed records, no report can be made ({reason}); run it again") from error


def _problem(schema: type, content: Json) -> str | None:
    """The path and message of the first validation error, if any."""
    try:
        _adapter(schema).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(map(str, first["loc"]))
        return f"{location}: {first['msg'].lower()}" if location else first["msg"].lower()
    return None
