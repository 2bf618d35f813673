"""Means of classes of which only the names are known: regression of class means on embeddings of the classes' names."""

import torch

from newcomer.shapes import Float, Tensor

RIDGES = (0.01, 0.1, 1.0, 10.0, 100.0, float("inf"))
"""Ridge parameters, in mean squares of the embeddings; infinite: scale and shift alone."""
FOLDS = 10


def means_of_names(
    names: Float[Tensor, "class width"], means: Float[Tensor, "class width"], new: Float[Tensor, "new width"]
) -> tuple[Float[Tensor, "new width"], float]:
    """Means of the features of new classes, and the variance of known classes' means that their names explain, at most 1.

    m = m̄ + (t − t̄)(a I + W): t embeds the name of a class, t̄ and m̄ are the known classes' averages, a ≥ 0 is the scale that fits
    best, and W the ridge regression of what it leaves (Changpinyo et al., ICCV 2017, arXiv 1605.08151, by kernels). The ridge
    parameter is the best one for classes that are held out, and so is the variance explained; it needs three classes.

    >>> names = torch.eye(4)
    >>> mean, explained = means_of_names(names[:3], 2 * names[:3], names[3:])
    >>> [round(value, 2) for value in mean[0].tolist()], round(explained, 2)
    ([0.0, 0.0, 0.0, 2.0], 1.0)
    """
    t, m, new = names.double(), means.double(), new.double()
    fold_of = torch.arange(len(t)) % min(len(t), FOLDS)
    errors, variance = torch.zeros(len(RIDGES), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for fold in range(int(fold_of.max()) + 1):
        kept, out = fold_of != fold, fold_of == fold
        found = _regressed(t[kept], m[kept], t[out])
        errors += torch.stack([(guess - m[out]).square().sum() for guess in found])
        variance += (m[out] - m[kept].mean(0)).square().sum()
    best = int(errors.argmin())
    rounding = torch.finfo(means.dtype).eps * m.square().sum()  # means that do not differ are explained by nothing
    explained = 1 - float(errors[best] / variance) if variance > rounding else 0.0
    return _regressed(t, m, new)[best].to(means), explained


def _regressed(t: Tensor, m: Tensor, new: Tensor) -> list[Tensor]:
    """The means of new classes by each of `RIDGES`."""
    x, y, x_new = t - t.mean(0), m - m.mean(0), new - t.mean(0)
    scale = ((x * y).sum() / x.square().sum().clamp(min=1e-30)).clamp(min=0)
    begin, kernel = m.mean(0) + scale * x_new, x @ x.T
    values, vectors = torch.linalg.eigh(kernel)
    unit = (values.sum() / len(values)).clamp(min=1e-30)
    left, right = x_new @ x.T @ vectors, vectors.T @ (y - scale * x)
    return [begin + left @ (right / (values + ridge * unit)[:, None]) for ridge in RIDGES]
