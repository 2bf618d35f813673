"""Proposal of stream settings (old items, length of phases) from the number of events per item."""

import numpy as np

PHASES = (20, 10, 5, 3, 2, 1)
"""Lengths of a warm-up phase that are tried, the best first."""

NEGLIGIBLE = 0.1
"""Share of the events that may be lost for longer phases."""

LEVELS = ((5, 20, 100, 2000), (1, 20, 20, 1), (1, 1, 1, 1), (1, 1, 1, 0))
"""Least length of a phase, least numbers of old items, of new ones, and of these items' events after their phases; best first."""


def propose_stream(events: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> dict[str, int]:
    """Propose `min_old_events` and `phase_events` from the number of events of each item.

    Old items, the only training items, get as many of the events as possible, as long as enough new items remain to tell models
    apart: 100 with 2,000 events after their phases, or fewer in a small log. Longer phases are preferred where they cost less than
    `NEGLIGIBLE` of the events.

    >>> propose_stream(np.array([500] * 30 + [100] * 40))
    {'min_old_events': 120, 'phase_events': 20}
    >>> propose_stream(np.array([500] * 30 + [150] * 100 + [75] * 200))     # 200 would leave half of the events unused
    {'min_old_events': 80, 'phase_events': 20}
    """
    for least_phase, least_old, least_new, least_later in LEVELS:
        found: list[tuple[float, dict[str, int]]] = []
        for phase in (phase for phase in PHASES if phase >= least_phase):
            for above in (3 * phase, 4 * phase, 6 * phase, 10 * phase):
                new = events[(events >= 3 * phase) & (events <= above)]
                enough = len(new) >= least_new and (new - 3 * phase).sum() >= least_later
                if enough and (events > above).sum() >= least_old:
                    found.append((training_share(events, above), {"min_old_events": above, "phase_events": phase}))
        if found:
            most = max(share for share, _ in found)
            return next(stream for share, stream in found if share > most - NEGLIGIBLE)
    return {"min_old_events": 3, "phase_events": 1}


def training_share(events: "np.ndarray[tuple[int], np.dtype[np.int64]]", above: int) -> float:
    """Share of all events that belong to items with more than `above` events."""
    return float(events[events > above].sum() / max(1, events.sum()))
