"""Export: what the file says is the network, quantized or float; other tools' conventions are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")
nir_package = pytest.importorskip("nir")

from deploy import graph as nir  # noqa: E402
from deploy.errors import FileError, GraphError  # noqa: E402
from deploy.graph.discrete import discretize  # noqa: E402
from deploy.lower import lower  # noqa: E402
from neurokd.export import DT, export, to_graph  # noqa: E402
from neurokd.network import SpikingNetwork, build  # noqa: E402
from neurokd.rounding import to_integers  # noqa: E402

SPEC = "9x7x2-6c3x2s2x1p1x0g2d1x2-p2x1p1x0-5-4"


def network(**options: Any) -> SpikingNetwork:
    """Every parameter away from its default."""
    given = {
        "steps": 7, "input_bits": 5, "neuron": ["lif", "cuba", "lif"], "beta": [0.25, 0.8, 1.0], "alpha": 0.6,
        "threshold": [0.7, 1.5, 2.0], "norm": [True, True, False], **options,
    }  # fmt: skip
    net = build(SPEC, **given)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in net.spiking_layers():
            if layer.norm is not None:
                layer.norm.running_mean.normal_(0.0, 0.3, generator=generator)
                layer.norm.running_var.uniform_(0.5, 2.0, generator=generator)
                layer.norm.bias.normal_(0.0, 0.3, generator=generator)
            else:
                layer.synapse.bias.normal_(0.0, 0.3, generator=generator)
    return net.eval()


def test_the_files_nodes_are_the_networks_layers() -> None:
    graph = to_graph(to_integers(network()))
    kinds = [(node.name, node.kind) for node in graph.nodes]
    assert kinds == [
        ("input", "Input"), ("conv1_weights", "Conv2d"), ("conv1", "LIF"),
        ("dense2_pool", "AvgPool2d"), ("dense2_flatten", "Flatten"), ("dense2_weights", "Affine"),
        ("dense2", "CubaLIF"), ("dense3_weights", "Affine"), ("dense3", "LIF"), ("output", "Output"),
    ]  # fmt: skip
    conv, pool = graph.node("conv1_weights"), graph.node("dense2_pool")
    assert isinstance(conv, nir.Conv2d)
    assert (conv.stride, conv.padding, conv.dilation, conv.groups) == ((2, 1), (1, 0), (1, 2), 2)
    assert isinstance(pool, nir.AvgPool2d)
    assert (pool.kernel_size, pool.stride, pool.padding) == ((2, 1), (2, 1), (1, 0))
    assert (graph.dt, graph.reset) == (DT, "zero")
    assert graph.settings == nir.RunSettings(7, "direct", 5, "loihi2")


def test_the_files_floats_are_the_chips_integers() -> None:
    chip = to_integers(network(), weight_bits={"dense2": 4})
    graph = to_graph(chip, "rate")
    assert graph.settings.encoding == "rate"
    program = lower(graph)
    for layer, population, synapse in zip(
        chip.quantized_layers(), program.populations, program.synapses, strict=True
    ):  # fmt: skip
        grid = layer.grid
        assert (population.vth, population.du, population.dv) == (grid.vth, grid.du, grid.dv)
        assert (synapse.weight_exp, synapse.weight_bits, synapse.sign_mode) == (
            grid.weight_exp,
            grid.weight_bits,
            "mixed",
        )
        per_channel = population.bias.reshape(layer.block.out_shape[0], -1)
        assert bool((per_channel == layer.integer_biases().numpy()[:, None]).all())
        if layer.block.pool is None:
            assert np.array_equal(synapse.weights, layer.integer_weights().detach().numpy())


def test_a_float_student_is_written_folded_and_without_a_grid() -> None:
    net = network()
    graph = to_graph(net)
    assert graph.quantization is None
    assert graph.settings == nir.RunSettings(7, "direct", 5, None)
    assert (graph.dt, graph.reset) == (DT, "zero")
    levels = 31.0  # the file takes integers; the network images in 0..1
    for layer in net.spiking_layers():
        weight, bias = layer.folded()
        node, neuron = graph.node(f"{layer.name}_weights"), graph.node(layer.name)
        assert isinstance(node, (nir.Affine, nir.Conv2d))
        assert isinstance(neuron, nir.Neuron)
        assert np.array_equal(node.weight, (weight / levels).numpy())
        step, cuba, levels = discretize(neuron, DT), layer.name == "dense2", 1.0
        assert np.allclose(step.beta, float(layer.neuron.beta), rtol=0, atol=1e-15)
        assert np.array_equal(step.threshold, np.full(layer.block.out_shape, float(layer.neuron.threshold)))
        assert (step.alpha is not None) == cuba
        held = step.leak_bias if cuba else node.bias
        assert np.allclose(held, bias.numpy(), rtol=1e-15, atol=0)
        if cuba:
            assert node.bias is None
            assert np.allclose(step.alpha, float(layer.neuron.alpha), rtol=0, atol=1e-15)


def test_parameters_of_single_neurons_are_written_too() -> None:
    net = network(neuron="lif")
    net.spiking_layers()[1].neuron.raw_threshold = torch.arange(1.0, 6.0)
    neuron = to_graph(net).node("dense2")
    assert isinstance(neuron, nir.LIF)
    assert neuron.v_threshold.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("quantized", [True, False])
def test_other_tools_read_the_file(quantized: bool, tmp_path: Path) -> None:
    """snntorch's convention: r = tau / dt and dt = 1e-4, so that the input gain is 1."""
    net = network()
    written = export(to_integers(net) if quantized else net, tmp_path / "student.nir")
    theirs = nir_package.read(str(tmp_path / "student.nir"), type_check=False)
    assert set(theirs.nodes) == {node.name for node in written.nodes}
    for name in ("conv1", "dense3"):
        assert np.allclose(theirs.nodes[name].r, theirs.nodes[name].tau / 1e-4)
        assert not theirs.nodes[name].v_reset.any()
    assert nir.read(tmp_path / "student.nir", trusted=True) == written


def test_a_folder_that_cannot_be_written_is_a_file_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError):
        export(network(), tmp_path / "file" / "student.nir")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(GraphError, match="'encoding' is out of range"):
        to_graph(network(), "morse")  # type: ignore[arg-type]
