"""Which of many cases a law meets in every run, and which only when all tests are run."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import pytest

Value = tuple[str, Hashable]


def covering(cases: Mapping[str, set[Value]]) -> list[Any]:
    """The names of all cases as parameters; those that are not needed to meet every value once are marked slow.

    Greedy: always the first case with the most values not met yet.

    >>> letters = covering({"a": {("x", 1)}, "b": {("x", 1), ("y", 2)}, "c": {("x", 3), ("y", 2)}})
    >>> [letter.values[0] for letter in letters if not letter.marks]
    ['b', 'c']
    """
    missing: set[Value] = set().union(*cases.values())
    chosen = set()
    while missing:
        name = max(cases, key=lambda one: len(cases[one] & missing))
        chosen.add(name)
        missing -= cases[name]
    return [pytest.param(name, marks=() if name in chosen else pytest.mark.slow) for name in cases]


def values(kind: type, settings: Iterable[Mapping[str, Any]], own: Mapping[str, Any]) -> set[Value]:
    """A learner, and its value of every setting that any of these cases sets; the default is a value, too."""
    names = dict.fromkeys(name for one in settings for name in one)
    return {("learner", kind), *((name, repr(own.get(name, "default"))) for name in names)}
