"""Whose a column is: an item's has one value in all rows of the item, but for a small share of rows.

That this holds by chance in a sample is ruled out: were a column independent of the item, two rows would agree with probability
a = Σ p², and p pairs of rows of one item each, no two of the same rows, all with probability aᵖ.
"""

import math

import polars as pl

from newcomer.data.schema import Schema


def evidence(texts: pl.DataFrame, owner: str, column: str) -> float:
    """−log of the probability that the column has one value an owner by chance; −1 where it has not.

    Few rows may disagree (`schema.disagreeing`): of n pairs m. By chance, at a rate q, so few do with a probability of at most
    exp(−n KL(m/n, q)), after Chernoff; without any this is (1 − q)ⁿ.
    """
    known = texts.filter(pl.col(owner) != "") if column != owner else texts
    few = disagreeing(texts, owner, column)
    if few > Schema.disagreeing * len(known):
        return -1.0
    pairs = int((known.group_by(owner).len()["len"] // 2).sum())
    shares = known[column].value_counts()["count"].cast(pl.Float64) / len(known)
    alike = min(1.0, float((shares**2).sum()))
    if not few:
        return -pairs * math.log(alike)
    return pairs * _divergence(few / pairs, 1 - alike) if pairs and few / pairs < 1 - alike else -1.0


def _divergence(one: float, other: float) -> float:
    """Kullback and Leibler's, of a coin that shows heads at one rate from a coin of another rate."""
    tails = (1 - one) * math.log((1 - one) / (1 - other)) if other < 1 else math.inf
    return one * math.log(one / other) + tails


def disagreeing(texts: pl.DataFrame, owner: str, column: str) -> int:
    """How many rows do not show the most frequent value of their owner."""
    counted = texts.filter(pl.col(owner) != "").group_by(owner, column).len()
    return int(counted.group_by(owner).agg(pl.col("len").sum() - pl.col("len").max())["len"].sum())


def holds(texts: pl.DataFrame, owner: str, column: str) -> bool:
    """Whether every owner shows one value alone."""
    return texts.select(pl.struct(owner, column).n_unique() == pl.col(owner).n_unique()).item()  # type: ignore[no-any-return]
