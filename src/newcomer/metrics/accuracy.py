"""What a class- or domain-incremental run is judged by: the accuracy matrix and three numbers read off it.

`accuracy[t, k]` is the accuracy in [0, 1] on task k, or domain k, after stage t, the arg max taken over all classes seen by then;
entries without a measurement (k > t) are NaN. `examples[k]` is the size of task k's evaluation set.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from newcomer.errors import StreamError


def final_accuracy(accuracy: Float[ndarray, "stage task"]) -> float:
    """Acc: mean over tasks of the accuracy after the last stage, every task counting the same (macro).

    >>> final_accuracy(np.array([[0.9, np.nan], [0.5, 0.8]]))
    0.65
    """
    return float(accuracy[-1].mean())


def final_accuracy_micro(accuracy: Float[ndarray, "stage task"], examples: Int[ndarray, " task"]) -> float:
    """Acc with every example counting the same.

    >>> final_accuracy_micro(np.array([[0.9, np.nan], [0.5, 0.8]]), np.array([100, 200]))
    0.7
    """
    return float((accuracy[-1] * examples).sum() / examples.sum())


def average_anytime_accuracy(accuracy: Float[ndarray, "stage task"]) -> float:
    """AAA: mean over stages of the mean accuracy on all tasks seen by then.

    >>> round(average_anytime_accuracy(np.array([[0.9, np.nan], [0.5, 0.8]])), 4)      # mean of 0.9 and 0.65
    0.775

    NaN where the stages did not train on one task each (joint training).
    """
    stages, tasks = accuracy.shape
    if stages != tasks:
        return float("nan")
    return float(np.mean([accuracy[t, : t + 1].mean() for t in range(stages)]))


def forgetting(accuracy: Float[ndarray, "stage task"]) -> float:
    """Mean over all tasks but the last of the best accuracy ever held minus the accuracy at the end.

    Chaudhry et al. 2018; the best is taken over all stages, the last included, so it is in [0, 1] and 0 says that nothing was lost.

    >>> round(forgetting(np.array([[0.9, np.nan], [0.5, 0.8]])), 4)     # lost 0.4 of the first task
    0.4

    NaN where the stages did not train on one task each (joint training), or there is one task only.
    """
    if len(accuracy) < 2:
        return float("nan")
    return float(forgetting_by_task(accuracy)[:-1].mean())


def forgetting_by_task(accuracy: Float[ndarray, "stage task"]) -> Float[ndarray, " task"]:
    """Of each task the best accuracy ever held minus the accuracy at the end; 0 for the last.

    NaN where the stages did not train on one task each (joint training).

    >>> forgetting_by_task(np.array([[0.9, np.nan], [0.5, 0.8]])).round(4).tolist()
    [0.4, 0.0]
    """
    stages, tasks = accuracy.shape
    lost: Float[ndarray, " task"] = (
        np.nanmax(accuracy, axis=0) - accuracy[-1] if stages == tasks else np.full(tasks, np.nan)
    )
    return lost


def accuracy_matrix(scores: list[tuple[str, str, float]]) -> Float[ndarray, "stage task"]:
    """The matrix from (stage, evaluation set, accuracy) in the order of the record.

    Raises StreamError when there are no scores.
    """
    if not scores:
        raise StreamError("no scores: the run has finished no stage yet")
    stages = list(dict.fromkeys(stage for stage, _, _ in scores))
    eval_sets = list(dict.fromkeys(eval_set for _, eval_set, _ in scores))
    matrix = np.full((len(stages), len(eval_sets)), np.nan)
    for stage, eval_set, accuracy in scores:
        matrix[stages.index(stage), eval_sets.index(eval_set)] = accuracy
    return matrix
