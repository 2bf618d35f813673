"""Names that become folders: rows of a recipe, and recipes themselves."""

import unicodedata

from newcomer.printable import UNSEEN

FORBIDDEN = '/\\:*?"<>|'
"""What leads to another folder on some system, or cannot stand in a name there."""
DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(1, 10))}
"""Names that Windows gives to devices, whatever stands after a dot."""
LONGEST = 200
"""Bytes of a name; file systems take 255."""


def unfit(name: str) -> str | None:
    """Why this name can be no folder's on every system, or would be one elsewhere; None where it can.

    >>> unfit("sd-lora (rank 4)"), unfit("../x")
    (None, "it has '/' in it")
    """
    if not name:
        return "it is empty"
    if found := [character for character in name if character in FORBIDDEN]:
        return f"it has '{found[0]}' in it"
    if any(unicodedata.category(character) in UNSEEN for character in name):
        return "it has a character in it that is not seen"
    if name.startswith(".") or name[-1] in ". " or name[0] == " ":
        return "it begins with a dot or ends with one, or with a space"
    if name.partition(".")[0].lower() in DEVICES:
        return "Windows calls a device so"
    return f"it is longer than {LONGEST} bytes" if len(name.encode()) > LONGEST else None
