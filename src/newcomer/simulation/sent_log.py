"""Log of what a simulation sent and what the service answered; its replay by a service in this process."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from newcomer.errors import DataError
from newcomer.items.serving.service import ItemService
from newcomer.server.bodies import Counts
from newcomer.simulation.visits import Event


class SentLog:
    """JSON lines, in the order of the answers: `{"items": …}` and `{"events": …, "answer": …}`. Without a stream, nothing."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def items(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """New items that the service knows now."""
        self._write({"items": list(rows)})

    def events(self, events: Sequence[Event], answer: Counts) -> None:
        """Events, with the user and context of their request, and what the service said about them."""
        self._write({"events": [event.to_replay() for event in events], "answer": answer.model_dump()})

    def _write(self, content: Any) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps(content) + "\n")


def replay(lines: Iterable[str], service: ItemService) -> Counts:
    """Do with this service what a log says was done with another; the totals of its answers.

    Raises DataError for a line that is none of such a log.
    """
    total = {"new": 0, "known": 0, "corrected": 0, "refused": 0}
    for number, line in enumerate(lines, 1):
        try:
            content = json.loads(line)
            kind = "items" if "items" in content else "events"
            rows = content[kind]
        except (ValueError, KeyError, TypeError):
            raise DataError(f"line {number} is none of a sent log") from None
        if kind == "items":
            service.add(rows)
            continue
        done = service.warm(rows, on_error="report")
        total["new"] += done.new
        total["known"] += done.known
        total["corrected"] += done.corrected
        total["refused"] += len(rows) - done.new - done.known - done.corrected
    return Counts(**total, errors=[], notes=[])
