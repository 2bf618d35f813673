"""Exceptions and warnings of the library.

    NewcomerError
    ├── SettingError    a setting is unknown or has a value it cannot have
    │   └── RecipeError     the same, found in a recipe file or in --set
    ├── DataError       a file, folder, table or value cannot be what it should be
    ├── StreamError     the order of stages makes no sense: a label in two tasks, an empty task
    ├── LearnerError    a learner was asked for what it cannot do yet, or at all
    ├── StoreError      a store on disk is damaged, too new, in use, or another model's
    └── MissingExtraError   an optional dependency is not installed; also an ImportError

Each message is one line: where, what was got, what to do. The command line prints it and exits with code 2.

`DataWarning` reports data that was repaired; the command line prints it and continues, a job of the service keeps it.
"""

import difflib
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

MANY = 30
"""More names than this are not listed."""


class NewcomerError(Exception):
    """Base class of all errors of the library."""


class SettingError(NewcomerError):
    """A setting is unknown or has a value it cannot have."""


class RecipeError(SettingError):
    """A recipe file, or a change to one, cannot be understood."""


class DataError(NewcomerError):
    """A file, folder, table or value cannot be what it should be."""


class StreamError(NewcomerError):
    """The order of stages makes no sense."""


class LearnerError(NewcomerError):
    """A learner was asked for what it cannot do yet, or at all."""


class StoreError(NewcomerError):
    """A store on disk is damaged, too new, in use, or another model's."""


class MissingExtraError(NewcomerError, ImportError):
    """An optional dependency is not installed."""


class DataWarning(UserWarning):
    """Data was repaired or reinterpreted on reading."""


@contextmanager
def data_warnings_to(report: Callable[[str], object]) -> Iterator[None]:
    """Within, the text of each DataWarning goes there, whatever filters are set.

    >>> with data_warnings_to(print):
    ...     warnings.warn("a row was left out", DataWarning)
    a row was left out
    """
    with warnings.catch_warnings():
        show_data_warnings(report, "always")
        yield


def show_data_warnings(report: Callable[[str], object], action: Literal["always", "default"]) -> None:
    """From now on the text of each DataWarning goes there; with `default` only the first of several with one text."""
    show = warnings.showwarning

    def say(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, DataWarning):
            report(str(message))
        else:
            show(message, category, *place, **more)

    warnings.filterwarnings(action, category=DataWarning)
    warnings.showwarning = say


def nearest(name: str, known: Iterable[str], title: str = "known:") -> str:
    """The end of an error message about an unknown name: the nearest known one, or all of them after `title`.

    >>> nearest("learning_rat", ["rank", "learning_rate"])
    "did you mean 'learning_rate'?"
    >>> nearest("x", ["rank", "epochs"])
    'known: epochs, rank'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    more = f", … ({len(known)} in all)" if len(known) > MANY else ""
    return f"did you mean '{close[0]}'?" if close else f"{title} {', '.join(known[:MANY]) or 'none'}{more}"
