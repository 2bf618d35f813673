"""The table of items in a process: what is taken from it is what was written last, and a copy."""

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from newcomer.items.networks.emerg_network import EmerGNetwork
from newcomer.items.serving.item_cache import ItemCache, ItemTable
from newcomer.items.serving.serialization import to_row
from newcomer.nn.ctr.field_embeddings import CategoricalSize, FieldSize, NumericSize
from newcomer.store.states import ItemHeader, ItemState

CPU = torch.device("cpu")
NAMES = ["a", "b", "c", "d", "e"]


def network() -> EmerGNetwork:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"has_shared_graph": False, "attention": False, "generate_init": True, "tower": []}
    items: list[FieldSize] = [CategoricalSize(9), CategoricalSize(9), NumericSize()]
    return EmerGNetwork(items, [CategoricalSize(4)], width=3, layers=2, init_std=0.5, graph="generated", **settings)


NETWORK = network()


def row(name: str, version: int) -> ItemState:
    """Values and state that depend on the name and the version; of some fields several values, of some states no number."""
    chance = torch.Generator().manual_seed(100 * NAMES.index(name) + version)
    several = torch.randint(2, 9, (1, 1 + version % 4), generator=chance)
    features = [torch.randint(2, 9, (1,), generator=chance), several, torch.randn(1, generator=chance) * 8]
    shapes = NETWORK.tuned_shapes()
    state = {key: torch.randn(1, *shape, generator=chance) for key, shape in shapes.items()}
    if version % 5 == 4:
        state["bias"][:] = torch.nan
    return to_row(name, version, version, features, state, 0, readded=version % 3 == 2)


def parts(of: ItemCache) -> list[Any]:
    """Everything about each item, whatever its number and the width of its neighbours."""
    found = []
    for name, n in sorted(of.numbers.items()):
        values = [value[n][value[n] != 0] if value.dtype == torch.int64 else value[n] for value in of.item_features]
        tensors = [*values, *(value[n] for _, value in sorted({**of.state, **of.precomputed}.items()))]
        marks = [name in marked for marked in (of.readded, of.non_finite, of.far_out)]
        found.append((name, of.headers[n], [str(tensor.tolist()) for tensor in tensors], marks))
    return found


steps = st.lists(
    st.tuples(st.sampled_from(["write", "write", "remove", "take"]), st.lists(st.sampled_from(NAMES), min_size=1)),
    max_size=12,
)


@given(steps)
def test_a_table_has_the_rows_that_were_written_last(done: list[tuple[str, list[str]]]) -> None:
    table, last, version, taken = ItemTable(CPU), dict[str, ItemState](), 0, list[tuple[ItemCache, list[Any]]]()
    for what, names in done:
        names = sorted(set(names))
        if what == "write":
            version += 1
            new = {name: row(name, version) for name in names}
            assert table.outdated({name: one.header for name, one in new.items()}) == names
            table.write(list(new.values()))
            last |= new
        elif what == "remove":
            table.remove(names)
            for name in names:
                last.pop(name, None)
        else:
            found = table.take(names, NETWORK)
            taken.append((found, parts(found)))
        assert table.numbers.keys() == last.keys()
        fresh = ItemTable(CPU)
        fresh.write(list(last.values()))
        for network_ in (None, NETWORK):
            assert parts(table.take(NAMES, network_)) == parts(fresh.take(NAMES, network_))
    for found, then in taken:  # what was taken does not change
        assert parts(found) == then


def test_rows_of_another_version_are_outdated() -> None:
    table = ItemTable(CPU)
    table.write([row("a", 1), row("b", 1)])
    headers = {name: row(name, 1).header for name in ("a", "b")}
    assert table.outdated(headers) == []
    assert table.outdated({**headers, "b": ItemHeader(2, "warm", 2), "c": ItemHeader(0, "cold", 0)}) == ["b", "c"]
