"""What `comparison.json` holds, checked before anything follows from it: names of rows and seeds become names of folders."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from jinja2 import TemplateError
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from newcomer.errors import NewcomerError, StoreError
from newcomer.settings import Json, is_file_name
from newcomer.store.run_record import why

STRICT = ConfigDict(strict=True)
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Tried(TypedDict):
    """One try of a row; without `seconds` it is not over."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    settings: dict[str, Any]
    counts: bool
    score: NotRequired[Finite | None]
    seconds: NotRequired[Finite]
    failure: NotRequired[str | None]


class Row(TypedDict):
    """What was found for one row."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    place: NotRequired[int]
    base: NotRequired[dict[str, Any]]
    combinations: int
    tries: list[Tried]
    chosen: dict[str, Any] | None
    score: Finite | None
    ran: NotRequired[dict[str, Any] | None]
    seeds: list[int]
    failures: NotRequired[dict[str, str]]


class Found(TypedDict):
    """All of it."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    title: str
    family: Literal["classes", "items"]
    floor: list[str]
    ceiling: list[str]
    data: NotRequired[dict[str, Any] | None]
    rows: dict[str, Row]


CHECK: TypeAdapter[Any] = TypeAdapter(Found)


def read_found(path: Path, then: str = "give a folder 'compare' wrote") -> dict[str, Json]:
    """What this file holds, as it stands there; `then` says what to do where it is none.

    Raises StoreError where it is no comparison, and where a row's name would lead out of its folder.
    """
    try:
        told: dict[str, Json] = json.loads(path.read_text(encoding="utf-8"))
        CHECK.validate_python(told)
    except ValidationError as error:
        reason = why(error)
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
    else:
        wrong = [row for row in told["rows"] if not is_file_name(row)]
        if not wrong:
            return told
        reason = f"a row called '{wrong[0]}'"
    raise StoreError(f"{path}: cannot be read as a comparison ({reason}); {then}")


@contextmanager
def telling(folders: Sequence[Path]) -> Iterator[None]:
    """Whatever records of other makers hold: what no table or plot can be made of is one line."""
    try:
        yield
    except NewcomerError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, TemplateError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        places = ", ".join(map(str, folders))
        raise StoreError(f"{places}: its records hold what cannot be shown ({reason}); run it again") from error
