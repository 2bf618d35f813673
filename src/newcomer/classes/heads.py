"""Heads of class learners by name."""

from typing import Literal, get_args

from newcomer.nn.heads.gaussian import RealignedGaussian
from newcomer.nn.heads.head import Head
from newcomer.nn.heads.kernel import KernelRidge
from newcomer.nn.heads.lda import LDA
from newcomer.nn.heads.linear import TrainedLinearHead
from newcomer.nn.heads.prototypes import Prototypes
from newcomer.nn.heads.ridge import Ridge

StatisticsHead = Literal["prototypes", "ridge", "lda", "gaussian", "kernel"]
HeadName = Literal["linear", "prototypes", "ridge", "lda", "gaussian", "kernel"]

HEADS: list[HeadName] = list(get_args(HeadName))


def make_head(name: HeadName, shrinkage: float) -> Head:
    """Head by name."""
    heads: dict[HeadName, Head] = {
        "linear": TrainedLinearHead(),
        "prototypes": Prototypes(),
        "ridge": Ridge(shrinkage),
        "lda": LDA(shrinkage),
        "gaussian": RealignedGaussian(shrinkage),
        "kernel": KernelRidge(),
    }
    return heads[name]
