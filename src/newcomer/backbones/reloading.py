"""Reloading the backbone of a store."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from newcomer.backbones.backbone import Backbone
from newcomer.backbones.sources import candidates
from newcomer.errors import DataError, NewcomerError, SettingError
from newcomer.settings import Json

SETTINGS = ("size", "pooling", "max_tokens", "target_modules", "dtype")
KNOWN = {"name", "folder", "fingerprint", "preprocessing", "architecture", *SETTINGS}


class PlainBackbone(Backbone):
    """A backbone with its family's default pooling and length."""

    follows_folder = False


def reload_backbone(
    identity: Mapping[str, Json], given: str | PathLike[str] | None = None, store: Path | None = None
) -> Backbone:
    """The backbone with this `identity`, from the `given` folder or the first candidate location.

    The caller compares identities: if none matches, the first one found is returned.
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
    for candidate in candidates(name, identity.get("folder"), store):
        try:
            found = kind(candidate, **settings)
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
