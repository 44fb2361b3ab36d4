"""What a student on the chip's integers tells beside its SAT, and fine-tuning with losses on it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nir")

from torch import nn  # noqa: E402

from deploy.errors import TrainingError  # noqa: E402
from neurokd.config_parts import StageConfig  # noqa: E402
from neurokd.data import Dataset, load  # noqa: E402
from neurokd.encoding import Encoding  # noqa: E402
from neurokd.network import SpikingNetwork, build  # noqa: E402
from neurokd.quantize import quantize  # noqa: E402
from neurokd.rounding import to_integers  # noqa: E402

ENCODING = Encoding("direct", 4, 5, raw_levels=16)
STAGE = StageConfig(epochs=1, batch=64, lr=1e-4, weight_decay=0.0)


@pytest.fixture(scope="module")
def small() -> Dataset:
    data = load("digits")
    return dataclasses.replace(data, train=data.train.take(np.arange(300)), test=data.test.take(np.arange(100)))


def network(spec: str = "64-24-10", **options: object) -> SpikingNetwork:
    return build(spec, **{"steps": 5, "input_bits": 4, **options}).eval()


@pytest.mark.parametrize("neuron", ["lif", "cuba"])
@pytest.mark.parametrize("spec", ["64-24-10", "64-10", "8x8x1-4c3-p2-10"])
def test_logits_are_those_of_the_float_network_up_to_rounding(small: Dataset, neuron: str, spec: str) -> None:
    floats = network(spec, neuron=neuron)
    integers = to_integers(floats).eval()
    x = ENCODING.tensor(small.test.images[:40], np.arange(40))
    told = integers.outputs(x, want=("logits", "currents", "layers"))
    sat, layers = integers(x, record=True)
    assert torch.equal(told.sat, sat)
    assert all(torch.equal(told.layers[name], spikes) for name, spikes in layers.items())
    torch.testing.assert_close(told.currents.mean(0), told.logits)
    # The float output layer on the spikes that the integers gave it.
    last = floats.spiking_layers()[-1]
    before = told.layers["conv1" if "c" in spec else "dense1"] if spec != "64-10" else x.expand(5, *x.shape)
    current, bias = last.currents(before if spec != "64-10" else before.flatten(2))
    expected = (current if bias is None else current + bias).mean(0)
    torch.testing.assert_close(told.logits, expected, rtol=0, atol=0.03 * float(expected.detach().abs().max()))


def test_gradients_reach_every_weight_through_the_logits(small: Dataset) -> None:
    integers = to_integers(network()).train()
    integers.outputs(ENCODING.tensor(small.test.images[:40], np.arange(40))).logits.square().sum().backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in integers.quantized_layers())


@pytest.mark.parametrize("loss", ["ce+logit-kl", "ce+feature:0.1", "ce+self-ensemble", "logit-mse+activity:0.1"])
def test_fine_tuning_with_losses_beyond_the_sat(small: Dataset, loss: str) -> None:
    tuned = quantize(network(), network("64-40-10", seed=1), small, stage=STAGE, encoding=ENCODING, loss=loss)
    assert not tuned.training


def test_an_ann_teaches_it_too(small: Dataset) -> None:
    ann = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    quantize(network(), ann, small, stage=STAGE, encoding=ENCODING, loss="ce+logit-kl+feature:0.1,teacher=2")


def test_membranes_in_integers_are_refused(small: Dataset) -> None:
    with pytest.raises(TrainingError, match="on the chip's integers cannot tell"):
        quantize(network(), network(), small, stage=STAGE, encoding=ENCODING, loss="membrane")
