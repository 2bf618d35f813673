"""A user's text for one line of a terminal: what would move the cursor, change colours or turn the writing round is spelled out."""

import json
import re
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


def json_text(content: Any, indent: int | None = None, sort_keys: bool = False) -> str:
    """JSON that any file can hold: as it is read, but for halves of characters, such as names of files in an old encoding bring.

    >>> json_text({"größer": "caf\\udce9"}) == '{"größer": "caf\\\\udce9"}'
    True
    """
    text = json.dumps(content, ensure_ascii=False, indent=indent, sort_keys=sort_keys)
    return re.sub("[\ud800-\udfff]", lambda half: _escaped(half[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
