"""Gradients of one adapted layer by the thin and the dense algorithm, over ranks and widths: the basis of `low_rank_is_cheaper`.

    python benchmarks/speed/bank.py

Each line has the cost of a forward and backward pass beyond that of the frozen layer, and the algorithm that the rule chooses.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from models import in_turns, measurement
from torch import Tensor
from torch.nn import functional as F

from measurement import Measurement, emit
from newcomer.nn.lora import decoupled_linear
from newcomer.nn.lora.decoupled_linear import _Multiply, low_rank_is_cheaper

COMMAND = "python benchmarks/speed/bank.py"
OPEN = 10


class Passes:
    """Forward and backward pass through one layer of this shape, by each algorithm."""

    def __init__(self, tokens: int, width: int, rank: int) -> None:
        def randn(*size: int, trained: bool = False) -> Tensor:
            return torch.randn(*size, requires_grad=trained)

        self.x, self.weight, self.gradient = (
            randn(tokens, width, trained=True),
            randn(width, width),
            randn(tokens, width),
        )
        self.terms = randn(rank, trained=True), randn(width, OPEN, trained=True), randn(OPEN, width, trained=True)
        self.closed = randn(width, rank - OPEN), randn(rank - OPEN, width)

    def adapted(self, thin: bool) -> None:
        rule, decoupled_linear.low_rank_is_cheaper = decoupled_linear.low_rank_is_cheaper, lambda *_: thin
        try:
            out = _Multiply.apply(self.x, self.weight, None, *self.terms, *self.closed)  # type: ignore[no-untyped-call]
            out.backward(self.gradient)
        finally:
            decoupled_linear.low_rank_is_cheaper = rule

    def frozen(self) -> None:
        F.linear(self.x, self.weight).backward(self.gradient)  # type: ignore[no-untyped-call]


def measurements(repeats: int) -> list[Measurement]:
    results = []
    for width in (192, 768):
        for tokens in (1000, 3940):
            for rank in (10, 50, 200, 400):
                passes = Passes(tokens, width, rank)
                passes_by_name: dict[str, Callable[[], object]] = {
                    "thin": partial(passes.adapted, True),
                    "dense": partial(passes.adapted, False),
                    "frozen": passes.frozen,
                }
                times = {name: statistics.median(taken) for name, taken in in_turns(passes_by_name, repeats).items()}
                thin, dense = (times[name] - times["frozen"] for name in ("thin", "dense"))
                chosen = "thin" if low_rank_is_cheaper(tokens, rank, width, width) else "dense"
                print(
                    f"width {width}, {tokens} tokens, rank {rank:3}: thin / dense {thin / dense:.2f}, chosen {chosen}"
                )
                name = f"gradients width {width} tokens {tokens} rank {rank} thin / dense"
                results.append(measurement(name, round(thin / dense, 3), COMMAND))
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    torch.set_num_threads(1)
    emit(measurements(parser.parse_args().repeats))
