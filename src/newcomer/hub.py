"""Upload of models to the Hugging Face hub, with a model card."""

import json
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from newcomer.classes.class_history import classes_after
from newcomer.classes.learner import ClassLearner
from newcomer.errors import SettingError, StoreError
from newcomer.printable import counted
from newcomer.registry import find_learner
from newcomer.settings import Json
from newcomer.store.folder import MANIFEST, Manifest, Store, files_of
from newcomer.training.learner import Learner

CARD = "README.md"
STATES = "items.db"
EXPORTS = {"adapter_config.json": "peft", "model.onnx": "onnx", "config.json": "transformers"}
"""A file of each exported form, and the library that loads it; the first match counts."""
CLASSES_LISTED = 50
"""Class names in a model card."""


def push_to_hub(
    source: Learner[Any, Any] | str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload model with newcomer",
    metrics: Mapping[str, float] | None = None,
    states: bool = False,
) -> str:
    """Upload a model in one commit. Returns the URL of the commit.

    - `source`: a learner, the folder of a store, or an exported folder (`newcomer export`).
    - `repo_id`: 'user/name' or 'organization/name'; the repository is created if it does not exist, `private` or not.
    - `token`: access token; by default the one that `hf auth login` stored.
    - `revision`: branch, created if it does not exist; by default main.
    - `metrics`: written into the model card, such as `learner.evaluate(eval_set)`.
    - `states`: upload `items.db` too, the states of the items added since the click model was saved.

    Uploaded of a store: its manifest and stage files, and a model card. They hold weights, class statistics and class names; of a
    click model the ids and features of its old items, the vocabularies of its fields and, with `warmup_events="all"`, warm-up
    events. Not uploaded: the backbone, training examples, and `items.db` unless `states`. Uploaded of an exported folder: all its
    files, with the metadata of the hub put before its README.md. Other files of the repository stay.

    Raises StoreError for a source that is no model and if the hub refuses, SettingError for an invalid repository id.
    """
    from huggingface_hub import CommitOperationAdd, HfApi  # a local store needs no hub

    api = HfApi(token=token)
    with _files(source, repo_id, metrics or {}, states) as files:
        operations = [CommitOperationAdd(name, file) for name, file in files.items()]
        with _hub_errors(repo_id):
            repository = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if revision is not None:
                api.create_branch(repository, branch=revision, exist_ok=True)
            commit = api.create_commit(repository, operations, commit_message=commit_message, revision=revision)
    return commit.commit_url


