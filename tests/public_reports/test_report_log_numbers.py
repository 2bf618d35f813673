"""Outliers are bounded and do not affect other values."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newcomer.data.click_log import Column
from newcomer.data.io.chunked_log import ChunkedLog
from newcomer.data.io.log_reader import log_from_frame, log_from_rows, read_log
from newcomer.data.io.log_statistics import LogStatistics
from newcomer.data.running_stats import RunningStats
from newcomer.data.schema import Field, Schema
from newcomer.data.vocabulary import BOUND, StandardScaler, VectorScaler, coding_from_json
from newcomer.errors import DataError
from newcomer.items.encoding.encoder import Encoder

FAR = [1e7, -1e9, 9.2e18, 1.8e19, 9223372036854775807.0, 1.7e308, -1.7e308]
ANY = st.floats(allow_nan=False, allow_infinity=False)


def ordinary(count: int = 2500) -> np.ndarray:
    return np.random.default_rng(0).random(count)


@pytest.mark.parametrize("far", FAR)
def test_one_number_far_out_flattens_no_field(far: float) -> None:
    """VowpalWabbit #537, libffm-python #5: one 1e9 among 2,500 numbers made all others the same."""
    numbers = ordinary()
    plain, scale = (StandardScaler.fit("x", Column.of_numbers(given)) for given in (numbers, [*numbers, far]))
    np.testing.assert_allclose([scale.mean, scale.deviation], [plain.mean, plain.deviation], rtol=1e-9)
    assert abs(scale.encode(Column.of_numbers([far]))[0]) == BOUND


@pytest.mark.parametrize("sentinel", [-1.0, 9999.0, 999999999.0, float(2**63 - 1)])
def test_sentinels_for_missing_flatten_no_field(sentinel: float) -> None:
    """Logs write -1, 9999 or the largest whole number where nothing is known: here in 5 of 100 rows."""
    numbers = ordinary()
    mixed = np.where(np.arange(len(numbers)) % 20 == 0, sentinel, numbers)
    scale = StandardScaler.fit("x", Column.of_numbers(mixed))
    assert 0.2 < scale.deviation < 0.5


@settings(deadline=None)
@given(
    st.lists(ANY | st.just(float("nan")), max_size=30), st.lists(ANY | st.just(float("nan")), min_size=1, max_size=9)
)
def test_what_is_encoded_is_bounded_whatever_was_learned(learned: list[float], asked: list[float]) -> None:
    """One event with 1e7 made an item's state NaN: no number leaves the coding that is not finite and bounded."""
    found = StandardScaler.fit("x", Column.of_numbers(learned)).encode(Column.of_numbers(asked))
    assert np.isnan(found).tolist() == np.isnan(asked).tolist()
    assert (np.abs(found[~np.isnan(found)]) <= BOUND).all()


WIDE = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = st.lists(st.tuples(WIDE, st.floats(-1, 1, width=32)), min_size=1, max_size=9)


@settings(deadline=None)
@given(VECTORS, VECTORS)
def test_vectors_are_bounded_and_keep_their_direction(
    learned: list[tuple[float, float]], asked: list[tuple[float, float]]
) -> None:
    """The same of embeddings from elsewhere, one of which has exploded."""
    found = VectorScaler.fit("x", Column.of_vectors(learned)).encode(Column.of_vectors(asked))
    assert np.isfinite(found).all()
    assert (np.sqrt(np.square(found.astype(float)).mean(axis=1)) <= BOUND * 1.0001).all()


def test_one_vector_far_out_flattens_no_field() -> None:
    """The same: the others keep their scale."""
    vectors = np.random.default_rng(1).normal(2, 3, (500, 8)).astype(np.float32)
    far = np.concatenate([vectors, np.full((1, 8), 1e30, dtype=np.float32)])
    plain, scale = (VectorScaler.fit("x", Column.of_vectors(given)) for given in (vectors, far))
    np.testing.assert_allclose([*scale.mean, scale.deviation], [*plain.mean, plain.deviation], rtol=1e-6)


