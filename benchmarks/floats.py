"""The same students in float: a plain PyTorch forward of neurokd's network, and the loop a user of snntorch writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import snntorch as snn
import torch
from torch import Tensor, nn

import neurokd
from deploy.program import Conv, Program

Array = npt.NDArray[Any]
BATCH = 128  # where the snntorch loop is fastest on this kind of machine


def network(spec: str, program: Program) -> nn.Module:
    """neurokd's float network with the program's integers as weights and thresholds, and its decay as beta."""
    made = neurokd.build(spec, bias=False, norm=False, input_bits=1)
    for layer, synapse, population in zip(made.spiking_layers(), program.synapses, program.populations, strict=True):
        with torch.no_grad():
            layer.synapse.weight.copy_(_weight(synapse.weights))
            layer.neuron.raw_threshold.fill_(float(population.vth))
            layer.neuron.raw_beta.fill_(_beta(population.dv))
    return made.eval()


class SnntorchLoop(nn.Module):
    """``for t in range(T)`` over synapses and ``snn.Leaky``; ``forward`` gives every layer's spikes ``[T, B, ...]``."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.synapses = nn.ModuleList(_module(synapse) for synapse in program.synapses)
        self.neurons = nn.ModuleList(
            snn.Leaky(_beta(p.dv), threshold=float(p.vth), reset_mechanism="zero", reset_delay=False)
            for p in program.populations
        )

    def forward(self, x: Tensor, record: bool = False) -> list[Tensor]:
        """Spikes of the last layer, or of all, ``[T, B, ...]``."""
        membranes = [torch.zeros(1) for _ in self.neurons]
        kept: list[list[Tensor]] = [[] for _ in self.neurons]
        for frame in x:
            for k, (synapse, neuron) in enumerate(zip(self.synapses, self.neurons, strict=True)):
                flat = frame.flatten(1) if isinstance(synapse, nn.Linear) else frame
                frame, membranes[k] = neuron(synapse(flat), membranes[k])
                if record or k == len(self.neurons) - 1:
                    kept[k].append(frame)
        return [torch.stack(spikes) for spikes in kept if spikes]


def _beta(dv: int) -> float:
    return 1 - dv / 4096


def _weight(weights: Array) -> Tensor:
    return torch.from_numpy(weights.astype(np.float32))


def _module(synapse: Any) -> nn.Module:
    weight = _weight(synapse.weights)
    module: nn.Module
    if isinstance(synapse, Conv):
        out, per_group, *kernel = weight.shape
        module = nn.Conv2d(per_group, out, kernel, synapse.stride, synapse.padding, synapse.dilation, bias=False)
    else:
        module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        module.weight.copy_(weight)
    return module.eval()


def in_batches(module: nn.Module, x: Tensor) -> Tensor:
    """The last layer's spikes of all samples, ``BATCH`` at a time."""
    with torch.no_grad():
        outputs = [module(x[:, start : start + BATCH]) for start in range(0, x.shape[1], BATCH)]
    return torch.cat([out[-1] if isinstance(out, list) else out for out in outputs], dim=1)


def differing_spikes(spec: str, program: Program, spikes: Array, ours: dict[str, Array]) -> dict[str, int]:
    """Spikes of all layers, by tool, that differ from the integer simulator's."""
    x = torch.from_numpy(spikes.astype(np.float32))
    with torch.no_grad():
        recorded = list(network(spec, program)(x, record=True)[1].values())
        looped = SnntorchLoop(program)(x, record=True)
    return {
        name: sum(int(np.sum(t.numpy().reshape(o.shape) != o)) for t, o in zip(tensors, ours.values(), strict=True))
        for name, tensors in (("PyTorch", recorded), ("snntorch", looped))
    }