@contextmanager
def _hub_errors(repo_id: str) -> Iterator[None]:
    """Turn any error of the hub into an error of one line."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except HFValidationError:
        raise SettingError(f"{repo_id!r} is not the id of a repository; give 'user/name'") from None
    except Exception as error:  # network, authentication, rights: the hub has many errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StoreError(f"{repo_id}: not uploaded to the hub ({reason})") from error


@contextmanager
def _files(
    source: Learner[Any, Any] | str | Path, repo_id: str, metrics: Mapping[str, float], states: bool
) -> Iterator[dict[str, bytes | Path]]:
    """Contents or paths of the files to upload, by their names in the repository."""
    with tempfile.TemporaryDirectory() as temporary:
        if isinstance(source, Learner):
            folder = Path(temporary) / "store"
            if not source.entries:
                raise StoreError(f"{type(source).__name__}: has learned nothing yet; call learn first")
            source.save(folder)
        elif isinstance(source, (str, Path)):
            folder = Path(source)
        else:
            raise SettingError(f"source of type {type(source).__name__}; give a learner or the folder of a model")
        is_store = Store(folder).exists()
        files = _store_files(folder, repo_id, metrics) if is_store else _exported_files(folder, metrics)
        if states:
            if not (folder / STATES).is_file():
                raise StoreError(f"{folder}: no {STATES} there; push without states=True")
            files[STATES] = _copy_database(folder / STATES, Path(temporary) / STATES)
        yield files


def _store_files(folder: Path, repo_id: str, metrics: Mapping[str, float]) -> dict[str, bytes | Path]:
    """Manifest and stages, checked against their checksums, and a model card."""
    manifest, entries = Store(folder).manifest(), Store(folder).entries()
    classes = classes_after(entries) if issubclass(find_learner(manifest.learner), ClassLearner) else []
    for entry in entries:
        len(entry.state or ())  # reads and checks it
    files = {name: folder / name for name in sorted(files_of(manifest.stages))}
    text = store_card(manifest, classes, repo_id, metrics)
    return {CARD: text.encode(), MANIFEST: folder / MANIFEST, **files}


def _exported_files(folder: Path, metrics: Mapping[str, float]) -> dict[str, bytes | Path]:
    library = next((EXPORTS[name] for name in EXPORTS if (folder / name).is_file()), None)
    if library is None or not (folder / CARD).is_file():
        raise StoreError(f"{folder}: neither a store nor an exported folder; give the folder a model was saved to")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != STATES]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    files: dict[str, bytes | Path] = {n: p for n, p in names.items() if not any(s[0] == "." for s in n.split("/"))}
    images = (folder / "preprocessor_config.json").is_file()
    metadata = {
        "library_name": library,
        "pipeline_tag": f"{'image' if images else 'text'}-classification",
        "tags": ["newcomer", "class-incremental-learning"],
        **({"metrics": sorted(metrics)} if metrics else {}),
    }
    text = (folder / CARD).read_text(encoding="utf-8")
    body = text if text.startswith("---\n") else _front_matter(metadata) + text
    files[CARD] = (body + _metric_table(metrics)).encode()
    return files


def store_card(manifest: Manifest, classes: list[str], repo_id: str, metrics: Mapping[str, float]) -> str:
    """Model card of a store: metadata of the hub in YAML, then what it is and how to load it."""
    kind = find_learner(manifest.learner)
    tags = ["newcomer", manifest.learner]
    if issubclass(kind, ClassLearner):
        backbone: Mapping[str, Json] = manifest.depends_on["backbone"]
        local, name = bool(backbone.get("folder")), str(backbone["name"])
        name = Path(name).name if local else name
        images = _reads_images(backbone)
        metadata: dict[str, Json] = {"base_model": name} if "/" in name and not local else {}
        metadata["pipeline_tag"] = f"{'image' if images else 'text'}-classification"
        tags += ["continual-learning", "class-incremental-learning"]
        title = f"{kind.__name__}: {counted(len(classes), 'class', 'classes')} of {'images' if images else 'texts'}"
        what = f"A classifier that learns new classes task by task ({kind.__name__}), on the backbone `{name}`."
        what += " The backbone is not part of this repository" + ("; give its folder as `backbone=`." if local else ".")
        use = 'model.predict("photo.png")' if images else 'model.predict("a text")'
        more = f'backbone="/path/to/{name}"' if local else ""
        listed = ", ".join(f"`{_inline(c)}`" for c in classes[:CLASSES_LISTED])
        rest = f", … ({len(classes)} in all)" if len(classes) > CLASSES_LISTED else ""
        parts = [f"Classes: {listed}{rest}"] if classes else []
    else:
        metadata, more = {"pipeline_tag": "tabular-classification"}, ""
        tags += ["cold-start", "click-through-rate"]
        title = f"{kind.__name__}: a click model"
        what = f"A click model whose new items need no retraining ({kind.__name__})."
        use = "model.add(items)\nmodel.score(requests)\nmodel.warm(events)"
        parts = []
    metadata = {"library_name": "newcomer", **metadata, "tags": tags}
    if metrics:
        metadata["metrics"] = sorted(metrics)
    arguments = f'"{repo_id}"' + (f", {more}" if more else "")
    code = f"```python\nimport newcomer\n\nmodel = newcomer.load({arguments})\n{use}\n```"
    body = "\n\n".join([f"# {title}", what, code, *parts]) + "\n"
    return _front_matter(metadata) + body + _metric_table(metrics)


def _reads_images(backbone: Mapping[str, Json]) -> bool:
    """Whether its preprocessing is that of images."""
    return any(key in backbone.get("preprocessing", {}) for key in ("image_mean", "mean", "size", "input_size"))


def _front_matter(metadata: Mapping[str, Json]) -> str:
    """Metadata as YAML between lines of dashes; JSON values are YAML."""
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in metadata.items()]
    return "\n".join(["---", *lines, "---", "", ""])


def _metric_table(metrics: Mapping[str, float]) -> str:
    rows = [f"| {name} | {value:.4g} |" for name, value in metrics.items()]
    return "\n".join(["", "| metric | value |", "|---|---|", *rows, ""]) if rows else ""


def _inline(name: str) -> str:
    """Text for a code span of Markdown."""
    return " ".join(name.replace("`", "'").split())


def _copy_database(database: Path, copy: Path) -> Path:
    """A consistent copy of an SQLite database, which another process may be writing."""
    try:
        with (
            closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as error:
        raise StoreError(f"{database}: cannot be read ({error}); restore it from a copy") from None
    return copy
