"""Prometheus metrics; of several workers together (`PROMETHEUS_MULTIPROC_DIR`)."""

import os
from collections import Counter as Counts
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import log
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

from newcomer.items.encoding.unseen_values import SIZES, Unseen
from newcomer.server.configuration import METRICS_FOLDER

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

INTERVALS = [f"{low:+g} to {high:+g}" for low, high in pairwise((float("-inf"), *SIZES, float("inf")))]
"""Names of the intervals of numbers."""

DIFFERENCES = (-2.0, -1.0, -0.5, -0.2, -0.1, -0.05, -0.01, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Metrics:
    """What is counted in this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "newcomer_requests", "Requests by route and status.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "newcomer_request_seconds",
            "Latency of requests.",
            ["method", "route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.scores = Counter("newcomer_scores", "Scores by the item's phase.", ["phase"], registry=self.registry)
        self.unseen = Counter(
            "newcomer_unseen_values",
            "Values of requests and items that training did not have.",
            ["field"],
            registry=self.registry,
        )
        self.values = Counter("newcomer_values", "Values of requests and items.", ["field"], registry=self.registry)
        self.numbers = Counter(
            "newcomer_numbers",
            "Numbers of requests and items, by field and by how many stds of training they are from its mean.",
            ["field", "stds"],
            registry=self.registry,
        )
        self.events = Counter(
            "newcomer_events", "Events: new, known, corrected, refused.", ["outcome"], registry=self.registry
        )
        self.expected = Counter(
            "newcomer_expected_clicks",
            "Click probabilities of new events before they counted, times weights, by the number of events that the item had.",
            ["item_events"],
            registry=self.registry,
        )
        self.scored_events = Counter(
            "newcomer_scored_events",
            "New events, whatever their weights, by the number of events that the item had.",
            ["item_events"],
            registry=self.registry,
        )
        self.clicks = Counter(
            "newcomer_clicks",
            "Clicks times weights, by the number of events that the item had; one that corrects an impression counts once.",
            ["item_events"],
            registry=self.registry,
        )
        self.differences = Histogram(
            "newcomer_shadow_logit_difference",
            "Logit of a shadow version's score minus that of the answer's.",
            ["version"],
            buckets=DIFFERENCES,
            registry=self.registry,
        )
        self.classified = Counter(
            "newcomer_classified",
            "Inputs classified: known, novel, unreadable.",
            ["model", "outcome"],
            registry=self.registry,
        )

    def scored(self, phases: Sequence[str | None], unseen: Unseen) -> None:
        """Count scores and the values of their request."""
        for phase, count in Counts(phases).items():
            self.scores.labels(phase or "unknown").inc(count)
        self.count_values(unseen)

    def count_values(self, unseen: Unseen) -> None:
        """Count the values of a request, or of items."""
        for name, counted in unseen.columns.items():
            self.values.labels(name).inc(counted.values)
            self.unseen.labels(name).inc(counted.unseen)
        for name, counts in unseen.numbers.items():
            for interval, count in zip(INTERVALS, counts.tolist(), strict=True):
                if count:
                    self.numbers.labels(name, interval).inc(count)

    def counted(self, outcomes: Mapping[str, int]) -> None:
        """Count events by outcome."""
        for outcome, count in outcomes.items():
            self.events.labels(outcome).inc(count)

    def believed(self, calibration: Mapping[str, Mapping[str, float]]) -> None:
        """Add up the clicks that were expected, and those that came."""
        for name, sums in calibration.items():
            self.scored_events.labels(name).inc(sums["rows"])
            self.expected.labels(name).inc(sums["expected"])
            self.clicks.labels(name).inc(sums["clicks"])

    def calibration(self) -> list[dict[str, Any]]:
        """Clicks expected and clicks that came in all workers, by the number of events that the item had."""
        expected, clicks = (
            {one.labels["item_events"]: one.value for one in self._samples(name) if _is_total(one)}
            for name in ("newcomer_expected_clicks", "newcomer_clicks")
        )
        names = sorted(expected, key=lambda name: int(name.rstrip("+").partition("-")[0]))
        return [{"events": name, "expected": expected[name], "clicks": clicks.get(name, 0.0)} for name in names]

    def compared(self, version: str, scores: Iterable[tuple[float, float]]) -> None:
        """Record pairs of scores of one request: the answer's, and those of a shadow version."""
        differences = self.differences.labels(version)
        for answered, shadow in scores:
            differences.observe(_logit(shadow) - _logit(answered))

    def latencies(self) -> list[dict[str, Any]]:
        """Of each route, of all workers: number of requests, and the bucket bounds that hold half and 99 % of them."""
        buckets: dict[str, dict[float, float]] = {}
        for sample in self._samples("newcomer_request_seconds"):
            if sample.name.endswith("_bucket") and not sample.labels["route"].startswith("/ui"):
                name = f"{sample.labels['method']} {sample.labels['route']}"
                buckets.setdefault(name, {})[float(sample.labels["le"])] = sample.value
        found = [(name, bounds, int(max(bounds.values()))) for name, bounds in sorted(buckets.items())]
        return [
            {"name": name, "count": count, "median": _bound(bounds, 0.5), "high": _bound(bounds, 0.99)}
            for name, bounds, count in found
        ]

    def outcomes(self) -> list[tuple[str, int]]:
        """Number of events by outcome, of all workers."""
        samples = self._samples("newcomer_events")
        return [(one.labels["outcome"], int(one.value)) for one in samples if _is_total(one)]

    def exposition(self) -> bytes:
        """All metrics, of all workers, in Prometheus' text format."""
        return generate_latest(self._of_all_workers())

    def _samples(self, name: str) -> list[Sample]:
        """Samples of one metric, of all workers."""
        return [one for metric in self._of_all_workers().collect() if metric.name == name for one in metric.samples]

    def _of_all_workers(self) -> CollectorRegistry:
        if not os.environ.get(METRICS_FOLDER):
            return self.registry
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry


def _logit(probability: float) -> float:
    """Logit of a probability, kept 1e-7 away from 0 and 1.

    >>> _logit(0.5)
    0.0
    """
    kept = min(max(probability, 1e-7), 1 - 1e-7)
    return log(kept / (1 - kept))


def _is_total(sample: Sample) -> bool:
    """Whether this is a counter's value, not the time when it began."""
    return sample.name.endswith("_total")


def _bound(bounds: Mapping[float, float], share: float) -> str:
    """Upper bound of the first bucket up to which this share of all is."""
    every = max(bounds.values())
    bound = min(bound for bound, count in bounds.items() if count >= share * every)
    return "over 10 s" if bound == float("inf") else f"{1000 * bound:g} ms"