@pytest.mark.parametrize("kind", ["normal", "uniform", "zeros and counts", "years", "epochs", "rare", "two values"])
def test_ordinary_numbers_are_scaled_to_the_bit_as_they_were(kind: str) -> None:
    """What is not far out is scaled by its mean and standard deviation, as ever."""
    chance = np.random.default_rng(2)
    numbers = {
        "normal": chance.normal(3, 2, 5000),
        "uniform": chance.random(5000),
        "zeros and counts": np.where(chance.random(5000) < 0.9, 0, chance.poisson(3, 5000)).astype(float),
        "years": chance.integers(1950, 2025, 5000).astype(float),
        "epochs": 1.7e9 + chance.random(5000) * 1e6,
        "rare": (chance.random(5000) < 0.01).astype(float),
        "two values": np.array([1.0, 3.0]),
    }[kind]
    spread, scale = RunningStats.of(numbers), StandardScaler.fit("x", Column.of_numbers(numbers))
    assert (scale.mean, scale.deviation) == (float(spread.mean), float(np.sqrt(spread.variance)))
    expected = np.clip((numbers - scale.mean) / scale.deviation, -BOUND, BOUND).astype(np.float32)
    assert scale.encode(Column.of_numbers(numbers)).tolist() == expected.tolist()


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-1e6, 1e6) | st.sampled_from(FAR), max_size=12), min_size=1, max_size=6))
def test_the_scale_does_not_depend_on_how_a_log_is_cut(parts: list[list[float]]) -> None:
    """A log in pieces has the scale of the log in memory."""
    pieced = sum((RunningStats.of(np.array(part)) for part in parts[1:]), start=RunningStats.of(np.array(parts[0])))
    one, other = (
        StandardScaler.of("x", s) for s in (pieced, RunningStats.of(np.array([x for part in parts for x in part])))
    )
    size = max(1.0, abs(one.mean), one.deviation)
    np.testing.assert_allclose([one.mean, one.deviation], [other.mean, other.deviation], rtol=1e-6, atol=1e-9 * size)


def test_the_store_says_how_numbers_are_bounded_and_older_ones_gain_it() -> None:
    """An older store has no bound; what it was scaled with stays, and what is asked is bounded."""
    assert StandardScaler("x", 1.0, 2.0).to_json() == {"field": "x", "mean": 1.0, "deviation": 2.0, "bound": 10.0}
    old = coding_from_json({"field": "x", "mean": 0.0, "deviation": 1.0})
    assert old.encode(Column.of_numbers([1e300])).tolist() == [10.0]
    assert isinstance(coding_from_json({"field": "x", "mean": [0.0], "deviation": 1.0}), VectorScaler)
    for deviation in (float("nan"), float("inf"), 0.0):
        with pytest.raises(DataError, match="column 'x': its scale in the store is not finite"):
            coding_from_json({"field": "x", "mean": 0.0, "deviation": deviation})


def test_a_price_far_out_in_a_log_of_pieces(tmp_path: Path) -> None:
    """Through the readers: the same scale in memory and piece by piece, and every encoded number bounded."""
    schema = Schema("i", "u", fields=(Field("price", "item", "numeric"), Field("bid", "context", "numeric")))
    chance = np.random.default_rng(3)
    item = chance.integers(0, 50, 400)
    frame = pl.DataFrame({"i": item, "u": chance.integers(0, 9, 400), "label": item % 2, "time": range(400)})
    price = [1e300 if n == 7 else float(n) for n in item.tolist()]
    frame = frame.with_columns(price=pl.Series(price), bid=pl.Series([*chance.random(399), 9.2e18]))
    frame.write_csv(tmp_path / "log.csv")
    whole = read_log(tmp_path / "log.csv", schema)
    one = Encoder.fit(whole)
    two = Encoder.fit(LogStatistics.of(ChunkedLog(tmp_path / "log.csv", schema, rows=60)))
    for name in ("price", "bid"):
        a, b = one.codings[name], two.codings[name]
        assert isinstance(a, StandardScaler)
        assert isinstance(b, StandardScaler)
        np.testing.assert_allclose([a.mean, a.deviation], [b.mean, b.deviation], rtol=1e-9)
        assert a.deviation < 100
    values = one.clicks(whole, whole.item).of_rows[-1]
    assert float(values.abs().max()) == 10.0


def test_what_is_no_finite_number_is_named_with_its_row() -> None:
    """JSON's 1.8e308 is infinite: refused with advice that can be followed."""
    schema = Schema("i", "u", fields=(Field("bid", "context", "numeric", missing="mark"),))
    with pytest.raises(DataError, match=r"row 2, column 'bid' is infinite; write a finite number"):
        log_from_rows(schema, i=["a", "a"], u=[1, 2], label=[0, 1], time=[1, 2], bid=[1.0, float("inf")])
    frame = pl.DataFrame({"i": ["a"], "u": [1], "label": [0], "time": [1], "bid": [" 2.5 "]})
    assert log_from_frame(frame, schema).context["bid"].values.tolist() == [2.5]
    assert log_from_frame(frame.with_columns(bid=pl.lit("TRUE")), schema).context["bid"].values.tolist() == [1.0]
