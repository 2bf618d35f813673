"""Classifier alignment: a linear head trained over all classes on features drawn from the classes' Gaussians.

SLCA (Zhang et al., ICCV 2023, arXiv 2303.05118), with its normalization of logits.
"""

import torch
from torch.nn import functional as F

from newcomer.nn.features.class_gaussians import ClassGaussians
from newcomer.nn.heads.head import Linear
from newcomer.shapes import Float, Int, Tensor

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
"""Of stochastic gradient descent, as in the authors' code."""
OLDEST = 0.9
"""Factor of the mean of the oldest task's classes, as in the authors' code; it rises linearly to 1 for the newest task."""


def align(
    start: Linear,
    gaussians: ClassGaussians,
    *,
    epochs: int,
    draws: int,
    learning_rate: float,
    logit_norm: float,
    generator: torch.Generator,
) -> tuple[Linear, float]:
    """The aligned head, and its last loss.

    `start`: the head as it was trained; `draws`: features of each class drawn in an epoch, and size of a batch; `logit_norm`: τ
    of `normalized`.
    """
    roots, classes = gaussians.roots(), len(gaussians.count)
    ages = (gaussians.task + 1) / (gaussians.task.max() + 1)
    means = gaussians.mean * (OLDEST + (1 - OLDEST) * ages)[:, None]
    target = torch.arange(classes).repeat_interleave(draws)
    loss_value = 0.0
    # whatever the caller's mode
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        weight, bias = (part.detach().float().clone().requires_grad_() for part in start)
        optimizer = torch.optim.SGD([weight, bias], learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs))
        for _ in range(epochs):
            noise = torch.randn(classes, draws, means.shape[1], generator=generator)
            x = (means[:, None] + noise @ roots.mT).flatten(0, 1)
            for rows in torch.split(torch.randperm(len(x), generator=generator), draws):
                logits = normalized(F.linear(x[rows], weight, bias), gaussians.task, logit_norm)
                loss = F.cross_entropy(logits, target[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                loss_value = loss.item()
            schedule.step()
    return (weight.detach(), bias.detach()), loss_value


def normalized(
    logits: Float[Tensor, "batch class"], task: Int[Tensor, " class"], logit_norm: float
) -> Float[Tensor, "batch class"]:
    """l / (τ · mean over tasks of |l_task|), where l_task are the logits of a task's classes; unchanged for τ = 0."""
    if not logit_norm:
        return logits
    norms = [logits[:, task == number].norm(dim=1) for number in torch.unique(task).tolist()]
    return logits / (logit_norm * torch.stack(norms).mean(0) + 1e-7)[:, None]
