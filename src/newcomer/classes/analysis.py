"""Analysis of a trained SD-LoRA: the paper's empirical findings (Wu et al., ICLR 2025, section 3), measured on a model.

1. Fine-tuned weights of different tasks lie closer to each other than to the frozen ones.
2. A new direction's residual on the older ones grows while it is trained; early magnitudes rise, later ones fall.
3. On the straight line from the weights after one task to those after the next the old task's accuracy does not fall.

The weights after any task are W0 + Σ α_k D_k with the same D_k, so interpolations and distances need the magnitudes only:
‖W_s − W_t‖² = Σ_p δᵀ G_p δ with δ = α_s − α_t and G_p the directions' Gram matrix.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from newcomer.classes.class_history import FIRST_EXAMPLES, NEW_CLASSES, class_history
from newcomer.classes.learner import EVAL_BATCH, ClassLearner
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.examples import Examples
from newcomer.errors import LearnerError
from newcomer.nn.lora.decoupled_lora import DecoupledLoRA
from newcomer.settings import Json
from newcomer.shapes import Float, Tensor
from newcomer.store.entry import Entry
from newcomer.training.fit import chunks, evaluating
from newcomer.training.learner import Step

FRACTIONS = [-0.25 + 0.125 * index for index in range(13)]
"""λ along the line: 0 after the old task, 1 after the new one, exactly."""


@dataclass(frozen=True)
class _Task:
    """A stage that changed the weights."""

    entry: Entry
    new: Sequence[str]
    """The classes that it added."""
    known: Sequence[str]
    """All classes known after it."""
    magnitudes: Float[Tensor, "direction column"]
    """α after it, in float64, 0 for directions to come."""


def analyse(learner: ClassLearner, examples: Examples | None) -> Generator[Step, None, dict[str, Json]]:
    """Analyse an SD-LoRA model; returns JSON-compatible values. Does not change the model.

    - `tasks`: names of the stages that changed the weights; `directions`: those whose direction was kept; `projections`: the
      adapted layers;
    - `distances`: pairwise Frobenius distances of the adapted weights, all projections together: frozen (first) and after each
      task; `norm`: of the frozen weights;
    - `training`: for each task the recorded `step`s, the `residual` at each (0 before the first update) and the `magnitudes` of
      the older directions (means over projections if each has its own), and all magnitudes `after` the task;
    - `cosines`: between directions, over all projections together; `depths`: mean |cosine| of all pairs in each projection; a
      zero direction has cosine 0 with all;
    - `line`: linear interpolation; None without `examples`; else for each pair of consecutive tasks with examples, the accuracy
      in [0, 1] on the `old` and the `new` task at each `fraction`, with two heads on the interpolated features: `trained rows`,
      the linear head after the new task, over all classes known then (absent where that state is no longer kept), and the `end
      head`, the model's current one, over those of them it still knows. Classes that were forgotten later are excluded.

    Raises LearnerError for other kinds of models, before any task, and if no example belongs to a known class.
    """
    if not isinstance(learner, SDLoRA):
        raise LearnerError(f"a model of '{learner.name}' has no directions to look into; give one of '{SDLoRA.name}'")
    learner.require_whole("an analysis")
    tasks = _tasks(learner)
    if not tasks:
        raise LearnerError("no task has changed the weights yet; learn at least two new classes first")
    cosines, depths = _cosines(learner.lora.products().double())
    return {
        "tasks": [task.entry.name for task in tasks],
        "directions": [entry.name for entry in learner.entries if "direction.0.up" in entry.tensors],
        "projections": list(learner.backbone.projections),
        "distances": _distances(learner, tasks).tolist(),
        "norm": _norm_of_frozen(learner),
        "training": [_training(task) for task in tasks],
        "cosines": cosines.tolist(),
        "depths": depths.tolist(),
        "line": None if examples is None else (yield from _lines(learner, tasks, examples)),
    }


def _tasks(learner: SDLoRA) -> list[_Task]:
    found = []
    for entry, known in zip(learner.entries, class_history(learner.entries), strict=True):
        if "residual" in entry.info:
            magnitudes = entry.tensors["trace.after"].double()
            padded = F.pad(magnitudes, (0, 0, 0, learner.lora.directions - len(magnitudes)))
            new = [*entry.info.get(FIRST_EXAMPLES, []), *entry.info[NEW_CLASSES]]
            found.append(_Task(entry, new, known, padded))
    return found


def _norm_of_frozen(learner: SDLoRA) -> float:
    model, names = learner.backbone.model, learner.backbone.projections
    norms = [model.get_parameter(f"{name}.frozen.weight").double().norm() for name in names]
    return float(torch.stack(norms).norm())


def _distances(learner: SDLoRA, tasks: Sequence[_Task]) -> Float[Tensor, "state state"]:
    products = learner.lora.products().double().cpu()
    states = torch.stack([torch.zeros_like(tasks[0].magnitudes), *(task.magnitudes for task in tasks)])
    states = states.mT.expand(-1, len(products), -1)  # state projection direction
    squares = [torch.einsum("spj,pjk,spk->s", apart, products, apart) for apart in (states - state for state in states)]
    return torch.stack(squares).clamp(min=0).sqrt()


def _training(task: _Task) -> dict[str, Json]:
    tensors = task.entry.tensors
    return {
        "step": tensors["trace.step"].tolist(),
        "residual": tensors["trace.residual"].tolist(),
        # The open direction has no norm yet, so that its magnitude cannot be compared with the others'.
        "magnitudes": tensors["trace.magnitudes"][:, :-1].mean(2).tolist(),
        "after": tensors["trace.after"].mean(1).tolist(),
    }


def _cosines(
    products: Float[Tensor, "projection direction direction"],
) -> tuple[Float[Tensor, "direction direction"], Float[Tensor, " projection"]]:
    count = products.shape[-1]
    older, newer = torch.tril_indices(count, count, offset=-1)
    pairs = _normed(products)[:, older, newer]
    return _normed(products.sum(0)), pairs.abs().sum(1) / max(1, pairs.shape[1])


def _normed(products: Float[Tensor, "*batch direction direction"]) -> Float[Tensor, "*batch direction direction"]:
    norms = products.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    scales = torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))
    return scales[..., :, None] * products * scales[..., None, :]


def _lines(learner: SDLoRA, tasks: Sequence[_Task], examples: Examples) -> Generator[Step, None, list[Json]]:
    indices: dict[str, list[int]] = {}
    for index, label in enumerate(examples.labels):
        indices.setdefault(label, []).append(index)
    if not indices.keys() & set(learner.classes):
        raise LearnerError("none of the examples is of a class that the model knows; give data of its classes")
    found = []
    for before, after in pairwise(tasks):
        known = [name for name in learner.classes if name in indices and name in after.known]
        new = [index for name in known if name in after.new for index in indices[name]]
        old = [index for name in known if name in before.new and name not in after.new for index in indices[name]]
        if old and new:
            found.append((yield from _line(learner, before, after, examples.select(old), examples.select(new))))
    return found


def _line(learner: SDLoRA, before: _Task, after: _Task, old: Examples, new: Examples) -> Generator[Step, None, Json]:
    end = [k for k, name in enumerate(learner.classes) if name in after.known]
    heads: dict[str, tuple[Callable[[Tensor], Tensor], Sequence[str]]] = {
        "end head": (lambda features: learner._logits(features)[:, end], [learner.classes[k] for k in end]),
    }
    if after.entry.state is not None:
        rows = after.entry.state["linear_head.weight"], after.entry.state["linear_head.bias"]
        heads = {"trained rows": (lambda features: F.linear(features, *rows), after.known), **heads}
    right = {head: {"old": [0] * len(FRACTIONS), "new": [0] * len(FRACTIONS)} for head in heads}
    sides = {"old": old, "new": new}
    parts = [(side, part) for side, which in sides.items() for part in chunks(len(which), EVAL_BATCH)]
    for step, (side, part) in enumerate(parts, 1):
        encoded = learner.backbone.encode(sides[side].inputs[part.start : part.stop])
        labels = sides[side].labels[part.start : part.stop]
        for index, fraction in enumerate(FRACTIONS):
            magnitudes = (1 - fraction) * before.magnitudes + fraction * after.magnitudes
            with _weighing(learner.lora, magnitudes), evaluating(learner.backbone):
                features = learner.adapter.encode(encoded).float().cpu()
            for head, (read, classes) in heads.items():
                predicted = read(features).argmax(1).tolist()
                right[head][side][index] += sum(classes[k] == label for k, label in zip(predicted, labels, strict=True))
        yield Step(f"{before.entry.name} to {after.entry.name}", step, len(parts))
    counts = {side: len(which) for side, which in sides.items()}
    shares = {head: {side: [n / counts[side] for n in found[side]] for side in found} for head, found in right.items()}
    return {"from": before.entry.name, "to": after.entry.name, "examples": counts, "fraction": FRACTIONS, **shares}


@contextmanager
def _weighing(bank: DecoupledLoRA, magnitudes: Float[Tensor, "direction column"]) -> Iterator[None]:
    """Within, the directions' magnitudes are replaced by these."""
    current = bank.magnitudes
    bank.magnitudes = nn.Parameter(magnitudes.to(current))
    try:
        yield
    finally:
        bank.magnitudes = current
