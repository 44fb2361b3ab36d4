"""The simulator equals the reference interpreter in every spike, state and counter."""

from __future__ import annotations

import numpy as np
import pytest

from deploy import fixed_point as fp
from deploy import reference, simulator
from deploy.errors import SimulatorError, SpikesError
from deploy.program import Dense, Input, Population, Program
from deploy.simulator.neurons import stays_inside
from deploy.simulator.plan import plan
from deploy.testing import Case, random_case
from deploy.trace import Trace

STATES = ("spikes", "u", "v")
COUNTERS = ("spikes", "synops", "active", "wraps", "saturations")


def require_equal(got: Trace, expected: Trace) -> None:
    for name in expected.spikes:
        for what in STATES:
            np.testing.assert_array_equal(getattr(got, what)[name], getattr(expected, what)[name], f"{name}.{what}")
        for what in COUNTERS:
            counted = getattr(got.counters[name], what)
            np.testing.assert_array_equal(counted, getattr(expected.counters[name], what), f"{name}.{what}")
    np.testing.assert_array_equal(got.counts, expected.counts)
    assert (got.membranes is None) == (expected.membranes is None)
    if expected.membranes is not None:
        np.testing.assert_array_equal(got.membranes, expected.membranes)
    np.testing.assert_array_equal(got.input_events, expected.input_events)


def both(case: Case, **options: object) -> tuple[Trace, Trace]:
    steps = case.given_steps
    reset = bool(options.get("reset_between_samples", True))
    expected = reference.run(case.program, case.spikes, steps=steps, reset_between_samples=reset)
    got = simulator.run(case.program, case.spikes, steps=steps, record="all", record_state="all", **options)
    return got, expected


@pytest.mark.parametrize("block", range(10))
def test_random_programs_equal_the_reference(block: int) -> None:
    """400 programs of every kind: parameters at and beyond their comfortable ranges, one and two threads."""
    for seed in range(block * 40, block * 40 + 40):
        require_equal(*both(random_case(seed), threads=1 + seed % 2))


def test_state_carried_over_between_samples_equals_the_reference() -> None:
    for seed in range(1000, 1060):
        require_equal(*both(random_case(seed), reset_between_samples=False))


def test_random_programs_do_wrap_and_saturate() -> None:
    """The parity above would prove little if its programs stayed in comfortable ranges."""
    traces = [both(random_case(seed))[0] for seed in range(60)]
    assert sum(trace.wraps > 0 for trace in traces) > 3
    assert sum(trace.saturations > 0 for trace in traces) > 3
    assert sum(int(trace.counts.sum()) > 0 for trace in traces) > 20


def test_a_session_equals_a_run() -> None:
    for seed in range(80):
        case = random_case(seed, constant=False)
        whole = simulator.run(case.program, case.spikes)
        session = simulator.open(case.program, batch=case.spikes.shape[1])
        stepped = np.stack([session.step(frame) for frame in case.spikes])
        np.testing.assert_array_equal(stepped, whole.sat)
        session.reset()
        np.testing.assert_array_equal(session.step(case.spikes[0]), whole.sat[0])


def test_a_session_takes_one_sample_without_a_batch_axis() -> None:
    case = random_case(3, constant=False)
    session = simulator.open(case.program)
    first = session.step(case.spikes[0, 0])
    assert first.shape == case.program.output.shape
    expected = reference.run(case.program, case.spikes[:1, :1])
    np.testing.assert_array_equal(first, expected.sat[0, 0])
    np.testing.assert_array_equal(session.spikes(case.program.output.name)[0], first)
    np.testing.assert_array_equal(
        session.membrane(case.program.output.name)[0], expected.v[case.program.output.name][0, 0]
    )


def wide_program(inputs: int, neurons: int, seed: int = 0) -> Program:
    rng = np.random.default_rng(seed)
    hidden = Population("hidden", (neurons,), 4095, 410, 900, rng.integers(-50, 50, neurons))
    out = Population("out", (10,), 4095, 410, 300, np.zeros(10, int))
    weights = rng.integers(-128, 128, (neurons, inputs)) * 2
    return Program(
        Input("in", (inputs,)),
        (hidden, out),
        (Dense("a", "in", "hidden", weights), Dense("b", "hidden", "out", rng.integers(-128, 128, (10, neurons)) * 2)),
    )


