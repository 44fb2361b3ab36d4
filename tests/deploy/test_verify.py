"""Verification finds what differs, names the first place, and passes what is equal."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from deploy import reference
from deploy.errors import VerifyError
from deploy.program import Population, Program
from deploy.testing import Kinds, random_case
from deploy.verify import RUNNERS, verify

PLAIN = Kinds(conv=False, recurrent=False, skip=False, delays=False, resets=("zero",))


def busy_case() -> tuple[Program, np.ndarray, int]:
    """A case of several layers that spikes in each."""
    for seed in range(200):
        case = random_case(seed, PLAIN, constant=False)
        trace = reference.run(case.program, case.spikes)
        alive = all(spikes.any() for spikes in trace.spikes.values())
        if len(case.program.populations) > 1 and alive and case.spikes.shape[1] > 1 and case.steps > 2:
            return case.program, case.spikes, case.steps
    raise AssertionError("no busy case among the seeds")


def test_reference_and_simulator_are_equal() -> None:
    program, spikes, steps = busy_case()
    result = verify(program, spikes, against=("reference", "simulator")).raise_if_different()
    assert result.base == "reference"
    assert [c.name for c in result.comparisons] == ["simulator"]
    assert result.comparison("simulator").samples == spikes.shape[1]
    assert result.comparison("simulator").steps == steps
    assert result.comparison("simulator").spikes > 0


def test_everything_is_compared_with_the_trained_student_where_there_is_one() -> None:
    program, spikes, _ = busy_case()
    trained = reference.run(program, spikes).spikes
    result = verify(program, spikes, against=("reference", "simulator"), trained=trained)
    assert result.equal
    assert [c.name for c in result.comparisons] == ["reference", "simulator"]


def test_one_flipped_spike_is_found_and_named() -> None:
    program, spikes, _ = busy_case()
    trained = {name: s.copy() for name, s in reference.run(program, spikes).spikes.items()}
    name = program.populations[1].name
    trained[name][2, 1].reshape(-1)[0] ^= 1
    result = verify(program, spikes, against=("simulator",), trained=trained)
    first = result.comparison("simulator").first
    assert first is not None
    assert (first.layer, first.sample, first.step, first.neuron) == (name, 1, 2, 0)
    assert result.comparison("simulator").differing_spikes == 1
    assert first.expected_v == first.got_v
    with pytest.raises(VerifyError, match="simulator differs in 1 spikes"):
        result.raise_if_different()


def test_a_wrong_backend_is_caught_with_both_membranes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend with a wrong threshold differs in that layer only; the layers before agree."""
    program, spikes, _ = busy_case()
    last = program.output
    deaf = Population(last.name, last.shape, last.du, last.dv, 131071, last.bias_mant * 0, 0)
    wrong = replace(program, populations=(*program.populations[:-1], deaf))
    original = RUNNERS["simulator"]
    monkeypatch.setitem(RUNNERS, "simulator", lambda p, s, t: original(wrong, s, t))
    result = verify(program, spikes, against=("simulator",))
    comparison = result.comparison("simulator")
    assert not result.equal
    assert {name for name, n in comparison.differing.items() if n} == {last.name}
    assert comparison.first is not None
    assert (comparison.first.expected, comparison.first.got) == (1, 0)
    assert comparison.first.expected_v == 0  # the reference has just reset
    assert comparison.first.got_v is not None
    assert last.name in str(result)


def test_slow_executions_may_run_fewer_samples() -> None:
    program, spikes, _ = busy_case()
    trained = reference.run(program, spikes).spikes
    result = verify(program, spikes, against=("reference", "simulator"), trained=trained, samples={"reference": 1})
    assert result.comparison("reference").samples == 1
    assert result.comparison("simulator").samples == spikes.shape[1]


def test_the_result_is_plain_data() -> None:
    program, spikes, _ = busy_case()
    plain = json.loads(json.dumps(verify(program, spikes, against=("simulator",)).to_json()))
    assert plain["equal"] is True
    assert plain["comparisons"][0]["differing_spikes"] == 0
    assert plain["comparisons"][0]["first_difference"] is None


def test_what_cannot_be_compared_is_refused() -> None:
    program, spikes, _ = busy_case()
    good = reference.run(program, spikes).spikes
    with pytest.raises(VerifyError, match="no such execution"):
        verify(program, spikes, against=("silicon",))
    with pytest.raises(VerifyError, match="no such execution"):
        verify(program, spikes, against=("simulator",), samples={"silicon": 3})
    for against in ((), ("reference",)):
        with pytest.raises(VerifyError, match="nothing is compared"):
            verify(program, spikes, against=against)
    with pytest.raises(VerifyError, match="layers are not the program's"):
        verify(program, spikes, against=("simulator",), trained={"other": next(iter(good.values()))})
    with pytest.raises(VerifyError, match="another shape"):
        verify(program, spikes, against=("simulator",), trained={name: s[1:] for name, s in good.items()})
    with pytest.raises(VerifyError, match="was not compared"):
        verify(program, spikes, against=("simulator",)).comparison("lava")


def readout_case() -> tuple[Program, np.ndarray]:
    for seed in range(400):
        case = random_case(seed, constant=False)
        if not case.program.output.spiking and reference.run(case.program, case.spikes).membranes.any():
            return case.program, case.spikes
    raise AssertionError("no readout among the seeds")


def test_the_membranes_of_a_readout_are_compared() -> None:
    program, spikes = readout_case()
    assert verify(program, spikes, against=("simulator",)).equal
    trace = reference.run(program, spikes)
    name = program.output.name
    trained = {layer: sent.copy() for layer, sent in trace.spikes.items()} | {name: trace.v[name].copy()}
    assert verify(program, spikes, against=("simulator",), trained=trained).equal
    trained[name][0, 0].reshape(-1)[0] += 1
    first = verify(program, spikes, against=("simulator",), trained=trained).comparison("simulator").first
    assert first is not None
    assert (first.layer, first.sample, first.step, first.neuron) == (name, 0, 0, 0)
    assert first.got == first.expected - 1
