"""Any NIR graph in torch: every node with non-default values, to a file and back, gives equal parameters and spikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")

from deploy import graph as nir  # noqa: E402
from deploy.errors import GraphError, ModuleError  # noqa: E402
from deploy.float_model import run  # noqa: E402
from deploy.graph.shapes import output_shape  # noqa: E402
from neurokd.export import export  # noqa: E402
from neurokd.graph_module import to_torch  # noqa: E402

DT = 1e-3
STEPS, BATCH = 12, 3


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def spread(low: float, high: float, shape: tuple[int, ...]) -> Any:
    return rng().uniform(low, high, shape)


def neurons(kind: str, shape: tuple[int, ...], v_reset: float = 0.0) -> nir.Neuron:
    """A population of ``kind`` with another value in every neuron's every field."""
    common = {"r": spread(1.5, 3.0, shape), "v_threshold": spread(0.4, 0.8, shape)}
    leaky = {"v_leak": spread(0.01, 0.1, shape), "r": spread(2.0, 9.0, shape)}
    resets = {"v_reset": spread(v_reset - 0.1, v_reset, shape)} if v_reset else {}
    cuba = {"tau_syn": spread(2e-3, 5e-3, shape), "tau_mem": spread(4e-3, 9e-3, shape), "w_in": spread(2, 4, shape)}
    times = {"tau": spread(3e-3, 9e-3, shape)}
    fields: dict[str, dict[str, Any]] = {
        "LIF": {**times, **common, **leaky, **resets},
        "CubaLIF": {**cuba, **common, **leaky, **resets},
        "IF": {**common, "r": spread(200, 900, shape), **resets},
        "LI": {**times, **leaky},
        "CubaLI": {**cuba, **leaky},
        "I": {"r": spread(100, 300, shape)},
    }
    kinds: dict[str, Any] = {k.__name__: k for k in (nir.LIF, nir.CubaLIF, nir.IF, nir.LI, nir.CubaLI, nir.I)}
    return kinds[kind]("cell", metadata={"kept": "as it is"}, **fields[kind])


def weights(*shape: int) -> Any:
    return rng().normal(0.2, 0.5, shape)


CONV2D = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
CONV1D = {"stride": 2, "padding": 3, "dilation": 2, "groups": 2}
OPERATIONS: dict[str, tuple[tuple[int, ...], list[nir.Node]]] = {
    "Affine": ((6,), [nir.Affine("op", weights(5, 6), weights(5))]),
    "Linear": ((6,), [nir.Affine("op", weights(5, 6))]),
    "Conv2d": ((4, 9, 8), [nir.Conv2d("op", weights(6, 2, 3, 2), weights(6), **CONV2D)]),
    "Conv1d": ((4, 11), [nir.Conv1d("op", weights(6, 2, 3), weights(6), **CONV1D)]),
    "AvgPool2d": ((2, 7, 8), [nir.AvgPool2d("op", (3, 2), (2, 3), (1, 1))]),
    "SumPool2d": ((2, 7, 8), [nir.SumPool2d("op", (3, 2), (2, 3), (1, 0))]),
    "Flatten": ((2, 3, 4, 2), [nir.Flatten("op", 1, 2)]),
    "Scale": ((6,), [nir.Scale("op", spread(0.3, 2.0, (6,)))]),
    "Threshold": ((6,), [nir.Threshold("op", spread(0.2, 0.9, (6,)))]),
    "Delay": ((6,), [nir.Delay("op", DT * np.array([0, 1, 2, 5, 3, 1]))]),
}


def graph_of(nodes: list[nir.Node], shape: tuple[int, ...], out: tuple[int, ...], reset: Any, **more: Any) -> nir.Graph:
    chain = [nir.Input("input", shape), *nodes, nir.Output("output", out)]
    names = [node.name for node in chain]
    edges = (*zip(names[:-1], names[1:], strict=True), *more.pop("extra", ()))
    return nir.Graph((*chain, *more.pop("beside", ())), edges, DT, reset, metadata={"by": "a test"}, **more)


def check(graph: nir.Graph, folder: Path) -> dict[str, Any]:
    """torch -> NIR -> file -> NIR -> torch, and the float interpretation beside both."""
    first = to_torch(graph)
    path = folder / "graph.nir"
    export(first, path)
    again = nir.read(path, trusted=True)
    assert again == graph
    second = to_torch(again)
    for (name, one), (_, two) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(one, two), name
    x = rng().normal(0.5, 1.0, (STEPS, BATCH, *graph.inputs[0].shape))
    with torch.no_grad():
        given, back = first.record(torch.from_numpy(x)), second.record(torch.from_numpy(x))
    assert given.keys() == {node.name for node in graph.nodes}
    for name, values in given.items():
        assert torch.equal(values, back[name]), f"{name} differs after the file"
    trace = run(graph, x)
    for name in trace.spiking:
        assert np.array_equal(given[name].numpy(), trace.outputs[name]), f"{name}: torch and numpy differ"
    for name in trace.outputs:
        np.testing.assert_allclose(given[name].numpy(), trace.outputs[name], rtol=0, atol=1e-12)
    return {name: values.numpy() for name, values in given.items()}


