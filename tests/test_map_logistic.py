"""The MAP estimate of logistic regression against a plain optimiser."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from newcomer.nn.optim.map_logistic import map_estimate
from newcomer.shapes import Tensor

MANY = 60
"""Steps after which Newton has long arrived."""


def problem(items: int, rows: int, numbers: int, seed: int, prior_std: float = 1.0) -> dict[str, Any]:
    """Random logits, gradients and labels; about a quarter of the rows are padding."""
    chance = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=chance, dtype=torch.float64)

    return {
        "logits": 2 * normal(items, rows),
        "jacobian": normal(items, rows, numbers),
        "labels": (normal(items, rows) > 0).double(),
        "weights": (normal(items, rows) > -0.7).double(),
        "prior_std": prior_std * torch.rand(numbers, generator=chance, dtype=torch.float64) + 1e-3,
    }


def unlikeliness(move: Tensor, item: int, known: dict[str, Tensor]) -> Tensor:
    """− log posterior of one item's move, up to a constant, row by row as it is written down."""
    loss = (move**2 / (2 * known["prior_std"] ** 2)).sum()
    for row in range(known["logits"].shape[1]):
        if known["weights"][item, row]:
            logit = known["logits"][item, row] + known["jacobian"][item, row] @ move
            loss = loss + functional.binary_cross_entropy_with_logits(logit, known["labels"][item, row])
    return loss


def slowly(known: dict[str, Tensor]) -> Tensor:
    """The twin: a library's optimiser, item by item, in units of the prior's std."""
    found = []
    for item in range(len(known["logits"])):
        units = torch.zeros_like(known["prior_std"], requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [units], max_iter=300, tolerance_grad=1e-12, tolerance_change=1e-18, line_search_fn="strong_wolfe"
        )

        def loss(units: Tensor = units, item: int = item) -> Tensor:
            value = unlikeliness(units * known["prior_std"], item, known)
            (units.grad,) = torch.autograd.grad(value, units)
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        found.append(units.detach() * known["prior_std"])
    return torch.stack(found)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7), st.floats(0.01, 2.0), st.integers(0, 10**6))
@example(1, 5, 4, 2.0, 2784)  # whole steps of Newton's walk in a circle here
def test_it_equals_a_plain_optimiser_item_by_item(
    items: int, rows: int, numbers: int, spread: float, seed: int
) -> None:
    known = problem(items, rows, numbers, seed, spread)
    torch.testing.assert_close(map_estimate(**known, steps=MANY), slowly(known), atol=1e-6, rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.01, 3.0), st.integers(0, 10**6))
def test_the_estimate_is_a_maximum_of_the_posterior(rows: int, numbers: int, spread: float, seed: int) -> None:
    known = problem(1, rows, numbers, seed, spread)
    move = map_estimate(**known, steps=MANY)[0].requires_grad_()
    (slope,) = torch.autograd.grad(unlikeliness(move, 0, known), move)
    torch.testing.assert_close(slope * known["prior_std"], torch.zeros_like(slope), atol=1e-9, rtol=0)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.01, 100.0), st.integers(0, 10**6))
@example(5, 4, 2.0, 2784)
def test_no_step_lowers_the_posterior_at_any_prior_width(rows: int, numbers: int, spread: float, seed: int) -> None:
    known = problem(1, rows, numbers, seed, spread)
    losses = [unlikeliness(map_estimate(**known, steps=steps)[0], 0, known) for steps in range(12)]
    for before, after in itertools.pairwise(losses):
        assert after <= before * (1 + 1e-12) + 1e-12


def test_one_row_and_one_number_by_hand() -> None:
    """z = ln 3, y = 0, J = 2, s = 1/2: δ = −s² J σ(z + J δ), so x = J δ solves x = −σ(ln 3 + x), and x = −0.61791."""
    one = torch.ones(1, 1, dtype=torch.float64)
    move = map_estimate(one * torch.log(3 * one), 2 * one[..., None], 0 * one, one, one[0] / 2, MANY)
    x = 2 * float(move)
    assert x == pytest.approx(-3 / (3 + torch.exp(torch.tensor(-x, dtype=torch.float64)).item()), abs=1e-12)
    assert float(move) == pytest.approx(-0.308956, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), st.integers(0, 10**6))
def test_rows_that_only_fill_up_change_nothing(rows: int, numbers: int, more: int, seed: int) -> None:
    """They also make it as many unknowns as numbers where it was as many as rows: both ways are one."""
    known = problem(2, rows, numbers, seed)
    other = problem(2, more, numbers, seed + 1)
    other["weights"] = torch.zeros_like(other["weights"])
    filled: dict[str, Any] = {
        key: known[key] if key == "prior_std" else torch.cat([known[key], other[key]], dim=1) for key in known
    }
    for steps in (1, 3, MANY):
        torch.testing.assert_close(map_estimate(**filled, steps=steps), map_estimate(**known, steps=steps))


