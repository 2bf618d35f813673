"""Detection of processes forked after libraries had started threads: these are missing there, and calls would deadlock."""

import os

from newcomer.errors import StoreError

_started = {"process": 0}
"""Process id in which this library has used threads of polars and torch; 0 before that."""


def require_own_process(opened_in: int | None = None, uses: bool = True) -> None:
    """Record that threads are used, if `uses`; `opened_in`: process id in which the object was created.

    Raises StoreError in a child that was forked from one that had used them, or had opened what is used.
    """
    here = os.getpid()
    parent = next((process for process in (_started["process"], opened_in) if process and process != here), None)
    if parent is not None:
        raise StoreError(
            f"process {here} was forked from process {parent} after a model was used there, and would wait for ever for "
            "threads that did not come along; open the model in each worker after the fork (gunicorn: without --preload; "
            "multiprocessing: 'spawn')"
        )
    if uses:
        _started["process"] = here
