"""A backbone found again, as a store names it."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from newcomer.backbones.backbone import Backbone
from newcomer.backbones.places import candidates
from newcomer.errors import DataError, NewcomerError, SettingError
from newcomer.settings import Json

SETTINGS = ("size", "pooling", "max_tokens", "target_modules")
KNOWN = {"name", "folder", "fingerprint", "preprocessing", "architecture", *SETTINGS}


class PlainBackbone(Backbone):
    """A backbone whose pooling and length by default are those of its family: what models stand on that name neither."""

    follows_folder = False


def reopened(
    identity: Mapping[str, Json], given: str | PathLike[str] | None = None, store: Path | None = None
) -> Backbone:
    """The backbone that a store names by its `identity`, read as it was, from the place `given` or from where it can be.

    Whoever asks compares identities: where only others are found, the first of them is returned. One whose identity says nothing of
    preprocessing is of a time when pooling and length were the family's.
    Raises DataError where it is nowhere, and where more is said of it than is known here.
    """
    kind = Backbone if "preprocessing" in identity else PlainBackbone
    if more := sorted(identity.keys() - KNOWN):
        raise DataError(
            f"backbone '{identity['name']}': the store says '{more[0]}' of it, which is not known; update newcomer"
        )
    settings = {key: identity[key] for key in SETTINGS if key in identity}
    if given is not None:
        return kind(given, **settings)
    name, others, failures = identity["name"], list[Backbone](), list[NewcomerError]()
    for place in candidates(name, identity.get("folder"), store):
        try:
            found = kind(place, **settings)
        except (DataError, SettingError) as error:
            failures.append(error)
            continue
        found.name = name
        if found.fingerprint == identity["fingerprint"]:
            return found
        others.append(found)
    if others:
        return others[0]
    where = "say where it is with --backbone, in Python with backbone="
    if failures:
        raise DataError(f"{failures[0]}; or {where}")
    raise DataError(
        f"backbone '{name}' cannot be loaded (it is no longer at {identity.get('folder') or name}); {where}"
    )
