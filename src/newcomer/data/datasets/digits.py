"""Handwritten digits from scikit-learn: 1,797 images, no download.

Images of 8×8 pixels in 17 greys, the test set of Alpaydin and Kaynak's optical recognition of digits (UCI 1998), written by 13
people. The split is random, so the same writers are in the training and test sets.
"""

from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from newcomer.data.examples import Examples
from newcomer.seeds import shuffled

TEST_PER_DIGIT = 50
"""Test images per digit."""


def digits(*, seed: int = 0) -> tuple[Examples, Examples]:
    """RGB images labelled "0" to "9": 1,297 for training and 500 for testing (50 per digit), split by the seed.

    >>> train, test = digits()
    >>> len(train.inputs), len(test.inputs), sorted(set(test.labels)) == list("0123456789")
    (1297, 500, True)
    >>> test.inputs[0].size, test.inputs[0].mode
    ((8, 8), 'RGB')
    """
    bundled = load_digits()
    train: list[int] = []
    test: list[int] = []
    for digit in range(10):
        of_digit = np.flatnonzero(bundled.target == digit)
        permuted = [int(of_digit[i]) for i in shuffled(len(of_digit), seed, "digits", digit)]
        test += permuted[:TEST_PER_DIGIT]
        train += permuted[TEST_PER_DIGIT:]
    return _examples(bundled, train), _examples(bundled, test)


def _examples(bundled: Any, rows: list[int]) -> Examples:
    rows = sorted(rows)  # the order of the source, so that no batch order hides in the split
    greys = np.round(bundled.images[rows] * (255 / 16)).astype(np.uint8)
    return Examples([Image.fromarray(grey).convert("RGB") for grey in greys], [str(bundled.target[i]) for i in rows])
