"""Lowering gives the integers behind a graph exactly, for every node it takes, and refuses the rest by name."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import graph as nir
from deploy import reference, simulator
from deploy.chip import load_chip
from deploy.errors import GraphError, NeurokdError, ProgramError, RuleError, UnsupportedNode
from deploy.lower import lower
from deploy.lower_cells import whole
from deploy.program import Conv, Dense, Program

_SPEC = importlib.util.spec_from_file_location("lowering_graphs", Path(__file__).with_name("graphs.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
g = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(g)


def even(seed: int, *shape: int, largest: int = 12) -> np.ndarray[Any, Any]:
    """Weights on the mixed-sign grid of 8 bits."""
    return np.random.default_rng(seed).integers(-largest, largest + 1, shape) * 2


def events(seed: int, *shape: int, bits: int = 1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 1 << bits, shape)


# --- one node at a time ----------------------------------------------------------------------------------------------


def test_a_leaky_layer_becomes_its_integers() -> None:
    weights = even(0, 3, 4, largest=100)
    network = g.graph(
        (4,), [g.affine("fc", weights, bias=[1, -2, 0.25], exp=-3), g.lif("lif", leak=[3, 0, -7])], bits=4
    )
    program = lower(network)
    (population,), (synapse,) = program.populations, program.synapses
    assert isinstance(synapse, Dense)
    np.testing.assert_array_equal(synapse.weights, weights)
    assert (synapse.name, synapse.source, synapse.target, synapse.delay) == ("fc", "in", "lif", 0)
    assert (synapse.weight_exp, synapse.weight_bits, synapse.sign_mode) == (-3, 8, "mixed")
    assert (population.name, population.shape) == ("lif", (3,))
    assert (population.du, population.dv, population.vth) == (4095, 410, 20)
    assert population.bias.tolist() == [64 + 3, -128, 16 - 7]
    assert population.scale == g.SCALE
    assert (population.reset, population.spiking, population.refractory) == ("zero", True, 0)
    assert (program.input.name, program.input.shape, program.input.bits) == ("in", (4,), 4)
    assert program.meta == {"steps": 6, "encoding": "direct", "chip": "loihi2", "trained_for": "loihi2"}
    assert program.output is population


def test_a_synaptic_current_becomes_du_less_the_chips_offset() -> None:
    for current in (1, 1024, 4096):
        network = g.graph((2,), [g.affine("fc", [[2, 4]]), g.cuba("n", decay=7, current=current, leak=-65)])
        (population,) = lower(network).populations
        assert (population.du, population.dv) == (current - 1, 7)
        assert population.bias.tolist() == [-65]


def test_neurons_without_leak_do_not_decay() -> None:
    (population,) = lower(g.graph((2,), [g.affine("fc", [[2, 4]]), g.integrator("n", vth=131071)])).populations
    assert (population.du, population.dv, population.vth) == (4095, 0, 131071)


@pytest.mark.parametrize(
    ("bias", "mantissa", "exponent"),
    [
        ([0, 0], [0, 0], 0),
        ([-4096, 1], [-4096, 1], 0),
        ([4096, -2], [2048, -1], 1),
        ([-4096 << 7, 4095 << 7], [-4096, 4095], 7),
    ],
)
def test_biases_get_the_smallest_exponent(bias: list[int], mantissa: list[int], exponent: int) -> None:
    (population,) = lower(g.graph((2,), [g.affine("fc", np.zeros((2, 2))), g.lif("n", leak=bias)])).populations
    assert population.bias_mant.tolist() == mantissa
    assert population.bias_exp == exponent


@pytest.mark.parametrize(
    "node",
    [
        nir.LI("n", 4096 / 410 * g.DT, 4096 / 410, 0.0, quantization=g.GRID),
        nir.CubaLI("n", 2 * g.DT, 4096 / 410 * g.DT, 4096 / 410, 0.0, 2.0, quantization=g.GRID),
        nir.I("n", 1 / g.DT, quantization=g.GRID),
    ],
    ids=["LI", "CubaLI", "I"],
)
def test_neurons_without_threshold_are_readouts(node: nir.Neuron) -> None:
    program = lower(g.graph((2,), [g.affine("fc", [[2, 4], [4, 2]]), node], reset=None))
    readout = program.output
    assert not readout.spiking
    assert (readout.vth, readout.reset) == (0, "zero")
    assert readout.du == (2047 if isinstance(node, nir.CubaLI) else 4095)
    assert readout.dv == (0 if isinstance(node, nir.I) else 410)
    trace = simulator.run(program, np.array([[1, 0], [0, 1]]), steps=1)
    np.testing.assert_array_equal(trace.membranes, [[128, 256], [256, 128]])
    assert trace.predictions().tolist() == [1, 0]


def test_other_reset_rules_are_kept_for_cpu_simulators_only() -> None:
    network = g.graph((2,), [g.affine("fc", [[2, 4]]), g.lif("n")], reset="subtract")
    with pytest.raises(RuleError, match="not on the chip: reset rule"):
        lower(network)
    assert lower(network, strict=False).output.reset == "subtract"
    assert lower(g.graph((2,), [g.affine("fc", [[2, 4]]), g.lif("n")], reset="value")).output.reset == "zero"


def test_gains_of_neurons_go_into_their_weights_and_biases() -> None:
    gain = np.array([0.5, 2.0, -1.0])
    integers = even(1, 3, 4)
    network = g.graph((4,), [g.affine("fc", integers, bias=[1, 2, 3], gain=gain), g.integrator("n", gain=gain)])
    program = lower(network)
    np.testing.assert_array_equal(program.synapses[0].weights, integers)
    assert program.output.bias.tolist() == [64, 128, 192]


def test_gains_of_channels_go_into_kernels() -> None:
    gain = np.array([0.5, 2.0])
    kernels = even(2, 2, 1, 2, 2)
    spread = np.broadcast_to(gain[:, None, None], (2, 2, 3))
    program = lower(g.graph((1, 3, 4), [g.conv("c", kernels, [3, 5], gain=gain), g.integrator("n", gain=spread)]))
    np.testing.assert_array_equal(program.synapses[0].weights, kernels)
    np.testing.assert_array_equal(program.output.bias.reshape(2, 6), [[192] * 6, [320] * 6])


def test_the_steps_chip_and_file_travel_in_meta(tmp_path: Path) -> None:
    network = g.graph((2,), [g.affine("fc", [[2, 4]]), g.lif("n")])
    nir.write(network, tmp_path / "n.nir")
    program = lower(tmp_path / "n.nir", load_chip("loihi2"))
    assert len(program.meta["source_sha256"]) == 64
    assert program.digest == lower(network).digest


# --- whole networks, against an interpreter in floats ----------------------------------------------------------------


def same_as_floats(network: nir.Graph, spikes: np.ndarray[Any, Any]) -> Program:
    """Lower, run, and compare every neuron's spikes (membranes of readouts) with the floats."""
    program = lower(network, strict=False)
    trace = reference.run(program, spikes[:, None])
    expected = g.float_run(network, spikes)
    moved = 0
    for population in program.populations:
        got = trace.spikes[population.name][:, 0]
        if not population.spiking:
            got = trace.v[population.name][:, 0] / 64 * population.scale
        np.testing.assert_array_equal(got, expected[population.name].reshape(got.shape), population.name)
        moved += int(0 < np.mean(expected[population.name] != 0) < 1)
    assert moved > 0, "a network that never or always spikes proves nothing"
    return program


