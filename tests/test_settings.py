"""Settings, errors, and the addresses of random numbers."""

import inspect
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from newcomer import errors
from newcomer.data.schema import Schema
from newcomer.errors import NewcomerError, SettingError, nearest
from newcomer.items.methods.cvar import CVAR
from newcomer.items.methods.emerg import EmerG
from newcomer.items.methods.id_tuning import IdTuning
from newcomer.seeds import shuffled, spawn
from newcomer.settings import checked, fill, setting_name


def test_the_documented_tree_of_errors_is_the_actual_one() -> None:
    tree = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([│ ]*(?:[├└]── )?)(\w+Error)\b", line):
            depth, name = len(found[1]), found[2]
            above = [(d, n) for d, n in above if d < depth]
            tree[name] = above[-1][1] if above else "Exception"
            above.append((depth, name))
    classes = inspect.getmembers(errors, lambda x: inspect.isclass(x) and issubclass(x, NewcomerError))
    assert tree == {name: kind.__bases__[0].__name__ for name, kind in classes}


def test_the_nearest_name_is_offered_else_all() -> None:
    assert nearest("epoch", ["epochs", "rank"]) == "did you mean 'epochs'?"
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
    assert nearest("zzz", []) == "known: none"


def source(
    path: str,
    limit: Annotated[int, Field(ge=1)] = 3,
    kind: Literal["a", "b"] = "a",
    tasks: int | list[list[str]] = 5,
    rate: float | None = None,
    sizes: tuple[int, ...] = (),
    shared: bool | Literal["auto"] = "auto",
) -> None:
    """Only its signature is of use."""


REST = {"sizes": [], "shared": "auto"}


def test_filling_completes_and_converts() -> None:
    assert (
        fill(source, {"path": "x"}, "data") == {"path": "x", "limit": 3, "kind": "a", "tasks": 5, "rate": None} | REST
    )
    assert fill(source, {"path": "x", "limit": "4", "rate": 1}, "data")["limit"] == 4
    assert fill(source, {"path": "x", "tasks": [["a"], ["b"]]}, "data")["tasks"] == [["a"], ["b"]]
    assert fill(source, {"path": "x", "shared": True}, "data")["shared"] is True
    assert (
        fill(source, {"limit": 1}, "data", provided=["path"])
        == {"limit": 1, "kind": "a", "tasks": 5, "rate": None} | REST
    )


