"""Padded batches hold every row once."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from newcomer.items.padding import FULL_ROWS, MAX_PADDING, by_item

ITEMS = st.lists(st.integers(0, 6), max_size=60)


@given(ITEMS, st.integers(1, 30), st.none() | st.integers(1, 5))
def test_every_row_is_there_once_beside_the_others_of_its_item(
    item: list[int], max_rows: int, max_rows_per_item: int | None
) -> None:
    numbers = torch.tensor(item, dtype=torch.long)
    found: list[int] = []
    for batch in by_item(numbers, max_rows, max_rows_per_item):
        assert len(batch.items) == 1 or batch.rows.numel() <= max_rows
        for number, rows, real in zip(batch.items.tolist(), batch.rows, batch.real, strict=True):
            mine = rows[real].tolist()
            assert mine == sorted(mine)
            assert {item[row] for row in mine} == {number}
            assert max_rows_per_item is None or len(mine) <= max_rows_per_item
            found += mine
    assert sorted(found) == list(range(len(item)))


@given(ITEMS)
def test_undivided_an_item_is_in_one_batch(item: list[int]) -> None:
    seen = [
        number for batch in by_item(torch.tensor(item, dtype=torch.long), max_rows=7) for number in batch.items.tolist()
    ]
    assert sorted(seen) == sorted(set(item))


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60))
def test_a_batch_that_is_full_has_little_padding(counts: list[int]) -> None:
    item = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    for batch in by_item(item, max_rows=8192):
        of_items = batch.real.sum(dim=1)
        if int(of_items[:-1].sum()) >= FULL_ROWS:
            assert int((~batch.real).sum()) <= MAX_PADDING * batch.rows.numel()
