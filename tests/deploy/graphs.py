"""Small quantized graphs for the tests of lowering, and an interpreter of graphs in floats to compare with.

With memoryless currents, membranes without leak and scales that are powers of two, floats are exact: the interpreter
then says, independently of every integer rule, what a lowered network must do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy import graph as nir
from deploy.graph.discrete import discretize
from deploy.graph.graph import arrange
from deploy.graph.shapes import infer

Array = npt.NDArray[Any]
DT = 1e-3
SCALE = 0.125
GRID = nir.NeuronGrid(SCALE)


def affine(name: str, integers: Any, bias: Any = None, exp: int = 0, gain: Any = 1.0, bits: int = 8) -> nir.Affine:
    """All-to-all weights given as grid integers ``[out, in]`` and a bias in units of a synaptic sum."""
    weight = np.asarray(integers) * SCALE * 2.0**exp / np.reshape(gain, (-1, 1))
    spread = None if bias is None else np.asarray(bias) * SCALE / np.reshape(gain, -1)
    return nir.Affine(name, weight, spread, quantization=nir.SynapseGrid(exp, bits, "mixed"))


def conv(name: str, integers: Any, bias: Any = None, exp: int = 0, gain: Any = 1.0, **geometry: Any) -> nir.Conv2d:
    """A convolution given as grid integers ``[O, I / groups, kh, kw]``."""
    weight = np.asarray(integers) * SCALE * 2.0**exp / np.reshape(gain, (-1, 1, 1, 1))
    spread = None if bias is None else np.asarray(bias) * SCALE / np.reshape(gain, -1)
    return nir.Conv2d(name, weight, spread, quantization=nir.SynapseGrid(exp, 8, "mixed"), **geometry)


def integrator(name: str, vth: float = 20, gain: Any = 1.0, **changes: Any) -> nir.IF:
    """Neurons without leak, threshold in units of a synaptic sum."""
    fields = {"r": np.asarray(gain) / DT, "v_threshold": vth * SCALE, "quantization": GRID, **changes}
    return nir.IF(name, **fields)


def lif(name: str, decay: int = 410, vth: int = 20, leak: Any = 0.0, gain: Any = 1.0, **changes: Any) -> nir.LIF:
    """Leaky neurons; ``leak`` is the bias on the membrane in 1/64 of a unit."""
    steps = 4096 / decay
    fields = {
        "tau": steps * DT, "r": np.asarray(gain) * steps, "v_leak": np.asarray(leak) / 64 * SCALE * steps,
        "v_threshold": vth * SCALE, "quantization": GRID, **changes,
    }  # fmt: skip
    return nir.LIF(name, **fields)


def cuba(
    name: str, decay: int = 410, current: int = 1024, vth: int = 20, leak: Any = 0.0, **changes: Any
) -> nir.CubaLIF:
    """Leaky neurons with a synaptic current."""
    steps, current_steps = 4096 / decay, 4096 / current
    fields = {
        "tau_mem": steps * DT, "tau_syn": current_steps * DT, "r": steps, "w_in": current_steps,
        "v_leak": np.asarray(leak) / 64 * SCALE * steps, "v_threshold": vth * SCALE, "quantization": GRID, **changes,
    }  # fmt: skip
    return nir.CubaLIF(name, **fields)


def graph(
    shape: tuple[int, ...],
    nodes: Sequence[nir.Node],
    edges: Sequence[tuple[str, str]] | None = None,
    *,
    bits: int = 1,
    answer: str | None = None,
    reset: Any = "zero",
    out: tuple[int, ...] | None = None,
) -> nir.Graph:
    """``nodes`` in a row from the Input to the Output; or wired by ``edges``, which name the Input ``in``."""
    names = ["in", *(node.name for node in nodes)]
    wires = list(zip(names[:-1], names[1:], strict=True)) if edges is None else list(edges)
    last = answer or names[-1]
    ends = (nir.Input("in", shape), nir.Output("out", out or _shape_of(nodes, wires, shape, last)))
    settings = nir.RunSettings(steps=6, encoding="direct", input_bits=bits, chip="loihi2")
    return nir.Graph((*ends, *nodes), (*wires, (last, "out")), DT, reset, settings)


def populated(*, spiking: bool = True, **settings: Any) -> nir.Graph:
    """Two classes of 4 neurons each on two inputs, T = 6.

    Driven by input k, one neuron of class k spikes at every step (6 spikes) and its others never, while all 4 of the
    other class spike at every second step (12 spikes): the busiest neuron is of one class, the answer is the other.
    """
    weights = [[22, 12], [0, 12], [0, 12], [0, 12], [12, 22], [12, 0], [12, 0], [12, 0]]
    cells = integrator("cells") if spiking else nir.I("cells", 1 / DT, quantization=GRID)
    made = graph((2,), [affine("w", weights), cells])
    return replace(made, settings=replace(made.settings, **{"population": 4, **settings}))


#: Input of :func:`populated`: sample k drives input k. The answers are ``[1, 0]``, the busiest neurons 0 and 4.
ONE_EACH = np.eye(2, dtype=np.uint8)


def _shape_of(nodes: Sequence[nir.Node], wires: list[tuple[str, str]], shape: tuple[int, ...], last: str) -> Any:
    order, recurrent = arrange((nir.Input("in", shape), *nodes), wires)
    return infer(order, wires, recurrent)[0][last].output


def float_run(network: nir.Graph, values: Array) -> dict[str, Array]:
    """Spikes (or membranes of readouts) of every neuron node, ``[T, *shape]``, for input ``[T, *shape]``.

    An edge that closes a loop carries what its source gave one step before; bias nodes in loops begin a step late.
    """
    membranes: dict[str, Array] = {}
    given: list[dict[str, Array]] = []
    entered: list[dict[str, Array]] = []
    for frame in values:
        now: dict[str, Array] = {}
        came: dict[str, Array] = {}
        for node in network.nodes:
            came[node.name] = _sum(network, node.name, now, given[-1] if given else {})
            now[node.name] = _value(network, node, came[node.name], frame, entered, membranes)
        given.append(now)
        entered.append(came)
    neurons = [node.name for node in network.nodes if isinstance(node, nir.Neuron)]
    return {name: np.stack([step[name] for step in given]) for name in neurons}


def _sum(network: nir.Graph, name: str, now: dict[str, Array], before: dict[str, Array]) -> Array:
    total = np.zeros(network.input_shape(name))
    for source in network.sources(name):
        behind = (source, name) in network.recurrent
        total = total + (before.get(source, np.zeros(1)) if behind else now[source])
    return total


def _value(
    network: nir.Graph, node: nir.Node, x: Array, frame: Array, entered: list[dict[str, Array]], v: dict[str, Array]
) -> Array:
    if isinstance(node, nir.Input):
        return frame.astype(np.float64)
    if isinstance(node, nir.Neuron):
        return _neuron(network, node, x, v)
    if isinstance(node, nir.Affine):
        return node.weight @ x + (0 if node.bias is None else node.bias)
    if isinstance(node, nir.Conv2d):
        bias = np.zeros(len(node.weight)) if node.bias is None else node.bias
        return correlate(x, node.weight, node.stride, node.padding, node.dilation, node.groups) + bias[:, None, None]
    if isinstance(node, nir.Pool2d):
        return pool(x, node)
    if isinstance(node, nir.Delay):
        steps = round(float(node.delay.flat[0]) / DT)
        return x if steps == 0 else entered[-steps][node.name] if steps <= len(entered) else np.zeros_like(x)
    return x.reshape(network.output_shape(node.name))


def _neuron(network: nir.Graph, node: nir.Neuron, x: Array, membranes: dict[str, Array]) -> Array:
    step = discretize(node, DT)
    assert step.alpha is None, "currents with memory are not exact in floats"
    v = step.beta * membranes.get(node.name, np.zeros_like(x)) + step.gain * x + step.leak_bias
    if step.threshold is None:
        membranes[node.name] = v
        return v
    spikes = v > step.threshold
    after = v - step.threshold if network.reset == "subtract" else np.zeros_like(v)
    membranes[node.name] = np.where(spikes, after, v)
    return spikes.astype(np.float64)


def pool(x: Array, node: nir.Pool2d) -> Array:
    """Sum or mean of each window, zeros around the image."""
    kernel = np.ones((x.shape[0], 1, *node.kernel_size))
    if isinstance(node, nir.AvgPool2d):
        kernel = kernel / (node.kernel_size[0] * node.kernel_size[1])
    return correlate(x, kernel, node.stride, node.padding, (1, 1), x.shape[0])


def correlate(x: Array, w: Array, stride: Any, padding: Any, dilation: Any, groups: int) -> Array:
    """torch's Conv2d, one output value after the other."""
    (py, px), (sy, sx), (dy, dx), (kh, kw) = padding, stride, dilation, w.shape[2:]
    padded = np.pad(x, ((0, 0), (py, py), (px, px)))
    rows = (padded.shape[1] - dy * (kh - 1) - 1) // sy + 1
    columns = (padded.shape[2] - dx * (kw - 1) - 1) // sx + 1
    result = np.zeros((len(w), rows, columns))
    for o, y, c in np.ndindex(*result.shape):
        first = o // (len(w) // groups) * w.shape[1]
        part = padded[first : first + w.shape[1], y * sy : y * sy + dy * kh : dy, c * sx : c * sx + dx * kw : dx]
        result[o, y, c] = np.sum(part[:, :kh, :kw] * w[o])
    return result
