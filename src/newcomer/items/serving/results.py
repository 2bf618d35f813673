"""What calls of a learner in service did, and what they left undone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from newcomer.errors import NewcomerError
from newcomer.items.encoding.unseen_values import Unseen

OnError = Literal["raise", "report"]
"""Whether the first thing that cannot be done ends a call that has done nothing yet, or is left out and said with the result."""


class LeftOut:
    """What a call could not do, line by line; where the first such thing is an error, it is raised."""

    def __init__(self, on_error: OnError) -> None:
        self.strict, self.lines = on_error == "raise", list[str]()

    def add(self, error: NewcomerError, events: int = 1) -> None:
        """`events`: how many of an item it is about."""
        if self.strict:
            raise error
        self.lines.append(f"{error}{f' ({events} events of it)' if events > 1 else ''}")


@dataclass(frozen=True)
class Added:
    """What `add` did: items that are new, and those that were there already with the same features."""

    new: Sequence[str]
    known: Sequence[str]
    left_out: Sequence[str] = field(default_factory=list)
    """Why an item was not added, one line each."""
    unseen: Unseen = field(default_factory=Unseen, compare=False)
    """How many values of the new items' features the model has never seen."""


@dataclass(frozen=True)
class Warmed:
    """What `warm` did: events that counted, events that had counted before, and the items that were tuned."""

    new: int
    known: int
    items: Sequence[str]
    conflicting: int = 0
    """Events that had counted before with another label: they did not count, and are among `left_out`."""
    left_out: Sequence[str] = field(default_factory=list)
    """Why events did not count, one line each, or one for all events of an item."""
    unseen: Unseen = field(default_factory=Unseen, compare=False)
    """How many values of the events that counted the model has never seen."""


@dataclass(frozen=True)
class Healed:
    """What `heal` did: items whose state was made anew, and why another could not be."""

    items: Sequence[str]
    left_out: Sequence[str] = field(default_factory=list)
