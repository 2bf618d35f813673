"""Which of many cases a law meets in every run, and which only when all tests are run."""

import inspect
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from itertools import product
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


ALIKE = {"mistral", "qwen2", "gemma", "gemma2"}
"""Decoders that are like another one."""


def every_run(kinds: Iterable[str], seldom: Collection[str] = frozenset(ALIKE)) -> list[Any]:
    """Kinds of backbones as parameters; those of `seldom` are marked slow.

    >>> [one.values for one in every_run(["bert", "llama", "mistral"]) if not one.marks]
    [('bert',), ('llama',)]
    """
    return [pytest.param(kind, marks=pytest.mark.slow if kind in seldom else ()) for kind in kinds]


def taking_turns(cases: Sequence[Any], kinds: Mapping[str, Hashable], turn: int) -> list[Any]:
    """Parameters of `covering` for one of many laws: every law meets every kind, and the laws together every case.

    >>> letters = covering({"a": {("x", 1)}, "b": {("x", 2)}, "c": {("x", 3)}})
    >>> for turn in range(2):
    ...     [one.values[0] for one in taking_turns(letters, {"a": "vowel", "b": "other", "c": "other"}, turn) if not one.marks]
    ['a', 'b']
    ['a', 'c']
    """
    by_kind: dict[Hashable, list[str]] = defaultdict(list)
    for case in cases:
        if not case.marks:
            by_kind[kinds[case.values[0]]].append(case.values[0])
    chosen = {names[turn % len(names)] for names in by_kind.values()}
    names = [case.values[0] for case in cases]
    return [pytest.param(name, marks=() if name in chosen else pytest.mark.slow) for name in names]


def parametrize_law(
    metafunc: pytest.Metafunc, fixture: str, cases: Sequence[Any], kinds: Mapping[str, Hashable]
) -> None:
    """In `pytest_generate_tests`: the laws of a module that have this fixture take turns with these cases."""
    if fixture in metafunc.fixturenames:
        every = inspect.getmembers(metafunc.module, inspect.isfunction)
        laws = [
            name for name, law in every if name.startswith("test_") and fixture in inspect.signature(law).parameters
        ]
        turn = laws.index(metafunc.function.__name__)
        metafunc.parametrize(fixture, taking_turns(cases, kinds, turn), indirect=True)


def combinations(*choices: Sequence[Any]) -> list[Any]:
    """Every combination of these as parameters; those that are not needed to meet every choice once are marked slow.

    >>> [one.values for one in combinations("ab", [1, 2, 3]) if not one.marks]
    [('a', 1), ('a', 3), ('b', 2)]
    """
    counts = [len(choice) for choice in choices]
    needed = {tuple(place % count for count in counts) for place in range(max(counts))}
    return [
        pytest.param(
            *(choice[n] for choice, n in zip(choices, places, strict=True)),
            marks=() if places in needed else pytest.mark.slow,
        )
        for places in product(*map(range, counts))
    ]


def values(kind: type, settings: Iterable[Mapping[str, Any]], own: Mapping[str, Any]) -> set[Value]:
    """A learner, and its value of every setting that any of these cases sets; the default is a value, too."""
    names = dict.fromkeys(name for one in settings for name in one)
    return {("learner", kind), *((name, repr(own.get(name, "default"))) for name in names)}