@pytest.mark.parametrize("kind", ["LIF", "CubaLIF", "IF", "LI", "CubaLI", "I"])
def test_neurons_round_trip(kind: str, tmp_path: Path) -> None:
    reset = "zero" if kind in ("LIF", "CubaLIF", "IF") else None
    found = check(graph_of([neurons(kind, (5,))], (5,), (5,), reset), tmp_path)
    assert np.count_nonzero(found["cell"]) > 0
    assert len(np.unique(found["cell"])) > 1


@pytest.mark.parametrize("rule", ["zero", "value", "subtract", "late-zero", "late-subtract"])
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF", "IF"])
def test_reset_rules_round_trip_and_differ(kind: str, rule: Any, tmp_path: Path) -> None:
    cell = neurons(kind, (40,), 0.2 if rule == "value" else 0.0)
    found = check(graph_of([cell], (40,), (40,), rule), tmp_path)
    spikes = found["cell"].sum()
    assert 0 < spikes < found["cell"].size
    other = "subtract" if rule == "zero" else "zero"
    if rule != "value":
        changed = check(graph_of([cell], (40,), (40,), other), tmp_path)
        assert not np.array_equal(changed["cell"], found["cell"])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_round_trip(operation: str, tmp_path: Path) -> None:
    shape, nodes = OPERATIONS[operation]
    out = output_shape(nodes[0], shape)
    found = check(graph_of([*nodes, neurons("LIF", out)], shape, out, "subtract"), tmp_path)
    assert found["cell"].any()


def recurrent() -> nir.Graph:
    """A loop through a Linear with a bias, a self-loop through a Scale, two ways that meet, and a readout."""
    cell = neurons("CubaLIF", (5,))
    beside = (nir.Affine("back", weights(5, 5) * 3, weights(5) * 3), nir.Scale("self", spread(-2, 2, (5,))))
    extra = (("cell", "back"), ("back", "cell"), ("cell", "self"), ("self", "cell"), ("in", "readout"))
    nodes = [nir.Affine("in", weights(5, 6)), cell, nir.LI("readout", **_readout())]
    return graph_of(nodes, (6,), (5,), "zero", beside=beside, extra=extra)


def _readout() -> dict[str, Any]:
    return {"tau": spread(3e-3, 9e-3, (5,)), "r": spread(2, 9, (5,)), "v_leak": spread(0.0, 0.1, (5,))}


def test_loops_branches_and_readouts_round_trip(tmp_path: Path) -> None:
    graph = recurrent()
    assert len(graph.recurrent) == 2
    found = check(graph, tmp_path)
    assert 0 < found["cell"].sum() < found["cell"].size


def test_a_recurrent_bias_acts_from_the_first_step() -> None:
    graph = recurrent()
    first = run(graph, np.zeros((1, 1, 6))).charged["cell"][0, 0]
    cell, back = graph.node("cell"), graph.node("back")
    assert isinstance(cell, nir.CubaLIF)
    assert isinstance(back, nir.Affine)
    assert back.bias is not None
    step = nir.discretize(cell, DT)
    np.testing.assert_allclose(first, step.gain * back.bias + step.leak_bias)


def test_training_changes_what_is_exported(tmp_path: Path) -> None:
    module = to_torch(recurrent())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    x = torch.from_numpy(rng().normal(0.5, 1.0, (STEPS, BATCH, 6)))
    module(x).square().sum().backward()
    assert module.held("in").weight.grad.abs().sum() > 0, "the gradient passes the spikes"
    optimizer.step()
    export(module, tmp_path / "trained.nir")
    again = to_torch(tmp_path / "trained.nir")
    assert torch.equal(again.held("in").weight, module.held("in").weight)
    assert not torch.equal(again.held("in").weight, torch.from_numpy(np.array(recurrent().node("in").weight)))  # type: ignore[attr-defined]
    assert torch.equal(again(x), module(x))


def test_integer_grids_go_with_the_first_change() -> None:
    grids: dict[str, Any] = {"quantization": nir.SynapseGrid(0, 8, "mixed")}
    cell = nir.IF("cell", 1 / DT, 2.0, quantization=nir.NeuronGrid(1.0))
    module = to_torch(graph_of([nir.Affine("in", np.array([[2.0, 4.0]]), **grids), cell], (2,), (1,), "zero"))
    assert module.to_graph() == module.graph
    with torch.no_grad():
        module.held("in").weight += 0.3
    assert module.to_graph().quantization is None


def test_refusals() -> None:
    nodes = [nir.Scale("a", np.full(3, 0.5)), nir.Scale("b", np.full(3, 0.5))]
    loop = graph_of(nodes, (3,), (3,), None, extra=(("b", "a"),))
    with pytest.raises(GraphError, match="never settles"):
        to_torch(loop)
    with pytest.raises(GraphError, match="whole number of time steps"):
        to_torch(graph_of([nir.Delay("d", np.full(3, 1.5 * DT))], (3,), (3,), None))
    with pytest.raises(ModuleError, match="does not fit the graph"):
        to_torch(graph_of([nir.Scale("a", np.ones(3))], (3,), (3,), None))(torch.zeros(2, 1, 4))