def test_dense_layers_in_a_row() -> None:
    nodes = [
        g.affine("a", even(3, 7, 5), bias=[1, 0, -2, 3, 0.5, 0, 1]), g.integrator("first"),
        g.affine("b", even(4, 4, 7), exp=1), g.integrator("second", vth=9),
    ]  # fmt: skip
    same_as_floats(g.graph((5,), nodes), events(5, 30, 5))


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_convolutions_flattened_in_nirs_order(reset: str) -> None:
    """Not square anywhere, so that any other axis order than row-major (C, H, W) would show."""
    nodes = [
        g.conv("c", even(6, 4, 1, 2, 3), [1, 0, -2, 3], stride=(1, 2), padding=(1, 0), dilation=(2, 1), groups=2),
        g.integrator("image", vth=12),
        nir.Flatten("flat", 0, -1),
        g.affine("fc", even(7, 3, 4 * 3 * 3)),
        g.integrator("last"),
    ]
    program = same_as_floats(g.graph((2, 3, 7), nodes, bits=3, reset=reset), events(8, 20, 2, 3, 7, bits=3))
    assert [p.shape for p in program.populations] == [(4, 3, 3), (3,)]


POOLS = [
    nir.SumPool2d("p", (2, 3), (2, 3)),
    nir.SumPool2d("p", (2, 2), (1, 2)),
    nir.SumPool2d("p", (2, 2), (2, 2), (1, 0)),
    nir.AvgPool2d("p", (2, 2), (2, 2)),
    nir.AvgPool2d("p", (1, 2), (1, 2), (0, 1)),
]


