"""Pages out of templates: one style for all, no script, nothing fetched."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from newcomer.errors import StoreError
from newcomer.printable import printable
from newcomer.store.atomic import write_atomically


def rendered(template: str, **values: Any) -> str:
    """The page that a template of this room makes of these values; `draw` in it takes an SVG of our own as it is."""
    pages = Environment(
        loader=PackageLoader("newcomer", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_shown,
    )
    return pages.get_template(template).render(draw=Markup, **values)


def _shown(value: object) -> object:
    """Text as one sees it: nothing of a user's turns the writing round or is cut off; escaping comes after this."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def write_folder(files: Mapping[str, str], out: Path) -> None:
    """Write these texts by their names.

    Raises StoreError when the disk refuses.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(out / name, content.encode())
    except OSError as error:
        raise StoreError(f"{out}: could not be written ({error.strerror or error}); choose another --out") from None
