"""Post-training quantization: the float run is the graph's, the integers the chip's, the losses the simulator's."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from deploy import cli, ptq, ptq_float, simulator
from deploy import graph as nir
from deploy.chip import load_chip
from deploy.errors import ConfigError, GraphError, NeurokdError, ProgramError, RuleError, SpikesError, UnsupportedNode
from deploy.lower import lower
from deploy.ptq_scales import SEARCHES, Wanted, bias_integers, decays

_SPEC = importlib.util.spec_from_file_location("ptq_graphs", Path(__file__).with_name("graphs.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
g = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(g)
Array = npt.NDArray[Any]
DT = 1e-3


def lif(name: str, n: int | tuple[int, ...], **changes: Any) -> nir.LIF:
    """Float LIF neurons with beta 0.9, threshold 1."""
    ones = np.ones(n)
    fields = {"tau": 10 * DT * ones, "r": 10 * ones, "v_leak": 0 * ones, "v_threshold": ones, **changes}
    return nir.LIF(name, **fields)


def rng_weights(*shape: int, seed: int = 0, size: float = 1.0) -> Array:
    fan_in = np.prod(shape[1:])
    return np.random.default_rng(seed).normal(0.05, size / np.sqrt(fan_in), shape)


def frames(shape: tuple[int, ...], *, steps: int = 6, samples: int = 24, largest: int = 1, seed: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    return (
        rng.integers(1, largest + 1, (steps, samples, *shape)) * (rng.random((steps, samples, *shape)) < 0.4)
    ).astype(np.uint8)


def dense(**changes: Any) -> nir.Graph:
    """20 - 16 LIF - 5 LIF."""
    nodes = [
        nir.Affine("w1", rng_weights(16, 20, size=2.0), rng_weights(16, 1)[:, 0] * 0.1),
        lif("n1", 16),
        nir.Affine("w2", rng_weights(5, 16, seed=3, size=2.0)),
        lif("n2", 5),
    ]
    return unstated(g.graph((20,), nodes), **changes)


def unstated(graph: nir.Graph, **changes: Any) -> nir.Graph:
    return replace(graph, settings=nir.RunSettings(**changes), dt=DT)


# --- the float run --------------------------------------------------------------------------------------------------


def chain(*nodes: nir.Node, shape: tuple[int, ...], **options: Any) -> nir.Graph:
    return unstated(g.graph(shape, list(nodes), **options))


IMAGE = (2, 9, 8)
CONVOLUTIONS = {
    "plain": ({}, (3, 2, 3, 3)),
    "strided": ({"stride": (2, 1), "padding": (1, 2)}, (3, 2, 3, 2)),
    "dilated": ({"dilation": (2, 2)}, (3, 2, 3, 3)),
    "grouped": ({"groups": 2, "padding": (1, 1)}, (4, 1, 3, 3)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_the_float_run_is_that_of_the_graph(case: str, reset: str) -> None:
    geometry, shape = CONVOLUTIONS[case]
    graph = chain(
        nir.Conv2d("c", rng_weights(*shape, size=3.0), rng_weights(shape[0], 1)[:, 0], **geometry),
        g.integrator("n1", vth=6, gain=0.7),
        nir.AvgPool2d("p", (2, 2), (2, 2)),
        nir.Flatten("f", 0, -1),
        nir.Affine("w", rng_weights(4, _flat(geometry, shape), size=3.0), rng_weights(4, 1)[:, 0]),
        g.lif("n2", vth=5),
        shape=IMAGE,
        reset=reset,
    )
    x = frames(IMAGE, largest=3, samples=3)
    seen = ptq_float.run(graph, ptq_float.layers(graph), x, 0.5)
    for sample in range(3):
        want = g.float_run(graph, x[:, sample] * 0.5)
        assert want["n1"].any()
        for name, spikes in seen.spikes.items():
            np.testing.assert_array_equal(spikes[:, sample], want[name])


def _flat(geometry: dict[str, Any], shape: tuple[int, ...]) -> int:
    nodes = [nir.Conv2d("c", np.zeros(shape), None, **geometry), g.integrator("n1"), nir.AvgPool2d("p", (2, 2), (2, 2))]
    return int(np.prod(g.graph(IMAGE, nodes).output_shape("p")))


def test_the_float_run_takes_loops_and_delays() -> None:
    nodes = [
        nir.Affine("w1", rng_weights(6, 8, size=3.0)), g.integrator("n1", vth=8),
        nir.Affine("back", rng_weights(6, 6, seed=5)), nir.Delay("d", np.full(6, 2 * DT)),
        nir.Affine("w2", rng_weights(3, 6, seed=6, size=3.0)), g.integrator("n2", vth=6),
    ]  # fmt: skip
    edges = [("in", "w1"), ("w1", "n1"), ("n1", "back"), ("back", "n1"), ("n1", "d"), ("d", "w2"), ("w2", "n2")]
    graph = chain(*nodes, shape=(8,), edges=edges, answer="n2")
    x = frames((8,), samples=4)
    seen = ptq_float.run(graph, ptq_float.layers(graph), x, 1.0)
    for sample in range(4):
        want = g.float_run(graph, x[:, sample])
        assert want["n2"].any()
        for name, spikes in seen.spikes.items():
            np.testing.assert_array_equal(spikes[:, sample], want[name])
    assert ptq.quantize(graph, x).program.synapses[-1].delay == 2


# --- quantizing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("power_of_two", [False, True])
def test_eight_bits_lose_next_to_nothing(search: Any, power_of_two: bool) -> None:
    result = ptq.quantize(dense(), frames((20,)), search=search, power_of_two=power_of_two)
    assert min(layer.agreement for layer in result.losses.layers) > 98
    assert max(layer.weight_error for layer in result.losses.layers) < 0.02
    if power_of_two:
        assert all(np.log2(layer.scale) % 1 == 0 for layer in result.losses.layers)


def test_fewer_bits_lose_more_and_layers_have_their_own() -> None:
    errors = [
        [layer.weight_error for layer in ptq.quantize(dense(), frames((20,)), bits=bits).losses.layers]
        for bits in (8, 6, 4, 3, 2)
    ]
    assert np.all(np.diff(np.asarray(errors), axis=0) > 0)
    mixed = ptq.quantize(dense(), frames((20,)), bits=3, layer_bits={"w2": 8})
    assert [s.weight_bits for s in mixed.program.synapses] == [3, 8]
    assert [layer.bits for layer in mixed.losses.layers] == [(3,), (8,)]


def test_the_losses_are_those_of_the_simulator() -> None:
    x = frames((20,), samples=300)  # more than one chunk of each side
    graph = dense()
    result = ptq.quantize(graph, x, bits=3)
    trace = simulator.run(result.program, x, record="all")
    for layer in result.losses.layers:
        ours = np.stack([g.float_run(graph, x[:, n])[layer.layer] for n in range(300)], 1)
        assert layer.agreement == pytest.approx(100 * np.mean(ours == trace.spikes[layer.layer]))
        assert layer.float_rate == pytest.approx(ours.mean())
        assert layer.chip_rate == pytest.approx(trace.spikes[layer.layer].mean())
    answers = ours.sum(0).argmax(1)
    assert result.losses.same_answer == pytest.approx(100 * np.mean(answers == trace.predictions()))


def test_the_written_file_lowers_to_the_same_program(tmp_path: Path) -> None:
    result = ptq.quantize(dense(input_bits=4, encoding="direct"), frames((20,), largest=15), bits=4)
    nir.write(result.graph, tmp_path / "q.nir")
    assert lower(tmp_path / "q.nir").digest == result.program.digest
    again = nir.read(tmp_path / "q.nir")
    assert again.settings == nir.RunSettings(6, "direct", 4, "loihi2")
    assert again.quantization is not None


def test_a_gain_and_thresholds_that_differ_go_into_the_weights() -> None:
    """Neurons that differ only in the unit of their membrane do the same."""
    factors = np.random.default_rng(0).uniform(0.5, 2.0, 16)
    plain = dense()
    w1 = plain.node("w1")
    assert isinstance(w1, nir.Affine)
    assert w1.bias is not None
    other = {"n1": lif("n1", 16, r=10 * 4.0 * np.ones(16), v_threshold=factors)}
    other["w1"] = nir.Affine("w1", w1.weight * factors[:, None] / 4, w1.bias * factors / 4)  # type: ignore[assignment]
    nodes = tuple(other.get(node.name, node) for node in plain.nodes)
    results = [ptq.quantize(graph, frames((20,))) for graph in (plain, replace(plain, nodes=nodes))]
    ours, theirs = (simulator.run(r.program, frames((20,)), record="all") for r in results)
    assert ours.spikes["n1"].any()
    np.testing.assert_array_equal(ours.spikes["n1"], theirs.spikes["n1"])


def test_the_input_unit_is_taken_into_the_weights() -> None:
    small = dense()
    w1 = small.node("w1")
    assert isinstance(w1, nir.Affine)
    nodes = tuple(replace(node, weight=w1.weight / 15) if node is w1 else node for node in small.nodes)  # type: ignore[call-arg]
    x = frames((20,), largest=15)
    programs = [
        ptq.quantize(small, x, input_unit=1 / 15).program, ptq.quantize(replace(small, nodes=nodes), x).program
    ]  # fmt: skip
    np.testing.assert_array_equal(programs[0].synapses[0].weights, programs[1].synapses[0].weights)


def test_several_sets_of_weights_share_the_scale() -> None:
    """A residual connection 30 times weaker gets its own exponent."""
    nodes = [
        nir.Affine("w1", rng_weights(6, 8, size=3.0)), lif("n1", 6),
        nir.Affine("w2", rng_weights(6, 6, seed=2, size=3.0)),
        nir.Affine("skip", rng_weights(6, 8, seed=3, size=0.1)), lif("n2", 6),
    ]  # fmt: skip
    edges = [("in", "w1"), ("w1", "n1"), ("n1", "w2"), ("w2", "n2"), ("in", "skip"), ("skip", "n2")]
    result = ptq.quantize(chain(*nodes, shape=(8,), edges=edges, answer="n2"), frames((8,)))
    exponents = {s.name: s.weight_exp for s in result.program.synapses}
    assert exponents["w2"] - exponents["skip"] in (4, 5, 6)
    assert result.losses.layers[-1].agreement > 98


def test_a_readout_and_a_current_are_taken() -> None:
    cuba = nir.CubaLIF("n1", tau_syn=np.full(9, 4 * DT), tau_mem=np.full(9, 10 * DT), r=np.full(9, 10.0),
                       v_leak=np.full(9, 0.5), v_threshold=np.ones(9), w_in=np.full(9, 4.0))  # fmt: skip
    nodes = [
        nir.Affine("w1", rng_weights(9, 12, size=2.0)), cuba,
        nir.Affine("w2", rng_weights(4, 9, seed=2), np.ones(4) * 0.2),
        nir.LI("n2", np.full(4, 10 * DT), np.full(4, 10.0), np.zeros(4)),
    ]  # fmt: skip
    result = ptq.quantize(chain(*nodes, shape=(12,)), frames((12,), samples=100))
    hidden, readout = result.losses.layers
    assert hidden.agreement > 98
    assert hidden.float_rate
    assert readout.chip_rate is None
    assert readout.agreement == result.losses.same_answer > 90


def test_a_pool_before_the_weights_keeps_its_factor() -> None:
    nodes = [
        nir.AvgPool2d("p", (2, 2), (2, 2)), nir.Conv2d("c", rng_weights(4, 2, 2, 2, size=4.0)),
        lif("n1", (4, 3, 3)), nir.Flatten("f", 0, -1), nir.Affine("w", rng_weights(3, 36, size=3.0)), lif("n2", 3),
    ]  # fmt: skip
    result = ptq.quantize(chain(*nodes, shape=(2, 8, 8)), frames((2, 8, 8), largest=7, samples=50))
    assert min(layer.agreement for layer in result.losses.layers) > 97
    assert result.losses.layers[0].float_rate


def test_the_mean_error_of_the_weights_is_taken_out_of_the_bias() -> None:
    x = frames((20,), samples=200)
    sums = []
    for correct in (False, True):
        program = ptq.quantize(dense(), x, bits=2, correct_bias=correct).program
        rate = simulator.run(program, x, record="all").spikes["n1"].mean((0, 1))
        graph = dense()
        sums.append(
            np.abs(rate - ptq_float.run(graph, ptq_float.layers(graph), x, 1.0).spikes["n1"].mean((0, 1))).mean()
        )
    assert sums[1] < 0.7 * sums[0]


def test_importance_steers_the_step() -> None:
    """An outlier whose input never comes is clipped, one that comes often is not."""
    weights = np.full((1, 9), 0.1)
    weights[0, 0] = 2.0
    silent, busy = (np.r_[value, np.ones(8)] for value in (0.0, 100.0))
    steps = [Wanted("w", weights, importance, 3, 1).step("mse") for importance in (silent, busy)]
    assert steps[0] < 0.2 * steps[1]


def test_decays_go_to_the_chips_grid() -> None:
    assert decays(0.9, None) == (1 - 410 / 4096, None)
    assert decays(0.0, 1.0) == (1 / 4096, 4095 / 4096)


# --- refused --------------------------------------------------------------------------------------------------------


def changed(name: str, **fields: Any) -> nir.Graph:
    graph = dense()
    return replace(graph, nodes=tuple(replace(n, **fields) if n.name == name else n for n in graph.nodes))


def two_inputs() -> nir.Graph:
    nodes = (
        nir.Input("a", (3,)),
        nir.Input("b", (3,)),
        nir.Affine("w", np.ones((2, 3))),
        lif("n", 2),
        nir.Output("o", (2,)),
    )
    return nir.Graph(nodes, (("a", "w"), ("b", "w"), ("w", "n"), ("n", "o")), DT, "zero")


def shared_weights() -> nir.Graph:
    weights = [nir.Affine(name, np.eye(4)) for name in ("w", "w2", "w3")]
    nodes = [*weights, lif("n1", 4), lif("n2", 4), lif("n3", 4)]
    edges = [("in", "w"), ("w", "n1"), ("w", "n2"), ("n1", "w2"), ("n2", "w3"), ("w2", "n3"), ("w3", "n3")]
    return chain(*nodes, shape=(4,), edges=edges, answer="n3")


def overlapping() -> nir.Graph:
    nodes = [nir.AvgPool2d("p", (3, 3), (1, 1)), nir.Conv2d("c", np.ones((1, 1, 2, 2))), lif("n", (1, 5, 5))]
    return chain(*nodes, shape=(1, 8, 8))


def no_neurons() -> nir.Graph:
    return chain(nir.Affine("w", np.eye(20)), shape=(20,))


REFUSED: dict[str, tuple[Any, dict[str, Any], type[NeurokdError], str, str]] = {
    "huge bias": (lambda: changed("w1", bias=np.full(16, 1e6)), {}, ProgramError, "n1", "mantissa and exponent"),
    "threshold beside weights": (
        lambda: changed("n1", v_threshold=np.full(16, 1e9)), {}, ProgramError, "n1", "too large for the chip",
    ),
    "weights beside threshold": (
        lambda: changed("n1", v_threshold=np.full(16, 1e-9)), {}, ProgramError, "n1", "too small",
    ),
    "no weights": (lambda: changed("w2", weight=np.zeros((5, 16))), {}, ProgramError, "w2", "all zero"),
    "no threshold": (lambda: changed("n1", v_threshold=np.zeros(16)), {}, UnsupportedNode, "n1", "not above 0"),
    "other reset": (lambda: changed("n1", v_reset=np.full(16, 0.5)), {}, UnsupportedNode, "n1", "other than 0"),
    "no reset": (lambda: replace(dense(), reset=None), {}, UnsupportedNode, "n1", "what a spike does"),
    "subtract": (lambda: replace(dense(), reset="subtract"), {}, RuleError, "n1", "reset rule"),
    "different decays": (
        lambda: changed("n1", tau=np.linspace(5, 9, 16) * DT), {}, UnsupportedNode, "n1", "differs between neurons",
    ),
    "no gain": (lambda: changed("n2", r=np.zeros(5)), {}, UnsupportedNode, "n2", "multiplied by 0"),
    "no neurons": (no_neurons, {}, UnsupportedNode, "graph", "no neurons"),
    "two inputs": (two_inputs, {}, UnsupportedNode, "graph", "one input"),
    "shared weights": (shared_weights, {}, UnsupportedNode, "w", "feeds two populations"),
    "pool windows overlap": (overlapping, {}, ProgramError, "c", "off the chip's grid"),
    "width": (dense, {"bits": 1}, ConfigError, "w1", "no synapses of this width"),
    "width of no layer": (dense, {"layer_bits": {"w9": 4}}, ConfigError, "layer_bits", "no node with weights"),
    "search": (dense, {"search": "best"}, ConfigError, "search", "unknown scale search"),
    "input unit": (dense, {"input_unit": 0.0}, ConfigError, "input_unit", "no positive number"),
    "steps": (dense, {"spikes": np.zeros((3, 20), np.uint8)}, SpikesError, "steps", "is not known"),
    "shape": (dense, {"spikes": np.zeros((3, 4, 21), np.uint8)}, SpikesError, "in", "wrong shape"),
    "floats": (dense, {"spikes": np.full((6, 4, 20), 0.5)}, SpikesError, "in", "are no spikes"),
    "too wide": (
        lambda: dense(input_bits=2), {"spikes": np.full((6, 4, 20), 4)}, SpikesError, "in", "wider than the file's",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_quantized_is_refused_in_words(case: str) -> None:
    make, options, kind, where, words = REFUSED[case]
    graph = make()
    spikes = options.pop("spikes", None)
    given = frames(graph.inputs[0].shape) if spikes is None else spikes
    with pytest.raises(kind) as raised:
        ptq.quantize(graph, given, **options)
    assert words in str(raised.value)
    assert where in raised.value.where
    assert raised.value.got


def test_sums_beyond_the_accumulator_are_refused() -> None:
    chip = load_chip("loihi2")
    entries = tuple((k, replace(q, value=16) if k == "accumulator_bits" else q) for k, q in chip.formats.entries)
    narrow = replace(chip, formats=type(chip.formats)("loihi2", entries))
    graph = chain(nir.Affine("w", np.ones((3, 400))), lif("n", 3), shape=(400,))
    with pytest.raises(ProgramError, match="do not fit the accumulator") as raised:
        ptq.quantize(graph, frames((400,), largest=255), chip=narrow)
    assert "fewer bits" in raised.value.next_step


def test_a_membrane_that_is_not_finite_is_refused() -> None:
    graph = changed("w1", weight=np.full((16, 20), 1e308))
    with np.errstate(all="ignore"), pytest.raises(GraphError, match="not finite"):
        ptq.quantize(graph, frames((20,)))


def test_a_bias_has_the_smallest_exponent() -> None:
    assert bias_integers("n", np.array([1.0, -0.5]), 1 / 64).tolist() == [4096, -2048]
    with pytest.raises(ProgramError, match="no mantissa"):
        bias_integers("n", np.array([2.0**14]), 1 / 64)


# --- dead layers ----------------------------------------------------------------------------------------------------


def test_a_dead_layer_is_named_with_what_wakes_it() -> None:
    """1.2 thresholds become 0.85 on a grid of 3 bits made for -3.4: not enough in one step, and the layer is silent."""
    graph = chain(nir.Affine("w", np.array([[1.2, -3.4]])), lif("n", 1, tau=np.full(1, DT), r=np.ones(1)), shape=(2,))
    x = np.zeros((1, 10, 2), np.uint8)
    x[:, :, 0] = 1
    layer = ptq.quantize(graph, x, bits=3, search="max", correct_bias=False).losses.layers[0]
    assert layer.float_rate == 1
    assert layer.dead
    assert layer.waking_vth is not None
    assert layer.waking_vth * layer.scale == pytest.approx(0.85, rel=0.02)
    assert f"vth {layer.waking_vth} wakes it (a threshold of {layer.waking_vth * layer.scale:.4g}" in layer.note
    corrected = ptq.quantize(graph, x, bits=3, search="max").losses.layers[0]
    assert corrected.agreement == 100
    assert "nothing arrives" in replace(layer, waking_vth=0).note


def test_a_layer_dead_in_floats_is_said_to_be() -> None:
    graph = changed("n2", v_threshold=np.full(5, 100.0))
    losses = ptq.quantize(graph, frames((20,))).losses
    assert losses.layers[1].dead
    assert "in floats neither" in losses.notes[0]
    assert losses.notes[0] in losses.table()


# --- from file to file ----------------------------------------------------------------------------------------------


def on_command_line(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["neurokd-deploy", *map(str, arguments)])
    try:
        return cli.guarded(cli.app)
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    nir.write(dense(), tmp_path / "float.nir")
    np.savez(tmp_path / "calibration.npz", spikes=frames((20,), largest=15))
    return tmp_path


def test_the_command_quantizes_a_file(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("quantize", files / "float.nir", "--spikes", files / "calibration.npz", "--out", files / "q.nir")
    options = (
        "--input-unit",
        "0.0666667",
        "--bits",
        "6",
        "--layer-bits",
        "w2=8",
        "--chip",
        "loihi2",
        "--samples",
        "10",
    )
    assert on_command_line(monkeypatch, *common, *options) == 0
    text = capsys.readouterr().out
    assert "same answer as the float network" in text
    assert "n1" in text
    assert [s.weight_bits for s in lower(files / "q.nir").synapses] == [6, 8]
    assert on_command_line(monkeypatch, *common, "--json") == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 24
    assert on_command_line(monkeypatch, *common, "--layer-bits", "w2") == 2
    assert "not NODE=BITS" in capsys.readouterr().err


def test_quantizing_needs_no_torch(files: Path) -> None:
    code = (
        "import sys; from deploy.ptq import quantize_file as q;"
        f"q({str(files / 'float.nir')!r}, {str(files / 'calibration.npz')!r}, {str(files / 'q.nir')!r});"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
