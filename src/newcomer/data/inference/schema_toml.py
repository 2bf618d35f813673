"""A proposed schema as a file: a recipe that a person reads, corrects and runs."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError
from newcomer.settings import Json


@dataclass(frozen=True)
class Proposal:
    """What the columns of a click log seem to mean, and why."""

    schema: Schema
    reasons: Mapping[str, str]
    """Of every column, in one short line: why it has this role and kind, or why it is left out."""
    rows: int | None
    """Number of events, where it is known without reading everything."""
    samples: Mapping[str, Sequence[str]]
    """Some values of every column, as text."""
    stream: Mapping[str, int]
    """`old_above` and `phase_events` that give old and new items in this log."""
    files: Sequence[str]
    """Where the log lies, as it was given."""
    learned: float | None = None
    """The share of all events that the old items of this stream have: those that shared weights are learned from."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """The columns that the schema does not name."""
        schema = self.schema
        named = {schema.item, schema.user, schema.label, schema.time, *(field.name for field in schema.fields)}
        return tuple(column for column in self.reasons if column not in named)


def write_schema(proposal: Proposal, path: str | Path) -> None:
    """Write a recipe with this schema, each reason as a comment beside its line; `newcomer run` takes the file as it is.

    Raises DataError where the file cannot be written.
    """
    try:
        Path(path).write_text("\n".join(_lines(proposal)) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); give a place that can") from None


def read_schema(path: str | Path) -> Schema:
    """The schema in the [data.schema] of a recipe.

    Raises DataError for a file that cannot be read, has no such table, or says in it what cannot be.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a recipe ({error})") from None
    data = content.get("data")
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, dict):
        raise DataError(f"{path}: has no [data.schema]; write it there, or let it be proposed")
    try:
        return Schema.from_json(schema)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _lines(proposal: Proposal) -> Iterator[str]:
    files = proposal.files[0] if len(proposal.files) == 1 else list(proposal.files)
    yield f"title = {_toml('Clicks of ' + ', '.join(proposal.files))}"
    yield "seeds = 3"
    yield ""
    yield "[data]"
    yield 'name = "click-log"'
    yield f"path = {_toml(files)}"
    yield ""
    yield from _schema(proposal)
    yield ""
    yield "[stream]"
    for key, value in proposal.stream.items():
        share = f"old items have {proposal.learned:.0%} of all events" if proposal.learned is not None else None
        yield f"{key} = {value}{_comment(share if key == 'old_above' else None)}"
    yield ""
    yield "[learner]"
    yield 'name = "emerg"'


def _schema(proposal: Proposal) -> Iterator[str]:
    schema, reasons = proposal.schema, proposal.reasons
    yield "[data.schema]"
    for key in ("item", "user", "label", "time"):
        column = getattr(schema, key)
        yield f"{key} = {_toml(column)}{_comment(reasons.get(column))}"
    if schema.clicked_from is not None:
        yield f"clicked_from = {schema.clicked_from}  # labels from here on are clicks"
    if schema.user_missing != "error":
        yield f"user_missing = {_toml(schema.user_missing)}  # events without a user's id count too"
    if schema.missing_values:
        yield f"missing_values = {_toml(list(schema.missing_values))}  # texts that say 'no value'"
    if schema.time_order:
        yield f"time_order = {_toml(schema.time_order)}"
    for column in proposal.left_out:
        yield f"# {_line(column)}: {_line(reasons[column])}"
    for field in schema.fields:
        yield ""
        yield "[[data.schema.fields]]"
        yield f"name = {_toml(field.name)}{_comment(reasons.get(field.name))}"
        for key, value in _settings(field).items():
            yield f"{key} = {_toml(value)}"


def _settings(field: Field) -> dict[str, Json]:
    """Role, kind, and what is not at its default."""
    defaults = {known.name: known.default for known in fields(Field)}
    given = asdict(field)
    return {k: v for k, v in given.items() if k in ("role", "kind") or (k != "name" and v != defaults[k])}


def _toml(value: Json) -> str:
    """A text, number or list as TOML, which reads JSON's but for one character that it wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(reason: str | None) -> str:
    return f"  # {_line(reason)}" if reason else ""


def _line(text: str) -> str:
    """On one line, without what TOML allows in no comment."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
