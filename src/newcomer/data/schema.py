"""Schema of a click log: the id, label and time columns, and the feature fields."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal, Self

from pydantic import PositiveInt

from newcomer.errors import DataError, SettingError
from newcomer.settings import Json, fill

Role = Literal["item", "user", "context"]
Kind = Literal["categorical", "multi", "numeric", "text", "vector"]

NOBODY = ""
"""Id of users without one."""

INTERNAL_COLUMNS = frozenset(
    f"{name} "
    for name in (
        *("row", "fraction", "dated", "grade", "spelled", "events", "clicks"),
        *("count", "time", "first", "latest", "kept", "at", "weights"),
    )
)
"""Names of columns that are added to those of a schema."""

NEWER_FIELD_SETTINGS: dict[str, Json] = {"max_values": 64, "encoder": None, "at_serving": None}
"""Field settings that older stores do not have, with their defaults; omitted from JSON at these values."""

NEWER_SCHEMA_SETTINGS: dict[str, Json] = {
    "clicked_from": None,
    "user_missing": "error",
    "missing_values": (),
    "time_order": None,
    "max_conflict_share": 0.01,
    "weight": None,
}
"""Likewise for the settings of `Schema`."""


@dataclass(frozen=True)
class Field:
    """Feature column of a click log.

    `role`: a field of the item has one value in all rows of the item, a field of the user in all rows of the user; context fields
    change from row to row.
    `kind`: a categorical value; "multi", several of them (a list, or text with `separator`); a number; text, as a bag of words or
    as features of an `encoder`; a vector of fixed length, such as an image embedding (in CSV text like "[0.1, 0.2]").

    Raises DataError for an `encoder` of a field that is not text, and for `at_serving` where it cannot be.
    """

    name: str
    role: Role
    kind: Kind = "categorical"
    missing: Literal["error", "mark"] = "error"
    """A missing value, or a missing column, is an error, or is marked as unknown."""
    unseen: Literal["shared", "error"] = "shared"
    """A value that training did not have is mapped to one shared "unseen" value, or is an error."""
    min_count: int = 1
    """Rarer values are mapped to the unseen value."""
    separator: str = "|"
    max_values: PositiveInt = 64
    """Number of values, or words of a text, that are used per row; further ones are dropped."""
    encoder: str | None = None
    """Backbone whose frozen features represent the text, such as 'sentence-transformers/all-MiniLM-L6-v2'; None: bag of words."""

    at_serving: str | int | float | None = None
    """Value that a context field has in every request, whatever the request gives: such as 1 for the position in a list, which
    clicks depend on and of which nothing is known when the list is put in order. Labelled events keep their own values."""

    def __post_init__(self) -> None:
        _require_valid(self, f"schema: field '{self.name}'")
        if self.at_serving is not None and (self.role != "context" or self.kind not in ("categorical", "numeric")):
            raise DataError(
                f"schema: field '{self.name}' is a {self.kind} field of role {self.role} and has at_serving; only a categorical or "
                "numeric context field can have one"
            )
        if self.is_numeric and isinstance(self.at_serving, str):
            raise DataError(f"schema: field '{self.name}' is numeric; give a number as at_serving, not a text")
        value = self.at_serving
        if (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and not math.isfinite(value)):
            raise DataError(f"schema: field '{self.name}' has at_serving = {value!r}; give a value that the log has")
        if self.encoder is not None and self.kind != "text":
            raise DataError(
                f"schema: field '{self.name}' is {self.kind} and has an encoder; set kind = 'text', or remove it"
            )

    @property
    def is_numeric(self) -> bool:
        return self.kind == "numeric"

    @property
    def is_multi(self) -> bool:
        return self.kind == "multi" or (self.kind == "text" and self.encoder is None)


@dataclass(frozen=True)
class Schema:
    """Columns of the item id, the user id, the label and the time, and the feature fields.

    >>> schema = Schema("film", "viewer", "liked", "seen_at", (Field("genres", "item", "multi"), Field("age", "user")))
    >>> [node.name for node in schema.nodes]
    ['film', 'genres', 'viewer', 'age']
    >>> Schema.from_json(schema.to_json()) == schema
    True
    >>> Schema.from_json({"item": "film", "user": "viewer", "label": "liked", "time": "t", "fields": [{"nam": "age"}]})
    Traceback (most recent call last):
    newcomer.errors.DataError: schema.fields[0].nam is not a setting of Field; did you mean 'name'?

    Raises DataError if a column is named twice, or like an internal one.
    """

    item: str
    user: str
    label: str = "label"
    time: str = "time"
    fields: tuple[Field, ...] = ()
    clicked_from: float | None = None
    """Labels of at least this value are clicks, such as 4 stars; None: labels are 0/1 or true/false."""
    user_missing: Literal["error", "mark"] = "error"
    """An event without a user id is an error, or belongs to an unknown user."""
    missing_values: tuple[str, ...] = ()
    """Texts that mean a missing value, besides the empty one: such as NULL, NA or \\N."""
    time_order: Literal["day-first", "month-first"] | None = None
    """Order of day and month in dates such as 12/1/2010; None: ambiguous dates are an error."""
    max_conflict_share: float = 0.01
    """Maximum share of rows in which a field of an item or user may differ from its other rows; the latest value is used."""
    weight: str | None = None
    """Column of frequency weights: how many equal rows each labelled row stands for; None: 1 each. See `data.weights`."""

    @property
    def has_grades(self) -> bool:
        """Whether labels are grades, such as stars, of which a threshold makes clicks."""
        return self.clicked_from is not None and not 0 < self.clicked_from <= 1

    def __post_init__(self) -> None:
        _require_valid(self, "schema")
        names = [self.item, self.user, *self.event_columns, *(field.name for field in self.fields)]
        for name in names:
            if names.count(name) > 1:
                raise DataError(f"schema: column '{name}' is used twice; name every column once")
            if name in INTERNAL_COLUMNS:
                raise DataError(f"schema: '{name}' is an internal column name; rename the column to '{name.strip()}'")
        if not 0 <= self.max_conflict_share < 1:
            raise DataError(
                f"schema: max_conflict_share = {self.max_conflict_share}; give a share of rows from 0 to below 1"
            )

    @property
    def nodes(self) -> tuple[Field, ...]:
        """All fields of a model, ids included: the item's, then the user's, then the context fields."""
        return (
            Field(self.item, "item"),
            *self.of("item"),
            Field(self.user, "user", missing=self.user_missing),
            *self.of("user"),
            *self.of("context"),
        )

    @property
    def event_columns(self) -> tuple[str, ...]:
        """Columns that only labelled events have: label, time and weight."""
        return (self.label, self.time, *(() if self.weight is None else (self.weight,)))

    @property
    def of_clicks(self) -> "Schema":
        """The schema of events whose labels are clicks, 1 and 0, instead of grades."""
        return replace(self, clicked_from=None)

    def of(self, role: Role) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.role == role)

    @property
    def at_serving(self) -> dict[str, str | int | float]:
        """Values that columns have in every request."""
        return {field.name: field.at_serving for field in self.fields if field.at_serving is not None}

    def to_json(self) -> dict[str, Json]:
        fields = [
            {
                key: value
                for key, value in asdict(field).items()
                if key not in NEWER_FIELD_SETTINGS or value != NEWER_FIELD_SETTINGS[key]
            }
            for field in self.fields
        ]
        table = asdict(self) | {"fields": fields}
        given = {k: v for k, v in table.items() if k not in NEWER_SCHEMA_SETTINGS or v != NEWER_SCHEMA_SETTINGS[k]}
        return given | ({"missing_values": list(self.missing_values)} if self.missing_values else {})

    @classmethod
    def from_json(cls, table: Mapping[str, Json]) -> Self:
        """Raises DataError for an unknown, missing or invalid entry."""
        given = dict(table)
        fields = given.pop("fields", ())
        if not isinstance(fields, (list, tuple)) or not all(isinstance(field, Mapping) for field in fields):
            raise DataError("schema.fields is not a list of tables; write one table a field, with name and role")
        try:
            made = [Field(**fill(Field, field, f"schema.fields[{n}]")) for n, field in enumerate(fields)]
            filled = fill(cls, given, "schema", provided=["fields"])
            return cls(**filled | {"missing_values": tuple(filled["missing_values"])}, fields=tuple(made))
        except SettingError as error:
            raise DataError(str(error)) from None


def _require_valid(settings: Field | Schema, where: str) -> None:
    """Raises DataError for a value that a setting cannot have."""
    given = {one.name: getattr(settings, one.name) for one in fields(settings) if one.name != "fields"}
    try:
        fill(type(settings), given, where, provided=["fields"])
    except SettingError as error:
        raise DataError(str(error)) from None
