"""Real data comes with its checksum."""

from __future__ import annotations

import numpy as np

from qsim.data import digits


def test_digits_are_the_known_set():
    """scikit-learn's digits are 1,797 images of 64 pixels k/16, ten classes, with the checksum a report shows."""
    data = digits()
    assert data.x.shape == (1797, 64)
    assert set(np.unique(data.x * 16)) == set(range(17))
    assert sorted(set(data.y)) == list(range(10))
    assert data.sha256 == "267f86e03ae0481efa68bbcf4dcd04133dbc88a3145b0551cb2221500a4881e0"
