"""What the columns of a click log mean."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Self

from pydantic import PositiveInt

from newcomer.errors import DataError, SettingError
from newcomer.settings import Json, fill

Role = Literal["item", "user", "context"]
Kind = Literal["categorical", "multi", "numeric", "text", "vector"]

NOBODY = ""
"""The id of a user of whom no id is known."""

LATER: dict[str, Json] = {"most": 64, "encoder": None}
"""Settings of a field that came after the first stores: at these values a schema is written as it was then."""

LATER_IN_SCHEMA: dict[str, Json] = {
    "clicked_from": None,
    "user_missing": "error",
    "missing_values": (),
    "time_order": None,
    "disagreeing": 0.01,
}
"""The same of a schema's own settings."""


@dataclass(frozen=True)
class Field:
    """One column that a model reads beside the two ids.

    `role` says whose it is: every row of an item shows the same value of an item's field, every row of a user the same value of a
    user's; what changes from row to row is context. `kind`: one value of a set, several of them (a list, or text around
    `separator`), a number, text, of which the set of words is kept or what an `encoder` makes of it, or a vector: a list of numbers
    of one length, such as a picture's embedding from elsewhere; in CSV text like "[0.1, 0.2]".

    Raises DataError for an `encoder` of what is not text.
    """

    name: str
    role: Role
    kind: Kind = "categorical"
    missing: Literal["error", "mark"] = "error"
    """An empty value is an error, or is marked and read as 'not known'; so is a column that is not there."""
    unseen: Literal["shared", "error"] = "shared"
    """A value that was not there when the model learned is read as one shared 'unseen' value, or is an error."""
    min_count: int = 1
    """Values that occurred fewer times than this are unseen ones."""
    separator: str = "|"
    most: PositiveInt = 64
    """Of several values, or of a text's words, the first so many are read."""
    encoder: str | None = None
    """A backbone by whose frozen features a text is read, such as 'sentence-transformers/all-MiniLM-L6-v2'; None: by its words."""

    def __post_init__(self) -> None:
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
    """Which column holds the item's id, the user's id, the label and the time, and which fields there are besides.

    >>> schema = Schema("film", "viewer", "liked", "seen_at", (Field("genres", "item", "multi"), Field("age", "user")))
    >>> [node.name for node in schema.nodes]
    ['film', 'genres', 'viewer', 'age']
    >>> Schema.from_json(schema.to_json()) == schema
    True
    >>> Schema.from_json({"item": "film", "user": "viewer", "label": "liked", "time": "t", "fields": [{"nam": "age"}]})
    Traceback (most recent call last):
    newcomer.errors.DataError: schema.fields[0].nam is not a setting of Field; did you mean 'name'?

    Raises DataError when a column is named twice.
    """

    item: str
    user: str
    label: str = "label"
    time: str = "time"
    fields: tuple[Field, ...] = ()
    clicked_from: float | None = None
    """The least label that counts as a click, such as 4 stars; None: labels are 0 and 1, or false and true."""
    user_missing: Literal["error", "mark"] = "error"
    """An event without a user's id is an error, or one of a user of whom nothing is known."""
    missing_values: tuple[str, ...] = ()
    """Texts that say 'no value', beside the empty one: such as NULL, NA or \\N."""
    time_order: Literal["day-first", "month-first"] | None = None
    """How dates such as 12/1/2010 are meant; None: those that could be meant either way are an error."""
    disagreeing: float = 0.01
    """The share of a log's rows that may show another value of an item's or user's field than its other rows; the latest counts."""

    def __post_init__(self) -> None:
        names = [self.item, self.user, self.label, self.time, *(field.name for field in self.fields)]
        for name in names:
            if names.count(name) > 1:
                raise DataError(f"schema: column '{name}' has two meanings; name every column once")
        if not 0 <= self.disagreeing < 1:
            raise DataError(f"schema: disagreeing = {self.disagreeing}; give a share of rows from 0 to below 1")

    @property
    def nodes(self) -> tuple[Field, ...]:
        """The fields as a model sees them, the ids among them: the item's, then the user's, then the context's."""
        return (
            Field(self.item, "item"),
            *self.of("item"),
            Field(self.user, "user", missing=self.user_missing),
            *self.of("user"),
            *self.of("context"),
        )

    def of(self, role: Role) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.role == role)

    def to_json(self) -> dict[str, Json]:
        fields = [
            {key: value for key, value in asdict(field).items() if key not in LATER or value != LATER[key]}
            for field in self.fields
        ]
        table = asdict(self) | {"fields": fields}
        given = {k: v for k, v in table.items() if k not in LATER_IN_SCHEMA or v != LATER_IN_SCHEMA[k]}
        return given | ({"missing_values": list(self.missing_values)} if self.missing_values else {})

    @classmethod
    def from_json(cls, table: Mapping[str, Json]) -> Self:
        """Raises DataError for an unknown, missing or impossible entry."""
        given = dict(table)
        fields = given.pop("fields", ())
        if not isinstance(fields, (list, tuple)) or not all(isinstance(field, Mapping) for field in fields):
            raise DataError("schema.fields is not a list of tables; write one table a field, with name and role")
        try:
            made = [Field(**fill(Field, field, f"schema.fields[{n}]")) for n, field in enumerate(fields)]
            return cls(**fill(cls, given, "schema", provided=["fields"]), fields=tuple(made))
        except SettingError as error:
            raise DataError(str(error)) from None
