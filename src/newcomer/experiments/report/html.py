"""Pages out of templates: one style for all, no script, nothing fetched."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from newcomer.errors import StoreError
from newcomer.printable import printable
from newcomer.settings import Json
from newcomer.store.writing import write_whole


def rendered(template: str, **values: Any) -> str:
    """The page that a template of this room makes of these values; `draw` in it takes an SVG of our own as it is."""
    pages = Environment(
        loader=PackageLoader("newcomer.experiments", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_shown,
    )
    return pages.get_template(template).render(draw=Markup, **values)


def _shown(value: Any) -> Any:
    """What a page says of a user's data: as on a terminal, nothing in it hides or turns the text around it."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def printed(found: Json) -> Any:
    """What was found, with every text in it as a page or a picture may show it; see `printable`."""
    if isinstance(found, Mapping):
        return {printable(key): printed(value) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [printed(value) for value in found]
    return printable(found) if isinstance(found, str) else found


def write_folder(files: Mapping[str, str], out: Path) -> None:
    """Write these texts by their names.

    Raises StoreError when the disk refuses.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_whole(out / name, content)
    except OSError as error:
        raise StoreError(f"{out}: could not be written ({error.strerror or error}); choose another --out") from None
