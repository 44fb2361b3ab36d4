"""The two ways of rounding agree: a student's float NIR file quantized by the chip side comes back as a student."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training side needs torch")

from deploy import ptq, simulator  # noqa: E402
from neurokd.export import export, to_graph  # noqa: E402
from neurokd.from_nir import from_nir  # noqa: E402
from neurokd.network import SpikingNetwork, build  # noqa: E402
from neurokd.quantized import QuantizedNetwork  # noqa: E402
from neurokd.rounding import to_integers  # noqa: E402


def student(spec: str, neuron: str) -> SpikingNetwork:
    network = build(spec, steps=5, input_bits=4, neuron=neuron, seed=3).eval()
    with torch.no_grad():
        for layer in network.spiking_layers():
            bias = layer.synapse.bias if neuron == "lif" else layer.neuron.bias
            if bias is not None:
                bias.normal_(0.0, 0.1)
    return network


@pytest.mark.parametrize("neuron", ["lif", "cuba"])
@pytest.mark.parametrize("spec", ["64-24-10", "8x8x1-6c3s2p1-p2-8c2-10"])
def test_a_file_quantized_by_the_chip_side_is_a_student_again(spec: str, neuron: str, tmp_path: Path) -> None:
    network = student(spec, neuron)
    export(network, tmp_path / "float.nir")
    images = np.random.default_rng(0).integers(0, 16, (40, *network.spec.input_shape))
    result = ptq.quantize(tmp_path / "float.nir", images)
    again = from_nir(result.graph)
    assert isinstance(again, QuantizedNetwork)
    x = torch.from_numpy(images).float() / 15
    trace = simulator.run(result.program, images, steps=5, record="all")
    assert trace.sat.any()
    with torch.no_grad():
        np.testing.assert_array_equal(again.sat(x).numpy(), trace.sat)


@pytest.mark.parametrize("bits", [8, 4])
def test_both_ways_lose_about_as_much(bits: int) -> None:
    network = student("64-24-10", "lif")
    images = np.random.default_rng(0).integers(0, 16, (200, 64))
    chip_side = ptq.quantize(to_graph(network), images, bits=bits).program
    training_side = to_integers(network, weight_bits=bits)
    x = torch.from_numpy(images).float() / 15
    with torch.no_grad():
        exact = network.sat(x).numpy()
        rounded = training_side.sat(x).numpy()
    ours = simulator.run(chip_side, images, steps=5, record="all").sat
    assert (ours != exact).mean() <= (rounded != exact).mean() + 0.01
