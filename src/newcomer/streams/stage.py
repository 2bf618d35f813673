"""A stream is a sequence of stages: something to learn, then exams."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from newcomer.settings import Json

Lesson = TypeVar("Lesson", covariant=True)
Exam = TypeVar("Exam", covariant=True)


@dataclass(frozen=True)
class Stage(Generic[Lesson, Exam]):
    """One step of a stream: `lesson` is studied, then every exam is sat, and the scores carry the names given here."""

    name: str
    lesson: Lesson
    exams: Mapping[str, Exam]


class Stream(Protocol[Lesson, Exam]):
    """Stages in order; iterating again gives the same stages again."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Stage[Lesson, Exam]]: ...

    def facts(self) -> dict[str, Json]:
        """What a report says of the stream: its sizes, and what is known of its limits."""
        ...
