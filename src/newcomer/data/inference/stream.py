"""Which items of a log are old ones and how long the phases of new ones are, proposed from the number of their events."""

import numpy as np


def stream_for(events: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> dict[str, int]:
    """`old_above` and `phase_events` for items of so many events: the longest phases that leave 20 items on either side, and
    most of the events to the old ones, which alone are learned from.

    Where old items cannot have most of the events they have as many as can be. Where no phases leave 20 items on either side, one
    is enough; and where even that cannot be, the shortest phases there are.

    >>> stream_for(np.array([500] * 30 + [100] * 40))
    {'old_above': 200, 'phase_events': 20}
    >>> stream_for(np.array([500] * 30 + [100] * 400 + [70] * 30))
    {'old_above': 80, 'phase_events': 20}
    """
    for enough in (20, 1):
        found: list[tuple[float, dict[str, int]]] = []
        for phase in (20, 10, 5, 3, 2, 1):
            for above in (10 * phase, 6 * phase, 4 * phase, 3 * phase):
                old, new = (events > above).sum(), ((events >= 3 * phase) & (events <= above)).sum()
                if min(old, new) >= enough:
                    found.append((learned_share(events, above), {"old_above": above, "phase_events": phase}))
        if found:
            return next((stream for share, stream in found if share > 0.5), max(found, key=lambda pair: pair[0])[1])
    return {"old_above": 3, "phase_events": 1}


def learned_share(events: "np.ndarray[tuple[int], np.dtype[np.int64]]", above: int) -> float:
    """The share of all events that items of more than so many have."""
    return float(events[events > above].sum() / max(1, events.sum()))
