"""bfloat16 synapses: an option of a stage, as accurate, gone after training."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from deploy.errors import ConfigError  # noqa: E402
from neurokd import precision  # noqa: E402
from neurokd.config_parts import StageConfig, stage_text  # noqa: E402
from neurokd.data import load  # noqa: E402
from neurokd.encoding import Encoding  # noqa: E402
from neurokd.network import build  # noqa: E402
from neurokd.train import train  # noqa: E402


def test_as_accurate_on_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 on every processor, if slowly; two seeds of 450 images (one is 0.2 points)."""
    data, encoding, reached = load("digits"), Encoding("direct", 4, 4, raw_levels=16), {}
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: True)
    for kind in ("float32", "bfloat16"):
        results = []
        for seed in (0, 1):
            network = build("8x8x1-12c3-16c3-10", steps=4, input_bits=4, seed=seed)
            stage = StageConfig(epochs=10, batch=64, lr=1e-2, precision=kind)
            results.append(train(network, data, stage, encoding=encoding, seed=seed).accuracy)
            assert all(layer.synapse_type == torch.float32 for layer in network.spiking_layers())
            assert all(p.dtype == torch.float32 for p in network.parameters())
        reached[kind] = sum(results) / 2
    assert reached["bfloat16"] > 92
    assert abs(reached["bfloat16"] - reached["float32"]) < 1.5, reached


def test_it_is_part_of_what_a_run_is() -> None:
    assert stage_text(StageConfig()) == stage_text(StageConfig(precision="float32"))
    assert "bfloat16" in stage_text(StageConfig(precision="bfloat16"))
    with pytest.raises(ConfigError, match="precision"):
        StageConfig(precision="float16")


def test_without_units_for_it_training_stays_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build("8x8x2-6c3-4c3s2-10", steps=2)
    for units in (True, False):
        monkeypatch.setattr(precision, "has_bfloat16", lambda _, units=units: units)
        with precision.precision_of(network, "bfloat16"):
            kinds = {layer.synapse_type for layer in network.spiking_layers()}
        assert kinds == {torch.bfloat16 if units else torch.float32}
