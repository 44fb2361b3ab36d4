"""Folded pooling does to an image what pooling and then weighting does, value for value."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy import folding
from deploy import graph as nir
from deploy.errors import UnsupportedNode

_SPEC = importlib.util.spec_from_file_location("folding_graphs", Path(__file__).with_name("graphs.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
g = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(g)

Array = np.ndarray[Any, Any]
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
kinds = st.sampled_from([nir.SumPool2d, nir.AvgPool2d])


def pools(padding: int = 2) -> st.SearchStrategy[nir.Pool2d]:
    """Windows that overlap, touch or leave gaps."""
    pads = st.tuples(st.integers(0, padding), st.integers(0, padding))
    return st.builds(lambda kind, *fields: kind("pool", *fields), kinds, pairs, pairs, pads)


def whole(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float64)


def conv(block: folding.ConvBlock, x: Array) -> Array:
    found: Array = g.correlate(x, block.weights, block.stride, block.padding, block.dilation, block.groups)
    return found


@settings(deadline=None, max_examples=60)
@given(pools(), st.tuples(st.integers(3, 8), st.integers(3, 8)), st.integers(0, 99))
def test_into_dense(pool: nir.Pool2d, sides: tuple[int, int], seed: int) -> None:
    image, weights = whole(seed, 2, *sides), None
    pooled = g.pool(image, pool)
    weights = whole(seed + 1, 4, pooled.size)
    folded = folding.into_dense(pool, weights, image.shape, pooled.shape)
    np.testing.assert_allclose(folded @ image.reshape(-1), weights @ pooled.reshape(-1), rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=150)
@given(
    pools(), st.tuples(st.integers(6, 11), st.integers(6, 11)), st.integers(0, 99), pairs, pairs,
    st.tuples(st.integers(0, 2), st.integers(0, 2)), st.sampled_from([1, 2]), pairs,
)  # fmt: skip
def test_into_conv_is_exact_or_refused(
    pool: nir.Pool2d, sides: tuple[int, int], seed: int, kernel: tuple[int, int], stride: tuple[int, int],
    padding: tuple[int, int], groups: int, dilation: tuple[int, int],
) -> None:  # fmt: skip
    image = whole(seed, 2, *sides)
    pooled = g.pool(image, pool)
    block = folding.ConvBlock(whole(seed + 1, 4, 2 // groups, *kernel), stride, padding, dilation, groups)
    if min(n + 2 * p - d * (k - 1) for n, p, d, k in zip(pooled.shape[1:], padding, dilation, kernel, strict=True)) < 1:
        return
    try:
        folded = folding.into_conv(pool, block, image.shape, pooled.shape)
    except UnsupportedNode:
        assert any(padding), "without padding in the convolution everything folds"
        return
    expected, got = conv(block, pooled), conv(folded, image)
    rows, columns = expected.shape[1:]
    np.testing.assert_allclose(got[:, :rows, :columns], expected, rtol=0, atol=1e-9)
    assert got.shape == expected.shape


def test_clean_windows_fold_even_under_padding() -> None:
    """Windows that cover the image without overlap: the convolution's zeros stand for windows of zeros."""
    for kind, padding in itertools.product((nir.SumPool2d, nir.AvgPool2d), ((1, 1), (2, 0))):
        pool = kind("pool", (2, 3), (2, 3))
        image = whole(3, 2, 6, 9)
        pooled = g.pool(image, pool)
        block = folding.ConvBlock(whole(4, 2, 2, 2, 2), (1, 2), padding, (1, 1), 1)
        folded = folding.into_conv(pool, block, image.shape, pooled.shape)
        assert folded.stride == (2, 6)
        np.testing.assert_allclose(conv(folded, image), conv(block, pooled), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("pool", "sides", "got"),
    [
        (nir.SumPool2d("p", (3, 3), (2, 2)), (7, 7), "axis y: .* overlapping windows"),
        (nir.SumPool2d("p", (2, 2), (2, 2)), (6, 7), "axis x: .* pixels that pooling leaves out"),
        (nir.SumPool2d("p", (2, 1), (1, 1)), (7, 7), "axis y: .* overlapping windows"),
    ],
)
def test_borders_that_are_not_clean_are_refused(pool: nir.Pool2d, sides: tuple[int, int], got: str) -> None:
    pooled = g.pool(np.zeros((1, *sides)), pool)
    block = folding.ConvBlock(np.ones((1, 1, 2, 2)), (1, 1), (1, 1), (1, 1), 1)
    with pytest.raises(UnsupportedNode, match=got) as caught:
        folding.into_conv(pool, block, (1, *sides), pooled.shape)
    assert caught.value.where == "node 'p'"
    assert caught.value.next_step
    unpadded = folding.ConvBlock(block.weights, (1, 1), (0, 0), (1, 1), 1)
    folding.into_conv(pool, unpadded, (1, *sides), pooled.shape)
