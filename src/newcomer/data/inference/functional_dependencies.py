"""Approximate functional dependencies: whether an item or user id determines a column, up to a small share of rows.

Chance is ruled out: if a column were independent of the item, two rows would agree with probability a = Σ p², and p disjoint
pairs of rows of the same item all agree with probability aᵖ.
"""

import math

import polars as pl

from newcomer.data.schema import Schema
from newcomer.data.value_conflicts import COUNT


def dependency_evidence(texts: pl.DataFrame, id_column: str, column: str) -> float:
    """−log of the probability that the dependency id_column → column holds by chance; −1 if it does not hold.

    A share of `schema.max_conflict_share` rows may violate it. With m of n pairs violating, at a chance rate q, it is at
    most exp(−n KL(m/n, q)) by Chernoff's bound; without violations it is (1 − q)ⁿ.
    """
    known = texts.filter(pl.col(id_column) != "") if column != id_column else texts
    violations = count_violations(texts, id_column, column)
    if violations > Schema.max_conflict_share * len(known):
        return -1.0
    pairs = int((known.group_by(id_column).len(COUNT)[COUNT] // 2).sum())
    shares = known[column].value_counts(name=COUNT)[COUNT].cast(pl.Float64) / len(known)
    alike = min(1.0, float((shares**2).sum()))
    if not violations:
        return -pairs * math.log(alike)
    return pairs * _kl_divergence(violations / pairs, 1 - alike) if pairs and violations / pairs < 1 - alike else -1.0


def _kl_divergence(one: float, other: float) -> float:
    """Kullback-Leibler divergence of Bernoulli(`other`) from Bernoulli(`one`)."""
    tails = (1 - one) * math.log((1 - one) / (1 - other)) if other < 1 else math.inf
    return one * math.log(one / other) + tails


def count_violations(texts: pl.DataFrame, id_column: str, column: str) -> int:
    """Number of rows that differ from the most frequent value of their id."""
    counted = texts.filter(pl.col(id_column) != "").group_by(id_column, column).len(COUNT)
    return int(counted.group_by(id_column).agg(pl.col(COUNT).sum() - pl.col(COUNT).max())[COUNT].sum())


def is_functional(texts: pl.DataFrame, id_column: str, column: str) -> bool:
    """Whether the dependency id_column → column holds exactly."""
    return texts.select(pl.struct(id_column, column).n_unique() == pl.col(id_column).n_unique()).item()  # type: ignore[no-any-return]
