"""Bodies of requests and answers; those of click models are made from the schema's columns."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, create_model

from newcomer.data.schema import Field as SchemaField
from newcomer.data.schema import Schema
from newcomer.errors import SettingError

Scalar = str | int | float | bool | None
Value = Scalar | list[Scalar]
"""Value of a field; lists for fields of several values and vectors."""

Number = Annotated[int, Strict()] | Annotated[float, Strict()]
"""true and false are no numbers."""

Id = str | Number

Explore = Literal["none", "thompson", "ucb"]
"""That of `newcomer.items.serving.exploration`, whose import would make a client as slow as a service."""

CONTEXT, CANDIDATES = "context", "candidates"

SCORE_OPTIONS: Mapping[str, tuple[Any, Any]] = {
    "on_unknown": (Literal["error", "null", "prior"], "error"),
    "uncertainty": (bool, False),
    "explore": (Explore | None, None),
    "strength": (Annotated[float, Field(ge=0, le=1e6, strict=True)], 1.0),
    "epsilon": (Annotated[float, Field(ge=0, le=1, strict=True)], 0.0),
}
"""Type and default of each option of `POST /score`. A column of the user of the same name takes its place."""

EVENT_ID, REQUEST_ID, EVENT_TYPE = "event_id", "request_id", "event_type"
"""Keys of an event besides the schema's columns."""


def _named(name: str) -> str:
    if not name.strip() or any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise ValueError("a name has a character that is no blank, and no control characters")
    return name


ClassName = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_named)]
"""Name of a class."""


class Body(BaseModel):
    """A body; unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    hints: ClassVar[Mapping[str, str]] = {}
    """What to say of keys that are not here, but meant."""


class ItemStatus(BaseModel):
    """An item in an answer."""

    item_id: str
    phase: str = Field(description="cold, warm or sufficient, by the number of events")
    events: int = Field(description="number of events that its state is adapted to")


ItemChange = Literal["new", "known", "replaced"]


class AddedItem(ItemStatus):
    """An item of `POST /items`."""

    status: ItemChange = Field(
        description="known: it was there with the same features; replaced: with others, and its state was adapted anew"
    )
    lost: str | None = Field(default=None, description="what the state of a replaced item lost; null: nothing")


class Refused(BaseModel):
    """Something of a body that was left out."""

    pointer: str | None = Field(default=None, description="JSON pointer into the body")
    detail: str


class Unseen(BaseModel):
    """Values of a field, and how many of them training did not have: these are read as one and the same."""

    values: int
    unseen: int


class AddedItems(BaseModel):
    """Answer of `POST /items`."""

    model: str
    items: list[AddedItem]
    refused: list[Refused]
    unseen: dict[str, Unseen] = Field(
        default={}, description="fields of the new and replaced items with values that training did not have"
    )


class ItemPage(BaseModel):
    """Answer of `GET /items`."""

    items: list[ItemStatus]
    next: str | None = Field(description="value of `after` for the next page; null on the last one")


class Edge(BaseModel):
    """Edge of an item's graph."""

    fields: tuple[str, str]
    weight: float
    generated: float = Field(description="weight that the item's features generate, before any event")


class Uncertainty(BaseModel):
    """How far an item's logit is known, in the requests of its latest 20 events; without any in one of which nothing is known."""

    sd: float = Field(
        description="posterior std of the logit given the item's events, root mean square over these requests"
    )
    prior_sd: float = Field(description="the same without its events")


class ItemDetails(ItemStatus):
    """Answer of `GET /items/{id}`."""

    model: str
    version: int
    updated_at: str
    graph: list[Edge] | None = Field(
        description="edges of the item's feature graph, largest weights first; null without one"
    )
    uncertainty: Uncertainty | None = Field(
        description="null for a trained item before its first event in service, other rules of adaptation, damaged events"
    )


class Score(BaseModel):
    """Score of a candidate."""

    item_id: str | None = Field(description="null for a candidate that was given by its features")
    score: float | None = Field(description="click probability; null for an unknown item with on_unknown = null")
    logit: float | None
    sd: float | None = Field(
        description="std of the logit given the item's events, if `uncertainty` is asked for and known"
    )
    phase: str | None
    events: int | None
    unseen: int | None = Field(
        description="how many values training did not have, of the request, the user among them, and of a candidate's fields"
    )


class Scores(BaseModel):
    """Answer of `POST /score`."""

    request_id: str = Field(description="names user and context in events")
    model: str
    scores: list[Score]
    order: list[int] | None = Field(
        default=None,
        description="with `explore`: positions of the candidates that have a score, from 0, the first to show first",
    )
    propensity: float | None = Field(
        default=None, description="with `explore`: probability with which this candidate is the first in `order`"
    )


class Counts(BaseModel):
    """What became of the events of a request."""

    new: int = Field(description="counted now")
    known: int = Field(description="counted before, by their id")
    corrected: int = Field(description="counted before as no click, and now a click; the item's state follows")
    pending: int = Field(default=0, description="impressions that count as no click if none comes within the window")
    refused: int
    errors: list[Refused]
    notes: list[str] = Field(
        default=[],
        description="what to look at: times in another unit, types like a click's, events that other versions did not take",
    )


class Forgotten(BaseModel):
    """What was erased of a user, and what remains."""

    events: int = Field(description="events of the user that were erased from the live version's states")
    items: int = Field(description="items whose states were computed anew without them")
    log_lines: int = Field(description="events and impressions that were blanked in the event log")
    remains: list[str] = Field(
        description="what of the user remains in states and files, or was lost with the user; by version"
    )
    notes: list[str] = Field(default=[], description="what to look at, such as that nothing of this user was there")


