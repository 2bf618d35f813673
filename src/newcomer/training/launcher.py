"""Environment variables of a distributed launcher (`torchrun`, `accelerate launch`), read without importing torch."""

import os


def is_first() -> bool:
    """Whether this process is the one that writes and speaks, of all that `torchrun` or `accelerate launch` started."""
    return world()[1] == 0


def world() -> tuple[int, int]:
    """How many processes a launcher started, and which of them this is, from 0.

    One variable alone says nothing: batch systems, notebooks and older jobs leave a RANK or a WORLD_SIZE behind. Only a launcher
    sets both and the address at which the processes meet.
    """
    count, index = (os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK"))
    if not (count.isdecimal() and index.isdecimal() and os.environ.get("MASTER_ADDR")):
        return 1, 0
    return (int(count), int(index)) if int(index) < int(count) else (1, 0)
