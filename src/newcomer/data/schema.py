"""What the columns of a click log mean."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Self

from newcomer.errors import DataError, SettingError
from newcomer.settings import Json, fill

Role = Literal["item", "user", "context"]
Kind = Literal["categorical", "multi", "numeric", "text"]


@dataclass(frozen=True)
class Field:
    """One column that a model reads beside the two ids.

    `role` says whose it is: every row of an item shows the same value of an item's field, every row of a user the same value of a
    user's; what changes from row to row is context. `kind`: one value of a set, several of them (a list, or text around
    `separator`), a number, or text, of which the set of words is kept.
    """

    name: str
    role: Role
    kind: Kind = "categorical"
    missing: Literal["error", "mark"] = "error"
    """An empty value is an error, or is marked and read as 'not known'."""
    unseen: Literal["shared", "error"] = "shared"
    """A value that was not there when the model learned is read as one shared 'unseen' value, or is an error."""
    min_count: int = 1
    """Values that occurred fewer times than this are unseen ones."""
    separator: str = "|"

    @property
    def is_numeric(self) -> bool:
        return self.kind == "numeric"

    @property
    def is_multi(self) -> bool:
        return self.kind in ("multi", "text")


@dataclass(frozen=True)
class Schema:
    """Which column holds the item's id, the user's id, the label (0 or 1) and the time, and which fields there are besides.

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

    def __post_init__(self) -> None:
        names = [self.item, self.user, self.label, self.time, *(field.name for field in self.fields)]
        for name in names:
            if names.count(name) > 1:
                raise DataError(f"schema: column '{name}' has two meanings; name every column once")

    @property
    def nodes(self) -> tuple[Field, ...]:
        """The fields as a model sees them, the ids among them: the item's, then the user's, then the context's."""
        return (
            Field(self.item, "item"),
            *self.of("item"),
            Field(self.user, "user"),
            *self.of("user"),
            *self.of("context"),
        )

    def of(self, role: Role) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.role == role)

    def to_json(self) -> dict[str, Json]:
        return asdict(self) | {"fields": [asdict(field) for field in self.fields]}

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