@pytest.mark.parametrize("pool", POOLS, ids=[f"{type(p).__name__}{p.kernel_size}{p.stride}{p.padding}" for p in POOLS])
@pytest.mark.parametrize("weighted", ["dense", "conv", "strided conv"])
def test_pooling_folds_into_what_follows(pool: nir.Pool2d, weighted: str) -> None:
    windows = 1 if isinstance(pool, nir.SumPool2d) else pool.kernel_size[0] * pool.kernel_size[1]
    shape = (2, 7, 9)
    rows, columns = g.pool(np.zeros(shape), pool).shape[1:]
    if weighted == "dense":
        tail = [nir.Flatten("flat", 0, -1), g.affine("w", windows * even(9, 6, 2 * rows * columns, largest=8))]
    else:
        geometry = {"groups": 2} if weighted == "conv" else {"stride": (2, 1), "dilation": (1, 2)}
        tail = [g.conv("w", windows * even(10, 4, 1 if weighted == "conv" else 2, 2, 2, largest=4), **geometry)]
    network = g.graph(shape, [pool, *tail, g.integrator("n", vth=12)], bits=2)
    program = same_as_floats(network, events(11, 25, *shape, bits=2))
    assert len(program.synapses) == 1
    assert isinstance(program.synapses[0], Dense if weighted == "dense" else Conv)


def test_two_pools_in_a_row_and_one_between_layers() -> None:
    nodes = [
        nir.SumPool2d("p0", (2, 1), (2, 1)), nir.AvgPool2d("p1", (1, 2), (1, 2)),
        g.conv("c", 2 * even(12, 3, 2, 2, 2)), g.integrator("image", vth=15),
        nir.SumPool2d("p2", (2, 2), (2, 2)), nir.Flatten("flat", 0, -1),
        g.affine("fc", even(13, 4, 3 * 2 * 2)), g.integrator("last"),
    ]  # fmt: skip
    same_as_floats(g.graph((2, 10, 10), nodes, bits=2), events(14, 20, 2, 10, 10, bits=2))


def test_delays_before_and_behind_the_weights_add_up() -> None:
    nodes = [
        nir.Delay("d0", 2 * g.DT), g.affine("a", even(15, 5, 4)), nir.Delay("d1", np.full(5, g.DT)),
        g.integrator("first", vth=8), g.affine("b", even(16, 3, 5), bias=[1, 2, 3]), g.integrator("last"),
    ]  # fmt: skip
    program = same_as_floats(g.graph((4,), nodes), events(17, 30, 4))
    assert [s.delay for s in program.synapses] == [3, 0]


def test_a_population_that_feeds_itself() -> None:
    nodes = [g.affine("a", even(18, 5, 4)), g.integrator("n"), g.affine("r", even(19, 5, 5, largest=4))]
    edges = [("in", "a"), ("a", "n"), ("n", "r"), ("r", "n")]
    program = same_as_floats(g.graph((4,), nodes, edges, answer="n"), events(20, 40, 4))
    assert {s.name: (s.source, s.target, s.delay) for s in program.synapses} == {
        "a": ("in", "n", 0),
        "r": ("n", "n", 1),
    }


def test_a_loop_over_two_populations_with_a_delay_in_it() -> None:
    nodes = [
        g.affine("a", even(21, 5, 4)), g.integrator("first"), g.affine("b", even(22, 3, 5)), g.integrator("second"),
        g.affine("back", even(23, 5, 3, largest=5)), nir.Delay("wait", 2 * g.DT),
    ]  # fmt: skip
    edges = [("in", "a"), ("a", "first"), ("first", "b"), ("b", "second"), ("second", "back"), ("back", "wait")]
    program = same_as_floats(g.graph((4,), nodes, [*edges, ("wait", "first")], answer="second"), events(24, 40, 4))
    assert {s.name: s.delay for s in program.synapses} == {"a": 0, "b": 0, "back": 3}


def test_a_bias_in_a_loop_acts_from_the_first_step() -> None:
    nodes = [g.affine("a", [[2]]), g.integrator("n", vth=131071), g.affine("r", [[2]], bias=[5])]
    edges = [("in", "a"), ("a", "n"), ("n", "r"), ("r", "n")]
    program = lower(g.graph((1,), nodes, edges, answer="n"))
    assert program.output.bias.tolist() == [320]


