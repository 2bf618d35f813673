"""A process is one of several only where a launcher says all of it."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from newcomer import SDLoRA
from newcomer.data.examples import Examples
from newcomer.training.processes import Processes, is_first

LEFT_BEHIND: list[Mapping[str, str]] = [
    {"RANK": "1"},
    {"RANK": "1", "LOCAL_RANK": "1"},
    {"RANK": "3", "WORLD_SIZE": "1"},
    {"RANK": "junior", "WORLD_SIZE": "four"},
    {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "RANK": "2"},
]
"""What batch systems, notebooks and older jobs leave in the environment of a process that stands alone."""


@pytest.fixture(params=LEFT_BEHIND, ids=" ".join)
def left_behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("left_behind")
def test_a_rank_left_in_the_environment_silences_no_save(tmp_path: Path, tasks: list[Examples]) -> None:
    """A user's notebook had RANK=1 of another job: `save` wrote nothing, without a word."""
    assert is_first()
    assert Processes("cpu").count == 1
    SDLoRA("micro-vit", rank=2, epochs=1).learn(tasks[0]).save(tmp_path / "store")
    assert SDLoRA.load(tmp_path / "store").classes == ["0", "1"]