@pytest.mark.parametrize("activity", [0.01, 0.1, 0.29, 0.31, 0.9, 1.0])
def test_both_kernels_give_the_same_sums_at_any_activity(activity: float) -> None:
    """Rows gather in int16: with more rows than fit, the totals must still be exact (checked with numpy int64)."""
    program = wide_program(900, 33)
    spikes = (np.random.default_rng(1).random((3, 5, 900)) < activity).astype(np.uint8)
    trace = simulator.run(program, spikes, record="all", record_state="hidden")
    dense = program.synapses[0]
    first_u = spikes[0].astype(np.int64) @ dense.weights.T.astype(np.int64) << 6
    np.testing.assert_array_equal(trace.u["hidden"][0], first_u)
    assert trace.counters["hidden"].synops.sum() == np.count_nonzero(dense.weights, axis=0) @ spikes.sum(axis=(0, 1))


def test_streams_give_what_one_run_gives() -> None:
    program = wide_program(40, 16)
    spikes = (np.random.default_rng(2).random((6, 23, 40)) < 0.3).astype(np.uint8)
    whole = simulator.run(program, spikes)
    parts = simulator.stream(program, (spikes[:, start : start + 5] for start in range(0, 23, 5)))
    np.testing.assert_array_equal(np.concatenate([part.counts for part in parts]), whole.counts)