@pytest.mark.parametrize("numbers", [1, 2, 5, 40])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_in_rows_or_in_numbers_every_step_is_the_same_on_both_sides_of_the_border(numbers: int, steps: int) -> None:
    for rows in (max(numbers - 1, 1), numbers, numbers + 1):
        known = problem(3, rows, numbers, seed=rows)
        unused = {key: known[key] for key in known} | {
            "jacobian": torch.cat([known["jacobian"], torch.zeros(3, rows, 3, dtype=torch.float64)], dim=2),
            "prior_std": torch.cat([known["prior_std"], torch.ones(3, dtype=torch.float64)]),
        }  # three numbers on which nothing depends: more unknowns in numbers, as many in rows
        torch.testing.assert_close(
            map_estimate(**unused, steps=steps)[:, :numbers], map_estimate(**known, steps=steps), atol=1e-9, rtol=1e-9
        )
        assert (map_estimate(**unused, steps=steps)[:, numbers:] == 0).all()


def test_an_item_without_rows_stays_where_it_is() -> None:
    known = problem(3, 4, 5, seed=0)
    known["weights"] = torch.ones_like(known["weights"])
    known["weights"][1] = 0
    moves = map_estimate(**known, steps=5)
    assert (moves[1] == 0).all()
    assert (moves[[0, 2]] != 0).all()
    for numbers in (1, 5):
        none: dict[str, Any] = {key: value[:, :0] for key, value in known.items() if key != "prior_std"}
        none |= {"jacobian": known["jacobian"][:, :0, :numbers], "prior_std": known["prior_std"][:numbers]}
        assert torch.equal(map_estimate(**none, steps=5), torch.zeros(3, numbers, dtype=torch.float64))


@pytest.mark.parametrize(("rows", "numbers"), [(3, 6), (6, 3)])
def test_items_together_are_items_alone(rows: int, numbers: int) -> None:
    known = problem(5, rows, numbers, seed=2)
    alone = [
        map_estimate(
            **{key: value if key == "prior_std" else value[n : n + 1] for key, value in known.items()}, steps=5
        )
        for n in range(5)
    ]
    torch.testing.assert_close(map_estimate(**known, steps=5), torch.cat(alone))


@pytest.mark.parametrize(("rows", "numbers"), [(3, 6), (6, 3)])
def test_a_narrow_prior_holds_and_the_first_move_grows_with_its_variance(rows: int, numbers: int) -> None:
    """δ → S Jᵀ(y − p) as s → 0."""
    known = problem(4, rows, numbers, seed=3)
    pull = (known["labels"] - torch.sigmoid(known["logits"])) * known["weights"]
    for narrow in (1e-3, 1e-5, 1e-30):
        less = known | {"prior_std": known["prior_std"] * narrow}
        expected = less["prior_std"] ** 2 * (known["jacobian"].mT @ pull[..., None])[..., 0]
        torch.testing.assert_close(
            map_estimate(**less, steps=3), expected, rtol=20 * narrow + 1e-12, atol=1e-2 * narrow**2
        )
    assert (map_estimate(**known | {"prior_std": 0 * known["prior_std"]}, steps=3) == 0).all()


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize(("rows", "numbers"), [(1, 40), (40, 40), (5000, 1), (5000, 40)])
def test_identical_labels_move_a_state_far_but_finitely(label: float, rows: int, numbers: int) -> None:
    known = {key: value.float() for key, value in problem(2, rows, numbers, seed=4).items()}
    known["labels"] = torch.full_like(known["labels"], label)
    known["jacobian"] = known["jacobian"].abs()  # one direction explains all
    known["weights"] = torch.ones_like(known["weights"])
    for steps in (1, 5, 40):
        moves = map_estimate(**known, steps=steps)
        assert moves.isfinite().all()
        after = known["logits"] + (known["jacobian"] @ moves[..., None])[..., 0]
        assert ((after > known["logits"]).float() == label).all()


@pytest.mark.parametrize("rows", [1, 20, 5000])
def test_five_newton_steps_suffice(rows: int) -> None:
    known = problem(1, rows, 20, seed=5, prior_std=0.6)
    few, many = (map_estimate(**known, steps=steps)[0] for steps in (5, MANY))
    nothing = unlikeliness(torch.zeros_like(few), 0, known)
    won = (nothing - unlikeliness(few, 0, known)) / (nothing - unlikeliness(many, 0, known))
    assert won == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("rows", "numbers"), [(2, 4), (4, 2)])
def test_its_gradients_are_those_of_finite_differences(rows: int, numbers: int) -> None:
    known = problem(2, rows, numbers, seed=6)
    learned = ("jacobian", "logits", "prior_std")
    for steps in (1, 3):

        def moves(slopes: Tensor, logits: Tensor, spread: Tensor, steps: int = steps) -> Tensor:
            return map_estimate(logits, slopes, known["labels"], known["weights"], spread, steps)

        assert torch.autograd.gradcheck(moves, [known[key].clone().requires_grad_() for key in learned])


def test_twice_the_evidence_is_a_prior_wider_by_the_root_of_two() -> None:
    known = problem(3, 5, 4, seed=7)
    twice: dict[str, Any] = {
        key: value if key == "prior_std" else torch.cat([value, value], dim=1) for key, value in known.items()
    }
    wider = known | {"prior_std": known["prior_std"] * 2**0.5}
    torch.testing.assert_close(map_estimate(**twice, steps=5), map_estimate(**wider, steps=5))
