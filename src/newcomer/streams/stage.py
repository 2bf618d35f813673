"""Stages and streams: training data with the evaluation sets that follow it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from newcomer.settings import Json

TrainData = TypeVar("TrainData", covariant=True)
EvalData = TypeVar("EvalData", covariant=True)


@dataclass(frozen=True)
class Stage(Generic[TrainData, EvalData]):
    """One step of a stream: fit on `train`, then evaluate on every set of `eval_sets`; scores carry the sets' names."""

    name: str
    train: TrainData
    eval_sets: Mapping[str, EvalData]


class Stream(Protocol[TrainData, EvalData]):
    """Stages in order; iterating again gives the same stages."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Stage[TrainData, EvalData]]: ...

    def info(self) -> dict[str, Json]:
        """Information for reports: sizes and known limitations."""
        ...
