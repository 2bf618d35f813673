"""Validation of names of folders: rows of a recipe, and recipes themselves."""

import unicodedata

from newcomer.printable import UNPRINTABLE

FORBIDDEN = '/\\:*?"<>|'
"""Characters that are path separators or forbidden in file names on some system."""
RESERVED_NAMES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(1, 10)),
}
"""Reserved device names on Windows, with any extension."""
MAX_BYTES = 200
"""Maximum length of a name in bytes; file systems allow 255."""


def invalid_reason(name: str) -> str | None:
    """Reason why the name is not a portable folder name; None if it is.

    >>> invalid_reason("sd-lora (rank 4)"), invalid_reason("../x")
    (None, "it has '/' in it")
    """
    if not name:
        return "it is empty"
    if found := [character for character in name if character in FORBIDDEN]:
        return f"it has '{found[0]}' in it"
    if any(unicodedata.category(character) in UNPRINTABLE for character in name):
        return "it has an unprintable character in it"
    if name.startswith(".") or name[-1] in ". " or name[0] == " ":
        return "it begins with a dot or ends with one, or with a space"
    if name.partition(".")[0].lower() in RESERVED_NAMES:
        return "it is a reserved name on Windows"
    return f"it is longer than {MAX_BYTES} bytes" if len(name.encode()) > MAX_BYTES else None
