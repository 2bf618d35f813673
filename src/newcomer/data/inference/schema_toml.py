"""Inferred schemas as TOML recipes to be read, corrected and run."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from newcomer.data.inference.regularization import WHY
from newcomer.data.schema import Field, Schema
from newcomer.errors import DataError, nearest
from newcomer.settings import Json

RECIPE_TABLES = ("title", "seed", "seeds", "data", "stream", "backbone", "learner", "baselines", "search", "chosen")
"""Top-level keys of a recipe."""


@dataclass(frozen=True)
class Proposal:
    """Inferred schema of a click log, with reasons."""

    schema: Schema
    reasons: Mapping[str, str]
    """For every column one short line: why it has its role and kind, or why it is left out."""
    rows: int | None
    """Number of events, if known without reading everything."""
    samples: Mapping[str, Sequence[str]]
    """Example values of every column, as text."""
    stream: Mapping[str, int]
    """`min_old_events` and `phase_events` of the proposed stream."""
    files: Sequence[str]
    """Paths of the log, as given."""
    training_share: float | None = None
    """Share of all events that belong to old items, on which shared weights are trained."""
    learner: Mapping[str, Json] = field(default_factory=dict)
    """Settings of EmerG for this log; see `regularization`."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Columns that are not in the schema."""
        schema = self.schema
        named = {schema.item, schema.user, *schema.event_columns, *(one.name for one in schema.fields)}
        return tuple(column for column in self.reasons if column not in named)


def write_schema(proposal: Proposal, path: str | Path) -> None:
    """Write a recipe with this schema and the reasons as comments; `newcomer run` accepts it as it is.

    Raises DataError if the file cannot be written.
    """
    try:
        Path(path).write_text("\n".join(_lines(proposal)) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); choose another path") from None


def read_schema(path: str | Path) -> Schema:
    """Read the schema in [data.schema] of a recipe.

    Raises DataError for an unreadable file, one without such a table, and an invalid schema.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a recipe ({error})") from None
    for key in content:
        if key not in RECIPE_TABLES:
            raise DataError(f"{path}: {key} is not part of a recipe; {nearest(key, RECIPE_TABLES)}")
    data = content.get("data")
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, dict):
        raise DataError(f"{path}: has no [data.schema]; add it, or let `newcomer inspect` propose one")
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
        share = (
            f"old items have {proposal.training_share:.0%} of all events"
            if proposal.training_share is not None
            else None
        )
        yield f"{key} = {value}{_comment(share if key == 'min_old_events' else None)}"
    yield ""
    yield "[learner]"
    yield 'name = "emerg"'
    for key, value in proposal.learner.items():
        yield f"{key} = {_toml(value)}{_comment(WHY[key])}"
    yield ""
    yield "# plain rows, run by --baselines: what emerg has to be better than"
    yield "[baselines.user-item-rate.learner]"
    yield 'name = "logistic"'
    yield 'fields = "user"'
    yield ""
    yield "[baselines.logistic.learner]"
    yield 'name = "logistic"'


def _schema(proposal: Proposal) -> Iterator[str]:
    schema, reasons = proposal.schema, proposal.reasons
    yield "[data.schema]"
    for key in ("item", "user", "label", "time", *(() if schema.weight is None else ("weight",))):
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
    for one in schema.fields:
        yield ""
        yield "[[data.schema.fields]]"
        yield f"name = {_toml(one.name)}{_comment(reasons.get(one.name))}"
        for key, value in _settings(one).items():
            yield f"{key} = {_toml(value)}"


def _settings(field: Field) -> dict[str, Json]:
    """Role, kind, and settings that are not at their defaults."""
    defaults = {known.name: known.default for known in fields(Field)}
    given = asdict(field)
    return {k: v for k, v in given.items() if k in ("role", "kind") or (k != "name" and v != defaults[k])}


def _toml(value: Json) -> str:
    """A value as TOML: JSON, with DEL escaped; a table in one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml(key)} = {_toml(part)}" for key, part in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(reason: str | None) -> str:
    return f"  # {_line(reason)}" if reason else ""


def _line(text: str) -> str:
    """On one line, without characters that TOML forbids in comments."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
