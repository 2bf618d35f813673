"""Figures of a simulation: latency, fate of events, quality of scores against clicks and against the truth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newcomer.server.bodies import Counts
from newcomer.settings import Json

MESSAGES = 20

TINY = 1e-7
"""Probabilities are clipped to [TINY, 1 − TINY] in log losses."""


@dataclass
class Quality:
    """Sums over impressions of items in one phase."""

    impressions: int = 0
    clicks: int = 0
    predicted: float = 0.0
    loss: float = 0.0
    true_loss: float = 0.0

    def add(self, score: float, truth: float, click: bool) -> None:
        """Count an impression: predicted and true click probability, and whether there was a click."""
        self.impressions += 1
        self.clicks += click
        self.predicted += score
        self.loss += _log_loss(score, click)
        self.true_loss += _log_loss(truth, click)

    def info(self) -> dict[str, Json]:
        """Log loss of the scores and of the true probabilities, and calibration Σp/Σy."""
        count = self.impressions
        return {
            "impressions": count,
            "clicks": self.clicks,
            "log_loss": self.loss / count,
            "true_log_loss": self.true_loss / count,
            "calibration": self.predicted / self.clicks if self.clicks else None,
        }


@dataclass
class Summary:
    """Figures so far."""

    visits: int = 0
    failed: int = 0
    """Visits without an answer."""
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """Seconds of each score that was answered, as the client sees them."""
    items: int = 0
    """New items that were registered."""
    sent: int = 0
    """Events sent and acknowledged, with repetitions."""
    distinct: int = 0
    """Events sent and acknowledged, without repetitions."""
    new: int = 0
    known: int = 0
    corrected: int = 0
    refused: int = 0
    pending: int = 0
    """Events that were not sent, or not acknowledged, before the end."""
    phases: dict[str, Quality] = field(default_factory=dict)
    best_first: int = 0
    """Visits that were shown the candidates with the highest scores; the regret is theirs."""
    regret: float = 0.0
    random_regret: float = 0.0
    errors: list[str] = field(default_factory=list)
    """The first messages about failures and refusals."""

    def answered(self, seconds: float) -> None:
        """Count a visit whose candidates were scored."""
        self.visits += 1
        self.latencies.append(seconds)

    def shown(self, truth: NDArray[np.float64], chosen: NDArray[np.int64]) -> None:
        """Count the regret of a choice: how much the mean click probability of the best candidates is above that of these."""
        best = float(np.sort(truth)[-len(chosen) :].mean())
        self.best_first += 1
        self.regret += best - float(truth[chosen].mean())
        self.random_regret += best - float(truth.mean())

    def acknowledged(self, events: int, distinct: int, counts: Counts) -> None:
        """Count what became of events."""
        self.sent += events
        self.distinct += distinct
        self.new += counts.new
        self.known += counts.known
        self.corrected += counts.corrected
        self.refused += counts.refused
        for error in counts.errors:
            self.error(error.detail)

    def error(self, message: str) -> None:
        """Keep one of the first messages."""
        if len(self.errors) < MESSAGES:
            self.errors.append(message)

    def info(self) -> dict[str, Any]:
        """All figures as JSON."""
        p50, p99 = percentiles(self.latencies)
        return {
            "seconds": self.seconds,
            "visits": self.visits,
            "failed": self.failed,
            "visits_per_second": self.visits / self.seconds if self.seconds else None,
            "p50_ms": p50,
            "p99_ms": p99,
            "new_items": self.items,
            "events": {
                name: getattr(self, name)
                for name in ("sent", "distinct", "new", "known", "corrected", "refused", "pending")
            },
            "phases": {name: quality.info() for name, quality in sorted(self.phases.items())},
            "regret": self.regret / self.best_first if self.best_first else None,
            "random_regret": self.random_regret / self.best_first if self.best_first else None,
            "errors": self.errors,
        }

    def lines(self) -> Iterator[str]:
        """All figures for people."""
        p50, p99 = percentiles(self.latencies)
        rate = f", {self.visits / self.seconds:.1f} a second" if self.seconds else ""
        yield f"{self.visits:,} visits in {self.seconds:.1f} s{rate}; {self.failed:,} without an answer"
        yield f"latency of a score: p50 {_shown(p50)} ms, p99 {_shown(p99)} ms"
        yield (
            f"events: {self.sent:,} sent ({self.sent - self.distinct:,} of them again), {self.new:,} new, {self.known:,} known, "
            f"{self.corrected:,} corrected, {self.refused:,} refused; {self.pending:,} not acknowledged"
        )
        yield f"{self.items:,} new items"
        for name, quality in sorted(self.phases.items()):
            share = f"{quality.predicted / quality.clicks:.3f}" if quality.clicks else "–"
            count = quality.impressions
            yield (
                f"{name}: {count:,} impressions, log loss {quality.loss / count:.4f} (true probabilities: "
                f"{quality.true_loss / count:.4f}), Σp/Σy {share}"
            )
        if self.best_first:
            regret, random = self.regret / self.best_first, self.random_regret / self.best_first
            yield f"regret: {regret:.4f} a candidate shown (random candidates: {random:.4f})"
        for message in self.errors:
            yield f"error: {message}"

    def line(self, since: int) -> str:
        """One line about the interval that began with visit `since`."""
        p50, p99 = percentiles(self.latencies[since:])
        return (
            f"{self.seconds:6.0f} s: {self.visits:,} visits, {_shown(p50)} ms (p99 {_shown(p99)}); events: {self.new:,} new, "
            f"{self.known:,} known, {self.refused:,} refused; {self.items:,} new items; "
            f"{self.failed:,} visits failed"
        )


def percentiles(seconds: Sequence[float]) -> tuple[float | None, float | None]:
    """Median and 99th percentile in milliseconds; None without values."""
    if not seconds:
        return None, None
    p50, p99 = np.percentile(np.array(seconds) * 1e3, [50, 99]).tolist()
    return p50, p99


def _log_loss(probability: float, click: bool) -> float:
    clipped = min(max(probability, TINY), 1 - TINY)
    return float(-np.log(clipped if click else 1 - clipped))


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
