"""A variable that a launcher, a batch system or a notebook left behind does not silence a process of its own."""

from pathlib import Path

import pytest

from newcomer.store.folder import Store
from newcomer.training.launcher import is_first
from newcomer.training.processes import Processes
from shell import Shell

LEFT = [
    {"RANK": "1"},
    {"RANK": "3", "WORLD_SIZE": "1"},
    {"RANK": "1", "WORLD_SIZE": "4"},  # no address to meet at
    {"RANK": "one", "WORLD_SIZE": "two", "MASTER_ADDR": "here"},
    {"RANK": "", "WORLD_SIZE": "", "MASTER_ADDR": ""},
    {"WORLD_SIZE": "8"},
    {"RANK": "-1", "WORLD_SIZE": "2", "MASTER_ADDR": "here"},
    {"RANK": "4", "WORLD_SIZE": "4", "MASTER_ADDR": "here"},
    {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "LOCAL_RANK": "1", "OMPI_COMM_WORLD_RANK": "1", "PMI_RANK": "1"},
]


@pytest.mark.parametrize("left", LEFT)
def test_a_process_alone_is_the_first(left: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A job script had exported RANK: it made every process think that another one saves."""
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", *left):
        monkeypatch.delenv(name, raising=False)
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    assert is_first()
    assert Processes("cpu").count == 1


def test_a_rank_left_behind_still_saves(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """`RANK=1 newcomer run …` said nothing and saved nothing, exit code 0."""
    monkeypatch.setenv("RANK", "1")
    assert shell.call("run", "birds.toml", "--out", "runs")[0] == 0
    assert len(Store(Path("runs/sd-lora/seed-0/store")).entries()) == 2


def test_of_several_that_a_launcher_began_one_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    assert not is_first()
