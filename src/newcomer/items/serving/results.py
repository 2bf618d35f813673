"""Results of the item service's calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from newcomer.errors import NewcomerError
from newcomer.items.encoding.unseen_values import Unseen
from newcomer.store.states import KEPT

OnError = Literal["raise", "report"]
"""'raise': the first invalid row or item raises, before anything is done; 'report': it is skipped and reported in the result."""


class SkippedRows:
    """Messages about skipped rows and items; with 'raise' the first one is raised."""

    def __init__(self, on_error: OnError) -> None:
        self.strict, self.lines = on_error == "raise", list[str]()

    def add(self, error: NewcomerError, events: int = 1) -> None:
        """Raise or record an error; `events`: number of the item's events that are skipped."""
        if self.strict:
            raise error
        self.lines.append(f"{error}{f' ({events} events of it)' if events > 1 else ''}")


@dataclass(frozen=True)
class Added:
    """Result of `add`: new items, and items that existed with the same features."""

    new: Sequence[str]
    known: Sequence[str]
    left_out: Sequence[str] = field(default_factory=list)
    """Reasons why items were not added."""
    replaced: Sequence[str] = field(default_factory=list)
    """Items that existed with other features, and have the new ones."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """What the states of replaced items lost, by item; nothing where a state stands for all of the item's events."""
    unseen: Unseen = field(default_factory=Unseen, compare=False)
    """Feature values of the new items that were unseen in training."""


@dataclass(frozen=True)
class Warmed:
    """Result of `warm`: number of new events, of known (repeated) events, and the adapted items."""

    new: int
    known: int
    items: Sequence[str]
    corrected: int = 0
    """Clicks on events that had counted as no click, and count as clicks now."""
    left_out: Sequence[str] = field(default_factory=list)
    """Reasons why events were not counted."""
    unseen: Unseen = field(default_factory=Unseen, compare=False)
    """Values of the new events that were unseen in training."""
    calibration: Mapping[str, Mapping[str, float]] = field(default_factory=dict, compare=False)
    """The new events as they were scored before they counted: `metrics.calibration.calibration_by_age`."""
    note: str | None = None
    """What there is to say of events that count, such as of their times."""


@dataclass(frozen=True)
class ForgottenUser:
    """Result of `forget_user`: number of the user's events that were erased, and the items whose events they were."""

    events: int
    items: Sequence[str]
    in_summaries: int = 0
    """Events among these that had entered a summary of their item: what they did to its state remains."""
    untraceable: int = 0
    """Items with events whose user is not kept: what the user's among them did to the states remains."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """What the states of items lost besides, by item."""
    left_out: Sequence[str] = field(default_factory=list)
    """Items that could not be read, or whose states stayed as they were, and why."""

    @property
    def remains(self) -> list[str]:
        """What of the user remains in the states of items, in sentences."""
        found = []
        if self.in_summaries:
            found.append(
                f"{self.in_summaries} of these events had entered the summaries of their items: what they did to the states remains"
            )
        if self.untraceable:
            found.append(
                f"{self.untraceable} items have events whose user is not kept (those of training, or before the latest {KEPT}): "
                "what this user's among them did to the states remains"
            )
        return found


@dataclass(frozen=True)
class Repaired:
    """Result of `repair`: repaired items, and reasons why others were not."""

    items: Sequence[str]
    left_out: Sequence[str] = field(default_factory=list)
