"""What each core does, step by step: equal to counting by hand from recorded spikes; schedules; early exit; metrics."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from deploy import simulator
from deploy.chip import Chip, load_chip
from deploy.early_exit import early_exit
from deploy.errors import SimulatorError
from deploy.neurobench import metrics
from deploy.place import place
from deploy.profile import profile
from deploy.profile_activity import Activity
from deploy.profile_model import step_energy
from deploy.profile_types import to_csv
from deploy.program import Conv, Dense, Input, Population, Program
from deploy.spikes import stimulus
from deploy.trace import Trace

TOY = load_chip("toy")


def scheduled(how: str) -> Chip:
    entries = tuple((n, dataclasses.replace(q, value=how) if n == "schedule" else q) for n, q in TOY.time)
    return dataclasses.replace(TOY, time=dataclasses.replace(TOY.time, entries=entries))


def sparse(seed: int = 0) -> Program:
    """6 inputs, 10 neurons (two cores of the toy chip), 4 outputs; half of the weights are zero."""
    rng = np.random.default_rng(seed)
    sizes = {"hidden": (10, 6), "out": (4, 10)}
    weights = {name: rng.integers(-1, 2, shape) * 32 for name, shape in sizes.items()}
    layers = tuple(Population(n, (s[0],), 4095, 410, 8, np.zeros(s[0], int)) for n, s in sizes.items())
    blocks = (
        Dense("first", "in", "hidden", weights["hidden"], weight_bits=4),
        Dense("second", "hidden", "out", weights["out"], weight_bits=4),
    )
    return Program(Input("in", (6,)), layers, blocks)


def run(program: Program, samples: int = 3, steps: int = 7) -> tuple[Trace, np.ndarray]:
    spikes = (np.random.default_rng(1).random((steps, samples, *program.input.shape)) < 0.6).astype(np.uint8)
    return simulator.run(program, spikes, record="all", record_state="all"), spikes


def test_every_core_is_counted_from_its_own_neurons() -> None:
    program = sparse()
    trace, spikes = run(program)
    placement = place(program, TOY)
    found = {core.number: core for core in profile(program, trace, TOY, placement, spikes=spikes).cores}
    sources = {"hidden": spikes, "out": trace.spikes["hidden"]}
    for core in placement.cores:
        layer, mask = core.part.layer, core.part.mask(program.node(core.part.layer))  # type: ignore[arg-type]
        nonzero = program.incoming(layer)[0].weights[mask] != 0
        synops = np.einsum("tbi,ni->", sources[layer].astype(int), nonzero.astype(int)) / 3
        own = trace.spikes[layer][:, :, mask].sum() / 3
        got = found[core.number]
        assert got.exact
        assert (got.synops, got.spikes) == (pytest.approx(synops), pytest.approx(own))
        received = sum(int(sources[layer][:, :, nonzero[:, :].any(axis=0)].sum()) for _ in (0,)) / 3
        assert got.received == pytest.approx(received)
    assert sum(c.synops for c in found.values()) == pytest.approx(
        sum(c.synops.sum() for c in trace.counters.values()) / 3
    )
    assert sum(c.active for c in found.values()) == pytest.approx(
        sum(c.active.sum() for c in trace.counters.values()) / 3
    )


def test_messages_of_neurons_with_different_targets_are_counted() -> None:
    program = sparse()
    second = program.synapses[1]
    alone = np.where(np.arange(10) % 2, second.weights, 0)  # every other neuron of hidden sends to nobody
    program = dataclasses.replace(program, synapses=(program.synapses[0], dataclasses.replace(second, weights=alone)))
    trace, spikes = run(program)
    placement = place(program, TOY)
    shared, counted = profile(program, trace, TOY, placement), profile(program, trace, TOY, placement, spikes=spikes)
    kinds = {event.event: event.kind for event in counted.events}
    assert {kinds[e] for e in ("axon_out", "axon_in", "hop_east_west")} == {"counted"}
    assert {event.event: event.kind for event in shared.events}["axon_out"] == "modelled"
    out = {event.event: event.count for event in counted.events}["axon_out"]
    sends = (program.synapses[1].weights != 0).any(axis=0)
    assert out == pytest.approx(trace.spikes["hidden"][:, :, sends].sum() / 3)
    assert shared.spikes == counted.spikes


@pytest.mark.parametrize("how", ["summed", "overlapped"])
def test_a_core_that_is_alone_is_timed_by_hand(how: str) -> None:
    weights = np.full((2, 3), 32, np.int16)
    layers = (Population("out", (2,), 4095, 0, 31, np.zeros(2, int)),)
    program = Program(Input("in", (3,)), layers, (Dense("d", "in", "out", weights, weight_bits=4),))
    spikes = np.array([[[1, 1, 0]], [[0, 0, 0]]], np.uint8)
    trace = simulator.run(program, spikes, record="all", record_state="all")
    chip = scheduled(how)
    result = profile(program, trace, chip, spikes=spikes)
    # Step 0: 4 synops and 2 messages in: 4 + 8 = 12; two active updates and two spikes: 20 + 4 = 24. Step 1: idle, 10.
    works = {"summed": [10, 12 + 24, 10], "overlapped": [12, 24, 10]}[how]
    assert result.by_step["time_ns"] == pytest.approx(works)
    assert result.latency.mean == pytest.approx((sum(works) + 3 * 100) * 1e-9)


def test_energy_by_step_adds_up_to_the_whole() -> None:
    program = sparse()
    trace, _ = run(program)
    placement = place(program, TOY)
    by_step = step_energy(Activity(program, trace, placement), TOY)
    assert by_step.shape == (7, 3)
    assert by_step.sum() / 3 * 1e-12 == pytest.approx(profile(program, trace, TOY, placement).energy.mean)


def test_recorded_spikes_and_delays_that_do_not_match_share_out() -> None:
    program = sparse()
    trace, spikes = run(program)
    given = stimulus(program, spikes[:, :2])
    assert not Activity(program, trace, place(program, TOY), given).exact
    bare = simulator.run(program, spikes)
    assert not Activity(program, bare, place(program, TOY), stimulus(program, spikes)).exact


def test_the_mean_has_a_confidence_interval() -> None:
    program = sparse()
    trace, _ = run(program, samples=5)
    figure = profile(program, trace, TOY).spikes
    each = sum(c.spikes.sum(axis=0) for c in trace.counters.values())
    assert figure.ci95 == pytest.approx(1.96 * each.std(ddof=1) / np.sqrt(5))
    assert [figure.p5, figure.p50, figure.p95] == pytest.approx(list(np.percentile(each, [5, 50, 95])))


def test_a_profile_as_csv_and_json_has_every_core_and_step() -> None:
    program = sparse()
    trace, spikes = run(program)
    result = profile(program, trace, TOY, spikes=spikes)
    lines = to_csv(result).splitlines()
    assert lines[0].startswith("scope,name,figure,mean,ci95")
    assert {line.split(",")[0] for line in lines[1:]} == {"network", "layer", "event", "core"}
    data = json.loads(json.dumps(result.to_json()))
    assert len(data["cores"]) == 3
    assert len(data["by_step"]["layers"]["hidden"]["synops"]) == 7
    assert len(data["by_step"]["time_ns"]) == 9


def answers(*steps: tuple[int, ...]) -> tuple[Program, Trace]:
    """One sample whose three output neurons spike as told, step by step."""
    weights = np.eye(3, dtype=np.int16) * 32
    layers = (Population("out", (3,), 4095, 4095, 31, np.zeros(3, int)),)
    program = Program(Input("in", (3,)), layers, (Dense("d", "in", "out", weights, weight_bits=4),))
    return program, simulator.run(program, np.array(steps, np.uint8)[:, None, :])


def test_an_answer_that_is_clear_stops_early() -> None:
    program, trace = answers((0, 1, 0), (1, 0, 0), (1, 0, 0), (1, 0, 0))
    result = early_exit(program, trace, np.array([0]), TOY, margins=(1, 2, 9))
    # Leaders: 1, then a tie that the lower index wins, then 0 by one, then 0 by two.
    assert result.accuracy == (0.0, 100.0, 100.0, 100.0)
    assert [(e.margin, e.steps, e.accuracy, e.stopped) for e in result.exits] == [
        (None, 4.0, 100.0, 0.0),
        (1, 1.0, 0.0, 1.0),
        (2, 4.0, 100.0, 0.0),
        (9, 4.0, 100.0, 0.0),
    ]
    assert result.energy[-1] == pytest.approx(profile(program, trace, TOY).energy.mean)
    assert result.exits[1].energy == pytest.approx(result.energy[0])
    assert early_exit(program, trace, np.array([0]), "loihi2").energy == ()
    json.dumps(result.to_json())


def test_no_answers_no_early_exit() -> None:
    program, trace = answers((0, 1, 0))
    with pytest.raises(SimulatorError, match="no answers by step"):
        early_exit(program, trace, np.array([0, 1]), TOY)


def test_neurobench_metrics_by_hand() -> None:
    program, trace = answers((0, 1, 0), (1, 0, 0))
    with pytest.raises(SimulatorError, match="lacks what NeuroBench"):
        metrics(program, trace)
    trace = simulator.run(program, np.array([[[0, 1, 0]], [[1, 0, 0]]], np.uint8), record="all", record_state="all")
    found = metrics(program, trace)
    # 9 weights and 3 biases of 4 bytes; 6 of 9 weights zero; 2 of 6 neuron steps spike; each spike meets one weight.
    assert (found.footprint, found.connection_sparsity) == (48, 0.6667)
    assert found.activation_sparsity == pytest.approx(4 / 6)
    assert (found.effective_acs, found.effective_macs, found.dense) == (2.0, 0.0, 18.0)
    assert found.membrane_updates == 3.0  # the first step's; every membrane is zero after it and stays


def test_neurobench_counts_graded_inputs_and_convolutions() -> None:
    conv = Conv("c", "in", "out", np.full((1, 1, 2, 2), 32, np.int16), weight_bits=4, padding=(1, 1))
    layers = (Population("out", (1, 3, 3), 4095, 410, 100, np.zeros(9, int)),)
    program = Program(Input("in", (1, 2, 2), 2), layers, (conv,))
    trace = simulator.run(program, np.full((2, 1, 1, 2, 2), 3), record="all", record_state="all")
    found = metrics(program, trace)
    assert (found.effective_acs, found.effective_macs, found.dense) == (0.0, 32.0, 32.0)