class Choice(BaseModel):
    """A class and its probability."""

    label: str
    probability: float


class Classified(BaseModel):
    """What became of one input."""

    classes: list[Choice]
    known: bool = Field(description="false: it probably belongs to no known class")
    error: str | None = Field(default=None, description="why this input was not classified")


class Classifications(BaseModel):
    """Answer of `POST /classify`."""

    model: str
    results: list[Classified]


class ClassifyBody(Body):
    """Body of `POST /classify`."""

    hints = {"model": "name the classifier in the address: /classify?model=NAME"}

    inputs: list[str] = Field(min_length=1, description="texts, or images in base64")
    top: int = Field(default=3, ge=1, le=1000)
    reject: float | None = Field(default=None, ge=0, le=1, description="false-rejection rate")


class ClassList(BaseModel):
    """Answer of `GET /classes`."""

    model: str
    stage: int = Field(description="number of stages that the model has learned")
    classes: list[str]


class Named(Body):
    """A class without examples."""

    name: ClassName
    description: str = Field(default="", description="a text that describes the class; without one its name is read")


class NamesBody(Body):
    """Body of `POST /classes`."""

    classes: list[Named] = Field(min_length=1, max_length=1000)


class Bodies:
    """Bodies for a click model of this schema: `ItemsBody`, `ScoreBody`, `EventsBody`; their values by column."""

    def __init__(self, schema: Schema, rows: int) -> None:
        self.schema = schema
        item_id, user_id = (schema.item, Id, ...), (schema.user, Id | None, None)
        user = (schema.user, Id, ...) if schema.user_missing == "error" else user_id
        item_fields = [(field.name, Value, _default(field)) for field in schema.of("item")]
        user_fields = [(field.name, Value, _default(field)) for field in schema.of("user")]
        context = [(field.name, Value, _default(field)) for field in schema.of("context")]
        of_user = {schema.user, *(name for name, _, _ in user_fields)}
        if taken := of_user & {CONTEXT, CANDIDATES}:
            raise SettingError(
                f"column '{min(taken)}' of the user has the name of a key of POST /score; train with another name"
            )
        item = _model("Item", [item_id, *item_fields], "A new item: its id and fields.")
        fields = [(name, kind, None) for name, kind, _ in item_fields]
        candidate = _model("Candidate", [(schema.item, Id | None, None), *fields], "An item by its features.")
        context_body = _model("Context", context, "Context fields of the request.")
        event = _model(
            "Event",
            [
                item_id,
                user_id,
                *[(name, kind, None) for name, kind, _ in (*user_fields, *context)],
                (schema.label, Scalar, None),
                (schema.time, Number | str | None, None),
                *([] if schema.weight is None else [(schema.weight, Number | str, ...)]),
                *[
                    (name, str | None, None)
                    for name in (EVENT_ID, REQUEST_ID, EVENT_TYPE)
                    if name not in columns_of(schema)
                ],
            ],
            "An impression or a click. User and context are required, or `request_id`: those of the scores of that request.",
        )
        self.Items = create_model(
            "ItemsBody",
            __base__=Body,
            items=(_list_of(item, rows), ...),
            replace=(
                bool,
                Field(default=True, description="false: an item that is there with other features is refused"),
            ),
        )
        self.Events = create_model("EventsBody", __base__=Body, events=(_list_of(event, rows), ...))
        required = any(default is ... for _, _, default in context)
        self.score_options = {name: option for name, option in SCORE_OPTIONS.items() if name not in of_user}
        self.Score = _model(
            "ScoreBody",
            [
                user,
                *user_fields,
                (CONTEXT, context_body, ... if required else context_body()),
                (CANDIDATES, _list_of(Id | candidate, rows), ...),
                *[(name, *option) for name, option in self.score_options.items()],
            ],
            "A user in a context, and candidate items by id or by features.",
        )
        meant = {"item_id": ("item", schema.item), "user_id": ("user", schema.user)}
        for model in (item, candidate, context_body, event, self.Score):
            model.hints = {key: f"this model's {role} column is '{column}'" for key, (role, column) in meant.items()}
        beside = f"it is of the user; write it beside '{CONTEXT}'"
        context_body.hints = {**context_body.hints, **dict.fromkeys(of_user, beside)}

    def row(self, model: BaseModel) -> dict[str, Any]:
        """Values of a body by column; absent keys are absent."""
        return model.model_dump(by_alias=True, exclude_unset=True)


def from_base64(text: str) -> bytes:
    """The bytes of a file in base64, which may be a data URL. Raises binascii.Error for anything else."""
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except ValueError as error:  # also of characters outside ASCII
        raise binascii.Error(str(error)) from None


def _list_of(kind: Any, most: int) -> Any:
    return Annotated[list[kind], Field(min_length=1, max_length=most)]


def columns_of(schema: Schema) -> set[str]:
    """All columns of the schema."""
    return {*schema.event_columns, *(node.name for node in schema.nodes)}


def _default(field: SchemaField) -> Any:
    return ... if field.missing == "error" and field.at_serving is None else None


def _model(name: str, fields: Sequence[tuple[str, Any, Any]], doc: str) -> type[Body]:
    """A model whose fields are named by aliases: a column may have any name."""
    entries: Mapping[str, Any] = {
        f"field_{n}": (kind, Field(default, alias=alias)) for n, (alias, kind, default) in enumerate(fields)
    }
    return create_model(name, __base__=Body, __doc__=doc, **entries)
