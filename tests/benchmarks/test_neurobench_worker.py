"""The network that NeuroBench measures is the integer network: its worker, without NeuroBench, beside the simulator."""

from __future__ import annotations

import importlib
import json
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from benchmarks import neurobench
from deploy import simulator
from deploy.program import Dense, Input, Population, Program

NAMES = {
    "neurobench": (),
    "neurobench.metrics": (),
    "neurobench.metrics.static": ("ConnectionSparsity", "Footprint"),
    "neurobench.metrics.workload": ("ActivationSparsity", "MembraneUpdates", "SynapticOperations"),
    "neurobench.models": ("SNNTorchModel",),
}


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The worker's module, with empty stand-ins for what it takes from NeuroBench."""
    for name, members in NAMES.items():
        module = ModuleType(name)
        for member in members:
            setattr(module, member, object)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "benchmarks.neurobench_worker", raising=False)
    return importlib.import_module("benchmarks.neurobench_worker")


@pytest.mark.parametrize("exponent", [-4, 0, 2])
def test_the_workers_network_gives_the_simulators_spikes(worker: ModuleType, exponent: int) -> None:
    rng = np.random.default_rng(0)
    weights = 2 * rng.integers(-20, 20, (30, 12))  # with exponent -4 most sums are no whole numbers, many below zero
    layer = Population("out", (30,), 4095, 600, 20, rng.integers(0, 900, 30))  # biases that carry them over it
    program = Program(Input("in", (12,), 2), (layer,), (Dense("a", "in", "out", weights, weight_exp=exponent),))
    images = rng.integers(0, 4, (40, 12)).astype(np.uint8)
    expected = simulator.run(program, images, steps=20, record="all").spikes["out"]
    arrays = neurobench._network(program, images, 20)
    network = worker.Network({"layers": json.loads(bytes(arrays["facts"]).decode())["layers"]}, arrays)
    steps = torch.tensor(arrays["spikes"].astype(np.float32)).swapaxes(0, 1)
    with torch.no_grad():
        found = np.stack([network(step)[0].numpy() for step in steps])
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(found, expected)
