"""Runs in NeuroBench's own environment, as a process of its own: ``python neurobench_worker.py IN.npz OUT.json``.

It builds the integer network of a Program with torch and snnTorch, lets NeuroBench (Apache-2.0) measure it, and writes
the metrics and the answers. It imports nothing of this project.
"""

import json
import sys

import numpy as np
import snntorch as snn
import torch
from neurobench.metrics.static import ConnectionSparsity, Footprint
from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations
from neurobench.models import SNNTorchModel


class IntegerLIF(snn.SpikingNeuron):
    """The chip's neuron in int64: memoryless current, decay toward zero, strict threshold, reset to zero."""

    def __init__(self, shape, dv, vth, bias):
        super().__init__(init_hidden=True, output=True)
        for name in list(self._buffers):  # snnTorch's own constants are no part of this network
            del self._buffers[name]
        for name in list(self._parameters):
            del self._parameters[name]
        self.register_buffer("bias", bias.reshape(shape))
        self.dv, self.vth, self.init_hidden, self.output = dv, vth, True, True
        self.mem = torch.zeros(0, dtype=torch.int64)

    def forward(self, total):
        """Total synaptic input of a step to spikes and membrane."""
        if self.mem.numel() == 0:
            self.mem = torch.zeros(total.shape, dtype=torch.int64)
        decayed = torch.sign(self.mem) * ((self.mem.abs() * (4096 - self.dv)) >> 12)
        whole = torch.floor(total).to(torch.int64)  # a negative weight exponent rounds the sum toward minus infinity
        before = decayed + (whole << 6) + self.bias
        spikes = before > (self.vth << 6)
        self.mem = torch.where(spikes, torch.zeros_like(before), before)
        return spikes.to(torch.float32), self.mem


class Network(torch.nn.Module):
    """Layers one after the other."""

    def __init__(self, facts, data):
        super().__init__()
        self.blocks, self.neurons = torch.nn.ModuleList(), torch.nn.ModuleList()
        self.flat = [layer["kind"] == "dense" for layer in facts["layers"]]
        for layer in facts["layers"]:
            weights = torch.tensor(data[f"weights.{layer['name']}"].astype(np.float32))
            if layer["kind"] == "dense":
                block = torch.nn.Linear(weights.shape[1], weights.shape[0], bias=False)
            else:
                block = torch.nn.Conv2d(
                    weights.shape[1] * layer["groups"], weights.shape[0], tuple(weights.shape[2:]), bias=False,
                    stride=layer["stride"], padding=layer["padding"], dilation=layer["dilation"],
                    groups=layer["groups"],
                )  # fmt: skip
            block.weight = torch.nn.Parameter(weights, requires_grad=False)
            bias = torch.tensor(data[f"bias.{layer['name']}"].astype(np.int32))
            self.blocks.append(block)
            self.neurons.append(IntegerLIF(layer["shape"], layer["dv"], layer["vth"], bias))

    def reset(self):
        """Every membrane to nothing."""
        for neuron in self.neurons:
            neuron.mem = torch.zeros(0, dtype=torch.int64)

    def forward(self, x):
        """One step: ``[B, ...]`` to spikes and membrane of the last layer."""
        membrane = None
        for flat, block, neuron in zip(self.flat, self.blocks, self.neurons, strict=True):
            x, membrane = neuron(block(x.flatten(1) if flat else x))
        return x, membrane


def main(in_path, out_path):
    """Measure."""
    torch.set_num_threads(1)
    data = np.load(in_path)
    facts = json.loads(bytes(data["facts"]).decode())
    network = Network(facts, data)
    model = SNNTorchModel(network)
    inputs = torch.tensor(data["spikes"].astype(np.float32))  # [B, T, ...]
    labels = torch.zeros(len(inputs), dtype=torch.int64)
    found = {"footprint": Footprint()(model), "connection_sparsity": ConnectionSparsity()(model)}
    model.register_hooks()
    with torch.no_grad():
        answers = model(inputs)
    batch = (inputs, labels)
    found["activation_sparsity"] = ActivationSparsity()(model, answers, batch)
    found["membrane_updates"] = MembraneUpdates()(model, answers, batch)
    found["synaptic_operations"] = {k: float(v) for k, v in SynapticOperations()(model, answers, batch).items()}
    found["counts"] = answers.sum(dim=1).to(torch.int64).tolist()
    with open(out_path, "w", encoding="utf-8") as stream:
        json.dump(found, stream)


if __name__ == "__main__":
    main(*sys.argv[1:3])
