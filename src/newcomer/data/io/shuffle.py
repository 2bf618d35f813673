"""Ways through a log that is larger than memory: shuffled passes, and the latest events of some items."""

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import torch

from newcomer.data.canonical import names
from newcomer.data.click_log import Log
from newcomer.data.io.chunked_log import LogFiles
from newcomer.data.io.column_parsing import ROW
from newcomer.data.io.timestamps import FRACTION
from newcomer.errors import DataError, SettingError
from newcomer.seeds import shuffled, spawn


class Passes:
    """`epochs` times all rows of a log, in mixes: `mixed` pieces, drawn anew every epoch, and their rows in a random order.

    A mix depends on the files, the seed and its number alone: the number is all that must be kept to go on later. A log that
    fits in one mix is shuffled as a whole. `only` says which rows of a mix to keep; there may be none.

    Raises SettingError for less than one epoch, or pieces in a mix.
    """

    def __init__(
        self, files: LogFiles, epochs: int, seed: int, mixed: int = 2, only: Callable[[Log], Log] | None = None
    ) -> None:
        if epochs < 1 or mixed < 1:
            raise SettingError(f"epochs = {epochs}, mixed = {mixed}: both are at least 1; raise them")
        self.files, self.epochs, self.seed, self.mixed, self.only = files, epochs, seed, mixed, only

    @property
    def mixes_per_epoch(self) -> int:
        return -(-len(self.files.pieces) // self.mixed)

    def __len__(self) -> int:
        """Mixes of all epochs."""
        return self.epochs * self.mixes_per_epoch

    def mix(self, number: int) -> Log:
        """The rows of one mix, counted from 0 over all epochs."""
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} mixes, and number {number} is none of them")
        epoch, place = divmod(number, self.mixes_per_epoch)
        order = shuffled(len(self.files.pieces), self.seed, "passes", "pieces", epoch)
        chosen = order[place * self.mixed : (place + 1) * self.mixed]
        log = self.files.read(*(self.files.pieces[piece] for piece in chosen))
        log = self.only(log) if self.only else log
        return log.take(torch.randperm(len(log), generator=spawn(self.seed, "passes", "rows", number)).numpy())

    def since(self, done: int = 0) -> Iterator[Log]:
        """The mixes after so many; each is read while the one before is in use."""
        with ThreadPoolExecutor(max_workers=1) as reader:
            coming = reader.submit(self.mix, done) if done < len(self) else None
            while coming:
                log, done = coming.result(), done + 1
                coming = reader.submit(self.mix, done) if done < len(self) else None
                yield log


def windows(files: LogFiles, items: Collection[str], most: int) -> Log:
    """The latest `most` events of each of these items, at one time the later rows; in the order of the files, found in one pass.

    Memory: two pieces, and `most` events an item. Raises DataError where none of the items has an event.
    """
    if most < 1:
        raise SettingError(f"most = {most}: a window holds at least one event; raise it")
    item, chosen = files.schema.item, names(pl.Series("item", sorted(items), dtype=pl.String), "items").implode()
    kept: pl.DataFrame | None = None
    for piece in files.pieces:
        found = files.table(piece).filter(pl.col(item).is_in(chosen))
        kept = _latest(found if kept is None else pl.concat([kept, found]), item, files.schema.time, most)
    if kept is None or not len(kept):
        raise DataError(f"none of {len(items)} items has an event in these files; give ids of column '{item}'")
    return files.encoded(kept.sort(ROW))


def _latest(rows: pl.DataFrame, item: str, time: str, most: int) -> pl.DataFrame:
    return rows.sort(time, FRACTION, ROW).group_by(item, maintain_order=True).tail(most)
