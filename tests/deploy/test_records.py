"""Spikes recorded as bits or events are the spikes recorded as arrays."""

from __future__ import annotations

import numpy as np
import pytest

from deploy import simulator
from deploy.errors import SimulatorError
from deploy.records import Bits, Events
from deploy.testing import random_case
from deploy.trace import concatenate


@pytest.mark.parametrize("form", ["bits", "events"])
@pytest.mark.parametrize("reset", [True, False])
def test_packed_records_hold_the_same_spikes(form: str, reset: bool) -> None:
    for seed in range(40):
        case = random_case(seed)
        options = {"steps": case.given_steps, "record": "all", "reset_between_samples": reset, "threads": 2}
        whole = simulator.run(case.program, case.spikes, **options)
        trace = simulator.run(case.program, case.spikes, record_as=form, **options)
        assert trace.spikes == {}
        assert set(trace.packed) == set(whole.spikes)
        for name, record in trace.packed.items():
            expected = whole.spikes[name]
            np.testing.assert_array_equal(record.dense(), expected)
            np.testing.assert_array_equal(record.dense(slice(1, None)), expected[:, 1:])
            assert record.count == expected.sum()
        np.testing.assert_array_equal(trace.sat, whole.sat)
        np.testing.assert_array_equal(trace.counts, whole.counts)


@pytest.mark.parametrize("form", ["bits", "events"])
def test_runs_with_packed_records_can_be_joined(form: str) -> None:
    case = random_case(3)
    one, two = (simulator.run(case.program, np.repeat(case.spikes, 2, axis=-len(case.program.input.shape) - 1)
                              , steps=case.given_steps, record="all", record_as=form) for _ in range(2))  # fmt: skip
    both = concatenate([one, two])
    for name in one.packed:
        pair = np.concatenate([one.packed[name].dense(), two.packed[name].dense()], axis=1)
        np.testing.assert_array_equal(both.packed[name].dense(), pair)


def test_memory_and_order() -> None:
    spikes = (np.random.default_rng(0).random((5, 7, 60)) < 0.1).astype(np.uint8)
    bits, events = Bits.of(spikes, (3, 4, 5)), Events.of(spikes, (3, 4, 5))
    assert bits.nbytes == 5 * 7 * 8
    assert events.nbytes == 12 * spikes.sum()
    place = (events.sample.astype(int) * 5 + events.step) * 60 + events.neuron
    assert np.all(np.diff(place) > 0)


def test_an_unknown_form_is_refused() -> None:
    case = random_case(0)
    with pytest.raises(SimulatorError, match="unknown form of recorded spikes") as caught:
        simulator.run(case.program, case.spikes, steps=case.given_steps, record_as="zip")  # type: ignore[arg-type]
    assert "events" in caught.value.allowed
