"""Proposal of EmerG's regularization from what the fields of a log hold; see docs/defaults.md for what it brings."""

from collections.abc import Mapping, Sequence

from newcomer.data.inference.sampling import count_values
from newcomer.data.io.chunked_log import SMALL
from newcomer.data.io.formats import content_size
from newcomer.data.io.remote import LogFile
from newcomer.data.schema import Schema
from newcomer.settings import Json

MAX_EVENTS = 2_000_000
"""Events up to which histories and averages are proposed: every gradient step sums the histories of all users."""

MAX_USERS = 50_000
"""Users up to which they are: with averages every gradient step costs all rows of a table."""

MIN_USER_EVENTS = 50
"""Mean number of a user's events from which on histories are proposed: short ones tell less than they add in weights."""

TEXT_DROPOUT = 0.9
"""Of a text: its words tell an item of pre-training apart rather than describe a new one."""

AVERAGED = 0.6
"""Share of the steps over which weights are averaged."""

WHY = {
    "smoothing_bandwidth": "numbers but for a few values: similar embeddings for near ones; Silverman's bandwidth",
    "field_dropout": "words of a text tell items apart that are learned from; they describe new ones less",
    "user_history": "one field more: what the user clicked before, and what not",
    "weight_averaging": "means of the weights over the last part of pre-training",
}
"""Setting → reason."""


def propose_regularization(
    schema: Schema, bandwidths: Mapping[str, float], files: Sequence[LogFile], rows: int | None
) -> dict[str, Json]:
    """Settings of EmerG for this log. `bandwidths`: of categorical fields whose values are numbers; `rows`: events, if known."""
    found: dict[str, Json] = {}
    if bandwidths:
        found["smoothing_bandwidth"] = {name: float(f"{bandwidth:.2g}") for name, bandwidth in bandwidths.items()}
    if texts := [field.name for field in schema.of("item") if field.kind == "text"]:
        found["field_dropout"] = dict.fromkeys(texts, TEXT_DROPOUT)
    users = _users_of_small_log(files, rows, schema.user)
    if rows and users:
        can_have_history = schema.weight is None and "user_history" not in [field.name for field in schema.nodes]
        if can_have_history and rows >= MIN_USER_EVENTS * users:
            found["user_history"] = True
        found["weight_averaging"] = AVERAGED
    return found


def _users_of_small_log(files: Sequence[LogFile], rows: int | None, user: str) -> int | None:
    """Number of users of a log that is read into memory and has few enough events and users; else None."""
    if rows is None or rows > MAX_EVENTS or sum(content_size(file, SMALL) for file in files) > SMALL:
        return None
    users = count_values(files, user)
    return len(users) if users is not None and len(users) <= MAX_USERS else None
