"""Metrics of the accuracy matrix against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from newcomer.errors import StreamError
from newcomer.metrics.accuracy import (
    accuracy_matrix,
    average_anytime_accuracy,
    final_accuracy,
    final_accuracy_micro,
    forgetting,
)

Matrix = np.ndarray


@st.composite
def matrices(draw: st.DrawFn) -> Matrix:
    """Of a class-incremental run: what came later was never measured."""
    tasks = draw(st.integers(1, 6))
    accuracy = draw(arrays(float, (tasks, tasks), elements=st.floats(0, 1)))
    accuracy[np.triu_indices(tasks, 1)] = np.nan
    return accuracy


@given(accuracy=matrices(), seed=st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_metrics_equal_their_definitions(accuracy: Matrix, seed: int) -> None:
    tasks = len(accuracy)
    examples = np.random.default_rng(seed).integers(1, 50, tasks)
    last = [accuracy[-1, k] for k in range(tasks)]
    assert final_accuracy(accuracy) == pytest.approx(sum(last) / tasks)
    right = sum(n * a for n, a in zip(examples, last, strict=True))
    assert final_accuracy_micro(accuracy, examples) == pytest.approx(right / sum(examples))
    means = [sum(accuracy[t, k] for k in range(t + 1)) / (t + 1) for t in range(tasks)]
    assert average_anytime_accuracy(accuracy) == pytest.approx(sum(means) / tasks)
    lost = [max(accuracy[t, k] for t in range(k, tasks)) - accuracy[-1, k] for k in range(tasks - 1)]
    if lost:
        assert forgetting(accuracy) == pytest.approx(sum(lost) / len(lost))
        assert 0 <= forgetting(accuracy) <= 1
    else:
        assert np.isnan(forgetting(accuracy))


@given(accuracy=matrices())
@settings(max_examples=30, deadline=None)
def test_the_accuracy_matrix_holds_the_recorded_scores(accuracy: Matrix) -> None:
    tasks = len(accuracy)
    scores = [(f"task {t}", f"task {k}", accuracy[t, k]) for t in range(tasks) for k in range(t + 1)]
    np.testing.assert_array_equal(accuracy_matrix(scores), accuracy)


def test_a_stream_of_twins_forgets_nothing() -> None:
    accuracy = np.array([[0.8, np.nan, np.nan], [0.8, 0.7, np.nan], [0.9, 0.7, 0.6]])
    assert forgetting(accuracy) == 0


def test_more_than_ten_tasks_keep_their_order() -> None:
    """Tasks sorted as strings would put task 10 before task 2."""
    scores = [(f"task {t}", f"task {k}", t + k / 100) for t in range(12) for k in range(t + 1)]
    matrix = accuracy_matrix(scores)
    assert matrix[11, 10] == 11.1
    assert matrix[10, 2] == 10.02


def test_joint_training_has_a_final_accuracy_and_nothing_else() -> None:
    matrix = accuracy_matrix([("all tasks", "task 0", 0.5), ("all tasks", "task 1", 0.7)])
    assert matrix.shape == (1, 2)
    assert final_accuracy(matrix) == pytest.approx(0.6)
    assert np.isnan(average_anytime_accuracy(matrix))
    assert np.isnan(forgetting(matrix))


def test_no_scores_are_no_matrix() -> None:
    with pytest.raises(StreamError, match="no scores"):
        accuracy_matrix([])
