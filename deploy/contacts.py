"""Which neuron meets which: exact synapse counts of a block, without writing out its connection matrix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deploy.program import Conv, Dense, Program, Synapse

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Image = tuple[slice, slice, slice]


def synapses_onto(program: Program, synapse: Synapse, targets: Mask) -> Counts:
    """Nonzero synapses from each source neuron onto a set of target neurons.

    Args:
        targets: bool ``[n_target]``, the set.

    Returns:
        int64 ``[n_source]``; where it is not zero, the source needs an axon to the set.
    """
    if isinstance(synapse, Dense):
        return np.asarray(np.count_nonzero(synapse.weights[targets], axis=0), dtype=np.int64)
    source = program.node(synapse.source)
    wanted = targets.reshape(program.node(synapse.target).shape).astype(np.float64)
    found = np.zeros(source.shape, dtype=np.int64)
    for taps, outputs, inputs in _taps(synapse, source.shape):
        found[inputs] += _grouped(taps.swapaxes(1, 2), wanted[outputs], synapse.groups)
    flat: Counts = found.reshape(-1)
    return flat


def synapses_at(program: Program, synapse: Synapse) -> Counts:
    """Nonzero synapses that end on each target neuron (its fan-in from this block), int64 ``[n_target]``."""
    if isinstance(synapse, Dense):
        return np.asarray(np.count_nonzero(synapse.weights, axis=1), dtype=np.int64)
    found = np.zeros(program.node(synapse.target).shape, dtype=np.int64)
    for taps, outputs, _ in _taps(synapse, program.node(synapse.source).shape):
        found[outputs] += taps.sum(axis=2).reshape(-1, 1, 1)
    flat: Counts = found.reshape(-1)
    return flat


def _taps(conv: Conv, source: tuple[int, ...]) -> Iterator[tuple[Counts, Image, Image]]:
    """Each kernel position: nonzero weights ``[groups, O/groups, I/groups]``, outputs that use it, inputs it sees."""
    rows, columns = conv.output_shape(source)[1:]
    _, per_group, height, width = conv.weights.shape
    nonzero = (conv.weights != 0).astype(np.int64).reshape(conv.groups, -1, per_group, height, width)
    channels = slice(None)
    for ky in range(height):
        out_rows, in_rows = _overlap(ky * conv.dilation[0] - conv.padding[0], conv.stride[0], rows, source[1])
        for kx in range(width):
            out_cols, in_cols = _overlap(kx * conv.dilation[1] - conv.padding[1], conv.stride[1], columns, source[2])
            yield nonzero[..., ky, kx], (channels, out_rows, out_cols), (channels, in_rows, in_cols)


def _overlap(offset: int, stride: int, outputs: int, inputs: int) -> tuple[slice, slice]:
    """Outputs whose input ``output * stride + offset`` lies inside, and those inputs."""
    first = max(0, -(offset // stride))
    last = min(outputs, (inputs - 1 - offset) // stride + 1)
    count = max(0, last - first)
    start = first * stride + offset if count else 0
    return slice(first, first + count), slice(start, start + (count - 1) * stride + 1 if count else 0, stride)


def _grouped(taps: Counts, image: npt.NDArray[np.float64], groups: int) -> Counts:
    """Mix channels group by group: ``[g, I, O] x [g*O, h, w] -> [g*I, h, w]``; float64 for BLAS, exact below 2^53."""
    _, height, width = image.shape
    columns = image.reshape(groups, taps.shape[2], height * width)
    mixed = taps.astype(np.float64) @ columns
    flat: Counts = mixed.reshape(groups * taps.shape[1], height, width).astype(np.int64)
    return flat
