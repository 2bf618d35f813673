"""Text for people: names, counts, and untrusted text without control characters, line breaks and bidirectional overrides."""

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

UNPRINTABLE = {"Cc", "Cf", "Zl", "Zp", "Cs"}
"""Unicode categories that are escaped: controls, format characters, line and paragraph separators, surrogates."""

JOINERS = "\u200c\u200d"
"""Joiners, which are part of words and emoji and stay."""


LISTED_NAMES = 4
"""Names in a `repr`; the rest is an ellipsis."""


def listed(names: Sequence[object], limit: int = LISTED_NAMES) -> str:
    """The first names, quoted, for a `repr`.

    >>> listed(["cat", "dog", "bird"], limit=2)
    "'cat', 'dog', …"
    """
    return ", ".join([*map(repr, names[:limit]), *(["…"] if len(names) > limit else [])])


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "class", "classes"), counted(2, "item")
    ('1 class', '2 items')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def stage_title(name: str) -> str:
    """The name of a stage, an evaluation set or a part of training as it is shown: tasks count from 1.

    In records and stores, and so in the addresses of random numbers, they count from 0.

    >>> stage_title("task 0, after"), stage_title("warm-a")
    ('task 1, after', 'warm-a')
    """
    return (
        name
        if name.startswith("forget ")
        else re.sub(r"\b(task|names) (\d+)\b", lambda m: f"{m[1]} {int(m[2]) + 1}", name)
    )


def printable(text: object) -> str:
    r"""Text with every unprintable character as its escape sequence.

    >>> printable("card\x1b[31m\nlost")
    'card\\x1b[31m\\nlost'
    """
    found = str(text)
    if found.isprintable():
        return found
    return "".join(_escaped(c) if unicodedata.category(c) in UNPRINTABLE and c not in JOINERS else c for c in found)


def printable_json(content: Any, indent: int | None = None, allow_nan: bool = True) -> str:
    r"""JSON safe for terminals: unprintable characters are JSON escapes, so parsing gives the same content.

    >>> printable_json(["größer\x9b31m", "a\u202eb"]) == r'["größer\u009b31m", "a\u202eb"]'
    True
    """
    text = json.dumps(content, ensure_ascii=False, indent=indent, allow_nan=allow_nan)
    return text if text.isprintable() else "".join(c if c in "\n\r" else _as_json(c) for c in text)


def _as_json(character: str) -> str:
    return json.dumps(character)[1:-1] if printable(character) != character else character


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
