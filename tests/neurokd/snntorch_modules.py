"""User modules as snntorch's tutorials write them; each is taken (or refused) unchanged by test_accept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import snntorch as snn
import torch
from snntorch import surrogate, utils
from torch import Tensor, nn

ZERO: dict[str, Any] = {"reset_mechanism": "zero", "reset_delay": False}


class Tutorial(nn.Module):
    """Tutorial 5: the same image at every step, states by init_leaky, spikes and membranes returned."""

    def __init__(self, beta: float = 0.75, steps: int = 12, **options: Any) -> None:
        super().__init__()
        self.fc1 = nn.Linear(20, 30)
        self.lif1 = snn.Leaky(beta=beta, **{**ZERO, **options})
        self.fc2 = nn.Linear(30, 5)
        self.lif2 = snn.Leaky(beta=beta, **{**ZERO, **options})
        self.num_steps = steps

    def forward(self, x: Tensor) -> Any:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spk2_rec, mem2_rec = [], []
        for _ in range(self.num_steps):
            cur1 = self.fc1(self.prepare(x))
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = self.fc2(self.between(spk1))
            spk2, mem2 = self.lif2(cur2, mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return self.collect(spk2_rec, mem2_rec)

    def prepare(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def between(self, spk: Tensor) -> Tensor:
        return spk

    def collect(self, spk: list[Tensor], mem: list[Tensor]) -> Any:
        return torch.stack(spk, dim=0), torch.stack(mem, dim=0)


def tutorial(**methods: Callable[..., Any]) -> type[Tutorial]:
    """A Tutorial with some of its methods written otherwise."""
    return type("Tutorial", (Tutorial,), methods)


class TimeFirst(nn.Module):
    """Tutorial 6's other habit: input [T, B, ...] read step by step."""

    def __init__(self, read: str = "index") -> None:
        super().__init__()
        self.fc1 = nn.Linear(20, 30, bias=False)
        self.lif1 = snn.Leaky(beta=0.5, **ZERO)
        self.fc2 = nn.Linear(30, 5)
        self.lif2 = snn.Leaky(beta=0.875, threshold=0.5, **ZERO)
        self.read = read

    def forward(self, data: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spk_rec = []
        for x in self.steps_of(data):
            spk1, mem1 = self.lif1(self.fc1(x.view(x.shape[0], -1)), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk_rec.append(spk2)
        return torch.stack(spk_rec)

    def steps_of(self, data: Tensor) -> Any:
        if self.read == "iterate":
            return data
        if self.read == "unbind":
            return torch.unbind(data, dim=0)
        if self.read == "batch first":
            return (data[:, t] for t in range(data.size(1)))
        if self.read == "dots":
            return (data[t, ...] for t in range(data.size(0)))
        if self.read == "select":
            return (data.select(0, t) for t in range(data.size(0)))
        return (data[t] for t in range(data.size(0)))


class Convolutional(nn.Module):
    """Convolutions, pools of the spikes, norms, dropout, learnable constants, a preallocated record."""

    def __init__(self, padding: Any = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, (3, 5), stride=(1, 2), padding=padding, bias=False)
        self.bn1 = nn.BatchNorm2d(6, eps=1e-3, momentum=None)
        self.lif1 = snn.Leaky(beta=0.5, threshold=0.25, learn_threshold=True, **ZERO)
        self.pool = nn.AvgPool2d(2)
        self.conv2 = nn.Conv2d(6, 8, 3, padding="same", groups=2)
        self.lif2 = snn.Leaky(beta=0.75, threshold=0.2, learn_beta=True, **ZERO)
        self.drop = nn.Dropout(0.4)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(8 * 2 * 1, 12)
        self.bn3 = nn.BatchNorm1d(12, affine=False)
        self.lif3 = snn.Leaky(beta=0.5, threshold=0.5, **ZERO)
        self.out = nn.Linear(12, 4)
        self.lif4 = snn.Leaky(beta=0.9375, threshold=0.25, **ZERO)

    def forward(self, x: Tensor) -> Tensor:
        mem = [lif.reset_mem() for lif in (self.lif1, self.lif2, self.lif3, self.lif4)]
        record = torch.zeros(10, x.shape[0], 4)
        for step in range(10):
            spk1, mem[0] = self.lif1(self.bn1(self.conv1(x)), mem[0])
            spk2, mem[1] = self.lif2(self.conv2(self.pool(spk1)), mem[1])
            spk3, mem[2] = self.lif3(self.bn3(self.fc(self.flatten(self.drop(self.pool(spk2))))), mem[2])
            spk4, mem[3] = self.lif4(self.out(self.drop(spk3)), mem[3])
            record[step] = spk4
        return record


class SynapticNet(nn.Module):
    """snn.Synaptic and snn.Leaky in one network."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.fc1 = nn.Linear(20, 30, bias=False)
        self.syn1 = snn.Synaptic(alpha=0.5, beta=0.75, **{**ZERO, **options})
        self.fc2 = nn.Linear(30, 16)
        self.lif2 = snn.Leaky(beta=0.5, threshold=0.5, **ZERO)
        self.fc3 = nn.Linear(16, 5, bias=False)
        self.syn3 = snn.Synaptic(alpha=0.25, beta=0.875, threshold=0.5, learn_alpha=True, **ZERO)

    def forward(self, x: Tensor) -> Tensor:
        syn1, mem1 = self.syn1.init_synaptic()
        mem2 = self.lif2.init_leaky()
        syn3, mem3 = self.syn3.init_synaptic()
        record = []
        for _ in range(14):
            spk, syn1, mem1 = self.syn1(self.fc1(x), syn1, mem1)
            spk, mem2 = self.lif2(self.fc2(spk), mem2)
            spk, syn3, mem3 = self.syn3(self.fc3(spk), syn3, mem3)
            record.append(spk)
        return torch.stack(record)


class OneStep(nn.Module):
    """The class of snntorch's docstrings: one step a call, states in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(20, 30)
        self.lif1 = snn.Leaky(beta=0.5, **ZERO)
        self.fc2 = nn.Linear(30, 5)
        self.lif2 = snn.Leaky(beta=0.75, **ZERO)

    def forward(self, x: Tensor, mem1: Any, spk1: Any, mem2: Any) -> Any:
        spk1, mem1 = self.lif1(self.fc1(x), mem1)
        spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
        return mem1, spk1, mem2, spk2


class Block(nn.Module):
    """A user's own building block."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.neuron = snn.Leaky(beta=0.75, init_hidden=True, spike_grad=surrogate.fast_sigmoid(slope=10), **ZERO)

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.neuron(self.linear(x))
        return spikes


class Blocks(nn.Module):
    """Blocks in a ModuleList, states reset by utils.reset, step count as argument, spikes summed over time."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(20, 24), Block(24, 16), Block(16, 5)])
        self.rates: list[float] = []

    def forward(self, x: Tensor, num_steps: int) -> Tensor:
        utils.reset(self)
        record = []
        for _ in range(num_steps):
            signal = x
            for block in self.blocks:
                signal = block(signal)
            record.append(signal)
        self.rates = [float(torch.stack(record).detach().mean())]
        return torch.stack(record).sum(dim=0)


def sequential() -> nn.Sequential:
    """The nn.Sequential of tutorial 7: hidden states, the last neuron returns its membrane too."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        snn.Leaky(beta=0.5, threshold=0.25, init_hidden=True, **ZERO),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 3 * 3, 5),
        snn.Leaky(beta=0.75, threshold=0.25, init_hidden=True, output=True, **ZERO),
    )


class Precomputed(Tutorial):
    """The first current is constant, so this user computes it before the loop."""

    def forward(self, x: Tensor) -> Any:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        cur1, record = self.fc1(x), []
        for _ in range(self.num_steps):
            spk1, mem1 = self.lif1(cur1, mem1.detach())
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            record.append(spk2)
        return {"spikes": record, "last": mem2}


class Loop(nn.Module):
    """Any modules in a row, called in a loop over time."""

    def __init__(self, *modules: nn.Module, steps: int = 6) -> None:
        super().__init__()
        self.chain = nn.Sequential(*modules)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        utils.reset(self)
        return torch.stack([self.chain(x) for _ in range(self.steps)])


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights on a grid of 1/64, so that float32 sums are exact in any order; running statistics of powers of two."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (nn.Linear, nn.Conv2d)):
                for tensor in part.parameters():
                    tensor.copy_(torch.randint(-20, 28, tensor.shape, generator=generator) / 64)
            if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
                part.running_mean.copy_(torch.randint(-20, 20, part.running_mean.shape, generator=generator) / 64)
                part.running_var.copy_(0.5 + torch.rand(part.running_var.shape, generator=generator))
                if part.affine:
                    part.weight.copy_(0.5 + torch.rand(part.weight.shape, generator=generator))
                    part.bias.copy_(0.2 * torch.rand(part.bias.shape, generator=generator))
    return module
