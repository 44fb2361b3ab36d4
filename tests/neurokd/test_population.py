"""Population-coded outputs: shares of a class's neurons, cached, exported and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import neurokd
from deploy import graph as nir
from deploy import simulator
from deploy.errors import ConfigError, TrainingError
from deploy.lower import lower
from neurokd import satcache
from neurokd.config import Config
from neurokd.export import to_graph
from neurokd.network import build, predict
from neurokd.outputs import Outputs
from neurokd.population import by_class
from neurokd.rounding import to_integers


def network(population: int = 4, steps: int = 3) -> neurokd.SpikingNetwork:
    return build("12-16-20", steps=steps, input_bits=4, seed=3, population=population)


def test_the_sat_is_the_share_of_a_classs_neurons() -> None:
    ours, x = network(), torch.rand(7, 12)
    sat, layers = ours(x, record=True)
    raw = layers[ours.spiking_layers()[-1].name]
    assert ours.classes == 5
    assert sat.shape == (3, 7, 5)
    assert raw.shape == (3, 7, 20)
    assert torch.equal(sat[..., 2], raw[..., 8:12].mean(-1))
    told = ours.outputs(x, want=("logits", "currents", "membranes", "layers"))
    assert told.logits is not None
    assert told.logits.shape == (7, 5)
    assert torch.equal(told.sat, sat)
    assert told.membranes is not None
    assert told.membranes.shape == (3, 7, 5)


def test_prediction_is_by_class_and_not_by_neuron() -> None:
    spikes = torch.zeros(1, 1, 8)
    spikes[0, 0, 0], spikes[0, 0, 5:7] = 1.0, 1.0
    assert int(predict(spikes)) == 0
    assert int(predict(by_class(spikes, 4))) == 1


def test_one_neuron_a_class_changes_nothing() -> None:
    spikes = torch.rand(2, 3, 4)
    assert by_class(spikes, 1) is spikes
    assert "population" not in build("12-16-20").options


@pytest.mark.parametrize(("population", "said"), [(3, "power of two"), (0, "not usable"), (8, "split"), (20, "power")])
def test_a_population_that_does_not_fit_is_refused(population: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        network(population)


def test_a_population_of_all_outputs_leaves_one_class() -> None:
    with pytest.raises(ConfigError, match="split"):
        build("12-16-4", population=4)


def test_config_wants_ten_classes_of_the_population() -> None:
    config = Config.default("digits")
    with pytest.raises(ConfigError, match="does not split"):
        config.override({"networks.population": 4})
    specs = {f"networks.{role}": "64-32-40" for role in ("teacher", "assistant", "student")}
    assert config.override({**specs, "networks.population": 4}).network_options()["population"] == 4
    with pytest.raises(ConfigError, match="does not fit the data"):
        config.override({**specs, "networks.population": 2})


def test_the_cache_keeps_shares_exactly(tmp_path: Path) -> None:
    sats = torch.randint(0, 5, (2, 6, 3)) / 4
    told = [(np.arange(6), Outputs(sats))]
    made = satcache.load_or_compute(tmp_path / "sat.npz", 1, 6, "key", lambda view: iter(told), 4)
    again = satcache.load_or_compute(tmp_path / "sat.npz", 1, 6, "key", lambda view: iter(told), 4)
    assert again.reused
    assert torch.equal(again.take([4, 1]), sats[:, [4, 1]])
    assert torch.equal(made.take([0]), sats[:, :1])
    with pytest.raises(TrainingError, match="not spikes"):
        satcache.load_or_compute(None, 1, 6, "key", lambda view: iter(told), 2)


def test_export_and_chip_know_the_population(tmp_path: Path) -> None:
    ours = network().eval()
    quantized = to_integers(ours, "loihi2")
    nir.write(to_graph(quantized), tmp_path / "student.nir")
    graph = nir.read(tmp_path / "student.nir")
    assert graph.settings.population == 4
    program = lower(graph, "loihi2")
    integers = np.random.default_rng(0).integers(0, 16, (50, 12))
    sat = quantized.sat(torch.from_numpy(integers).float() / 15)
    trace = simulator.run(program, integers, steps=3)
    assert np.array_equal(trace.predictions(), predict(sat).numpy())
    back = neurokd.from_nir(tmp_path / "student.nir")
    assert back.classes == 5


def test_what_a_config_lets_learn_is_learned() -> None:
    config = Config.default("digits").override({"networks.learn_beta": True, "networks.learn_threshold": True})
    learned = {name.rsplit(".", 1)[-1] for name, _ in build("12-16-20", **config.network_options()).named_parameters()}
    fixed = {name.rsplit(".", 1)[-1] for name, _ in network().named_parameters()}
    assert len(learned - fixed) == 2
