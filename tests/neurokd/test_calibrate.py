"""Rounding without training: the mean error leaves the biases, and nobody is worse off on the validation images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("one_thread")
torch = pytest.importorskip("torch", reason="the training side needs torch")

from deploy import simulator  # noqa: E402
from deploy.errors import ConfigError, TrainingError  # noqa: E402
from deploy.lower import lower  # noqa: E402
from neurokd import losses, quantize  # noqa: E402
from neurokd.arriving import arriving, mean_brought  # noqa: E402
from neurokd.calibrate import keep_means, round_off  # noqa: E402
from neurokd.config_parts import StageConfig  # noqa: E402
from neurokd.data import Dataset  # noqa: E402
from neurokd.encoding import Encoding  # noqa: E402
from neurokd.export import to_graph  # noqa: E402
from neurokd.feed import Feed, accuracy  # noqa: E402
from neurokd.loop import fit  # noqa: E402
from neurokd.network import SpikingNetwork, build  # noqa: E402
from neurokd.quantized import QuantizedNetwork  # noqa: E402
from neurokd.rounding import to_integers  # noqa: E402

ENCODING = Encoding("direct", 4, 5, raw_levels=16)
SPEC = "64-48-24-10"


def drives(network: QuantizedNetwork, feed: Feed, rounded: bool) -> list[torch.Tensor]:
    """Mean input and bias of each layer's membranes ``[C]``, by the weights as rounded or as they were."""
    found = []
    for layer in network.quantized_layers():
        seen = arriving(network, feed, 1000)[layer.name]
        weight = layer.integer_weights() * layer.grid.weight_unit if rounded else layer.weight
        found.append(mean_brought(layer, weight, seen).flatten(1).sum(1) + layer.bias.detach() * rounded)
    return found


@pytest.mark.parametrize("neuron", ["lif", "cuba"])
@pytest.mark.parametrize("spec", [SPEC, "8x8x1-6c3s2p1-p2-8c2-10"])
def test_the_mean_error_of_every_layer_is_gone(spec: str, neuron: str, digits: Dataset) -> None:
    student, feed = build(spec, steps=5, input_bits=4, neuron=neuron).eval(), Feed(digits.train, ENCODING)
    network = to_integers(student, weight_bits=3)
    biases = [layer.bias.detach().clone() for layer in network.quantized_layers()]
    before = drives(network, feed, rounded=True)
    keep_means(network, feed)
    now, wanted = drives(network, feed, rounded=True), drives(network, feed, rounded=False)
    for bias, here, there, was in zip(biases, now, wanted, before, strict=True):
        assert torch.allclose(here, there + bias, atol=1e-5)
        assert not torch.allclose(was, there + bias, atol=1e-3)


@pytest.fixture(scope="module")
def student(digits: Dataset) -> SpikingNetwork:
    trained = build(SPEC, steps=5, input_bits=4, surrogate="triangular")
    stage = StageConfig(epochs=20, batch=64, lr=5e-3, weight_decay=0.0, loss="ce")
    fit(trained, digits, ENCODING, stage, loss_terms=losses.parse_loss("ce"))
    return trained.eval()


@pytest.mark.parametrize("bits", [8, 3, 2])
def test_nobody_is_worse_off(bits: int, digits: Dataset, student: SpikingNetwork) -> None:
    seen = Feed(digits.validation, ENCODING)
    plain, best = to_integers(student, weight_bits=bits), round_off(student, digits, ENCODING, weight_bits=bits)
    assert accuracy(best, seen) >= accuracy(plain, seen)
    if bits == 2:
        assert accuracy(best, seen) > accuracy(plain, seen) + 3
    assert quantize(student, None, digits, weight_bits=bits, loss="none").grids == best.grids
    images = ENCODING.encode(digits.validation.images, np.arange(len(seen)))
    trace = simulator.run(lower(to_graph(best)), images.reshape(len(images), -1), steps=5, record="all")
    with torch.no_grad():
        sat = best.sat(torch.from_numpy(images).float().flatten(1) / 15)
    np.testing.assert_array_equal(sat.numpy(), trace.sat)


@pytest.mark.parametrize(
    ("given", "error"),
    [({"encoding": Encoding("direct", 2, 5, raw_levels=16)}, TrainingError), ({"weight_bits": 9}, ConfigError)],
)
def test_what_does_not_fit_is_refused(
    given: dict[str, Any], error: type[Exception], digits: Dataset, student: SpikingNetwork
) -> None:
    with pytest.raises(error):
        round_off(student, digits, given.pop("encoding", ENCODING), **given)
