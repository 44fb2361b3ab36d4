"""The one result type: answers, sums over counters, and runs joined sample by sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deploy import reference, simulator
from deploy.errors import SimulatorError
from deploy.testing import Case, differences, random_case
from deploy.trace import Trace, concatenate


def cases() -> list[Case]:
    """Three samples each, spiking outputs and readouts."""
    found = [case for case in (random_case(seed, constant=False) for seed in range(60)) if case.spikes.shape[1] == 3]
    assert {case.program.output.spiking for case in found} == {True, False}
    return found


def test_parts_joined_are_the_whole() -> None:
    for case in cases():
        whole = reference.run(case.program, case.spikes)
        parts = [reference.run(case.program, case.spikes[:, n : n + 1]) for n in range(3)]
        assert differences(whole, concatenate(parts)) == []
        assert differences(whole, concatenate([whole])) == []


def test_runs_of_different_programs_lengths_or_backends_are_not_joined() -> None:
    case, other = cases()[:2]
    trace = reference.run(case.program, case.spikes)
    for wrong in (
        [],
        [trace, reference.run(other.program, other.spikes)],
        [trace, simulator.run(case.program, case.spikes)],
        [trace, reference.run(case.program, np.concatenate([case.spikes, case.spikes]))],
    ):
        with pytest.raises(SimulatorError, match="only runs of one program"):
            concatenate(wrong)


def answered(counts: list[list[int]], membranes: list[list[int]] | None = None) -> Trace:
    return Trace(
        "reference", "digest", "out", np.array(counts), np.zeros((4, len(counts)), np.int64),
        membranes=None if membranes is None else np.array(membranes),
    )  # fmt: skip


def test_the_class_is_the_most_spikes_and_ties_go_to_the_lowest() -> None:
    trace = answered([[1, 3, 2], [2, 2, 0], [0, 0, 0]])
    assert trace.predictions().tolist() == [1, 0, 0]
    assert trace.accuracy(np.array([1, 0, 2])) == pytest.approx(200 / 3)
    assert (trace.steps, trace.samples) == (4, 3)


def test_the_class_of_a_readout_is_the_highest_membrane() -> None:
    trace = answered([[0, 0, 0], [0, 0, 0]], [[-5, -9, -1], [7, 7, 3]])
    assert trace.predictions().tolist() == [2, 0]


@pytest.mark.parametrize("labels", [np.array([1]), np.zeros((3, 1), int), np.array(1)])
def test_labels_that_do_not_match_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(SimulatorError, match="labels do not match"):
        answered([[1], [2], [3]]).accuracy(labels)


def test_sat_is_the_outputs_record() -> None:
    case = cases()[0]
    trace = reference.run(case.program, case.spikes)
    assert trace.sat is trace.spikes[case.program.output.name]
    with pytest.raises(SimulatorError, match="the output's spikes were not recorded") as caught:
        _ = replace(trace, spikes={}).sat
    assert caught.value.next_step


def test_wraps_and_saturations_are_summed_over_populations() -> None:
    for case in cases():
        trace = reference.run(case.program, case.spikes)
        assert trace.wraps == sum(int(np.sum(c.wraps)) for c in trace.counters.values())
        assert trace.saturations == sum(int(np.sum(c.saturations)) for c in trace.counters.values())
        assert all(c.spikes.shape == (trace.steps, trace.samples) for c in trace.counters.values())
