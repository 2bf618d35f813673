"""A user's text for one line of a terminal: what would move the cursor, change colours or turn the writing round is spelled out."""

import unicodedata

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


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
