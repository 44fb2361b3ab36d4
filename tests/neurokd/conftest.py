"""What several test files train on: the digits, a piece of them, and one torch thread."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from neurokd.data import Dataset


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One torch thread for a whole file: small networks wait for each other on two, and sums keep their order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """scikit-learn's digits, whole."""
    from neurokd.data import load

    return load("digits")


@pytest.fixture(scope="session")
def small(digits: Dataset) -> Dataset:
    """260 training images and 100 test images of them."""
    return dataclasses.replace(digits, train=digits.train.take(np.arange(260)), test=digits.test.take(np.arange(100)))
