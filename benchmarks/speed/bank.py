"""Gradients of one adapted layer in the thin and in the dense way, over ranks and widths: what `thin_is_cheaper` is made of.

    python benchmarks/speed/bank.py

Each line is what a forward and backward pass costs beyond that of the frozen layer; the rule's choice stands at its end.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from models import figure, in_turns
from torch import Tensor
from torch.nn import functional as F

from figure import Figure, emit
from newcomer.nn.lora import decoupled_linear
from newcomer.nn.lora.decoupled_linear import _Multiply, thin_is_cheaper

COMMAND = "python benchmarks/speed/bank.py"
OPEN = 10


class Passes:
    """Forward and backward through one layer of this shape, in each way."""

    def __init__(self, tokens: int, width: int, rank: int) -> None:
        def drawn(*size: int, trained: bool = False) -> Tensor:
            return torch.randn(*size, requires_grad=trained)

        self.x, self.weight, self.gradient = (
            drawn(tokens, width, trained=True),
            drawn(width, width),
            drawn(tokens, width),
        )
        self.terms = drawn(rank, trained=True), drawn(width, OPEN, trained=True), drawn(OPEN, width, trained=True)
        self.closed = drawn(width, rank - OPEN), drawn(rank - OPEN, width)

    def adapted(self, thin: bool) -> None:
        rule, decoupled_linear.thin_is_cheaper = decoupled_linear.thin_is_cheaper, lambda *_: thin
        try:
            out = _Multiply.apply(self.x, self.weight, None, *self.terms, *self.closed)  # type: ignore[no-untyped-call]
            out.backward(self.gradient)
        finally:
            decoupled_linear.thin_is_cheaper = rule

    def frozen(self) -> None:
        F.linear(self.x, self.weight).backward(self.gradient)  # type: ignore[no-untyped-call]


def figures(repeats: int) -> list[Figure]:
    found = []
    for width in (192, 768):
        for tokens in (1000, 3940):
            for rank in (10, 50, 200, 400):
                passes = Passes(tokens, width, rank)
                ways: dict[str, Callable[[], object]] = {
                    "thin": partial(passes.adapted, True),
                    "dense": partial(passes.adapted, False),
                    "frozen": passes.frozen,
                }
                times = {name: statistics.median(taken) for name, taken in in_turns(ways, repeats).items()}
                thin, dense = (times[way] - times["frozen"] for way in ("thin", "dense"))
                chosen = "thin" if thin_is_cheaper(tokens, rank, width, width) else "dense"
                print(
                    f"width {width}, {tokens} tokens, rank {rank:3}: thin / dense {thin / dense:.2f}, chosen {chosen}"
                )
                name = f"gradients width {width} tokens {tokens} rank {rank} thin / dense"
                found.append(figure(name, round(thin / dense, 3), COMMAND))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    torch.set_num_threads(1)
    emit(figures(parser.parse_args().repeats))
