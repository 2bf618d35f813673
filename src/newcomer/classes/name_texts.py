"""Texts of classes that are known by name: their descriptions, or their names in a template."""

from collections.abc import Mapping
from typing import Any

from newcomer.data.class_names import class_name
from newcomer.data.containers import as_list, is_missing
from newcomer.errors import LearnerError, SettingError

OF_IMAGES = "a photo of a {}."
"""Template of class names for images, as CLIP's authors give it."""


def described(names: Any) -> dict[str, str]:
    """Classes with descriptions or empty texts, of a list of names or of descriptions by name.

    Raises DataError for what is neither, LearnerError for a name that is missing or given twice and for what is no text.
    """
    pairs = list(names.items()) if isinstance(names, Mapping) else [(name, "") for name in as_list(names, "names")]
    for number, (name, text) in enumerate(pairs):
        if is_missing(name) or not str(name).strip():
            raise LearnerError(f"names[{number}] is missing; give the name of the class")
        if not isinstance(text, str):
            raise LearnerError(f"class '{name}': its description is a {type(text).__name__}; give a text")
    found = {class_name(name): text for name, text in pairs}
    if not found or len(found) < len(pairs):
        raise LearnerError(
            f"names: {len(pairs)} names of {len(found)} classes; give each class once, in a list or a dict of descriptions by name"
        )
    return found


def name_texts(known: Mapping[str, str], new: Mapping[str, str], template: str | None, images: bool) -> dict[str, str]:
    """A text a class: its description, or its name in the template, with spaces for underscores.

    >>> name_texts({"top_up": ""}, {"rate": "what is the exchange rate"}, None, images=False)
    {'top_up': 'top up', 'rate': 'what is the exchange rate'}

    Raises SettingError for a template without {}, LearnerError for a new class with the text of another one.
    """
    template = (OF_IMAGES if images else "{}") if template is None else template
    if not isinstance(template, str) or "{}" not in template:
        raise SettingError(f"template = {template!r}: write {{}} where the name of the class shall stand")
    texts: dict[str, str] = {}
    names = dict[str, str]()
    for name, text in {**known, **new}.items():
        texts[name] = text.strip() or template.replace("{}", name.replace("_", " ").strip() or name)
        other = names.setdefault(texts[name], name)
        if name in new and other != name:
            raise LearnerError(
                f"classes '{other}' and '{name}' have the same text, {texts[name]!r}; give descriptions that differ"
            )
    return texts