def test_branches_meet_in_one_population() -> None:
    """A residual add of two sources, and a skip from the input with a delay of its own."""
    nodes = [
        g.affine("a", even(25, 5, 4)), g.integrator("first", vth=10),
        g.affine("b", even(26, 6, 5), bias=np.arange(6)), g.affine("skip", even(27, 6, 4), bias=np.ones(6)),
        nir.Delay("wait", g.DT), g.integrator("sum"),
    ]  # fmt: skip
    edges = [
        ("in", "a"),
        ("a", "first"),
        ("first", "b"),
        ("b", "sum"),
        ("in", "wait"),
        ("wait", "skip"),
        ("skip", "sum"),
    ]
    program = same_as_floats(g.graph((4,), nodes, edges, answer="sum"), events(28, 40, 4))
    assert {s.name: s.delay for s in program.incoming("sum")} == {"b": 0, "skip": 1}
    assert program.output.bias.tolist() == [64 * (n + 1) for n in range(6)]


def test_weights_shared_by_two_sources_and_two_targets_add_their_bias_once() -> None:
    """``fc`` sees the sum of two populations and feeds two: four blocks, each bias once."""
    nodes = [
        g.affine("a", even(29, 5, 4)), g.integrator("left"), g.affine("b", even(30, 5, 4)), g.integrator("right"),
        g.affine("fc", even(31, 3, 5), bias=[1, 2, 3]), g.integrator("top"), g.integrator("low", vth=9),
    ]  # fmt: skip
    edges = [
        ("in", "a"), ("in", "b"), ("a", "left"), ("b", "right"), ("left", "fc"), ("right", "fc"), ("fc", "top"),
        ("fc", "low"),
    ]  # fmt: skip
    program = same_as_floats(g.graph((4,), nodes, edges, answer="top"), events(32, 40, 4))
    assert program.output.name == "top"
    assert program.output.bias.tolist() == [64, 128, 192]
    assert len({s.name for s in program.synapses}) == 6


def test_one_way_taken_twice_counts_twice() -> None:
    nodes = [g.affine("fc", even(33, 3, 4), bias=[1, 2, 3]), nir.Flatten("flat", 0, -1), g.integrator("n")]
    edges = [("in", "fc"), ("fc", "n"), ("fc", "flat"), ("flat", "n")]
    program = same_as_floats(g.graph((4,), nodes, edges, answer="n"), events(34, 30, 4))
    assert program.output.bias.tolist() == [128, 256, 384]
    assert [s.name for s in program.synapses] == ["fc", "fc@in"]


def test_the_output_need_not_be_last() -> None:
    """The answer feeds a population that feeds it back: in program order it comes first."""
    nodes = [
        g.affine("a", even(35, 5, 4)), g.integrator("answer"), g.affine("b", even(36, 3, 5)), g.integrator("helper"),
        g.affine("back", even(37, 5, 3)),
    ]  # fmt: skip
    edges = [("in", "a"), ("a", "answer"), ("answer", "b"), ("b", "helper"), ("helper", "back"), ("back", "answer")]
    program = same_as_floats(g.graph((4,), nodes, edges, answer="answer"), events(38, 40, 4))
    assert [p.name for p in program.populations] == ["answer", "helper"]
    assert program.output.name == "answer"


def test_a_readout_behind_spiking_layers() -> None:
    nodes = [
        g.affine("a", even(39, 6, 4)), g.integrator("hidden", vth=10), g.affine("b", even(40, 3, 6), bias=[1, 0, -1]),
        nir.I("last", 1 / g.DT, quantization=g.GRID),
    ]  # fmt: skip
    same_as_floats(g.graph((4,), nodes), events(41, 30, 4))


# --- what is refused -------------------------------------------------------------------------------------------------

FC = g.affine("fc", [[2, 4], [6, 8]])
LIF = g.lif("n")


def wired(nodes: list[nir.Node], *edges: tuple[str, str], answer: str = "n", **options: Any) -> nir.Graph:
    return g.graph((2,), nodes, edges, answer=answer, **options)


def two_inputs() -> nir.Graph:
    ends = (nir.Input("x", (2,)), nir.Input("y", (2,)), nir.Output("out", (2,)))
    return nir.Graph((*ends, FC, LIF), (("x", "fc"), ("y", "fc"), ("fc", "n"), ("n", "out")), g.DT, "zero")


