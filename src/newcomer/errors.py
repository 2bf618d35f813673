"""Everything this library raises on purpose, in one tree.

    NewcomerError
    ├── SettingError    a setting is unknown or has a value it cannot have
    │   └── RecipeError     the same, found in a recipe file or in --set
    ├── DataError       a file, folder, table or value cannot be what it should be
    ├── StreamError     the order of stages makes no sense: a label in two tasks, an empty task
    ├── LearnerError    a learner was asked for what it cannot do yet, or at all
    └── StoreError      a store on disk is damaged, too new, in use, or another model's

Each message is one line: where it is, what was found, what to do. The command line prints it and exits with code 2.

What can be done all the same, but not without a word, is a `DataWarning`; the command line prints it and goes on.
"""

import difflib
from collections.abc import Iterable

MANY = 30
"""More names than this are not listed."""


class NewcomerError(Exception):
    """The root of the tree: catch this to catch all."""


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


class DataWarning(UserWarning):
    """Data was repaired or read in a way that its owner should know of."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the nearest known one, or all of them.

    >>> nearest("learning_rat", ["rank", "learning_rate"])
    "did you mean 'learning_rate'?"
    >>> nearest("x", ["rank", "epochs"])
    'known: epochs, rank'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    more = f", … ({len(known)} in all)" if len(known) > MANY else ""
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known[:MANY]) or 'none'}{more}"
