"""Encoded values of events as JSON: what is read back is what was written, whatever the fields."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from newcomer.items.encoding.encoder import Clicks
from newcomer.items.serving.event_serialization import to_values
from newcomer.shapes import Tensor


@st.composite
def fields(draw: st.DrawFn, rows: int) -> Tensor:
    """One field: names, several names a row, numbers or vectors; of any width, 0 included."""
    width = draw(st.none() | st.integers(0, 4))
    shape = (rows,) if width is None else (rows, width)
    count = math.prod(shape)
    if draw(st.booleans()):
        names = torch.tensor(draw(st.lists(st.integers(1, 9), min_size=count, max_size=count)), dtype=torch.int64)
        lengths = torch.tensor(draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows)), dtype=torch.int64)
        values = names.reshape(shape)
        return values if width is None else values * (torch.arange(width) < lengths[:, None])
    number = st.sampled_from([0.0, -0.5, 3.0, math.nan])
    return torch.tensor(draw(st.lists(number, min_size=count, max_size=count))).reshape(shape)


@given(data=st.data(), rows=st.integers(0, 4))
@settings(max_examples=80, deadline=None)
def test_every_event_has_its_values_without_padding(data: st.DataObject, rows: int) -> None:
    columns = data.draw(st.lists(fields(rows), max_size=4))
    clicks = Clicks(torch.zeros(rows).long(), torch.zeros(rows), torch.arange(rows), [], columns)
    found = to_values(clicks)
    assert len(found) == rows
    for row, values in enumerate(found):
        for column, value in zip(columns, values, strict=True):
            cell = column[row]
            if cell.is_floating_point() or cell.ndim == 0:
                numbers = value if isinstance(value, list) else [value]
                expected = [None if math.isnan(number) else number for number in cell.flatten().tolist()]
                assert numbers == expected
            else:
                assert value == cell[: max(1, int((cell != 0).sum()))].tolist()
