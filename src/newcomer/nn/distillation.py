"""Knowledge distillation: how far logits are from those of a teacher (Hinton et al. 2015, arXiv 1503.02531)."""

from torch.nn import functional as F

from newcomer.shapes import Float, Tensor


def soft_divergence(
    logits: Float[Tensor, "batch class"], teacher: Float[Tensor, "batch class"], temperature: float
) -> Float[Tensor, ""]:
    """KL(softmax(teacher / T) ‖ softmax(logits / T)), summed over the batch, in nats.

    >>> import torch
    >>> one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> soft_divergence(one, one, 2.0).item(), round(soft_divergence(one, other, 1.0).item(), 4)
    (0.0, 0.4621)
    """
    new, old = (F.log_softmax(of / temperature, dim=1) for of in (logits, teacher))
    return F.kl_div(new, old, reduction="sum", log_target=True)
