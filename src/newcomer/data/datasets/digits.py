"""Real handwritten digits that need no download: 1,797 pictures that come with scikit-learn.

They are 8×8 pixels in 17 greys, the test part of Alpaydin and Kaynak's optical recognition set (UCI 1998), drawn by 13
people. The split here is random, so the same hands are in train and exam.
"""

from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from newcomer.data.examples import Examples
from newcomer.seeds import shuffled

TEST = 50
"""Test pictures of every digit."""


def digits(*, seed: int = 0) -> tuple[Examples, Examples]:
    """The digits as RGB pictures labelled "0" to "9": 1,297 to learn from, and 500 for exams (50 a digit), drawn by the seed.

    >>> train, test = digits()
    >>> len(train.inputs), len(test.inputs), sorted(set(test.labels)) == list("0123456789")
    (1297, 500, True)
    >>> test.inputs[0].size, test.inputs[0].mode
    ((8, 8), 'RGB')
    """
    bundled = load_digits()
    learned: list[int] = []
    asked: list[int] = []
    for digit in range(10):
        places = np.flatnonzero(bundled.target == digit)
        drawn = [int(places[i]) for i in shuffled(len(places), seed, "digits", digit)]
        asked += drawn[:TEST]
        learned += drawn[TEST:]
    return _examples(bundled, learned), _examples(bundled, asked)


def _examples(bundled: Any, places: list[int]) -> Examples:
    places = sorted(places)  # the order of the source, so that no batch order hides in the split
    greys = np.round(bundled.images[places] * (255 / 16)).astype(np.uint8)
    return Examples([Image.fromarray(grey).convert("RGB") for grey in greys], [str(bundled.target[i]) for i in places])
