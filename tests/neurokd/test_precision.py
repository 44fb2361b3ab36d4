"""bfloat16 synapses: an option of a stage, as accurate, gone after training."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from deploy.errors import ConfigError  # noqa: E402
from neurokd import network_layers  # noqa: E402
from neurokd.config_parts import StageConfig, stage_text  # noqa: E402
from neurokd.data import load  # noqa: E402
from neurokd.encoding import Encoding  # noqa: E402
from neurokd.network import build  # noqa: E402
from neurokd.train import train  # noqa: E402


def test_as_accurate_on_digits() -> None:
    """Convolutions on the digits, two seeds: 93.3 % and 93.6 % here, of 450 images (one is 0.2 points)."""
    data, encoding, reached = load("digits"), Encoding("direct", 4, 4, raw_levels=16), {}
    for precision in ("float32", "bfloat16"):
        results = []
        for seed in (0, 1):
            network = build("8x8x1-12c3-16c3-10", steps=4, input_bits=4, seed=seed)
            stage = StageConfig(epochs=10, batch=64, lr=1e-2, precision=precision)
            results.append(train(network, data, stage, encoding=encoding, seed=seed).accuracy)
            assert all(layer.synapse_type == torch.float32 for layer in network.spiking_layers())
            assert all(p.dtype == torch.float32 for p in network.parameters())
        reached[precision] = sum(results) / 2
    assert reached["bfloat16"] > 92
    assert abs(reached["bfloat16"] - reached["float32"]) < 1.5, reached


def test_it_is_part_of_what_a_run_is() -> None:
    assert stage_text(StageConfig()) == stage_text(StageConfig(precision="float32"))
    assert "bfloat16" in stage_text(StageConfig(precision="bfloat16"))
    with pytest.raises(ConfigError, match="precision"):
        StageConfig(precision="float16")


@pytest.mark.parametrize("spec", ["8x8x2-6c3-4c3s2-10", "24-16-10"])
def test_without_instructions_for_it_the_same_values_in_float32(monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    """Values and gradients of one bfloat16 product, by torch and out of float32: within one rounding (2^-8)."""
    found = {}
    for native in (True, False):
        monkeypatch.setattr(network_layers, "has_bfloat16", lambda _, native=native: native)
        layer = build(spec, steps=2, seed=1).spiking_layers()[0]
        shape = (5, *layer.block.in_shape)
        spikes = (torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.3).to(torch.bfloat16)
        spikes.requires_grad_()
        raw = layer._raw(spikes)
        raw.backward(torch.linspace(-1, 1, raw.numel()).reshape(raw.shape).to(torch.bfloat16))
        found[native] = (raw, spikes.grad, layer.synapse.weight.grad)
    for a, b in zip(found[True], found[False], strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a.float(), b.float(), rtol=2**-7, atol=2**-8 * float(a.detach().abs().max()))
