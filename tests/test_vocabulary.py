"""Vocabularies: sorted, equal on every machine, with unseen values handled."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newcomer.data.click_log import Column
from newcomer.data.vocabulary import PADDING, UNSEEN, StandardScaler, Vocabulary, coding_from_json
from newcomer.errors import DataError

NAMES = st.lists(st.text(max_size=3) | st.none(), max_size=20)


@given(NAMES, st.randoms())
def test_the_order_of_rows_does_not_matter(names: list[str | None], chance: random.Random) -> None:
    mixed = chance.sample(names, len(names))
    first, second = (Vocabulary.fit("x", Column.of_names(rows)) for rows in (names, mixed))
    assert first == second
    assert list(first.names) == sorted({name for name in names if name is not None})


@given(NAMES, NAMES)
def test_every_value_has_an_index_whatever_was_seen(seen: list[str | None], asked: list[str | None]) -> None:
    vocabulary = Vocabulary.fit("x", Column.of_names(seen))
    for name, index in zip(asked, vocabulary.encode(Column.of_names(asked)).tolist(), strict=True):
        expected = PADDING if name is None else UNSEEN if name not in seen else 2 + vocabulary.names.index(name)
        assert index == expected < len(vocabulary)


def test_rare_values_are_unseen_ones() -> None:
    vocabulary = Vocabulary.fit("x", Column.of_names(["a", "b", "a"]), min_count=2)
    assert vocabulary.encode(Column.of_names(["a", "b"])).tolist() == [2, UNSEEN]


def test_an_unseen_value_is_an_error_where_the_policy_says_so() -> None:
    vocabulary = Vocabulary.fit("colour", Column.of_names(["red"]), unseen="error")
    with pytest.raises(DataError, match="column 'colour': value 'blue' did not occur in training"):
        vocabulary.encode(Column.of_names(["red", "blue"]))


def test_numbers_are_brought_to_one_scale_and_what_is_not_known_stays_so() -> None:
    scale = StandardScaler.fit("x", Column.of_numbers([1.0, float("nan"), 3.0]))
    assert scale.encode(Column.of_numbers([2.0, 5.0])).tolist() == [0.0, 3.0]
    assert StandardScaler.fit("x", Column.of_numbers([4.0, 4.0])).encode(Column.of_numbers([4.0])).tolist() == [0.0]


def test_codings_come_back_from_json() -> None:
    for coding in (Vocabulary("x", ("a", "b"), "error"), StandardScaler("x", 0.5, 2.0)):
        assert coding_from_json(coding.to_json()) == coding
