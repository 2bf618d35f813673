"""Settings of class learners in groups: training, classifier head, runtime."""

from dataclasses import dataclass
from typing import Literal

from newcomer.classes.heads import HeadChoice
from newcomer.nn.features.augmentation import Augmentation
from newcomer.nn.heads.head import Prior
from newcomer.settings import internal
from newcomer.training.settings import Count, NotNegative, Rate, Share, Times

Schedule = Literal["constant", "cosine"]
LossClasses = Literal["new", "seen"]
Precision = Literal["fp32", "bf16"]
HeadInit = Literal["zero", "lda", "tempered"]


@dataclass(frozen=True)
class Training:
    """Training of one task by Adam.

    - `epochs`, `batch_size`: passes over a task's examples, examples a step.
    - `gradient_accumulation_steps`: micro-batches a step; more of them take less memory and give the same step. Texts of similar
      length share a micro-batch, so more of them also means less padding.
    - `learning_rate`: of the adapter's parameters.
    - `head_learning_rate`: of the linear head and the magnitudes; `learning_rate` by default.
    - `schedule`: of both learning rates within a task.
    - `augment`: of training images: 'flip', 'crop' (and flip), or 'crop-only', for pictures in which left and right differ, such as
      handwriting and printed text.
    - `precision`: 'fp32', or 'bf16' for mixed precision in training and inference.
    - `seed`: of initial parameters, batches and augmentation.

    Only `LoRATraining` has the others as settings.
    """

    epochs: Count = 20
    batch_size: Count = 128
    gradient_accumulation_steps: Count = 1
    learning_rate: Rate = 0.008
    head_learning_rate: Rate | None = None
    schedule: Schedule = "constant"
    augment: Augmentation = "none"
    precision: Precision = "fp32"
    seed: int = 0
    head_init: HeadInit = internal("zero")
    later_lr_factor: Rate = internal(1.0)
    weight_averaging: Share = internal(0.0)
    logit_distillation: NotNegative = internal(0.0)


@dataclass(frozen=True)
class LoRATraining(Training):
    """Training of low-rank updates.

    - `head_init`: rows of the linear head before a task: 'lda' sets all of them by linear discriminant analysis of the features
      so far, at the temperature that fits held-out examples; 'tempered' likewise, but at the temperature where the loss of the
      task's own examples is that of held-out ones; 'zero' sets the new ones to zero.
    - `later_lr_factor`: factor of both learning rates after the first task.
    - `weight_averaging`: share of a task's steps, the last ones, over which its parameters are averaged; 0 for none.
    - `logit_distillation`: weight of the distillation loss, by which a task's examples keep the logits of old classes that they
      had before it (Li, Hoiem 2016; temperature 2). It takes one more forward pass a step. 0 for none.
    """

    head_init: HeadInit = "zero"
    later_lr_factor: Rate = 1.0
    weight_averaging: Share = 0.0
    logit_distillation: NotNegative = 0.0


@dataclass(frozen=True)
class Classifier:
    """How features are classified.

    - `head`: 'gaussian', 'kernel' (not a linear layer), 'lda', 'ridge', 'prototypes', or 'linear', the layer that was trained; see
      `nn.heads`. 'auto': of all but 'linear' the one of least loss on the tasks' examples, held out from the head, before each task
      was trained.
    - `shrinkage`: of covariances towards a multiple of the identity, for heads and novelty scores.
    - `prior`: 'uniform': all classes are as likely before an input is seen, however many examples they have; 'empirical': as
      likely as they are frequent among the examples. It concerns the loss of training, the head and the probabilities.
    - `drift_map`: after a task, map the statistics of old classes to the new weights' features (`nn.features.drift_map`).
    """

    head: HeadChoice = "linear"
    shrinkage: Share = 0.3
    drift_map: bool = True
    prior: Prior = "uniform"


@dataclass(frozen=True)
class Alignment:
    """Alignment of the linear head after every task but the first, on features drawn from the classes' Gaussians.

    - `alignment_epochs`: times that features are drawn; 0 for no alignment.
    - `alignment_draws`: features drawn of each class in an epoch, and size of a batch.
    - `alignment_learning_rate`: of stochastic gradient descent, with a cosine schedule.
    - `logit_norm`: τ of the loss on normalized logits, l / (τ · mean over tasks of |l_task|), where l_task are the logits of a
      task's classes; 0 for the plain loss.
    """

    alignment_epochs: Times = 5
    alignment_draws: Count = 256
    alignment_learning_rate: Rate = 0.01
    logit_norm: NotNegative = 0.1


@dataclass(frozen=True)
class Runtime:
    """Where and how it is computed; not part of a model.

    - `cache_gib`: memory for decoded training images.
    - `device`: 'cpu', 'cuda', …; a GPU if there is one by default.
    - `gradient_checkpointing`: training keeps the inputs of each of the backbone's blocks alone and computes the rest again in the
      backward pass: less memory, about a third more time, the same result.
    - `shard_backbone`: each of several processes (`torchrun`) holds a share of the frozen weights of the backbone's blocks, and
      gathers one block at a time, for a backbone that does not fit one device: less memory, more exchange, the same result.
    """

    cache_gib: NotNegative = 2.0
    device: str | None = None
    gradient_checkpointing: bool = False
    shard_backbone: bool = False
    torch_compile: bool = internal(False)


@dataclass(frozen=True)
class CompiledRuntime(Runtime):
    """- `torch_compile`: compile the backbone for each task's training; it takes a minute or two, so only long training gains."""

    torch_compile: bool = False