@given(st.fixed_dictionaries({"path": st.text()}, optional={"limit": st.integers(1, 9), "kind": st.sampled_from("ab")}))
def test_filling_what_is_filled_changes_nothing(given: dict[str, Any]) -> None:
    filled = fill(source, given, "data")
    assert fill(source, filled, "data") == filled


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": "x", "limt": 3}, r"data\.limt is not a setting of source; did you mean 'limit'\?"),
        ({}, r"data\.path is missing; source needs it"),
        ({"path": 3}, r"data\.path = 3 cannot be: "),
        ({"path": "x", "limit": 0}, r"data\.limit = 0 cannot be: input should be greater than or equal to 1"),
        ({"path": "x", "limit": 1.5}, r"data\.limit = 1\.5 cannot be: "),
        ({"path": "x", "limit": None}, r"data\.limit = None cannot be: "),
        ({"path": "x", "kind": "c"}, r"data\.kind = 'c' cannot be: input should be 'a' or 'b'"),
        ({"path": "x", "tasks": [1]}, r"data\.tasks = \[1\] cannot be: "),
        ({"path": "x", "rate": "fast"}, r"data\.rate = 'fast' cannot be: "),
        ({"path": "x", "limit": True}, r"data\.limit = True cannot be: input should not be true or false"),
        ({"path": "x", "tasks": False}, r"data\.tasks = False cannot be: input should not be true or false"),
        ({"path": "x", "rate": True}, r"data\.rate = True cannot be: input should not be true or false"),
        ({"path": "x", "sizes": [8, True]}, r"data\.sizes = \[8, True\] cannot be: input should not be true or false"),
    ],
)
def test_what_cannot_be_is_named_with_its_place(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        fill(source, given, "data")
    assert "\n" not in str(caught.value)


class Thing:
    settings: dict[str, Any]

    @checked
    def __init__(self, base: str, *, limit: Annotated[int, Field(ge=1)] = 3, seed: int = 0) -> None:
        self.base, self.limit, self.seed = base, limit, seed


def test_a_direct_call_is_checked_as_a_recipe_is() -> None:
    thing = Thing("x", limit="7")  # type: ignore[arg-type]
    assert (thing.base, thing.limit, thing.settings) == ("x", 7, {"limit": 7, "seed": 0})
    assert Thing(base="y").settings == {"limit": 3, "seed": 0}
    with pytest.raises(SettingError, match="Thing: limit = 0 cannot be"):
        Thing("x", limit=0)
    with pytest.raises(SettingError, match=r"limt is not a setting of Thing; did you mean 'limit'\?"):
        Thing("x", limt=0)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Thing()  # type: ignore[call-arg]


def draws(*address: str | int) -> list[float]:
    numbers: list[float] = torch.rand(4, generator=spawn(*address)).tolist()  # type: ignore[arg-type]
    return numbers


def test_chance_depends_on_its_address_alone() -> None:
    before = draws(0, "a", 1)
    torch.rand(5)
    assert draws(0, "a", 1) == before
    others = [
        draws(1, "a", 1),
        draws(0, "b", 1),
        draws(0, "a", 2),
        draws(0, "a"),
        draws(0, "a1"),
        draws(0, "a", "1", ""),
    ]
    assert len({tuple(x) for x in [before, *others]}) == 7


def test_chance_is_the_same_in_every_process() -> None:
    code = "from newcomer.seeds import shuffled; print(shuffled(9, 3, 'a', 1))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(shuffled(9, 3, "a", 1)) == "[8, 3, 4, 1, 2, 6, 7, 5, 0]"


@given(count=st.integers(0, 30), seed=st.integers(-5, 2**40))
def test_shuffled_is_an_order_of_all_numbers(count: int, seed: int) -> None:
    assert sorted(shuffled(count, seed, "x")) == list(range(count))


@dataclass(frozen=True)
class Tuning:
    epochs: Annotated[int, Field(ge=1)] = 2
    rate: float = 0.1
    tasks: tuple[int, ...] = ()
    length: int = setting_name("prompt_length", 5)


class Base:
    settings: dict[str, Any]

    @checked
    def __init__(self, base: str, *, rank: int = 4, tuning: Tuning = Tuning(rate=0.5), **settings: Any) -> None:
        assert not settings  # fields of a group come in the group
        self.base, self.rank, self.tuning = base, rank, tuning


class Child(Base):
    @checked
    def __init__(self, base: str, *, depth: int = 1, **settings: Any) -> None:
        super().__init__(base, **settings)
        self.depth = depth


def test_fields_of_a_group_are_settings_by_their_names() -> None:
    flat = {"rank": 4, "epochs": 2, "rate": 0.5, "tasks": [], "prompt_length": 5}
    assert fill(Base, {}, "learner", provided=["base"]) == flat
    assert Base("x").settings == flat
    assert Base("x", epochs=3, prompt_length="7").tuning == Tuning(3, 0.5, (), 7)
    assert Base("x", tuning=Tuning(3)).tuning == Tuning(3)
    assert Base("x", tuning=Tuning(3)).settings == {**flat, "epochs": 3, "rate": 0.1}
    assert Base(**Base("x", epochs=3).settings, base="y").tuning == Tuning(3, 0.5)
    with pytest.raises(SettingError, match="Base: epochs is given twice, by itself and in tuning; give one"):
        Base("x", tuning=Tuning(), epochs=3)
    with pytest.raises(SettingError, match="Base: epochs = 0 cannot be"):
        Base("x", tuning=Tuning(0))
    with pytest.raises(SettingError, match=r"Base: tuning = 3 cannot be: give Tuning\(…\)"):
        Base("x", tuning=3)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"epoch is not a setting of Base; did you mean 'epochs'\?"):
        Base("x", epoch=3)


def test_a_subclass_has_its_own_settings_and_those_that_it_passes_on() -> None:
    child = Child("x", depth=2, epochs=3)
    assert (child.depth, child.tuning) == (2, Tuning(3, 0.5))
    assert child.settings == {"depth": 2, "rank": 4, "epochs": 3, "rate": 0.5, "tasks": [], "prompt_length": 5}
    assert fill(Child, child.settings, "learner", provided=["base"]) == child.settings
    assert Child("y", **child.settings).settings == child.settings
    assert Child("x", tuning=Tuning(7)).tuning == Tuning(7)
    with pytest.raises(SettingError, match=r"dept is not a setting of Child; did you mean 'depth'\?"):
        Child("x", dept=3)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (EmerG, {"width": 10**9}),
        (EmerG, {"tower": [8, 10**6]}),
        (IdTuning, {"hidden": [10**9]}),
        (CVAR, {"latent": 2**16 + 1}),
    ],
)
def test_a_layer_that_fits_no_memory_is_refused_at_once(kind: Any, settings: dict[str, Any]) -> None:
    """It would otherwise be allocated, and the machine would be out of memory."""
    with pytest.raises(
        SettingError, match=f"{next(iter(settings))} = .* cannot be: input should be less than or equal to 65536"
    ):
        kind(Schema("item", "user", "click", "time"), **settings)
