"""One contender of ``benchmarks.training`` in its own process: ``python -m benchmarks.training_worker NAME SPEC``.

It answers lines on standard input with one line of JSON each: ``steps N`` (seconds of N training steps), ``memory``
(peak resident megabytes above those after import, and above those after a step of two samples, by when everything that
is loaded late is there: torch's optimizer, numba's compiler). ``check SPEC`` as arguments compares gradients and ends.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import snntorch as snn
import torch
from snntorch import surrogate
from torch import Tensor, nn
from torch.nn import functional

from neurokd.memory import keep_pages
from neurokd.network import SpikingNetwork, build
from neurokd.precision import set_precision, suited
from neurokd.schedule import AdamW

T: Final = 25
B: Final = 128
SEED: Final = 0
CLASSES: Final = 10
Step = Callable[[], Tensor]


def status(name: str) -> int:
    """A figure of this process in kB: ``VmHWM`` (peak) or ``VmRSS``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


class SnntorchLoop(nn.Module):
    """The loop of snntorch's tutorials over the same layers: every step through every layer.

    Args:
        network: Whose layers (pool, synapse, norm) are used; a norm's statistics are then those of one step.
        once: Compute the first layer's current once an image, as ours does.
    """

    def __init__(self, network: SpikingNetwork, once: bool = False) -> None:
        super().__init__()
        self.layers, self.once = nn.ModuleList(network.spiking_layers()), once
        options: dict[str, Any] = {"reset_mechanism": "zero", "reset_delay": False, "spike_grad": surrogate.atan(2.0)}
        self.cells = [snn.Leaky(float(layer.neuron.beta), **options) for layer in network.spiking_layers()]

    def forward(self, x: Tensor) -> Tensor:
        """SAT [T, B, C]."""
        first = self.current(0, x) if self.once else None
        states: list[Any] = [None] * len(self.cells)
        found = []
        for _ in range(T):
            spikes = x
            for place, cell in enumerate(self.cells):
                current = self.current(place, spikes) if place or first is None else first
                before = torch.zeros_like(current) if states[place] is None else states[place]
                spikes, states[place] = cell(current, before)
            found.append(spikes)
        return torch.stack(found)

    def current(self, place: int, x: Tensor) -> Tensor:
        """Pool, synapse and norm of one layer, one step."""
        layer = self.layers[place]
        x = x if layer.pool is None else layer.pool(x)
        raw = layer.synapse(x.flatten(1) if isinstance(layer.synapse, nn.Linear) else x)
        out: Tensor = raw if layer.norm is None else layer.norm(raw)
        return out


def make(contender: str, spec: str) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The trained module of a contender, and its SAT of images."""
    norm = "norm" in contender
    network = build(spec, steps=T, seed=SEED, norm=norm, surrogate="atan", slope=2.0).train()
    if contender.startswith("snntorch"):
        if "tuned" in contender:
            keep_pages()
        loop = SnntorchLoop(network, once="tuned" in contender)
        return loop, loop
    keep_pages()
    set_precision(network.spiking_layers(), suited("bfloat16" if "bfloat16" in contender else "float32", "cpu"))
    return network, network.sat


def batch(spec: SpikingNetwork | tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Images of 4 bits and labels."""
    shape = spec if isinstance(spec, tuple) else tuple(spec.spec.input_shape)
    generator = torch.Generator().manual_seed(SEED)
    images = torch.randint(16, (B, *shape), generator=generator).float() / 16
    return images, torch.randint(CLASSES, (B,), generator=generator)


def stepper(module: nn.Module, sat: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Step:
    """A full training step."""
    ours = isinstance(module, SpikingNetwork)  # the same fused kernel; without decay AdamW is Adam
    kind = partial(AdamW, weight_decay=0.0) if ours else torch.optim.Adam
    optimizer = kind(module.parameters(), lr=1e-4, fused=True)

    def step() -> Tensor:
        loss = functional.cross_entropy(10 * sat(images).mean(0), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def check(spec: str) -> dict[str, Any]:
    """Ours against the loop on one batch: spikes that differ, and the largest difference of a gradient.

    Weights lie on a grid of 2**-8 and images on one of 2**-4, so that float32 sums are exact in any order and all
    membranes are equal bit for bit; gradients then differ by the order of their sums alone. The difference is given in
    units of the largest gradient of the same parameter.
    """
    found = []
    for contender in ("ours", "snntorch"):
        module, sat = make(contender, spec)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_((parameter * 2**8).round() / 2**8)
        shape = build(spec).spec.input_shape
        images, labels = batch(tuple(shape))
        spikes = sat(images)
        loss = functional.cross_entropy(10 * spikes.mean(0), labels)
        found.append((spikes.detach(), torch.autograd.grad(loss, list(module.parameters()))))
    (ours, mine), (theirs, others) = found
    far = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(mine, others, strict=True))
    return {"differing": int((ours != theirs).sum()), "spikes": int(theirs.sum()), "gradient": far}


def serve(contender: str, spec: str) -> None:
    """Answer until standard input ends."""
    after_import = status("VmHWM")
    module, sat = make(contender, spec)
    images, labels = batch(tuple(build(spec).spec.input_shape))
    stepper(module, sat, images[:2], labels[:2])()
    after_loading = status("VmHWM")
    step = stepper(module, sat, images, labels)
    print(json.dumps({"ready": contender}), flush=True)
    for line in sys.stdin:
        what, *rest = line.split()
        if what == "steps":
            answer: Any = [_timed(step) for _ in range(int(rest[0]))]
        else:
            answer = [(status("VmHWM") - before) / 1024 for before in (after_import, after_loading)]
        print(json.dumps(answer), flush=True)


def _timed(step: Step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


if __name__ == "__main__":
    if sys.argv[1] == "check":
        print(json.dumps(check(sys.argv[2])))
    else:
        serve(sys.argv[1], sys.argv[2])
