"""Download of a store from the Hugging Face hub."""

from pathlib import Path

from newcomer.errors import StoreError


def local_folder(source: str | Path, revision: str | None = None) -> Path:
    """This folder, or a local copy of the repository of this id on the hub; from the cache if the hub cannot be reached.

    Raises StoreError for what is neither, and for a repository that cannot be downloaded.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download  # a local store needs no hub
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(str(source), revision=revision))
    except HFValidationError:
        raise StoreError(f"{source}: no such folder; give the folder of a store, or a repository of the hub") from None
    except Exception as error:  # network, authentication, missing repository: the hub has many errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StoreError(f"{source}: no such folder, and not downloaded from the hub ({reason})") from error
