"""Synapse counts: against the reference interpreter's list of connections."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.contacts import synapses_at, synapses_onto
from deploy.errors import ProgramError
from deploy.program import Conv, Dense, Input, Population, Program, Synapse
from deploy.reference import connections


def program_of(synapse: Synapse, source: tuple[int, ...], target: tuple[int, ...]) -> Program:
    size = int(np.prod(target))
    return Program(Input("in", source), (Population("out", target, 4095, 0, 1, np.zeros(size, np.int16)),), (synapse,))


def check(program: Program, synapse: Synapse, targets: np.ndarray) -> None:
    onto = np.zeros(program.input.size, dtype=np.int64)
    at = np.zeros(program.output.size, dtype=np.int64)
    for j, i, _ in connections(program, synapse):
        onto[i] += targets[j]
        at[j] += 1
    np.testing.assert_array_equal(synapses_onto(program, synapse, targets), onto)
    np.testing.assert_array_equal(synapses_at(program, synapse), at)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_convolutions_count_as_the_reference_connects(data: st.DataObject) -> None:
    def pick(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    groups = pick(1, 2)
    shape = (groups * pick(1, 2), groups * pick(1, 2))
    seed = np.random.default_rng(pick(0, 1000))
    weights = 2 * seed.integers(-1, 2, (shape[0], shape[1] // groups, pick(1, 3), pick(1, 3))).astype(np.int16)
    pairs = {
        "stride": (pick(1, 3), pick(1, 3)),
        "padding": (pick(0, 3), pick(0, 3)),
        "dilation": (pick(1, 2), pick(1, 2)),
    }
    conv = Conv("c", "in", "out", weights, groups=groups, **pairs)
    source = (shape[1], pick(1, 6), pick(1, 6))
    try:
        target = conv.output_shape(source)
    except ProgramError:
        return
    check(program_of(conv, source, target), conv, seed.random(int(np.prod(target))) < 0.5)


@pytest.mark.parametrize("chosen", [[], [0], [1, 2], [0, 1, 2]])
def test_dense_counts_as_the_reference_connects(chosen: list[int]) -> None:
    weights = np.array([[2, 0, 4, 0], [0, 0, 2, 2], [2, 2, 2, 0]], dtype=np.int16)
    dense = Dense("d", "in", "out", weights)
    targets = np.isin(np.arange(3), chosen)
    check(program_of(dense, (4,), (3,)), dense, targets)
