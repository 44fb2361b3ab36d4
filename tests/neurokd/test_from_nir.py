"""NIR back into torch: round trips with no default value, foreign conventions, and everything that is no chain."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")
from torch import Tensor  # noqa: E402

from deploy import graph as nir  # noqa: E402
from deploy.errors import GraphError, TrainingError, UnsupportedNode  # noqa: E402
from neurokd.export import export, to_graph  # noqa: E402
from neurokd.from_nir import from_nir  # noqa: E402
from neurokd.network import SpikingNetwork, build  # noqa: E402
from neurokd.neurons import LIF  # noqa: E402
from neurokd.quantized import QuantizedNetwork  # noqa: E402
from neurokd.rounding import to_integers  # noqa: E402
from neurokd.testing import random_case  # noqa: E402

DT = 1e-4
SPEC = "9x7x2-6c3x2s2x1p1x0g2d1x2-p2x1p1x0-5-4"


def student() -> SpikingNetwork:
    """Every parameter away from its default, without norm (so that the file holds each one)."""
    net = build(
        SPEC, steps=7, input_bits=5, neuron=["lif", "cuba", "lif"], beta=[0.25, 0.8, 1.0], alpha=0.6,
        threshold=[0.7, 1.5, 2.0], norm=False, bias=True,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in net.spiking_layers():
            held = layer.synapse.bias if isinstance(layer.neuron, LIF) else layer.neuron.bias
            held.normal_(0.0, 0.3, generator=generator)
    return net.eval()


def parameters(net: SpikingNetwork | QuantizedNetwork) -> dict[str, Tensor]:
    return {name: value for name, value in net.state_dict().items() if value.numel()}


def levels(net: SpikingNetwork | QuantizedNetwork, *lead: int, seed: int = 0) -> Tensor:
    largest = (1 << net.input_bits) - 1
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, largest + 1, (*lead, *net.spec.input_shape), generator=generator).float() / largest


def differing(one: Any, other: Any, x: Tensor) -> int:
    with torch.no_grad():
        ours, theirs = one(x, record=True)[1], other(x, record=True)[1]
    assert ours.keys() == theirs.keys()
    assert any(bool(spikes.any()) for spikes in ours.values())
    return sum(int((ours[name] != theirs[name]).sum()) for name in ours)


# Round trips ------------------------------------------------------------------------------------------------------


def test_a_float_student_comes_back_with_every_parameter(tmp_path: Path) -> None:
    net = student()
    export(net, tmp_path / "student.nir")
    again = from_nir(tmp_path / "student.nir")
    assert isinstance(again, SpikingNetwork)
    assert not again.training
    assert again.notes == []
    assert (again.spec_text, again.steps, again.input_bits) == (net.spec_text, net.steps, net.input_bits)
    ours, theirs = parameters(net), parameters(again)
    assert ours.keys() == theirs.keys()
    assert {name: torch.equal(ours[name], theirs[name]) for name in ours} == dict.fromkeys(ours, True)
    assert differing(net, again, levels(net, 20)) == 0
    assert differing(net, again, levels(net, 7, 20)) == 0


def test_a_norm_comes_back_folded() -> None:
    net = build("20-12-4", norm=True, input_bits=4, neuron=["cuba", "lif"]).eval()
    for layer in net.spiking_layers():
        layer.norm.running_mean.fill_(0.125)
    again, folded = from_nir(to_graph(net)), net.folded()
    assert {name: torch.equal(value, parameters(again)[name]) for name, value in parameters(folded).items()} == (
        dict.fromkeys(parameters(folded), True)
    )
    assert differing(folded, again, levels(net, 30)) == 0


def test_a_quantized_student_comes_back_with_every_integer(tmp_path: Path) -> None:
    net = to_integers(student(), weight_bits={"dense2": 4})
    export(net, tmp_path / "student.nir")
    again = from_nir(tmp_path / "student.nir")
    assert isinstance(again, QuantizedNetwork)
    assert not again.training
    assert again.grids == net.grids
    assert (again.chip, again.steps, again.input_bits) == (net.chip, net.steps, net.input_bits)
    for one, other in zip(net.quantized_layers(), again.quantized_layers(), strict=True):
        assert torch.equal(one.integer_weights(), other.integer_weights())
        assert torch.equal(one.integer_biases(), other.integer_biases())
    assert differing(net, again, levels(net, 20)) == 0
    assert to_graph(again) == to_graph(net)


@pytest.mark.parametrize("seed", range(100, 125))
def test_random_students_come_back_quantized_and_float(seed: int) -> None:
    case = random_case(seed)
    again = from_nir(to_graph(case.network))
    assert isinstance(again, QuantizedNetwork)
    assert again.grids == case.network.grids
    with torch.no_grad():
        ours, theirs = case.network(case.x, record=True)[1], again(case.x, record=True)[1]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    floats, folded = from_nir(to_graph(case.student)), case.student.folded()
    assert isinstance(floats, SpikingNetwork)
    for name, value in parameters(folded).items():
        assert torch.equal(parameters(floats)[name], value), name


def test_the_chips_accumulator_comes_back_by_its_name() -> None:
    net = to_integers(build("30-4", input_bits=1, norm=False), "loihi1")
    again = from_nir(to_graph(net))
    assert isinstance(again, QuantizedNetwork)
    assert again.grids["dense1"].accumulator_bits == 16
    unknown = dataclasses.replace(to_graph(net), settings=nir.RunSettings(8, "direct", 1, "my-own-chip"))
    own = from_nir(unknown)
    assert isinstance(own, QuantizedNetwork)
    assert (own.chip, own.grids["dense1"].accumulator_bits) == ("my-own-chip", 24)


def test_a_network_that_came_back_can_be_fine_tuned() -> None:
    again = from_nir(to_graph(to_integers(student())))
    again.sat(levels(again, 4)).sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in again.parameters())


# Foreign files ----------------------------------------------------------------------------------------------------


def chain(*nodes: nir.Node, inputs: tuple[int, ...] = (3,), output: int = 2, **options: Any) -> nir.Graph:
    every = [nir.Input("input", inputs), *nodes, nir.Output("output", (output,))]
    names = [node.name for node in every]
    given: dict[str, Any] = {"dt": DT, "reset": "zero", **options}
    return nir.Graph(tuple(every), tuple(zip(names[:-1], names[1:], strict=True)), **given)


def affine(outputs: int = 2, inputs: int = 3, name: str = "fc", **options: Any) -> nir.Affine:
    weight = np.arange(1.0, outputs * inputs + 1).reshape(outputs, inputs) / 8
    return nir.Affine(name, weight, **options)


def lif(n: int = 2, name: str = "lif", **changes: Any) -> nir.LIF:
    values: dict[str, Any] = {
        "tau": np.full(n, 4 * DT), "r": np.full(n, 4.0), "v_leak": np.zeros(n), "v_threshold": np.ones(n), **changes
    }  # fmt: skip
    return nir.LIF(name, **values)


def cuba(n: int = 2, **changes: Any) -> nir.CubaLIF:
    values: dict[str, Any] = {
        "tau_syn": np.full(n, 2 * DT), "tau_mem": np.full(n, 4 * DT), "r": np.full(n, 4.0), "v_leak": np.zeros(n),
        "v_threshold": np.full(n, 1.0), "w_in": np.full(n, 2.0), **changes,
    }  # fmt: skip
    return nir.CubaLIF("cuba", **values)


def layer_of(graph: nir.Graph, place: int = 0) -> Any:
    net = from_nir(graph)
    assert isinstance(net, SpikingNetwork)
    return net.spiking_layers()[place]


def test_integrate_and_fire_is_a_lif_without_leak() -> None:
    layer = layer_of(chain(affine(), nir.IF("if", r=np.full(2, 1 / DT), v_threshold=np.full(2, 1.5))))
    assert isinstance(layer.neuron, LIF)
    assert (float(layer.neuron.beta), float(layer.neuron.threshold)) == (1.0, 1.5)
    assert torch.equal(layer.synapse.weight.double(), torch.tensor(affine().weight))


def test_an_input_gain_goes_into_weights_and_bias() -> None:
    layer = layer_of(chain(affine(bias=np.array([1.0, -2.0])), lif(r=np.full(2, 2.0))))
    assert torch.equal(layer.synapse.weight.double(), torch.tensor(affine().weight) * 0.5)
    assert layer.synapse.bias.tolist() == [0.5, -1.0]


def test_a_leak_potential_is_a_bias() -> None:
    layer = layer_of(chain(affine(bias=np.array([1.0, -2.0])), lif(v_leak=np.array([4.0, 8.0]))))
    assert layer.synapse.bias.tolist() == [2.0, 0.0]
    membrane = layer_of(chain(affine(), cuba(v_leak=np.array([4.0, 8.0]))))
    assert membrane.synapse.bias is None
    assert membrane.neuron.bias.tolist() == [1.0, 2.0]
    assert (float(membrane.neuron.alpha), float(membrane.neuron.beta)) == (0.5, 0.75)


@pytest.mark.parametrize("kind", [nir.SumPool2d, nir.AvgPool2d])
def test_both_pools_mean_what_their_file_says(kind: type[nir.Pool2d]) -> None:
    graph = chain(
        kind("pool", (2, 3), (2, 3), (1, 0)), nir.Flatten("flat", 0, -1), affine(2, 12), lif(), inputs=(2, 5, 6)
    )  # fmt: skip
    layer = layer_of(graph)
    x = torch.randn(4, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    pooled = torch.nn.functional.avg_pool2d(x.double(), (2, 3), (2, 3), (1, 0))
    expected = (pooled * (6 if kind is nir.SumPool2d else 1)).flatten(1) @ torch.tensor(affine(2, 12).weight).T
    assert torch.allclose(layer.current(x)[0].double(), expected, rtol=1e-5, atol=1e-5)


def test_a_quantized_sum_pool_is_the_average_pools_integers() -> None:
    net = to_integers(build("6x6x2-p2-3", input_bits=4, norm=False))
    graph = to_graph(net)
    pool, weights = graph.node("dense1_pool"), graph.node("dense1_weights")
    assert isinstance(pool, nir.AvgPool2d)
    assert isinstance(weights, nir.Affine)
    summed = nir.SumPool2d(pool.name, pool.kernel_size, pool.stride, pool.padding)
    quarter = dataclasses.replace(weights, weight=weights.weight / 4)
    changed = {pool.name: summed, weights.name: quarter}
    nodes = tuple(changed.get(node.name, node) for node in graph.nodes)
    again = from_nir(dataclasses.replace(graph, nodes=nodes))
    assert isinstance(again, QuantizedNetwork)
    assert again.grids == net.grids
    assert differing(net, again, levels(net, 20)) == 0


def test_input_bits_that_are_stated_scale_the_first_weights() -> None:
    settings = nir.RunSettings(steps=5, input_bits=3)
    net = from_nir(chain(affine(), lif(), settings=settings))
    assert (net.steps, net.input_bits, net.notes) == (5, 3, [])
    assert torch.equal(
        net.spiking_layers()[0].synapse.weight.double(), torch.tensor(affine().weight).float().double() * 7
    )


def test_decays_off_the_chips_grid_and_missing_steps_are_noted() -> None:
    near_one = {"tau_syn": np.full(2, 1e9 * DT), "w_in": np.full(2, 1e9)}
    for neuron, notes in (
        (lif(tau=np.full(2, 10 * DT), r=np.full(2, 10.0)), ["lif: beta 0.9 became 0.899902344, the nearest"]),
        (lif(tau=np.full(2, DT), r=np.full(2, 1.0)), ["lif: beta 0 became 0.000244140625, the nearest"]),
        (cuba(**near_one), ["cuba: alpha 1 became 0.999755859, the nearest"]),
        (lif(tau=np.float32(np.full(2, 4096 / 410 * DT)), r=np.full(2, 4096 / 410)), []),
    ):
        found = from_nir(chain(affine(), neuron)).notes
        assert found[0] == "the file does not say how many steps it runs; 8 are taken"
        assert [note.split(" on the")[0] for note in found[1:]] == notes


# Refusals ---------------------------------------------------------------------------------------------------------


def branched() -> nir.Graph:
    nodes = (nir.Input("input", (3,)), affine(), affine(name="fc2"), lif(), nir.Output("output", (2,)))
    edges = (("input", "fc"), ("input", "fc2"), ("fc", "lif"), ("fc2", "lif"), ("lif", "output"))
    return nir.Graph(nodes, edges, DT, "zero")


def looped() -> nir.Graph:
    nodes = (nir.Input("input", (3,)), affine(), lif(), affine(2, 2, "back"), nir.Output("output", (2,)))
    edges = (("input", "fc"), ("fc", "lif"), ("lif", "back"), ("back", "lif"), ("lif", "output"))
    return nir.Graph(nodes, edges, DT, "zero")


def two_chains() -> nir.Graph:
    nodes: list[nir.Node] = []
    edges: list[tuple[str, str]] = []
    for place in ("a", "b"):
        each = [nir.Input(f"in_{place}", (3,)), affine(name=f"fc_{place}"), lif(name=f"lif_{place}"),
                nir.Output(f"out_{place}", (2,))]  # fmt: skip
        nodes += each
        edges += [(one.name, two.name) for one, two in zip(each[:-1], each[1:], strict=True)]
    return nir.Graph(tuple(nodes), tuple(edges), DT, "zero")


def conv_with_leak() -> nir.Graph:
    leak = np.zeros((2, 3, 3))
    leak[1, 0, 2] = 1.0
    ones = np.ones((2, 3, 3))
    neuron = nir.LIF("lif", tau=ones * 4 * DT, r=ones * 4, v_leak=leak, v_threshold=ones)
    conv = nir.Conv2d("conv", np.ones((2, 1, 1, 1)))
    last = [nir.Flatten("flat", 0, -1), affine(2, 18), lif(name="last")]
    return chain(conv, neuron, *last, inputs=(1, 3, 3))


def partly_quantized() -> nir.Graph:
    graph = to_graph(to_integers(build("6-4-2", input_bits=1, norm=False)))
    nodes = [dataclasses.replace(n, quantization=None) if n.name == "dense2" else n for n in graph.nodes]  # type: ignore[call-arg]
    return dataclasses.replace(graph, nodes=tuple(nodes))


CASES: list[tuple[Callable[[], nir.Graph], str, str]] = [
    (lambda: chain(affine(), lif(), reset="subtract"), "only neurons that reset to zero", "reset"),
    (lambda: chain(affine(), lif(v_reset=np.ones(2)), reset="value"), "only neurons that reset to zero", "reset"),
    (branched, "not a chain", "'input'"),
    (looped, "not a chain", "'"),
    (two_chains, "not a chain", "'in_b'"),
    (lambda: chain(lif(3), output=3), "does not fit a chain", "'lif'"),
    (lambda: chain(affine(), output=2), "does not fit a chain", "'output'"),
    (lambda: chain(affine(), lif(), affine(2, 2, "last")), "does not fit a chain", "'output'"),
    (lambda: chain(affine(), affine(2, 2, "more"), lif()), "does not fit a chain", "'more'"),
    (lambda: chain(affine(), nir.Delay("wait", np.full(2, DT)), lif()), "does not fit a chain", "'wait'"),
    (lambda: chain(affine(), nir.LI("li", np.full(2, 4 * DT), np.full(2, 4.0), np.zeros(2))), "does not fit", "'li'"),
    (lambda: chain(affine(), lif(tau=np.array([4, 8]) * DT, r=np.array([4.0, 8.0]))), "the beta differs", "'lif'"),
    (lambda: chain(affine(), lif(v_threshold=np.array([1.0, 2.0]))), "the threshold differs", "'lif'"),
    (lambda: chain(affine(), lif(r=np.array([4.0, 2.0]))), "the gain differs", "'lif'"),
    (lambda: chain(affine(), cuba(tau_syn=np.array([2, 4]) * DT, w_in=np.array([2.0, 4.0]))), "alpha diff", "'cuba'"),
    (conv_with_leak, "v_leak differs within a channel", "'lif'"),
    (lambda: chain(affine(bias=np.ones(2)), cuba()), "would be filtered by it", "'fc'"),
    (lambda: chain(nir.Affine("fc", np.full((2, 3), 1e60)), lif()), "too large for float32", "'fc'"),
    (lambda: chain(affine(), lif(v_threshold=np.zeros(2))), "no counterpart here", "layer 1"),
    (partly_quantized, "part of the network is on an integer grid", "'dense2'"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "what", "where"), CASES)
def test_what_is_no_chain_of_our_layers_is_refused(make: Callable[[], nir.Graph], what: str, where: str) -> None:
    with pytest.raises(UnsupportedNode, match=what) as caught:
        from_nir(make())
    assert where in caught.value.where
    assert caught.value.allowed


def test_a_network_that_ends_in_an_image_is_refused() -> None:
    ones = np.ones((2, 3, 3))
    neuron = nir.LIF("lif", tau=ones * 4 * DT, r=ones * 4, v_leak=ones * 0, v_threshold=ones)
    nodes = (nir.Input("input", (1, 3, 3)), nir.Conv2d("conv", np.ones((2, 1, 1, 1))), neuron)
    graph = nir.Graph(
        (*nodes, nir.Output("output", (2, 3, 3))), (("input", "conv"), ("conv", "lif"), ("lif", "output")), DT, "zero"
    )
    with pytest.raises(UnsupportedNode, match="no output layer"):
        from_nir(graph)


def test_floats_off_the_grid_that_the_file_states_are_refused() -> None:
    graph = to_graph(to_integers(build("6-4-2", input_bits=1, norm=False)))
    weights = graph.node("dense1_weights")
    assert isinstance(weights, nir.Affine)
    edited = dataclasses.replace(weights, weight=weights.weight * 1.01)
    nodes = tuple(edited if node.name == weights.name else node for node in graph.nodes)
    with pytest.raises(GraphError, match="off the integer grid"):
        from_nir(dataclasses.replace(graph, nodes=nodes))


def test_sums_too_large_for_the_chip_the_file_names_are_refused() -> None:
    net = to_integers(build("200-4", input_bits=1, norm=False))
    layer = net.quantized_layers()[0]
    with torch.no_grad():
        layer.weight.fill_(254 * layer.grid.weight_unit)
    settings = nir.RunSettings(8, "direct", 1, "loihi1")
    with pytest.raises(TrainingError, match="could leave the accumulator") as caught:
        from_nir(dataclasses.replace(to_graph(net), settings=settings))
    assert "16 bits" in caught.value.allowed


def test_files_that_say_too_little_want_the_time_step_and_the_reset_rule(tmp_path: Path) -> None:
    path = tmp_path / "foreign.nir"
    nir.write(chain(affine(), lif(r=np.full(2, 3.0)), dt=None, reset=None), path)
    with pytest.raises(GraphError, match="time step"):
        from_nir(path, reset="zero")
    with pytest.raises(GraphError, match="reset rule"):
        from_nir(path, dt=DT)
    with pytest.raises(UnsupportedNode, match="only neurons that reset to zero"):
        from_nir(path, dt=DT, reset="subtract")
    assert isinstance(from_nir(path, dt=DT, reset="zero"), SpikingNetwork)
