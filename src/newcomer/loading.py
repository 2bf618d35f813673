"""`newcomer.load`: any store, from a folder or the Hugging Face hub."""

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from newcomer.classes.learner import ClassLearner
from newcomer.errors import StoreError
from newcomer.items.learner import ItemLearner
from newcomer.items.serving.service import ItemService
from newcomer.registry import find_learner
from newcomer.store.download import local_folder
from newcomer.store.folder import Store


def load(source: str | Path, *, states: str | None = None, revision: str | None = None, **settings: Any) -> Any:
    """The model in this store: a `ClassLearner`, or an `ItemService` for a click model.

    - `source`: a folder, or the id of a repository on the Hugging Face hub (`revision`: branch, tag or commit there).
    - `states`: URL of the database of item states, for a click model; by default `items.db` in the folder. Of a repository the
      default is a temporary database, with the states uploaded there: give a URL to keep what the model learns.
    - `settings`: settings to change for a classifier, such as `head="ridge"`, `backbone="/models/vit"` or `device="cpu"`.

    Raises StoreError for a folder without a store and for a repository that cannot be downloaded; as `Learner.load` does.
    """
    folder = local_folder(source, revision)
    kind = find_learner(Store(folder).manifest().learner)
    if issubclass(kind, ItemLearner):
        if settings:
            raise StoreError(
                f"{source}: a click model; its settings cannot change when it is loaded ({next(iter(settings))})"
            )
        if states is None and not Path(source).is_dir():
            return _open_temporary(folder)
        return ItemService.open(folder, states)
    assert issubclass(kind, ClassLearner)
    return kind.load(folder, **settings)


def _open_temporary(folder: Path) -> ItemService:
    """A click model whose item states are a temporary copy: the cache of the hub must not be written."""
    from newcomer.store.sql import sqlite_url

    temporary = tempfile.mkdtemp(prefix="newcomer-")
    try:
        database = Path(temporary) / "items.db"
        if (folder / "items.db").exists():
            shutil.copyfile(folder / "items.db", database)
        service = ItemService.open(folder, sqlite_url(database))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    weakref.finalize(service, shutil.rmtree, temporary, ignore_errors=True)
    return service