def two_outputs() -> nir.Graph:
    nodes = (nir.Input("in", (2,)), FC, LIF, nir.Output("o1", (2,)), nir.Output("o2", (2,)))
    return nir.Graph(nodes, (("in", "fc"), ("fc", "n"), ("n", "o1"), ("n", "o2")), g.DT, "zero")


def ladder(levels: int, width: int) -> nir.Graph:
    rungs = [[nir.Delay(f"d{level}.{n}", 0.0) for n in range(width)] for level in range(levels)]
    edges = [(a.name, b.name) for low, high in zip(rungs[:-1], rungs[1:], strict=True) for a in low for b in high]
    edges += [("in", node.name) for node in rungs[0]] + [(node.name, "fc") for node in rungs[-1]] + [("fc", "n")]
    return wired([FC, LIF, *(node for rung in rungs for node in rung)], *edges)


def pooled_conv(**changes: Any) -> nir.Graph:
    pool = nir.SumPool2d("pool", **{"kernel_size": (2, 2), "stride": (2, 2), **changes})
    return g.graph((1, 5, 5), [pool, g.conv("c", even(1, 1, 1, 2, 2), padding=(1, 1)), g.integrator("n")])


def in_row(*nodes: nir.Node, **options: Any) -> nir.Graph:
    return g.graph((2,), nodes, **options)


