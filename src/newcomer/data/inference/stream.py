"""Proposal of stream settings (old items, length of phases) from the number of events per item."""

import numpy as np


def propose_stream(events: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> dict[str, int]:
    """Propose `min_old_events` and `phase_events`: the longest phases with at least 20 old and 20 new items for which old items,
    the only training items, have most of the events.

    If old items cannot have most events, their share is maximized. If no phases leave 20 items on either side, one is enough,
    else the shortest phases are used.

    >>> propose_stream(np.array([500] * 30 + [100] * 40))
    {'min_old_events': 200, 'phase_events': 20}
    >>> propose_stream(np.array([500] * 30 + [100] * 400 + [70] * 30))
    {'min_old_events': 80, 'phase_events': 20}
    """
    for enough in (20, 1):
        found: list[tuple[float, dict[str, int]]] = []
        for phase in (20, 10, 5, 3, 2, 1):
            for above in (10 * phase, 6 * phase, 4 * phase, 3 * phase):
                old, new = (events > above).sum(), ((events >= 3 * phase) & (events <= above)).sum()
                if min(old, new) >= enough:
                    found.append((training_share(events, above), {"min_old_events": above, "phase_events": phase}))
        if found:
            return next((stream for share, stream in found if share > 0.5), max(found, key=lambda pair: pair[0])[1])
    return {"min_old_events": 3, "phase_events": 1}


def training_share(events: "np.ndarray[tuple[int], np.dtype[np.int64]]", above: int) -> float:
    """Share of all events that belong to items with more than `above` events."""
    return float(events[events > above].sum() / max(1, events.sum()))
