"""HTML pages from Jinja templates: self-contained, without scripts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from newcomer.errors import StoreError
from newcomer.printable import printable
from newcomer.settings import Json
from newcomer.store.writing import write_whole


def render_template(template: str, **values: Any) -> str:
    """Render a template of this package; its `draw` inserts an SVG of ours unescaped."""
    environment = Environment(
        loader=PackageLoader("newcomer.experiments", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_finalize,
    )
    return environment.get_template(template).render(draw=Markup, **values)


def _finalize(value: Any) -> Any:
    """A user's text with control and bidirectional characters escaped, as on a terminal; see `printable`."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def to_printable(content: Json) -> Any:
    """`printable` applied to every string in nested mappings and lists."""
    if isinstance(content, Mapping):
        return {printable(key): to_printable(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [to_printable(value) for value in content]
    return printable(content) if isinstance(content, str) else content


def write_folder(files: Mapping[str, str], out: Path) -> None:
    """Write files (name → text) into a folder, which is created.
    Raises StoreError when the disk refuses.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_whole(out / name, content)
    except OSError as error:
        raise StoreError(f"{out}: could not be written ({error.strerror or error}); choose another --out") from None