LI = nir.LI("li", 4096 / 410 * g.DT, 4096 / 410, 0.0, quantization=g.GRID)
KERNEL = g.conv("c", even(1, 1, 1, 2, 2))
SCALED = nir.Scale("s", np.array([2.0, 1.0]))
PER_NEURON = np.array([1.0, 2.0])
REFUSED: dict[str, tuple[Any, type[NeurokdError], str]] = {
    "two inputs": (two_inputs, UnsupportedNode, "a program has one input"),
    "two outputs": (two_outputs, UnsupportedNode, "the output must be one spiking population or a readout"),
    "weights last": (lambda: in_row(FC, LIF, g.affine("b", [[2, 4]])), UnsupportedNode, "the output must be one"),
    "float neurons": (lambda: in_row(FC, replace(LIF, quantization=None)), GraphError, "the network is not quantized"),
    "float weights": (lambda: in_row(replace(FC, quantization=None), LIF), GraphError, "the weights are not quantized"),
    "readout in between": (
        lambda: in_row(FC, LI, g.affine("b", [[2, 4]]), LIF), UnsupportedNode, "only as the readout before the output",
    ),
    "readout that feeds": (
        lambda: wired([FC, LI, g.affine("b", [[2, 4], [2, 2]]), LIF],
                      ("in", "fc"), ("fc", "li"), ("li", "b"), ("b", "n"), answer="li"),
        UnsupportedNode, "membranes do not travel",
    ),
    "dead gain": (lambda: in_row(FC, replace(LIF, r=[0.0, 1.0])), UnsupportedNode, "multiplied by 0"),
    "gain in a channel": (
        lambda: g.graph((1, 3, 3), [KERNEL, g.integrator("n", gain=[[[1.0, 2.0], [1.0, 1.0]]])]),
        UnsupportedNode, "the input gain differs within a channel",
    ),
    "thresholds": (
        lambda: in_row(FC, replace(LIF, v_threshold=PER_NEURON)), UnsupportedNode, "the threshold differs",
    ),
    "betas": (
        lambda: in_row(FC, g.lif("n", gain=PER_NEURON, tau=PER_NEURON * g.DT)), UnsupportedNode, "the beta differs",
    ),
    "alphas": (
        lambda: in_row(FC, g.cuba("n", tau_syn=np.array([2, 4]) * g.DT)), UnsupportedNode, "the alpha differs",
    ),
    "threshold off the grid": (
        lambda: in_row(FC, replace(LIF, v_threshold=0.3)), GraphError, "the threshold is off the integer grid",
    ),
    "weight off the grid": (
        lambda: in_row(replace(FC, weight=np.full((2, 2), 0.3)), LIF), GraphError, "the weight is off the integer grid",
    ),
    "bias off the grid": (lambda: in_row(FC, g.lif("n", leak=0.5)), GraphError, "the bias .* is off the integer grid"),
    "decay off the grid": (lambda: in_row(FC, g.lif("n", decay=410.5)), GraphError, "the decay of beta is off the"),
    "delay off the grid": (
        lambda: in_row(nir.Delay("d", 1.5 * g.DT), FC, LIF), GraphError, "the delay .* is off the integer grid",
    ),
    "no memory at all": (lambda: in_row(FC, g.lif("n", decay=4096)), UnsupportedNode, "beta is outside"),
    "current for ever": (
        lambda: in_row(FC, g.cuba("n", current=2.0**-20, w_in=1.0)), UnsupportedNode, "alpha is outside",
    ),
    "reset elsewhere": (
        lambda: in_row(FC, replace(LIF, v_reset=-1.0), reset="value"), UnsupportedNode, "reset to a value other than 0",
    ),
    "no reset rule": (lambda: in_row(FC, LIF, reset=None), UnsupportedNode, "nobody says what a spike does"),
    "bias into a current": (
        lambda: in_row(g.affine("fc", even(1, 2, 2), bias=[1, 2]), g.cuba("n")), UnsupportedNode, "filtered by it",
    ),
    "bias without mantissa": (
        lambda: in_row(FC, g.lif("n", leak=[4097, 4098])), GraphError, "a bias has no mantissa and exponent",
    ),
    "late bias": (
        lambda: in_row(g.affine("fc", even(1, 2, 2), bias=[1, 2]), nir.Delay("d", g.DT), LIF), UnsupportedNode,
        "a bias before a delay would arrive late",
    ),
    "scale": (lambda: in_row(FC, SCALED, LIF), UnsupportedNode, "this node has no counterpart"),
    "two weights": (lambda: in_row(FC, g.affine("b", even(1, 2, 2)), LIF), UnsupportedNode, "exactly one set"),
    "no weights": (lambda: in_row(LIF), UnsupportedNode, "exactly one set"),
    "pool behind": (
        lambda: g.graph((1, 3, 3), [KERNEL, nir.SumPool2d("p", (2, 2), (2, 2)), LIF]),
        UnsupportedNode, "a node after the weights",
    ),
    "flatten behind": (
        lambda: g.graph((1, 3, 3), [KERNEL, nir.Flatten("f", 0, -1), LIF]), UnsupportedNode,
        "a node after the weights",
    ),
    "delays": (
        lambda: in_row(nir.Delay("d", np.array([1, 2]) * g.DT), FC, LIF), UnsupportedNode, "the delay differs",
    ),
    "loop of weights": (
        lambda: wired([FC, g.affine("b", even(1, 2, 2)), LIF], ("in", "fc"), ("fc", "b"), ("b", "fc"), ("fc", "n")),
        UnsupportedNode, "a loop of nodes without a neuron",
    ),
    "many ways": (lambda: ladder(13, 2), UnsupportedNode, "too many ways between populations"),
    "long way": (lambda: ladder(70, 1), UnsupportedNode, "too many nodes between populations"),
    "padding over overlaps": (lambda: pooled_conv(stride=(1, 1)), UnsupportedNode, "cannot be folded exactly"),
    "padding over rests": (pooled_conv, UnsupportedNode, "cannot be folded exactly"),
    "wide delay": (lambda: in_row(nir.Delay("d", 63 * g.DT), FC, LIF), ProgramError, "delay is out of range"),
    "wide weight": (lambda: in_row(g.affine("fc", [[256, 2], [2, 2]]), LIF), ProgramError, "off the chip's grid"),
    "wide threshold": (lambda: in_row(FC, g.lif("n", vth=131072)), ProgramError, "vth is out of range"),
    "sums of pools": (
        lambda: g.graph((1, 4, 4), [nir.SumPool2d("p", (3, 3), (1, 1)), nir.Flatten("f", 0, -1),
                                    g.affine("fc", np.full((1, 4), 100)), g.integrator("n")]),
        ProgramError, "off the chip's grid",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_lowered_is_refused_by_name(case: str) -> None:
    make, kind, message = REFUSED[case]
    network = make()
    with pytest.raises(kind, match=message) as caught:
        lower(network)
    assert type(caught.value) is kind
    assert caught.value.where
    assert caught.value.got
    assert caught.value.allowed


def test_a_value_beyond_every_integer_and_a_late_reset_are_refused() -> None:
    with pytest.raises(GraphError, match="off the integer grid"):
        whole(np.array([1e300]), "a", "weight")
    with pytest.raises(GraphError, match="off the integer grid"):
        whole(np.array([np.nan]), "a", "weight")
    nodes = (nir.Input("input", (2,)), g.affine("w", [[1, 2]]), g.integrator("out"), nir.Output("output", (1,)))
    edges = (("input", "w"), ("w", "out"), ("out", "output"))
    with pytest.raises(UnsupportedNode, match="one step after the spike"):
        lower(nir.Graph(nodes, edges, g.DT, "late-zero"))
