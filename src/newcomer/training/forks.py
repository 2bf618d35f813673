"""A process that was forked after libraries had started threads: they did not come along, and whoever asks them waits for ever."""

import os

from newcomer.errors import StoreError

_started = {"process": 0}
"""The process in which this library has used polars' and torch's threads; 0 before it did."""


def require_own_process(opened_in: int | None = None, uses: bool = True) -> None:
    """Note that threads are used here, if that is so; `opened_in` is the process that what is used was made in.

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
