"""A user's text for one line of a terminal: what would move the cursor, change colours or turn the writing round is spelled out."""

import json
import unicodedata
from typing import Any

UNSEEN = {"Cc", "Cf", "Zl", "Zp", "Cs"}
"""Unicode categories of what a terminal obeys or hides: controls, format characters, line and paragraph separators, surrogates."""

JOINERS = "\u200c\u200d"
"""Format characters that words and emoji are written with."""


def printable(text: object) -> str:
    r"""The text with every character that is not to be seen as its escape sequence.

    >>> printable("card\x1b[31m\nlost")
    'card\\x1b[31m\\nlost'
    """
    found = str(text)
    if found.isprintable():
        return found
    return "".join(_escaped(c) if unicodedata.category(c) in UNSEEN and c not in JOINERS else c for c in found)


def printable_json(content: Any, indent: int | None = None, allow_nan: bool = True) -> str:
    r"""JSON that a terminal shows and obeys nothing of: what `printable` spells out is an escape of JSON, read as it was.

    >>> printable_json(["größer\x9b31m", "a\u202eb"]) == r'["größer\u009b31m", "a\u202eb"]'
    True
    """
    text = json.dumps(content, ensure_ascii=False, indent=indent, allow_nan=allow_nan)
    return text if text.isprintable() else "".join(c if c in "\n\r" else _as_json(c) for c in text)


def _as_json(character: str) -> str:
    return json.dumps(character)[1:-1] if printable(character) != character else character


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
