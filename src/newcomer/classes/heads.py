"""Heads of class learners by name."""

from typing import Literal, get_args

from newcomer.nn.heads.gaussian import RealignedGaussian
from newcomer.nn.heads.head import Head, Prior
from newcomer.nn.heads.kernel import KernelRidge
from newcomer.nn.heads.lda import LDA
from newcomer.nn.heads.linear import TrainedLinearHead
from newcomer.nn.heads.prototypes import Prototypes
from newcomer.nn.heads.ridge import Ridge

StatisticsHead = Literal["prototypes", "ridge", "lda", "gaussian", "kernel"]
HeadName = Literal["linear", "prototypes", "ridge", "lda", "gaussian", "kernel"]
StatisticsHeadChoice = Literal["auto", "prototypes", "ridge", "lda", "gaussian", "kernel"]
HeadChoice = Literal["auto", "linear", "prototypes", "ridge", "lda", "gaussian", "kernel"]
"""'auto': the head of least held-out loss so far (`ClassMemory.best_head`)."""

HEADS: list[HeadName] = list(get_args(HeadName))
CANDIDATES: list[HeadName] = list(get_args(StatisticsHead))
"""Heads among which 'auto' chooses: those that compute from class statistics."""


def make_head(name: HeadName, shrinkage: float, prior: Prior = "uniform") -> Head:
    """Head by name. Of `prior` is only what the head itself estimates: see `ClassMemory.classifier`."""
    heads: dict[HeadName, Head] = {
        "linear": TrainedLinearHead(),
        "prototypes": Prototypes(),
        "ridge": Ridge(shrinkage, prior),
        "lda": LDA(shrinkage),
        "gaussian": RealignedGaussian(shrinkage),
        "kernel": KernelRidge(),
    }
    return heads[name]