def test_progress_reaches_the_end_and_only_grows() -> None:
    program, seen = wide_program(40, 16), []
    spikes = np.zeros((4, 300, 40), np.uint8)
    simulator.run(program, spikes, progress=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (300, 300)
    assert seen == sorted(seen)


def test_nothing_is_recorded_that_was_not_asked_for() -> None:
    case = random_case(5, constant=False)
    trace = simulator.run(case.program, case.spikes, record=())
    assert not trace.spikes
    assert not trace.u
    with pytest.raises(SimulatorError, match="not recorded"):
        _ = trace.sat


def test_unknown_names_and_threads_are_refused() -> None:
    case = random_case(5, constant=False)
    with pytest.raises(SimulatorError, match="no such population"):
        simulator.run(case.program, case.spikes, record="nonsense")
    with pytest.raises(SimulatorError, match="positive"):
        simulator.run(case.program, case.spikes, threads=0)


@pytest.mark.parametrize(
    ("spikes", "message"),
    [
        (np.zeros((2, 3, 41), np.uint8), "wrong shape"),
        (np.zeros((2, 0, 40), np.uint8), "wrong shape"),
        (np.zeros((2, 3, 40), np.float32), "not integers"),
        (np.full((2, 3, 40), 2), "out of range"),
        (np.full((2, 3, 40), -1), "out of range"),
        (np.zeros((3, 40), np.uint8), "not known"),
    ],
)
def test_spikes_that_do_not_fit_are_refused(spikes: np.ndarray, message: str) -> None:
    with pytest.raises(SpikesError, match=message):
        simulator.run(wide_program(40, 4), spikes)


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_must_be_positive(steps: int) -> None:
    with pytest.raises(SpikesError, match="not positive"):
        simulator.run(wide_program(40, 4), np.zeros((3, 40), np.uint8), steps=steps)


def test_steps_that_contradict_the_spikes_are_refused() -> None:
    with pytest.raises(SpikesError, match="contradicts"):
        simulator.run(wide_program(40, 4), np.zeros((2, 3, 40), np.uint8), steps=5)


def one_neuron(**mode: object) -> Program:
    """A neuron that integrates ``2 * input`` units without leak and spikes above 6."""
    fields = {"vth": 6, **mode}
    neuron = Population("n", (1,), 4095, 0, bias_mant=np.zeros(1, int), **fields)  # type: ignore[arg-type]
    return Program(Input("in", (1,)), (neuron,), (Dense("w", "in", "n", np.array([[2]])),))


@pytest.mark.parametrize("run", [reference.run, simulator.run])
@pytest.mark.parametrize(
    ("mode", "spikes"),
    [
        ({}, [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]),
        ({"reset": "subtract"}, [0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0]),  # 8 - 6 stays, so three steps later
        ({"refractory": 1}, [0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0]),
        ({"refractory": 3}, [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0]),
        ({"reset": "subtract", "refractory": 2}, [0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0]),
        ({"spiking": False, "vth": 0}, [0] * 12),
    ],
)
def test_neuron_modes_do_what_they_say(run, mode: dict[str, object], spikes: list[int]) -> None:  # noqa: ANN001
    trace = run(one_neuron(**mode), np.ones((12, 1, 1), int))
    assert trace.sat.reshape(-1).tolist() == spikes
    assert (trace.membranes is None) == mode.get("spiking", True)


@pytest.mark.parametrize("run", [reference.run, simulator.run])
def test_a_refractory_neuron_holds_v_but_not_u(run) -> None:  # noqa: ANN001
    """As Lava's LIFRefractory: u integrates at every step, v of refractory neurons is not updated."""
    neuron = Population("n", (1,), 0, 0, 1, np.zeros(1, int), refractory=2)
    program = Program(Input("in", (1,)), (neuron,), (Dense("w", "in", "n", np.array([[2]])),))
    options = {} if run is reference.run else {"record_state": "all"}
    trace = run(program, np.array([1, 0, 0, 0]).reshape(4, 1, 1), **options)
    u = [128, 127, 126, 125]  # 4095/4096 a step, toward zero
    assert trace.u["n"].reshape(-1).tolist() == u
    assert trace.v["n"].reshape(-1).tolist() == [0, 0, 0, 0]
    assert trace.sat.reshape(-1).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("run", [reference.run, simulator.run])
@pytest.mark.parametrize("reset", [True, False])
def test_a_readout_answers_with_its_last_membrane(run, reset: bool) -> None:  # noqa: ANN001
    """Saturated far above any threshold, it neither spikes nor resets; the highest membrane is the class."""
    readout = Population("out", (3,), 4095, 0, 0, np.array([0, 4095, 1]), 7, spiking=False)
    weights = np.array([[254], [0], [2]])
    program = Program(Input("in", (1,)), (readout,), (Dense("w", "in", "out", weights, 7),))
    trace = run(program, np.ones((30, 2, 1), int), reset_between_samples=reset)
    limit = (1 << 23) - 1
    assert trace.membranes.tolist()[0] == [limit, limit, 30 * ((2 << 13) + (1 << 7))]
    assert trace.predictions().tolist() == [0, 0]
    assert trace.counts.sum() == 0
    assert trace.accuracy(np.array([0, 1])) == 50.0
    later = 30 if reset else 60
    assert trace.membranes[1, 2] == later * ((2 << 13) + (1 << 7))


def test_carried_over_spikes_may_outlive_a_whole_sample() -> None:
    neuron = Population("n", (1,), 4095, 4095, 1, np.zeros(1, int))
    program = Program(Input("in", (1,)), (neuron,), (Dense("w", "in", "n", np.array([[2]]), delay=3),))
    spikes = np.array([1, 0, 0, 0, 0]).reshape(1, 5, 1)  # five samples of one step
    for run in (reference.run, simulator.run):
        carried = run(program, spikes, reset_between_samples=False)
        assert carried.sat.reshape(-1).tolist() == [0, 0, 0, 1, 0]
        assert run(program, spikes).sat.sum() == 0


@pytest.mark.parametrize("dv", [1, 7, 410, 4095])
@pytest.mark.parametrize("share", [0.98, 0.9999, 1.01])
def test_what_stays_inside_never_reaches_an_edge(dv: int, share: float) -> None:
    """Driven as hard as the bound allows, with either sign; and the bound is no looser than it has to be."""
    bias = 5
    worst = int(share * ((1 << 23) * dv / 4096 - bias) / 64)
    layer = Population("out", (1,), 4095, dv, 131071, np.array([-bias]))
    assert stays_inside(layer, worst) is (share < 1)
    v, low = 0, 0
    for _ in range(20 * 4096 // dv):
        u, raw = fp.wrap_current(-worst << 6, fp.STATE_BITS), fp.decay(v, dv) - (worst << 6) - bias
        assert u == -worst << 6 or share > 1
        v, low = max(raw, -fp.MAX_STATE), min(low, raw)
    assert (low >= -fp.MAX_STATE) is (share < 1)


def test_random_programs_take_both_scans() -> None:
    calm = [stage.calm for seed in range(60) for stage in plan(random_case(seed).program).stages]
    assert 10 < sum(calm) < len(calm) - 10
