"""MovieLens from its original files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from newcomer.data.datasets.movielens import movielens_1m, movielens_latest
from newcomer.errors import DataError
from newcomer.streams.cold_start import ColdStart

FILES = {
    "ratings.dat": "1::10::5::100\n2::10::3::200\n2::20::4::300\n",
    "users.dat": "1::F::25::0::01234\n2::M::1::4::55455\n",
    "movies.dat": "10::Café, The (1995)::Drama|War\n20::Up (2009)::Comedy\n30::Never Rated (1950)::Drama\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    return tmp_path


def test_raw_files_become_nine_fields(folder: Path) -> None:
    log = movielens_1m(str(folder))
    assert [node.name for node in log.schema.nodes] == [
        *("item", "year", "title", "genres"),
        *("user", "gender", "age", "occupation", "zip"),
    ]
    assert log.items.ids == ("10", "20")  # what nobody rated is not there
    assert log.label.tolist() == [1, 0, 1]
    assert log.time.tolist() == [100, 200, 300]
    assert log.items.columns["year"].texts() == ["1995", "2009"]
    assert log.items.columns["title"].names == ("café", "the", "up")
    assert log.items.columns["genres"].names == ("Comedy", "Drama", "War")
    assert log.users.columns["zip"].texts() == ["01234", "55455"]


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("ratings.dat", "1::10::5", r"ratings.dat: row 4 does not have the 4 parts"),
        ("ratings.dat", "1::10::good::5", r"ratings.dat: row 4, rating 'good' is not a number"),
        ("ratings.dat", "1::99::5::5", r"ratings.dat: row 4 names item '99', which is in no other file"),
        ("users.dat", "3::F", r"users.dat: row 3 does not have the 5 parts"),
        ("movies.dat", "40;Title;Drama", r"movies.dat: row 4 does not have the 3 parts"),
    ],
)
def test_a_broken_row_is_named(folder: Path, file: str, line: str, message: str) -> None:
    with (folder / file).open("a") as target:
        target.write(line + "\n")
    with pytest.raises(DataError, match=message):
        movielens_1m(str(folder))


@pytest.mark.parametrize("read", [movielens_1m, movielens_latest])
def test_a_missing_folder_says_where_to_get_it(read: Callable[[str], object], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"https://grouplens\.org/datasets/movielens/"):
        read(str(tmp_path / "nowhere"))


def test_the_split_of_movielens_1m_has_the_published_sizes(real_data: Callable[[str], Path]) -> None:
    log = movielens_1m(str(real_data("ml-1m")))
    assert len(log) == 1_000_209
    stages = list(ColdStart(log))
    old, cold, *warm = (stage.train for stage in stages)
    assert (len(np.unique(old.log.item)), len(old.log)) == (1_420, 854_530)  # type: ignore[union-attr]
    assert len(cold.items) == 972  # type: ignore[union-attr]
    assert [len(train.log) for train in warm] == [19_440] * 3  # type: ignore[union-attr]
    assert [len(stage.eval_sets["query"]) for stage in stages[1:]] == [58_409] * 4


def test_movielens_latest_is_read_whole(real_data: Callable[[str], Path]) -> None:
    log = movielens_latest(str(real_data("ml-latest-small")))
    assert (len(log), len(log.users)) == (100_836, 610)
    assert [node.name for node in log.schema.nodes] == ["item", "year", "title", "genres", "user"]
