"""Class names after each stage, from what the stages say."""

from collections.abc import Iterable, Iterator

from newcomer.store.entry import Entry

NEW_CLASSES = "new classes"
"""Key of a stage's information: the classes that it added."""

FIRST_EXAMPLES = "first examples"
"""Key of a stage's information: the classes known by name before, of which it had the first examples."""


def class_history(entries: Iterable[Entry]) -> Iterator[list[str]]:
    """All class names after each of these stages, in the order of the logits.

    Raises KeyError, TypeError or ValueError for stages that are not a classifier's.
    """
    known = list[str]()
    for entry in entries:
        if entry.info["what"] == "forget":
            known.remove(entry.info["class"])
        else:
            known += entry.info[NEW_CLASSES]
        yield list(known)


def classes_after(entries: Iterable[Entry]) -> list[str]:
    """All class names after these stages."""
    return [[], *class_history(entries)][-1]
